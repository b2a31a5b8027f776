# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

# The work is in the action plugin of the same name: it needs the controller's ledger.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_undo
short_description: Find what a rollback has to take back, and record what came of it
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - The two ends of the playbook C(edgeai.fleet.rollback). In between, P(edgeai.fleet.model_release#module) with
    O(edgeai.fleet.model_release#module:state=reverted) takes each device back.
  - Runs on the controller, where the ledger is.
options:
  stage:
    description:
      - V(start) reads from the ledger which devices go back.
      - V(finish) reads which of them did, records that, and fails if one did not. A rollout that was still open is
        closed as aborted once every device is settled.
    type: str
    choices: [start, finish]
    required: true
  ledger:
    description: Directory of the ledger.
    type: path
    required: true
  ledger_key:
    description: EC private key (PEM) that signs the checkpoint at the end.
    type: path
  rollout_id:
    description: The rollout to take back. Default is the last one.
    type: str
  scope:
    description:
      - V(unsettled) takes back the devices whose activation was never confirmed, reverted or refused.
      - V(all) takes back the confirmed ones too, that is, the whole rollout.
    type: str
    choices: [unsettled, all]
    default: unsettled
  hosts:
    description: With O(stage=finish), the hosts that O(stage=start) returned.
    type: list
    elements: str
    default: []
  by:
    description: Who takes back, for the record. Default is the user.
    type: str
  reason:
    description: Why, for the record.
    type: str
    default: ''
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Records nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Which devices have to go back?
  edgeai.fleet.rollout_undo:
    stage: start
    ledger: "{{ edge_ledger }}"
  register: undo
  run_once: true
"""

RETURN = r"""
rollout_id:
  description: The rollout meant.
  returned: O(stage=start)
  type: str
hosts:
  description: The devices that go back, newest wave first.
  returned: O(stage=start)
  type: list
  elements: str
sizes:
  description: How many of them belong to each wave, in the same order; made for C(serial).
  returned: O(stage=start)
  type: list
  elements: int
targets:
  description: For each of them, model, version, digest, stratum and wave of the release it took.
  returned: O(stage=start)
  type: dict
settled:
  description: Devices that are back.
  returned: O(stage=finish)
  type: list
  elements: str
remaining:
  description: Devices that are not, or not known to be.
  returned: O(stage=finish)
  type: list
  elements: str
closed:
  description: Whether the rollout was closed as aborted.
  returned: O(stage=finish)
  type: bool
"""

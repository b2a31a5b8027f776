# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

# The work is in the action plugin of the same name: it runs where the ledger is, whatever host the task is for.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_control
short_description: Pause, resume, abort or approve a rollout, and veto changes of devices
version_added: 0.1.0
description:
  - Writes what a person says into the ledger, with who and why. A running rollout reads it between two waves, an abort
    also during a soak; the next run obeys it too, so it outlives a controller.
  - Runs on the controller, where the ledger is.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Records nothing and waits for nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Approving is not; the same person can approve something only once.
options:
  state:
    description:
      - V(paused) lets no further wave of any rollout of the model begin, until V(running).
      - V(aborted) ends the rollout. A run that is under way takes back what it changed; this waits for that, and fails
        if it is not done within O(wait) seconds. What was left by a run that is gone, C(edgeai.fleet.rollback) takes
        back.
      - V(approved) is one person's approval of exactly the plan O(plan_hash), to go on behind O(wave).
      - V(vetoed) leaves O(hosts) alone until O(expires), V(unvetoed) lifts that.
    type: str
    required: true
    choices: [paused, running, aborted, approved, vetoed, unvetoed]
  ledger:
    description: Directory of the ledger.
    type: path
    required: true
  ledger_key:
    description: EC private key (PEM) that signs the checkpoint behind the record.
    type: path
  by:
    description:
      - Who says it. Default is the user on the controller.
      - Taken as it is given. Who may write the ledger may say anything, so let a job set it to the person who started
        it.
      - With the variable C(edge_approvers), a mapping of names to paths of public keys, V(state=approved) counts only
        for these people, and only with O(signature).
    type: str
  reason:
    description: Why. Needed for all but V(state=running) and V(state=approved).
    type: str
    default: ''
  model:
    description: The model meant. By default that of the rollout that was started last; a veto is then about any model.
    type: str
  rollout_id:
    description: The rollout meant. Default is the last one.
    type: str
  plan_hash:
    description: With O(state=approved), the hash of the plan that the person looked at.
    type: str
  wave:
    description:
      - With O(state=approved), the wave behind which the rollout may go on; 0 is before the first one.
      - By default the one that it waits for, or stopped at.
    type: int
  signature:
    description: With O(state=approved), the person's signature (ECDSA with SHA-256, base64) over four lines, which are
      C(edgeai-go-on-v1), the plan's hash, the number of the wave, and the name.
    type: str
  hosts:
    description: With O(state=vetoed) and O(state=unvetoed), the devices.
    type: list
    elements: str
    default: []
  expires:
    description: With O(state=vetoed), when it ends, as C(2026-12-01T06:00:00+01:00). At most 92 days ahead.
    type: str
  wait:
    description: With O(state=aborted), how many seconds to wait for a run that is under way.
    type: int
    default: 0
seealso:
  - module: edgeai.fleet.rollout_begin
  - module: edgeai.fleet.rollout_undo
"""

EXAMPLES = r"""
- name: No further wave for now
  edgeai.fleet.rollout_control:
    state: paused
    ledger: "{{ edge_ledger }}"
    ledger_key: "{{ edge_ledger_key }}"
    model: digits
    reason: The shop floor moves until noon
  run_once: true

- name: Approve what was looked at
  edgeai.fleet.rollout_control:
    state: approved
    ledger: "{{ edge_ledger }}"
    ledger_key: "{{ edge_ledger_key }}"
    plan_hash: sha256:5f0c4be6a1d2f5a0c4be6a1d2f5a0c4be6a1d2f5a0c4be6a1d2f5a0c4be6a1d2
    by: "{{ awx_user_name | default(omit) }}"
  run_once: true
"""

RETURN = r"""
rollout_id:
  description: The rollout meant, if there is one.
  returned: success
  type: str
msg:
  description: What came of it.
  returned: always
  type: str
"""

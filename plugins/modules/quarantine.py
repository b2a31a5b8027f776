#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: quarantine
short_description: List, lift or set the quarantine of releases
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - A release that failed on a stratum is quarantined there. Rollouts refuse it on that stratum until a person lifts
    that.
  - Works on the ledger, so it runs where the ledger is, on the controller.
  - A device that has the release in its own quarantine list takes it off when the next rollout activates the release.
options:
  ledger:
    description: Directory of the ledger.
    type: path
    required: true
  ledger_key:
    description: EC private key (PEM) that signs the change. Without it, the next checkpoint of a rollout covers it.
    type: path
  state:
    description:
      - V(listed) returns the entries that fit and changes nothing.
      - V(lifted) lifts every entry that fits O(model), O(version), O(digest) and O(stratum). At least one of them is
        needed.
      - V(quarantined) quarantines O(digest) on O(stratum).
    type: str
    choices: [listed, lifted, quarantined]
    default: listed
  model:
    description: Name of the model.
    type: str
  version:
    description: Version of the release.
    type: str
  digest:
    description: Digest of the release, with its prefix V(sha256:).
    type: str
  stratum:
    description: The stratum, for example V(cpu-int8/onnxruntime/x86_64).
    type: str
  by:
    description: Who answers for the change. Default is the user that runs the module.
    type: str
  reason:
    description: Why. Needed unless O(state=listed).
    type: str
extends_documentation_fragment: edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: What is quarantined?
  edgeai.fleet.quarantine:
    ledger: "{{ edge_ledger }}"
  register: standing
  delegate_to: localhost
  run_once: true

- name: The calibration was not the cause, let it run there again
  edgeai.fleet.quarantine:
    ledger: "{{ edge_ledger }}"
    ledger_key: "{{ edge_ledger_key }}"
    state: lifted
    model: digits
    version: 1.2.0
    stratum: cpu-int8/openvino/x86_64
    reason: The scale of the camera images was fixed on the devices, ticket 4711
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
entries:
  description: The standing entries; with O(state=listed), those that fit.
  returned: success
  type: list
  elements: dict
  sample:
    - model: digits
      version: 1.2.0
      digest: sha256:6f7d...
      stratum: cpu-int8/openvino/x86_64
      reason: "golden: 0.71 is below 0.96"
      time: "2026-11-23T11:00:00.000Z"
      rollout: digits-1.2.0-20261123T110000Z
lifted:
  description: The entries that were lifted.
  returned: success
  type: list
  elements: dict
"""

import getpass

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.quarantine import Selection, apply


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "ledger": {"type": "path", "required": True},
            "ledger_key": {"type": "path", "no_log": False},
            "state": {"type": "str", "choices": ["listed", "lifted", "quarantined"], "default": "listed"},
            "model": {"type": "str"},
            "version": {"type": "str"},
            "digest": {"type": "str"},
            "stratum": {"type": "str"},
            "by": {"type": "str"},
            "reason": {"type": "str"},
        },
        required_if=[
            ("state", "lifted", ("model", "version", "digest", "stratum"), True),
            ("state", "lifted", ("reason",)),
            ("state", "quarantined", ("digest", "stratum", "reason")),
        ],
        supports_check_mode=True,
    )
    params = module.params
    selection = Selection(params["model"], params["version"], params["digest"], params["stratum"])
    try:
        ledger = Ledger(params["ledger"], params["ledger_key"])
        by = params["by"] or getpass.getuser()
        result = apply(ledger, params["state"], selection, by, params["reason"], module.check_mode)
    except RolloutError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

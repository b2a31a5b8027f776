#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Tell what a device is and what it serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_release_info
short_description: Tell what a device is, which releases it holds and what its server serves
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Everything a plan needs to know of a device, in one round trip.
  - Changes nothing, also not what an interrupted run has left; that is reported as RV(device.models).
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The module changes nothing and answers the same in check mode.
  diff_mode:
    support: none
    details: There is nothing that could differ.
  idempotent:
    support: full
options:
  edge_root:
    description: The device's directory.
    type: path
    required: true
  model:
    description: Only this model. Without it, all of them.
    type: str
  gather:
    description:
      - Which parts to gather.
      - V(accelerators) gives accelerators, runtimes and the stratum.
      - V(store) gives the models with their state.
      - V(server) asks the model server what it serves, in addition to what V(store) gives.
    type: list
    elements: str
    choices: [accelerators, store, server]
    default: [accelerators, store, server]
seealso:
  - module: edgeai.fleet.accelerator_facts
  - module: edgeai.fleet.model_release
"""

EXAMPLES = r"""
- name: What does this device serve?
  edgeai.fleet.model_release_info:
    edge_root: /var/lib/edgeai
  register: info

- name: Show the active version
  ansible.builtin.debug:
    msg: "{{ info.device.models.digits.active.version }}"
"""

RETURN = r"""
device:
  description:
    - The device. With V(accelerators) in O(gather) it has all that M(edgeai.fleet.accelerator_facts) returns.
  returned: success
  type: dict
  contains:
    device_id:
      description: Name of the device as provisioned.
      type: str
    site:
      description: Its site.
      type: str
    redundancy_group:
      description: Its redundancy group.
      type: str
    stratum:
      description: Accelerator, runtime and architecture, joined by slashes.
      type: str
    free_bytes:
      description: Bytes that can still be written under O(edge_root).
      type: int
    models:
      description:
        - By name, each model's C(active), C(previous), C(unconfirmed), C(quarantine), C(security_counter) and
          C(time_floor), the releases in the store (C(staged), version to digest), the seconds that remain for a
          confirmation (C(remaining)), what the server serves (C(serving)), what a recovery would repair (C(repairs)).
      type: dict
    server_problem:
      description: What is wrong with the model server; none when it answers.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.info import device_info


def main() -> None:
    parts = ["accelerators", "store", "server"]
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path", "required": True},
            "model": {"type": "str"},
            "gather": {"type": "list", "elements": "str", "choices": parts, "default": parts},
        },
        supports_check_mode=True,
    )
    try:
        device = device_info(module.params["edge_root"], module.params["model"], module.params["gather"])
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    module.exit_json(changed=False, device=device)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: device_setup
short_description: Give a device its directory, its settings and the keys it trusts
version_added: 0.1.0
description:
  - Creates O(edge_root) with the directories of a device, writes C(device.json), and makes the trusted public keys and
    root certificates exactly those given, in one call.
  - New keys are written before old ones are removed, so there is no moment at which the device trusts nobody.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  edge_root:
    description: Directory that holds everything of edgeai.fleet on this device.
    type: path
    required: true
  settings:
    description:
      - What C(device.json) says.
      - Fields are C(device_id), C(server) (C({"url":"http://HOST:PORT"}) or null), C(sysroot), C(runtime),
        C(accelerator), C(python), C(reserve_mib) (space on the disk that no release may take),
        C(redundancy_group) and C(site).
    type: dict
    required: true
  trust_keys:
    description: PEM texts of the public keys whose signatures this device accepts.
    type: list
    elements: str
    default: []
  trust_roots:
    description: PEM texts of the root certificates whose certificate chains this device accepts.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Prepare a device
  edgeai.fleet.device_setup:
    edge_root: /var/lib/edgeai
    settings:
      device_id: "{{ inventory_hostname }}"
      server: {url: "http://127.0.0.1:9001"}
      runtime: onnxruntime
      python: /opt/edgeai/onnxruntime/bin/python
    trust_keys:
      - "{{ lookup('ansible.builtin.file', 'keys/release-2026.pub.pem') }}"
      - "{{ lookup('ansible.builtin.file', 'keys/release-2027.pub.pem') }}"
"""

RETURN = r"""
files:
  description: Files, relative to O(edge_root), that were or would be written or removed.
  returned: always
  type: list
  elements: str
  sample: [device.json, trust/keys/0f3a9c5be1d2a4f7.pem]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import setup
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def main():
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path", "required": True},
            "settings": {"type": "dict", "required": True},
            # Public keys: nothing to hide, but their name must not make Ansible think otherwise.
            "trust_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "trust_roots": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        plan = setup.plan_setup(params["edge_root"], params["settings"], params["trust_keys"], params["trust_roots"])
        if plan.changed and not module.check_mode:
            setup.apply_setup(params["edge_root"], plan)
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    files = sorted(name for name in set(plan.before) | set(plan.after) if plan.before.get(name) != plan.after.get(name))
    diff = [
        {
            "before_header": name,
            "after_header": name,
            "before": plan.before.get(name, ""),
            "after": plan.after.get(name, ""),
        }
        for name in files
    ]
    module.exit_json(changed=plan.changed, files=files, diff=diff)


if __name__ == "__main__":
    main()

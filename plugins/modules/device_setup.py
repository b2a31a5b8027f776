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
    description: Directory that holds everything of edgeai.fleet on this device. One that holds other things is refused.
    type: path
    required: true
  state:
    description:
      - V(absent) removes O(edge_root) with all releases, keys and settings, if it looks like a device's directory,
        holds nothing else, and no process serves from it. A mount point is emptied and stays.
    type: str
    choices: [present, absent]
    default: present
  settings:
    description:
      - What C(device.json) says. Needed when O(state=present).
      - Fields are C(device_id), C(server) (C({"url":"http://HOST:PORT"}) or null), C(sysroot), C(runtime),
        C(accelerator), C(python), C(reserve_mib) (space on the disk that no release may take), C(redundancy_group),
        C(site), C(service_user) and C(service_group).
      - With C(service_user), which must be there, C(run) and C(log) belong to it, and the rest to who runs the module.
    type: dict
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

- name: Remove everything of a device
  edgeai.fleet.device_setup:
    edge_root: /var/lib/edgeai
    state: absent
"""

RETURN = r"""
files:
  description: Files and directories, relative to O(edge_root), that were or would be written, mended or removed.
  returned: always
  type: list
  elements: str
  sample: [device.json, trust/keys/0f3a9c5be1d2a4f7.pem]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import removal, setup
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def present(module):
    """Set the device up; return what changed."""
    params = module.params
    root = params["edge_root"]
    plan = setup.plan_setup(root, params["settings"], params["trust_keys"], params["trust_roots"])
    if plan.changed and not module.check_mode:
        setup.apply_setup(root, plan)
    files = sorted(name for name in set(plan.before) | set(plan.after) if plan.before.get(name) != plan.after.get(name))
    parts = [(name, plan.before.get(name, ""), plan.after.get(name, "")) for name in files]
    parts += [(name, "writable by others or not a file\n", "0644\n") for name in plan.loose if name not in files]
    parts += [(item.name, f"{has}\n" if has else "", f"{wants}\n") for item, has, wants in plan.directories]
    diff = [{"before_header": name, "after_header": name, "before": old, "after": new} for name, old, new in parts]
    return {"changed": plan.changed, "files": [name for name, old, new in parts], "diff": diff}


def absent(module):
    """Take the device's directory away; return what changed."""
    root = module.params["edge_root"]
    names = removal.plan_removal(root)
    if names and not module.check_mode:
        removal.remove(root, names)
    before = "".join(f"{name}\n" for name in names)
    return {"changed": bool(names), "files": names, "diff": {"before_header": root, "before": before, "after": ""}}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "settings": {"type": "dict"},
            # Public keys: nothing to hide, but their name must not make Ansible think otherwise.
            "trust_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "trust_roots": {"type": "list", "elements": "str", "default": []},
        },
        required_if=[("state", "present", ("settings",))],
        supports_check_mode=True,
    )
    try:
        result = absent(module) if module.params["state"] == "absent" else present(module)
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

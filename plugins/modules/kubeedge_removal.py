#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Remove what EdgeCore and its pods left on a device."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kubeedge_removal
short_description: Remove what EdgeCore and its pods left on a device
version_added: 0.2.0
description:
  - Ends the containers of pods, removes their images from containerd's namespace C(k8s.io), their mounts, the bridge
    C(edgeai0), the rules that kubelet and CNI made, EdgeCore's state, and O(paths).
  - Refused while EdgeCore's unit runs. containerd itself stays, and what is in its other namespaces.
  - Looks again at the end, and fails with what is still there.
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
  paths:
    description: Further files and directories to remove.
    type: list
    elements: path
  unit:
    description: The unit that has to be gone before.
    type: str
    default: edgeai-edgecore.service
"""

EXAMPLES = r"""
- name: Leave nothing of EdgeCore
  edgeai.fleet.kubeedge_removal:
    paths: [/opt/edgeai/kubeedge]
"""

RETURN = r"""
removed:
  description: What was, or would be, removed, by kind.
  returned: success
  type: dict
  sample: {containers: [], images: [], links: [edgeai0], mounts: [], paths: [/etc/kubeedge], rules: []}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.unit_run import observe
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import removal
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError


def run(module):
    """Look, remove, and return the result. Raises KubeedgeError and DeviceError."""
    unit, paths = module.params["unit"], module.params["paths"] or []
    if observe(unit)[0]["ActiveState"] in ("active", "activating", "reloading") and not module.check_mode:
        raise KubeedgeError(f"{unit}: still runs; stop it first, or it brings the pods back")
    left = removal.look(paths)
    if any(left) and not module.check_mode:
        removal.remove(left, paths)
    found = left._asdict()
    diff = {"before": {key: value for key, value in found.items() if value}, "after": {}}
    return {"changed": any(left), "removed": found, "diff": diff}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path"},
            "unit": {"type": "str", "default": "edgeai-edgecore.service"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except KubeedgeError as error:
        module.fail_json(msg=str(error))
    except DeviceError as error:
        module.fail_json(msg=error.message)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

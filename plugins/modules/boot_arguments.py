#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: boot_arguments
short_description: Set arguments on the kernel's command line of a Raspberry Pi, and say whether they are in effect
version_added: 0.2.0
description:
  - Adds arguments to the single line of C(cmdline.txt), in the file that the firmware really reads
    (C(/boot/firmware/cmdline.txt), or C(/boot/cmdline.txt) on older systems).
  - Looks at C(/proc/cmdline) to say whether they are in effect, or a reboot is needed.
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
  arguments:
    description: Arguments that have to be there.
    type: list
    elements: str
    default: [cgroup_memory=1, cgroup_enable=memory]
  root:
    description: Root of the tree that is looked at, for a machine's tree kept elsewhere.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Turn the memory controller on
  edgeai.fleet.boot_arguments:
  register: boot

- name: Make it count
  ansible.builtin.reboot:
  when: boot.reboot_needed
"""

RETURN = r"""
path:
  description: The file that the firmware reads.
  returned: success
  type: str
  sample: /boot/firmware/cmdline.txt
reboot_needed:
  description: Whether the running kernel lacks one of the arguments.
  returned: success
  type: bool
missing:
  description: Which ones.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import boot
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "arguments": {"type": "list", "elements": "str", "default": list(boot.CGROUP)},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    try:
        found = boot.look(module.params["root"], module.params["arguments"])
        if found.changed and not module.check_mode:
            boot.write(module.params["root"], found)
    except ClusterError as error:
        module.fail_json(msg=str(error))
    differs = {"before_header": found.path, "after_header": found.path, "before": found.before, "after": found.after}
    result = {"path": found.path, "missing": found.missing, "reboot_needed": bool(found.missing)}
    module.exit_json(changed=found.changed, diff=differs, **result)


if __name__ == "__main__":
    main()

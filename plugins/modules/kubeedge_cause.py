#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Say why CloudCore or EdgeCore does not do what it should."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kubeedge_cause
short_description: Say why CloudCore or EdgeCore does not do what it should
version_added: 0.2.0
description:
  - Reads the journals of some units and names the cause, for example C(cloud_unreachable), C(certificate_authority),
    C(cgroup_driver) or C(sandbox_image), and how to mend it.
  - Changes nothing, and fails by itself only when O(failed) says what did not come about.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  units:
    description: Units whose journals are read, the one that says most first.
    type: list
    elements: str
    required: true
  failed:
    description: What did not come about. The task fails with this, the cause and the last lines.
    type: str
"""

EXAMPLES = r"""
- name: Say why the node is not Ready
  edgeai.fleet.kubeedge_cause:
    units: [edgecore.service, containerd.service]
    failed: node camera-01 did not become Ready within 300 s
"""

RETURN = r"""
cause:
  description: Short name of the cause, V(unknown) when the journals say nothing known.
  returned: success, and when O(failed) is given
  type: str
  sample: cloud_unreachable
what:
  description: The line that says it.
  returned: success, and when O(failed) is given
  type: str
fix:
  description: How to mend it.
  returned: success, and when O(failed) is given
  type: str
journal:
  description: The units' last lines.
  returned: success, and when O(failed) is given
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.unit_run import observe
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import causes


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "failed": {"type": "str"},
        },
        supports_check_mode=True,
    )
    lines = []
    for unit in reversed(module.params["units"]):  # the lines of the one that says most are shown last
        try:
            show, journal = observe(unit)
        except DeviceError as error:
            lines.append(error.message)
            continue
        if show["ActiveState"] != "active":
            lines.append("{} is {} ({})".format(unit, show["ActiveState"] or "not there", show["SubState"]))
        lines += journal
    cause = causes.classify(lines)
    result = {"changed": False, "cause": cause.name, "what": cause.what, "fix": cause.fix, "journal": lines}
    if module.params["failed"]:
        module.fail_json(msg=causes.explain(module.params["failed"], cause, lines), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

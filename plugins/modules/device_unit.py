#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: device_unit
short_description: Install a systemd unit, start it and prove that it runs
version_added: 0.2.0
description:
  - Writes the unit's file (checked with C(systemd-analyze verify) first), reloads systemd, enables the unit, starts it,
    or restarts it when its file changed, and waits until it really runs, in one call.
  - A unit that does not run fails the task with a named cause (for example C(port_in_use), C(namespace), C(memory),
    C(missing_module)), how to mend it, and what it wrote into the journal since.
  - A unit that cannot say that it is ready (C(Type=simple) and C(exec)) has to last for a moment after its start.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The file is verified and the steps are predicted. Whether the unit will run cannot be known before.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: O(restart=true) restarts a running unit every time.
options:
  name:
    description: Name of the unit, with its suffix.
    type: str
    required: true
  content:
    description: Text of the unit's file. Needed when O(state=present).
    type: str
  enabled:
    description: Whether the unit is started at boot. A unit without an C([Install]) section is never enabled.
    type: bool
    default: true
  started:
    description:
      - Whether the unit has to run.
      - V(false) starts nothing. A unit that runs goes on, and is restarted when its file changed.
    type: bool
    default: true
  restart:
    description: Restart the unit even when its file did not change, because something else that it reads did.
    type: bool
    default: false
  state:
    description: V(absent) stops and disables the unit and removes its file and drop-ins.
    type: str
    choices: [present, absent]
    default: present
  timeout:
    description: Seconds for the unit to start or to stop.
    type: float
    default: 90
"""

EXAMPLES = r"""
- name: Run the model server
  edgeai.fleet.device_unit:
    name: edgeai-server.service
    content: "{{ lookup('ansible.builtin.template', 'edgeai-server.service.j2') }}"

- name: Take it away
  edgeai.fleet.device_unit:
    name: edgeai-server.service
    state: absent
"""

RETURN = r"""
done:
  description: What was done, or would be in check mode, in order.
  returned: success, and when the unit does not run
  type: list
  elements: str
  sample: [write, reload, enable, start]
unit:
  description: The unit's state as systemd shows it.
  returned: success, and when the unit does not run
  type: dict
  sample: {ActiveState: active, SubState: running, NRestarts: "0", StatusText: serves digits 1.0.0}
cause:
  description: Short name of the reason why the unit does not run.
  returned: when the unit does not run
  type: str
  sample: port_in_use
journal:
  description: What the unit wrote into the journal since it was started here.
  returned: when the unit does not run
  type: list
  elements: str
  sample: ["OSError: [Errno 98] Address already in use"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import unit_run, units
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def diff(name, before, after):
    """Return the differences of the file and of the state, each on its own."""
    states = [{key: value for key, value in side.items() if key != "content"} for side in (before, after)]
    found = []
    if before["content"] != after["content"]:
        header = "/etc/systemd/system/" + name
        found.append(
            {
                "before_header": header,
                "after_header": header,
                "before": before["content"] or "",
                "after": after["content"] or "",
            }
        )
    if states[0] != states[1]:
        found.append({"before_header": name, "after_header": name, "before": states[0], "after": states[1]})
    return found


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "content": {"type": "str"},
            "enabled": {"type": "bool", "default": True},
            "started": {"type": "bool", "default": True},
            "restart": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "timeout": {"type": "float", "default": 90},
        },
        required_if=[("state", "present", ("content",))],
        supports_check_mode=True,
    )
    params = module.params
    name = params["name"]
    try:
        if params["state"] == "absent":
            outcome = unit_run.ensure_absent(name, params["timeout"], module.check_mode)
        else:
            wanted = units.Wanted(params["content"], params["enabled"], params["started"], params["restart"])
            outcome = unit_run.ensure_present(name, wanted, params["timeout"], module.check_mode)
    except DeviceError as error:
        module.fail_json(msg=f"{name}: {error.message}", code=error.code)
    for warning in outcome.warnings:
        module.warn(warning)
    result = {"changed": outcome.changed, "done": outcome.done, "unit": outcome.state}
    if outcome.cause is not None:
        message = units.explain(name, outcome.cause, outcome.journal)
        module.fail_json(msg=message, cause=outcome.cause.name, journal=outcome.journal, **result)
    module.exit_json(diff=diff(name, outcome.before, outcome.after), **result)


if __name__ == "__main__":
    main()

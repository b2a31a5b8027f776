#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: device_preflight
short_description: Say everything that keeps a machine from becoming a device
version_added: 0.2.0
description:
  - Looks at architecture, system, Python, kernel, systemd, disks, memory, load, clock, time service, port and address,
    identity, service account and O(edge_root), and names every problem at once, each with how to fix it.
  - Fails when one of them is an error; warnings are shown. Changes nothing.
  - Needs the system's Python only. Run it as root, who alone can see which program holds a port.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: It only reads, so it does the same.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
options:
  edge_root:
    description: Directory that will hold everything of edgeai.fleet on this device.
    type: path
    default: /var/lib/edgeai
  runtime_home:
    description: Directory that will hold the runtime environments.
    type: path
    default: /opt/edgeai/runtimes
  device_id:
    description: Name that the device will have. A machine that is another device already is refused.
    type: str
    required: true
  rename:
    description: The machine may get another name than it has.
    type: bool
    default: false
  listen:
    description: Address that the model server will listen on.
    type: str
    default: 127.0.0.1
  port:
    description: Port that the model server will listen on.
    type: int
    default: 9001
  service_user:
    description: User that the model server will run as.
    type: str
    default: edgeai
  controller_time:
    description: The controller's time when the task started, ISO 8601 with a zone, to compare the device's clock with.
    type: str
    required: true
  min_disk_mib:
    description:
      - Free space wanted at O(edge_root), in MiB. On a device in use less is a warning, until it is nearly full.
    type: int
    default: 256
  min_runtime_disk_mib:
    description: Free space wanted at O(runtime_home), in MiB, likewise.
    type: int
    default: 1024
  min_memory_mib:
    description: Memory wanted, in MiB as the kernel counts it (less than what is on the box).
    type: int
    default: 400
  max_clock_skew:
    description: Seconds that the device's clock may differ from the controller's.
    type: float
    default: 120
  max_load_per_cpu:
    description: Load average over one minute and CPU above which there is a warning.
    type: float
    default: 4
  time_sync:
    description: Whether a missing time service is an error (V(require)), a warning, or nothing (V(ignore)).
    type: str
    choices: [require, warning, ignore]
    default: warning
  time_servers:
    description: Time servers are going to be set for systemd-timesyncd, which has to be there and able to run then.
    type: bool
    default: false
  accept:
    description: Names of problems that shall be warnings, for example V(clock) or V(memory).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Check the machine
  edgeai.fleet.device_preflight:
    device_id: "{{ inventory_hostname }}"
    controller_time: "{{ now(utc=true).isoformat() ~ 'Z' }}"
    min_disk_mib: 2048
"""

RETURN = r"""
problems:
  description: What is wrong, errors first.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Short name, to be used in O(accept).
      type: str
      sample: clock
    found:
      description: What is there.
      type: str
      sample: 1970-01-01T00:01:12Z (57 years behind)
    wanted:
      description: What should be there.
      type: str
      sample: within 120 s of 2026-11-23T11:00:00Z
    fix:
      description: How to get there.
      type: str
      sample: "let it synchronise its time (device_ntp_servers), or once by hand: date -u -s @1795431600"
    severity:
      description: V(error) or V(warning).
      type: str
      sample: error
facts:
  description: What was found on the machine, as it was judged.
  returned: always
  type: dict
  sample: {architecture: aarch64, memory_mib: 7763, machine_id: 6f0d2b6c8a1f4c7f9a55d0f1e2b3c4d5}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import preflight, preflight_facts
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path", "default": "/var/lib/edgeai"},
            "runtime_home": {"type": "path", "default": "/opt/edgeai/runtimes"},
            "device_id": {"type": "str", "required": True},
            "rename": {"type": "bool", "default": False},
            "listen": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 9001},
            "service_user": {"type": "str", "default": "edgeai"},
            "controller_time": {"type": "str", "required": True},
            "min_disk_mib": {"type": "int", "default": 256},
            "min_runtime_disk_mib": {"type": "int", "default": 1024},
            "min_memory_mib": {"type": "int", "default": 400},
            "max_clock_skew": {"type": "float", "default": 120},
            "max_load_per_cpu": {"type": "float", "default": 4},
            "time_sync": {"type": "str", "choices": ["require", "warning", "ignore"], "default": "warning"},
            "time_servers": {"type": "bool", "default": False},
            "accept": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    facts = preflight_facts.gather(
        params["edge_root"],
        params["runtime_home"],
        params["listen"],
        params["port"],
        params["service_user"],
        params["device_id"],
    )
    if params["rename"]:
        facts["known_device_id"] = ""
    try:
        chosen = {name: params[name] for name in preflight.Limits._fields if name not in ("controller_time", "accept")}
        wanted = preflight.Limits(params["controller_time"], accept=tuple(params["accept"]), **chosen)
        problems = preflight.judge(facts, wanted)
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    errors = [problem for problem in problems if problem.severity == preflight.ERROR]
    for problem in problems[len(errors) :]:
        module.warn(preflight.describe([problem])[2:])
    result = {"changed": False, "facts": facts, "problems": [problem._asdict() for problem in problems]}
    if errors:
        count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
        who = f"{params['device_id']} cannot become a device"
        module.fail_json(msg=f"{who}: {count}\n{preflight.describe(errors)}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

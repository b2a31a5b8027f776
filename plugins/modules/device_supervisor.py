#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: device_supervisor
short_description: Start, stop or restart a device's supervisor and model server
version_added: 0.1.0
description:
  - The supervisor keeps the model server running, starts it again when it ends, and reverts a release that nobody
    confirmed before its deadline. It is a process in a session of its own and outlives the task that started it.
  - Use it where no service manager is, for example for local devices. On a device with systemd the roles
    P(edgeai.fleet.model_server#role) and P(edgeai.fleet.device_agent#role) install units instead, and the supervisor
    refuses to run beside the agent.
  - Starting waits until the model server answers. It need not have a model yet.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing to compare but whether it runs.
  idempotent:
    support: partial
    details: O(state=restarted) restarts every time.
options:
  edge_root:
    description: Directory that holds everything of edgeai.fleet on this device.
    type: path
    required: true
  state:
    description:
      - V(started) starts it when it does not run, and restarts it when what runs is another program or interpreter than
        the one installed.
      - V(stopped) stops the supervisor and the model server, which finishes the requests it has begun.
      - V(restarted) stops and starts it.
    type: str
    choices: [started, stopped, restarted]
    default: started
  python:
    description:
      - Interpreter that runs the supervisor. It needs no packages.
      - Defaults to the one in C(device.json), which the model server always runs in.
    type: path
  bundle:
    description:
      - The program, see M(edgeai.fleet.device_bundle).
      - Defaults to C(lib/edgeai-device.pyz) below O(edge_root).
    type: path
  timeout:
    description: Seconds to wait for the old processes to end, and for the model server to answer.
    type: float
    default: 60
seealso:
  - module: edgeai.fleet.device_bundle
"""

EXAMPLES = r"""
- name: Run the model server under its supervisor
  edgeai.fleet.device_supervisor:
    edge_root: /var/lib/edgeai
    state: started

- name: Restart it after its packages were upgraded
  edgeai.fleet.device_supervisor:
    edge_root: /var/lib/edgeai
    state: restarted
"""

RETURN = r"""
reason:
  description: Why something was done, or nothing.
  returned: success
  type: str
  sample: it runs the installed program
pid:
  description: Process id of the supervisor, null when it does not run.
  returned: success
  type: int
  sample: 4711
start_id:
  description: Id of this run of the model server, null when it does not run.
  returned: success
  type: str
  sample: 840920de-e8dd-42eb-b68a-0878125a8e80
url:
  description: Where the model server answers, null when it does not run.
  returned: success
  type: str
  sample: http://127.0.0.1:9001
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device import service
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "restarted"], "default": "started"},
            "python": {"type": "path"},
            "bundle": {"type": "path"},
            "timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        result = service.ensure(
            params["edge_root"],
            params["state"],
            params["python"],
            params["bundle"],
            params["timeout"],
            module.check_mode,
        )
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

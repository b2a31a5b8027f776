#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: model_server_facts
short_description: Tell what a device's model server may use, and whether the running one is up to date
version_added: 0.2.0
description:
  - Finds the device nodes of the accelerator that serves, computes the server's memory ceiling, and compares the
    running server with what is installed.
  - Changes nothing. Returns the facts as a result, not as C(ansible_facts).
author:
  - edgeai.fleet contributors (@edgeai-fleet)
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
    description: The device's directory. It need not be there yet.
    type: path
    required: true
  memory_percent:
    description: Share of the device's memory that the server may use at most.
    type: int
    default: 70
"""

EXAMPLES = r"""
- name: What may the server use?
  edgeai.fleet.model_server_facts:
    edge_root: /var/lib/edgeai
  register: server
"""

RETURN = r"""
server:
  description: The facts.
  returned: success
  type: dict
  contains:
    accelerator:
      description: What the device computes on.
      type: str
      sample: intel-npu
    runtime:
      description: The runtime that serves.
      type: str
    devices:
      description: Values of C(DeviceAllow), none on a CPU.
      type: list
      elements: str
      sample: [/dev/accel/accel0 rw]
    groups:
      description: Groups whose members may use these device nodes.
      type: list
      elements: str
      sample: [render]
    jit:
      description: Whether the runtime makes code at run time.
      type: bool
    netlink:
      description: Whether the accelerator's library needs netlink sockets.
      type: bool
    memory_mib:
      description: The device's memory.
      type: int
    memory_high_mib:
      description: Where the kernel begins to slow the server down, 0 when it cannot.
      type: int
    memory_max_mib:
      description: The server's memory ceiling, 0 when the kernel cannot enforce one.
      type: int
    systemd:
      description: Major version of systemd, 0 when there is none.
      type: int
    provisioned:
      description: Whether C(device.json) names a model server.
      type: bool
    url:
      description: Where a client on the device finds the server.
      type: str
    host:
      description: Address the server listens on.
      type: str
    port:
      description: Port the server listens on.
      type: int
    tls:
      description: Paths of its certificate, key and client CA; null for plain HTTP.
      type: dict
    socket_unit:
      description: Whether systemd holds its listening socket.
      type: bool
    running:
      description: What the running server says of itself, empty when none runs.
      type: dict
    stale:
      description: Why the running server has to be restarted; empty when it does not.
      type: list
      elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.server_facts import server_facts


def main():
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path", "required": True},
            "memory_percent": {"type": "int", "default": 70},
        },
        supports_check_mode=True,
    )
    try:
        server = server_facts(module.params["edge_root"], module.params["memory_percent"])
    except DeviceError as error:
        module.fail_json(msg=error.message, code=error.code)
    for warning in server.pop("warnings"):
        module.warn(warning)
    module.exit_json(changed=False, server=server)


if __name__ == "__main__":
    main()

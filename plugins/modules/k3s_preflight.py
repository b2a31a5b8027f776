#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_preflight
short_description: Say everything that keeps a machine from becoming a node of K3s
version_added: 0.2.0
description:
  - Looks at architecture, cgroup controllers, netfilter, overlay and VXLAN in the kernel, default route, clock, disk,
    memory, swap, ports, and whatever else of Kubernetes runs there, and names every problem at once, each with how to
    fix it.
  - Fails when one of them is an error; warnings are shown. Changes nothing and needs the system's Python only.
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
  role:
    description: What the machine is to be.
    type: str
    choices: [server, agent]
    required: true
  node_name:
    description: Name of the node.
    type: str
    required: true
  kubelet:
    description: Whether it is to run pods. A server without a kubelet asks less of the kernel.
    type: bool
    default: true
  etcd:
    description: Whether it is to hold a member of the embedded etcd.
    type: bool
    default: false
  flannel:
    description: Backend of flannel; VXLAN is only asked for with V(vxlan).
    type: str
    default: vxlan
  node_ip:
    description: The node's address, when it is set. Without it a default route has to be there.
    type: str
    default: ""
  data_dir:
    description: Data directory of K3s.
    type: path
    default: /var/lib/rancher/k3s
  controller_time:
    description: The controller's time when the task started, ISO 8601 with a zone.
    type: str
    required: true
  min_disk_mib:
    description: Free space wanted at O(data_dir), in MiB. On a node that has joined less is a warning.
    type: int
    default: 2048
  min_memory_mib:
    description: Memory below which there is a warning, in MiB.
    type: int
    default: 512
  max_clock_skew:
    description: Seconds that the machine's clock may differ from the controller's.
    type: float
    default: 60
  accept:
    description: Names of problems that shall be warnings, for example V(swap) or V(vxlan).
    type: list
    elements: str
    default: []
  root:
    description: Root of the tree that is looked at, for a machine's tree kept elsewhere.
    type: path
    default: /
seealso:
  - module: edgeai.fleet.device_preflight
"""

EXAMPLES = r"""
- name: Check the machine
  edgeai.fleet.k3s_preflight:
    role: agent
    node_name: gate-01
    controller_time: "{{ now(utc=true).strftime('%Y-%m-%dT%H:%M:%SZ') }}"
"""

RETURN = r"""
problems:
  description: What is wrong, errors first; each with C(name), C(found), C(wanted), C(fix) and C(severity).
  returned: always
  type: list
  elements: dict
facts:
  description:
    - What was found on the machine, as it was judged. C(initialized) says that it holds a cluster's data, C(joined)
      that it has joined one as an agent.
  returned: always
  type: dict
  sample: {architecture: aarch64, initialized: false, joined: false, routes: [eth0]}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import preflight, preflight_facts
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.preflight import ERROR, describe


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "role": {"type": "str", "choices": ["server", "agent"], "required": True},
            "node_name": {"type": "str", "required": True},
            "kubelet": {"type": "bool", "default": True},
            "etcd": {"type": "bool", "default": False},
            "flannel": {"type": "str", "default": "vxlan"},
            "node_ip": {"type": "str", "default": ""},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "controller_time": {"type": "str", "required": True},
            "min_disk_mib": {"type": "int", "default": 2048},
            "min_memory_mib": {"type": "int", "default": 512},
            "max_clock_skew": {"type": "float", "default": 60},
            "accept": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    params = module.params
    facts = preflight_facts.gather(params["data_dir"], params["root"])
    chosen = {name: params[name] for name in preflight.Limits._fields if name != "accept"}
    try:
        problems = preflight.judge(facts, preflight.Limits(accept=tuple(params["accept"]), **chosen))
    except ClusterError as error:
        module.fail_json(msg=str(error))
    errors = [problem for problem in problems if problem.severity == ERROR]
    for problem in problems[len(errors) :]:
        module.warn(describe([problem])[2:])
    # Sockets are many and of no use later; what clashed is among the problems.
    facts = {name: value for name, value in facts.items() if name not in ("listeners", "time")}
    result = {"changed": False, "facts": facts, "problems": [problem._asdict() for problem in problems]}
    if errors:
        count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
        who = f"{params['node_name']} cannot become a K3s {params['role']}"
        module.fail_json(msg=f"{who}: {count}\n{describe(errors)}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_switch
short_description: Put another version of K3s in use on a machine, and the old one back when it does not prove itself
version_added: 0.2.0
description:
  - Switches C(current) by one rename, restarts the unit, and waits until the named node is Ready in the new version and
    has said so since; then the device has to serve the models that it served, with the same golden outputs.
  - When one of these fails, the old version is put back, restarted and proven the same way. That needs neither the
    controller nor the API server; only the proof does, and what could not be proven is said.
  - Nothing is touched when the old program is not there, the new one does not say that it is the wanted version, or the
    API server does not answer.
  - Intent and outcome are in the ledger (the playbook's C(k3s_upgrade_run)), the intent before the machine is touched.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Predicts the switch; whether the version will run cannot be known before.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  role:
    description: What the machine is.
    type: str
    choices: [server, agent]
    required: true
  unit:
    description: The unit that runs K3s.
    type: str
    required: true
  node_name:
    description: Name of the node.
    type: str
    required: true
  version:
    description: The version to use. Its program has to be below O(home).
    type: str
    required: true
  from_version:
    description: The version to go back to. Default is what is in use.
    type: str
  resumed:
    description: A run before was cut off on this machine, so nothing is expected of it before the switch.
    type: bool
    default: false
  kubelet:
    description: Whether it runs a kubelet.
    type: bool
    default: true
  home:
    description: Directory with the versions and C(current).
    type: path
    default: /opt/edgeai/k3s
  data_dir:
    description: Data directory of K3s.
    type: path
    default: /var/lib/rancher/k3s
  edge_root:
    description: The device's directory, for the models that it serves.
    type: path
  snapshot:
    description: Name of a snapshot of embedded etcd to take first. Empty for none.
    type: str
    default: ""
  start_timeout:
    description: Seconds for the unit to start.
    type: float
    default: 300
  ready_timeout:
    description: Seconds for the node to be ready.
    type: float
    default: 300
  probe_timeout:
    description: Seconds for the models to be served again.
    type: float
    default: 60
  kubeconfig:
    description: A kubeconfig other than the one that K3s keeps on this machine.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Use the version that was preloaded
  edgeai.fleet.k3s_switch:
    role: agent
    unit: k3s-agent.service
    node_name: gate-01
    version: v1.32.5+k3s1
"""

RETURN = r"""
result:
  description:
    - V(upgraded), V(unchanged), V(refused) (nothing was touched), V(reverted) (the old version is back) or V(lost).
    - Only the first two are successes.
  returned: always
  type: str
code:
  description: V(server) when the API server was away, V(busy) when the machine was in a state of its own; else empty.
  returned: always
  type: str
cause:
  description: Short name of the reason why the new version did not prove itself.
  returned: when it did not
  type: str
proven:
  description: Whether the node was seen ready on the old version again.
  returned: when it was put back
  type: bool
journal:
  description: The unit's last lines, without tokens.
  returned: when the new version did not prove itself
  type: list
  elements: str
served:
  description: Models and the digests of what the device served before.
  returned: always
  type: dict
durations:
  description: Seconds from switch to proof, by version.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import readiness
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.upgrade_machine import Host
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.upgrade_switch import Task, switch


def run(module):
    """Return the result."""
    params = module.params
    given = {name: params[name] for name in ("role", "unit", "data_dir", "kubelet")}
    wanted = readiness.Wanted(
        node=params["node_name"],
        version="",
        binary=params["home"] + "/current/k3s",
        timeout=params["ready_timeout"],
        config=params["kubeconfig"],
        **given,
    )
    host = Host(wanted, params["home"], params["edge_root"] or "", params["start_timeout"])
    link = host.link()
    task = Task(
        params["version"],
        params["from_version"] or link,
        params["resumed"],
        params["snapshot"],
        params["probe_timeout"],
        own_api=params["role"] == "server",
    )
    diff = {"before": {"current": link}, "after": {"current": params["version"]}}
    if module.check_mode:
        changes = link != task.to or task.resumed
        return {"changed": changes, "result": "upgraded" if changes else "unchanged", "code": "", "diff": diff}
    answer = switch(host, task)
    return {**answer, "diff": {"before": {"current": link}, "after": {"current": host.link()}}}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "role": {"type": "str", "choices": ["server", "agent"], "required": True},
            "unit": {"type": "str", "required": True},
            "node_name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "from_version": {"type": "str"},
            "resumed": {"type": "bool", "default": False},
            "kubelet": {"type": "bool", "default": True},
            "home": {"type": "path", "default": "/opt/edgeai/k3s"},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "edge_root": {"type": "path"},
            "snapshot": {"type": "str", "default": ""},
            "start_timeout": {"type": "float", "default": 300},
            "ready_timeout": {"type": "float", "default": 300},
            "probe_timeout": {"type": "float", "default": 60},
            "kubeconfig": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    answer = run(module)
    if answer.pop("failed", False):
        module.fail_json(**answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()

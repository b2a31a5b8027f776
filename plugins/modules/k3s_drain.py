#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_drain
short_description: Cordon and drain a node of K3s for an upgrade, and take that cordon back
version_added: 0.2.0
description:
  - Runs on a server. Cordon and a mark that says for what are one patch, so only a cordon that was set here is ever
    taken back; a node that somebody else cordoned stays cordoned.
  - Pods are evicted as disruption budgets allow it, for a bounded time. Pods of DaemonSets stay.
  - With O(state=drained) the intent to upgrade the host is in the ledger before the node is touched (from the
    playbook's C(k3s_upgrade_run), by the action plugin of the same name). A drain that fails takes its cordon back.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: What would be cordoned or uncordoned is predicted; nothing is evicted.
  diff_mode:
    support: none
    details: It is about what runs, not about a text.
  idempotent:
    support: full
options:
  state:
    description:
      - V(drained) and V(uncordoned) are about O(node_name).
      - V(swept) takes back every cordon that an upgrade left, of nodes that are Ready.
    type: str
    choices: [drained, uncordoned, swept]
    required: true
  node_name:
    description: Name of the node. Needed unless O(state=swept).
    type: str
  mark:
    description: For what the node is cordoned, as it stands in the node's annotation.
    type: str
    default: edgeai.fleet
  binary:
    description: The program on this server.
    type: path
    default: /opt/edgeai/k3s/current/k3s
  data_dir:
    description: Data directory of K3s on this server.
    type: path
    default: /var/lib/rancher/k3s
  timeout:
    description: Seconds to drain.
    type: int
    default: 120
  delete_emptydir:
    description: Evict pods with an C(emptyDir) too. What they keep in it is lost.
    type: bool
    default: false
  kubeconfig:
    description: A kubeconfig other than the one that K3s keeps on this machine.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Have nothing run there that can run elsewhere
  edgeai.fleet.k3s_drain:
    state: drained
    node_name: gate-01
  delegate_to: server-01
"""

RETURN = r"""
cordoned_before:
  description: Whether somebody else had cordoned the node, who keeps it so.
  returned: with O(state=drained)
  type: bool
uncordoned:
  description: Nodes whose cordon was taken back.
  returned: with O(state=uncordoned) and O(state=swept)
  type: list
  elements: str
code:
  description: V(server) when the API server does not answer, V(busy) when the node could not be drained.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import nodes
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.upgrade_nodes import Away, Cluster


def drained(cluster, params, check):
    """Cordon and drain; a drain that fails takes back the cordon that it set."""
    node = params["node_name"]
    done = cluster.cordon(node, params["mark"], check)
    if not check:
        try:
            cluster.drain(node, params["timeout"], params["delete_emptydir"])
        except ClusterError:
            if done.changed:
                cluster.uncordon(node, check)
            raise
    return {"changed": True, "cordoned_before": done.cordoned_before}


def swept(cluster, check):
    """Take back what upgrades left."""
    ready = [name for name in sorted(cluster.marked()) if not nodes.lacks(cluster.node(name), "")]
    back = [name for name in ready if cluster.uncordon(name, check)]
    return {"changed": bool(back), "uncordoned": back}


def run(module):
    """Return the result."""
    params, check = module.params, module.check_mode
    cluster = Cluster(params["binary"], params["data_dir"], params["kubeconfig"])
    if params["state"] == "drained":
        return drained(cluster, params, check)
    if params["state"] == "swept":
        return swept(cluster, check)
    back = cluster.uncordon(params["node_name"], check)
    return {"changed": back, "uncordoned": [params["node_name"]] if back else []}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "uncordoned", "swept"], "required": True},
            "node_name": {"type": "str"},
            "mark": {"type": "str", "default": "edgeai.fleet"},
            "binary": {"type": "path", "default": "/opt/edgeai/k3s/current/k3s"},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "timeout": {"type": "int", "default": 120},
            "delete_emptydir": {"type": "bool", "default": False},
            "kubeconfig": {"type": "str", "default": ""},
        },
        required_if=[("state", "drained", ("node_name",)), ("state", "uncordoned", ("node_name",))],
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except Away as error:
        module.fail_json(msg=str(error), code="server")
    except ClusterError as error:
        module.fail_json(msg=str(error), code="busy")
    module.exit_json(**result)


if __name__ == "__main__":
    main()

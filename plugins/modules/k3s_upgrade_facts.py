#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_upgrade_facts
short_description: Tell which version of K3s a machine runs and has, and how its part of the cluster is
version_added: 0.2.0
description:
  - Tells which version is in use and which are installed, what the machine's node reports, and on a server whether the
    API server and its member of etcd answer.
  - Changes nothing. An API server that is away is a fact, and no failure.
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
    description: The device's directory, for its stratum, which is not looked for without one. It need not be there.
    type: path
  kubeconfig:
    description: A kubeconfig other than the one that K3s keeps on this machine.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: What runs here?
  edgeai.fleet.k3s_upgrade_facts:
    role: agent
    unit: k3s-agent.service
    node_name: gate-01
  register: k3s_upgrade_facts
"""

RETURN = r"""
node:
  description: The facts.
  returned: success
  type: dict
  contains:
    link: {description: Version that is in use., type: str, sample: v1.32.5+k3s1}
    versions: {description: Versions whose program is here., type: list, elements: str}
    version: {description: What the node or the API server reports; empty when unknown., type: str}
    lacks: {description: Why the node is not as it should be; empty when it is., type: str}
    api: {description: 'Why the API server does not answer this machine; empty when it does.', type: str}
    etcd: {description: Why etcd does not answer on this server; empty when it does., type: str}
    members: {description: Names of etcd's members; null without embedded etcd., type: list, elements: str}
    cordoned_for: {description: For which upgrade the node is cordoned; empty for none., type: str}
    stratum: {description: The device's stratum., type: str}
    architecture: {description: The machine's architecture., type: str}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import readiness, upgrade_nodes
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.upgrade_machine import Host
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.facts import device_facts


def etcd(role, data_dir):
    """Return what is wrong with this server's member, and the members it counts."""
    if role != "server":
        return "", None
    try:
        return "", upgrade_nodes.etcd_members(data_dir)
    except ClusterError as error:
        return str(error), []


def gather(params):
    """Return the facts."""
    names = ("role", "unit", "data_dir", "kubelet")
    given = {name: params[name] for name in names}
    wanted = readiness.Wanted(
        node=params["node_name"], version="", binary=params["home"] + "/current/k3s", timeout=0.0,
        config=params["kubeconfig"], **given,
    )  # fmt: skip
    host = Host(wanted, params["home"], params["edge_root"] or "", 0.0)
    lacks, node = readiness.look(wanted)
    version = ((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", "")
    if not version and params["role"] == "server":
        version = host.api_version()
    device = device_facts(params["edge_root"]) if params["edge_root"] else {}
    unwell, members = etcd(params["role"], params["data_dir"])
    return {
        "link": host.link(),
        "versions": host.versions(),
        "version": version,
        "lacks": lacks,
        "api": host.api(host.link()),
        "etcd": unwell,
        "members": members,
        "cordoned_for": upgrade_nodes.mark_of(node),
        "stratum": device.get("stratum") or "-",
        "architecture": device.get("architecture"),
    }


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "role": {"type": "str", "choices": ["server", "agent"], "required": True},
            "unit": {"type": "str", "required": True},
            "node_name": {"type": "str", "required": True},
            "kubelet": {"type": "bool", "default": True},
            "home": {"type": "path", "default": "/opt/edgeai/k3s"},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "edge_root": {"type": "path"},
            "kubeconfig": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, node=gather(module.params))
    except (ClusterError, DeviceError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

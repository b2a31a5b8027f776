#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Wait until an edge node is Ready, or remove it from the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kubeedge_node
short_description: Wait until an edge node is Ready, or remove it from the cluster
version_added: 0.2.0
description:
  - Asks the cluster's API server about one node, by its name. Run it where kubectl and the kubeconfig are.
  - A node of that name that is not KubeEdge's is left alone and the task fails.
  - EdgeCore gives a node its labels when it registers, and never again; O(labels) are kept right afterwards, too.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Does not wait.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  name:
    description: Name of the node.
    type: str
    required: true
  state:
    description:
      - V(ready) waits until the node is there and Ready, and fails when O(timeout) is over.
      - V(present) asks once.
      - V(absent) removes the node's object, which also frees its name for a device that is set up again.
    type: str
    choices: [ready, present, absent]
    default: ready
  version:
    description: Version of KubeEdge that the node should report; another one is a warning.
    type: str
  labels:
    description: Labels that the node shall have. Others are left alone.
    type: dict
  timeout:
    description: Seconds to wait at most.
    type: float
    default: 300
  kubectl:
    description: The program, with its first arguments. By default K3s's, C(/opt/edgeai/k3s/current/kubectl).
    type: list
    elements: str
  kubeconfig:
    description: File with the cluster's address and credentials.
    type: path
    default: /etc/rancher/k3s/k3s.yaml
"""

EXAMPLES = r"""
- name: Wait for the node
  edgeai.fleet.kubeedge_node:
    name: camera-01
  delegate_to: cloud-01
"""

RETURN = r"""
node:
  description: What the API server says about the node.
  returned: success, and when it did not become Ready
  type: dict
  sample: {present: true, ready: true, reason: EdgeReady, version: v1.32.10-kubeedge-v1.23.1, edge: true}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import kubectl, nodes
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError


def where(module):
    """Return the program and the file that lead to the cluster."""
    return module.params["kubectl"] or kubectl.DEFAULT, module.params["kubeconfig"]


def remove(module):
    """Remove the node's object and return the result. Raises KubeedgeError."""
    name = module.params["name"]
    node = kubectl.get_node(*where(module), name)
    if node is not None and not nodes.is_edge(node):
        raise KubeedgeError(f"node {name}: has no label {nodes.EDGE_ROLE}, so it is not KubeEdge's; it is left alone")
    if node is not None and not module.check_mode:
        kubectl.delete_node(*where(module), name)
    return {"changed": node is not None, "node": nodes.summary(node)}


def look(module):
    """Wait if asked, set labels, and return the result. Raises KubeedgeError."""
    params = module.params
    waits = params["state"] == "ready" and not module.check_mode
    node, said = kubectl.wait_ready(
        lambda: kubectl.get_node(*where(module), params["name"]), params["timeout"] if waits else 0.0
    )
    found = nodes.summary(node)
    if said and not waits:
        raise KubeedgeError(said)
    if found["ready"] and nodes.other_version(node, params["version"]):
        module.warn("node {name} reports the version {version}".format(name=params["name"], version=found["version"]))
    if waits and not found["ready"]:
        state = "it is not in the cluster" if not found["present"] else "{reason}: {message}".format(**found)
        raise KubeedgeError("node {name} is not Ready after {timeout:g} s: ".format(**params) + (said or state))
    changes = nodes.label_changes(node, params["labels"] or {})
    if changes and not module.check_mode:
        kubectl.label_node(*where(module), params["name"], changes)
    before = ((node or {}).get("metadata") or {}).get("labels") or {}
    diff = {"before": {key: before.get(key, "") for key in changes}, "after": changes}
    return {"changed": bool(changes), "node": found, "diff": diff}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["ready", "present", "absent"], "default": "ready"},
            "version": {"type": "str"},
            "labels": {"type": "dict"},
            "timeout": {"type": "float", "default": 300},
            "kubectl": {"type": "list", "elements": "str"},
            "kubeconfig": {"type": "path", "default": "/etc/rancher/k3s/k3s.yaml"},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "absent":
            module.exit_json(**remove(module))
        module.exit_json(**look(module))
    except KubeedgeError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Keep DaemonSets of the cloud off edge nodes."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kubeedge_daemonsets
short_description: Keep DaemonSets of the cloud off edge nodes
version_added: 0.2.0
description:
  - Gives every DaemonSet of some namespaces the condition that a node has no label C(node-role.kubernetes.io/edge).
  - One that names that label itself, in its node selector or its node affinity, is left as it is.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  namespaces:
    description: Namespaces whose DaemonSets are looked at.
    type: list
    elements: str
    required: true
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
- name: Keep the cloud's DaemonSets off edge nodes
  edgeai.fleet.kubeedge_daemonsets:
    namespaces: [kube-system]
"""

RETURN = r"""
patched:
  description: DaemonSets that were or would be changed.
  returned: success
  type: list
  elements: str
  sample: [kube-system/svclb-traefik]
"""

import json

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import daemonsets, kubectl
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError


def ask(where, *arguments):
    """Run kubectl and return its output. Raises KubeedgeError."""
    status, output, said = kubectl.run(*where, arguments)
    if status:
        raise KubeedgeError("kubectl {}: {}".format(" ".join(arguments[:4]), said[-400:]))
    return output


def run(module):
    """Find, patch and return the result. Raises KubeedgeError."""
    params = module.params
    where = ((params["kubectl"] or kubectl.DEFAULT), params["kubeconfig"])
    found = json.loads(ask(where, "get", "daemonsets", "--all-namespaces", "--output=json"))["items"]
    todo = daemonsets.to_patch(found, params["namespaces"])
    for item in todo if not module.check_mode else ():
        meta, patch = item["metadata"], json.dumps(daemonsets.patch(item))
        place = ("patch", "daemonset", meta["name"], "--namespace", meta["namespace"])
        ask(where, *place, "--type=merge", "--patch", patch)
    names = sorted("{namespace}/{name}".format(**item["metadata"]) for item in todo)
    diff = {"before": "", "after": "".join(f"{name}: not on edge nodes\n" for name in names)}
    return {"changed": bool(names), "patched": names, "diff": diff}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "namespaces": {"type": "list", "elements": "str", "required": True},
            "kubectl": {"type": "list", "elements": "str"},
            "kubeconfig": {"type": "path", "default": "/etc/rancher/k3s/k3s.yaml"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except KubeedgeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

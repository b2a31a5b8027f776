#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Remove the model servers' objects from a K3s cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: workload_removal
short_description: Remove the model servers' objects from a K3s cluster
version_added: 0.2.0
description:
  - K3s keeps the objects of a manifest whose file is gone. This removes those that carry the collection's labels, by
    C(kubectl) on a K3s server, and K3s's own note of the file (an C(Addon)).
  - Without O(kubeconfig) there is no cluster, and nothing to remove.
  - The namespace C(edgeai) goes, too, unless somebody else's objects are in it; they are named and stay. It is waited
    for, 50 seconds at most; the pod of a device that is away keeps it until the device is back.
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
  addon:
    description: Name of K3s's note, which is the file's name without its ending.
    type: str
    default: edgeai-workloads
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
- name: Take the model servers out of the cluster
  edgeai.fleet.workload_removal:
"""

RETURN = r"""
removed:
  description: Objects that were or would be removed.
  returned: success
  type: list
  elements: str
  sample: [DaemonSet/edgeai-server-cpu-int8-onnxruntime-x86-64, Namespace/edgeai]
others:
  description: What somebody else keeps in the namespace, which is why it stays.
  returned: success
  type: list
  elements: str
  sample: []
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import kubectl
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads import live
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.manifests import NAMESPACE

# Fields of an object that the decision needs: nobody's secrets leave the API server for it.
FIELDS = (
    '{range .items[*]}{"["}{"\\""}{.apiVersion}{"\\",\\""}{.kind}{"\\",\\""}{.metadata.name}{"\\",\\""}'
    '{.metadata.namespace}{"\\",\\""}{.metadata.ownerReferences[0].name}{"\\",\\""}'
    '{.metadata.labels.app\\.kubernetes\\.io/part-of}{"\\",\\""}'
    '{.metadata.labels.app\\.kubernetes\\.io/managed-by}{"\\"]\\n"}{end}'
)
ADDON = "addons.k3s.cattle.io"


def ask(where, *arguments):
    """Run kubectl and return its output. Raises KubeedgeError."""
    status, output, said = kubectl.run(*where, arguments)
    if status:
        raise KubeedgeError("kubectl {}: {}".format(" ".join(arguments[:3]), said[-400:]))
    return output


def resource(version, kind):
    """A kind as kubectl takes it, unmistakably: Kind.version.group."""
    group, _slash, number = version.rpartition("/")
    return f"{kind}.{number}.{group}" if group else kind


def read(line):
    """One line of `FIELDS` as an object."""
    version, kind, name, namespace, owner, part_of, managed_by = json.loads(line)
    labels = {"app.kubernetes.io/part-of": part_of, "app.kubernetes.io/managed-by": managed_by}
    metadata = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner] if owner else []}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def look(where):
    """Everything that may have to go or to stay. Raises KubeedgeError."""
    inside = [resource(version, kind) for version, kind, namespaced in live.OWN_KINDS if namespaced]
    inside += [resource(version, kind) for version, kind in live.OTHER_KINDS]
    outside = [resource(version, kind) for version, kind, namespaced in live.OWN_KINDS if not namespaced]
    output = ask(where, "get", ",".join(inside), f"--namespace={NAMESPACE}", f"--output=jsonpath={FIELDS}")
    output += ask(where, "get", ",".join(outside), f"--output=jsonpath={FIELDS}")
    return [read(line) for line in output.splitlines() if line.strip()]


def find_addon(where, name):
    """K3s's note of the manifest, as an argument of kubectl; empty when there is none. Raises KubeedgeError."""
    status, output, said = kubectl.run(
        *where, ["get", f"{ADDON}/{name}", "--namespace=kube-system", "--ignore-not-found", "--output=name"]
    )
    if status and "the server doesn't have a resource type" not in said:
        raise KubeedgeError(f"kubectl get {ADDON}: {said[-400:]}")
    return output.strip() if not status else ""


def run(module):
    """Look, remove, and return the result. Raises KubeedgeError."""
    params = module.params
    where = (params["kubectl"] or list(kubectl.DEFAULT), params["kubeconfig"])
    if not os.path.exists(params["kubeconfig"]):
        return {"changed": False, "removed": [], "others": []}
    found = look(where)
    gone, addon = live.leftovers(found, []), find_addon(where, params["addon"])
    if not module.check_mode:
        # First K3s's note of them: it would make them again.
        if addon:
            ask(where, "delete", addon, "--namespace=kube-system", "--ignore-not-found", "--wait=false")
        for item in gone:
            place = [f"--namespace={item['namespace']}"] if item["namespace"] else []
            name = resource(item["api_version"], item["kind"])
            ask(where, "delete", name, item["name"], *place, "--ignore-not-found", "--wait=false")
        if gone and gone[-1]["kind"] == "Namespace":
            # A device that is away keeps its pod, and the pod the namespace, until it is back: no error.
            kubectl.run(*where, ["wait", "--for=delete", f"namespace/{NAMESPACE}", "--timeout=50s"])
    names = [f"Addon/{params['addon']}"] if addon else []
    names += ["{kind}/{name}".format(**item) for item in gone]
    diff = {"before": "".join(f"{name}\n" for name in names), "after": ""}
    return {"changed": bool(names), "removed": names, "others": live.occupants(found), "diff": diff}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "addon": {"type": "str", "default": "edgeai-workloads"},
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

#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_node
short_description: Wait until a K3s node is ready, and give it its labels
version_added: 0.2.0
description:
  - Waits, for a bounded time, until the API server says that it is ready, and the named node is Ready and reports the
    version that was installed.
  - When time is up, fails with a named cause (for example C(wrong_token), C(ca_mismatch), C(node_password),
    C(port_in_use), C(clock), C(no_default_route), C(cgroup), C(datastore)), how to mend it, and the node's lines in
    the journal, without tokens.
  - Runs on the node itself and uses the node's own identity; an agent needs nobody else's rights.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Looks once and does not wait. A node that is not ready is no error then.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  role:
    description: What the node is.
    type: str
    choices: [server, agent]
    required: true
  unit:
    description: The unit that runs it.
    type: str
    required: true
  node_name:
    description: Name of the node.
    type: str
    required: true
  version:
    description: Version that has to be reported, for example V(v1.32.5+k3s1). Empty for any.
    type: str
    default: ""
  kubelet:
    description: Whether the node runs a kubelet. Without one there is no node to wait for, only the API server.
    type: bool
    default: true
  labels:
    description: Labels that the node shall have. Others are left alone.
    type: dict
  binary:
    description: The program.
    type: path
    required: true
  data_dir:
    description: Data directory of K3s.
    type: path
    default: /var/lib/rancher/k3s
  timeout:
    description: Seconds to wait.
    type: float
    default: 300
"""

EXAMPLES = r"""
- name: Wait for the node
  edgeai.fleet.k3s_node:
    role: agent
    unit: k3s-agent.service
    node_name: gate-01
    version: v1.32.5+k3s1
    binary: /opt/edgeai/k3s/current/k3s
    labels: {edgeai.fleet/runtime: onnxruntime}
"""

RETURN = r"""
node:
  description: What the API server says about the node; empty without a kubelet, and in check mode when it is not ready.
  returned: success
  type: dict
  contains:
    version: {description: Version of its kubelet., type: str, sample: v1.32.5+k3s1}
    addresses: {description: Its addresses., type: list, elements: str}
    labels: {description: Its labels., type: dict}
cause:
  description: Short name of the reason why it is not ready.
  returned: when the node is not ready
  type: str
  sample: wrong_token
journal:
  description: Its last lines in the journal, without tokens.
  returned: when the node is not ready
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import nodes, readiness
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError


def run(module):
    """Wait, label, and return the result."""
    params = module.params
    names = [name for name in readiness.Wanted._fields if name in params]
    wanted = readiness.Wanted(node=params["node_name"], **{name: params[name] for name in names})
    node = readiness.look(wanted)[1] if module.check_mode else readiness.wait(wanted)
    labels = {str(key): str(value) for key, value in (params["labels"] or {}).items()}
    changes = nodes.label_changes(node, labels) if node else {}
    if changes and not module.check_mode:
        readiness.set_labels(wanted, changes)
    before = (node.get("metadata") or {}).get("labels") or {}
    status = node.get("status") or {}
    shown = {
        "version": (status.get("nodeInfo") or {}).get("kubeletVersion", ""),
        "addresses": [item.get("address", "") for item in status.get("addresses") or ()],
        "labels": {**before, **changes},
    }
    differs = {"before": {key: before.get(key, "") for key in changes}, "after": changes}
    return {"changed": bool(changes), "node": shown if node else {}, "diff": differs}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "role": {"type": "str", "choices": ["server", "agent"], "required": True},
            "unit": {"type": "str", "required": True},
            "node_name": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
            "kubelet": {"type": "bool", "default": True},
            "labels": {"type": "dict"},
            "binary": {"type": "path", "required": True},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "timeout": {"type": "float", "default": 300},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except readiness.Failed as error:
        module.fail_json(msg=str(error), cause=error.cause, journal=error.journal)
    except ClusterError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

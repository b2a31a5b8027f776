#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_removal
short_description: Take away everything that K3s leaves on a machine
version_added: 0.2.0
description:
  - Ends the pods' processes, unmounts their file systems, removes network interfaces and namespaces, takes the rules of
    Kubernetes, flannel and CNI out of iptables, and removes the directories of K3s and the node's identity.
  - Looks again at the end and fails when something is still there.
  - Stop and remove the unit first (M(edgeai.fleet.device_unit)).
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
  data_dir:
    description: Data directory of K3s. When it is a mount point, it is emptied and stays.
    type: path
    default: /var/lib/rancher/k3s
  paths:
    description: Further files and directories to remove.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Leave nothing
  edgeai.fleet.k3s_removal:
    paths: [/etc/rancher/k3s, /opt/edgeai/k3s]
"""

RETURN = r"""
removed:
  description: What was or would be removed; C(processes), C(mounts), C(links), C(rules) and C(paths).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import removal
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "paths": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    data_dir = module.params["data_dir"]
    try:
        left = removal.look(data_dir, [data_dir, *module.params["paths"]])
        if any(left) and not module.check_mode:
            removal.remove(left, data_dir)
    except ClusterError as error:
        module.fail_json(msg=str(error))
    found = {name: value for name, value in left._asdict().items() if value}
    module.exit_json(changed=any(left), removed=left._asdict(), diff={"before": found, "after": {}})


if __name__ == "__main__":
    main()

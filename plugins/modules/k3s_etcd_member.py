#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_etcd_member
short_description: Take a server that is gone out of K3s's embedded etcd
version_added: 0.2.0
description:
  - Runs on a server that is in the cluster, and needs nothing there but K3s.
  - etcd counts a server that was re-imaged as gone for ever, and K3s lets no other join under its name.
  - A member that still takes connections is not removed, nor is one without which etcd has no quorum.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  node_name:
    description: Name of the node that is gone.
    type: str
    required: true
  remove:
    description: Remove its member. When V(false), fail when there is one.
    type: bool
    default: false
  data_dir:
    description: Data directory of K3s.
    type: path
    default: /var/lib/rancher/k3s
"""

EXAMPLES = r"""
- name: Forget the old server-02
  edgeai.fleet.k3s_etcd_member:
    node_name: server-02
    remove: true
  delegate_to: server-01
"""

RETURN = r"""
removed:
  description: Names of the members that were removed, or would be.
  returned: success
  type: list
  elements: str
  sample: [server-02-6d7a3bd8]
members:
  description: Names of the members that are there afterwards; empty for one that has not started yet.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import members
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError


def run(module):
    """Return the result."""
    etcd = members.Etcd(module.params["data_dir"])
    known = etcd.members()
    old = members.lost(known, module.params["node_name"], module.params["remove"])
    alive = members.answering(old)
    if alive:
        raise ClusterError(
            f"{members.names(old)} answers at {alive}: it is not gone. Stop K3s there first "
            "(systemctl disable --now k3s), or give the new machine another name (k3s_server_node_name)"
        )
    if not module.check_mode:
        for member in old:
            etcd.remove(member)
    left = [member.name for member in known.all if member not in old]
    return {"changed": bool(old), "removed": [member.name for member in old], "members": left}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "node_name": {"type": "str", "required": True},
            "remove": {"type": "bool", "default": False},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except ClusterError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_token
short_description: Make a token with which an agent can join a K3s cluster for a while
version_added: 0.2.0
description:
  - Makes a bootstrap token on a server. It names the cluster's authority (C(K10)), so that an agent joins no other
    cluster, and expires by itself.
  - The token is in the result. Set C(no_log) on the task.
author:
  - edgeai.fleet contributors (@edgeai-fleet)
extends_documentation_fragment:
  - edgeai.fleet.attributes
attributes:
  check_mode:
    support: full
    details: No token is made; the result's O(ttl) is right and its token empty.
  diff_mode:
    support: none
    details: There is nothing to compare with.
  idempotent:
    support: none
    details: Every run makes a token.
options:
  binary:
    description: The program.
    type: path
    required: true
  data_dir:
    description: Data directory of K3s.
    type: path
    default: /var/lib/rancher/k3s
  ttl:
    description: How long the token can be used, for example V(1h).
    type: str
    default: 1h
  description:
    description: What the token is for. Shown by C(k3s token list).
    type: str
    default: edgeai.fleet
"""

EXAMPLES = r"""
- name: Let one agent join within an hour
  edgeai.fleet.k3s_token:
    binary: /opt/edgeai/k3s/current/k3s
    description: gate-01
  delegate_to: server-01
  register: joining
  no_log: true
"""

RETURN = r"""
token:
  description: The token. Empty in check mode.
  returned: success
  type: str
ttl:
  description: How long it can be used.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import causes, readiness, tokens
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError


def make(params):
    """Make the token. Raises ClusterError."""
    tokens.check_ttl(params["ttl"])
    arguments = ["token", "create", f"--ttl={params['ttl']}", f"--description={params['description']}"]
    status, output = readiness.run(params["binary"], params["data_dir"], *arguments)
    if status:
        raise ClusterError(f"k3s token create: {causes.excerpt(output)}; see that the server is ready")
    return tokens.pinned(output)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "binary": {"type": "path", "required": True},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "ttl": {"type": "str", "default": "1h"},
            "description": {"type": "str", "default": "edgeai.fleet"},
        },
        supports_check_mode=True,
    )
    try:
        token = "" if module.check_mode else make(module.params)
    except ClusterError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, token=token, ttl=module.params["ttl"])


if __name__ == "__main__":
    main()

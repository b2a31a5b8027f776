# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The filter edgeai.fleet.k3s_first_server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.membership import Seen, first_server

DOCUMENTATION = r"""
name: k3s_first_server
short_description: The server that makes a K3s cluster, or holds it already
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - The first server, in the inventory's order, that holds the cluster's data. When none does, the first one,
    which makes a new cluster.
  - Fails when none does and some could not be looked at, because one of them may hold it.
options:
  _input:
    description: Names of the servers.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars), with what the role k3s_server's preflight found.
    type: dict
    required: true
  new_cluster:
    description: Make a new cluster although some servers could not be looked at.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: The server that the others join
  ansible.builtin.debug:
    msg: "{{ groups.k3s_servers | edgeai.fleet.k3s_first_server(hostvars) }}"
"""

RETURN = r"""
_value:
  description: Name of the server.
  type: str
"""


def k3s_first_server(order: Any, hostvars: Any, new_cluster: bool = False) -> str:
    """Return the name of the server that the others join."""
    seen = {}
    for name in order:
        facts = (hostvars[name].get("_k3s_preflight") or {}).get("facts") if name in hostvars else None
        seen[str(name)] = Seen(facts is not None, bool((facts or {}).get("initialized")))
    try:
        return first_server([str(name) for name in order], seen, bool(new_cluster))
    except ClusterError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"k3s_first_server": k3s_first_server}

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter `apart`: batches of hosts in which no two stand in for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: apart
short_description: Order hosts so that no batch holds two members of one redundancy group
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Ansible's C(serial) cuts a play's hosts into batches by their order alone. This filter gives the order and the sizes
    of batches that never work on two devices of one redundancy group at the same time.
positional: _input
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The hosts' variables, as C(hostvars).
    type: dict
    required: true
  group_variable:
    description: Variable that names a host's redundancy group; hosts without it stand alone.
    type: str
    default: edge_redundancy_group
"""

EXAMPLES = r"""
- name: Restart every device, the members of a redundancy group one after the other
  hosts: "{{ (groups.edge | edgeai.fleet.apart(hostvars)).hosts }}"
  serial: "{{ (groups.edge | edgeai.fleet.apart(hostvars)).sizes }}"
  gather_facts: false
  tasks:
    - name: Restart
      ansible.builtin.reboot:
"""

RETURN = r"""
_value:
  description: The hosts in order, and how many of them each batch has.
  type: dict
  sample: {"hosts": ["gate-1", "yard-1", "gate-2"], "sizes": [2, 1]}
"""


def apart(hosts: Any, hostvars: Any, group_variable: str = "edge_redundancy_group") -> dict[str, list[Any]]:
    """Return ``{"hosts": [...], "sizes": [...]}``: the n-th member of every redundancy group is in the n-th batch.

    Hosts keep their order inside a batch; hosts without a group are in the first one. Raises AnsibleFilterError for
    wrong input.
    """
    if isinstance(hosts, str) or not isinstance(hosts, Sequence):
        raise AnsibleFilterError(f"apart: the hosts are {hosts!r}; give a list of names, for example groups.edge")
    if not isinstance(hostvars, Mapping):
        raise AnsibleFilterError(f"apart: hostvars is a {type(hostvars).__name__}; give hostvars itself")
    batches: list[list[str]] = []
    taken: dict[str, int] = {}
    for host in hosts:
        if host not in hostvars:
            raise AnsibleFilterError(f"apart: host {host!r} is not in the inventory; give names of its hosts")
        group = hostvars[host].get(group_variable)
        number = taken.get(str(group), 0) if group else 0
        if group:
            taken[str(group)] = number + 1
        while len(batches) <= number:
            batches.append([])
        batches[number].append(host)
    return {"hosts": [host for batch in batches for host in batch], "sizes": [len(batch) for batch in batches]}


class FilterModule:
    """Filters of edgeai.fleet."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"apart": apart}

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter `workload_changes`: what is in a cluster against what is wanted there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.module_utils.workloads import live

DOCUMENTATION = r"""
name: workload_changes
short_description: What of the model servers' objects has to leave a cluster
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Compares the objects that are in a cluster with those that P(edgeai.fleet.workload_manifests#filter) made.
  - Only objects with the collection's labels are ever to be removed, the namespace when nothing of others is in it.
positional: _input
options:
  _input:
    description: Objects in the cluster, as C(kubernetes.core.k8s_info) returns them.
    type: list
    elements: dict
    required: true
  wanted:
    description: The objects that are wanted; none when everything is to go.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Show what is no longer wanted
  ansible.builtin.debug:
    msg: "{{ (found.resources | edgeai.fleet.workload_changes(objects)).remove }}"
"""

RETURN = r"""
_value:
  description:
    - C(remove) names objects that are no longer wanted, C(foreign) those that have the name of a wanted one and are not
      the collection's, each with C(kind), C(api_version), C(name) and C(namespace).
    - C(others) names what somebody else keeps in the namespace.
  type: dict
  sample:
    remove: [{kind: DaemonSet, api_version: apps/v1, name: edgeai-server-cpu, namespace: edgeai}]
    foreign: []
    others: []
"""


def workload_changes(found: Any, wanted: Any = None) -> dict[str, Any]:
    """Return what is to be removed, what is not ours, and what others have. Raises AnsibleFilterError."""
    for value in (found, wanted or []):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise AnsibleFilterError(f"workload_changes: give lists of objects, not {type(value).__name__}")
        for item in value:
            if not isinstance(item, Mapping) or not {"kind", "apiVersion", "metadata"} <= set(item):
                raise AnsibleFilterError("workload_changes: an object has no kind, apiVersion or metadata")
    return {
        "remove": live.leftovers(found, wanted or []),
        "foreign": live.foreign(found, wanted or []),
        "others": live.occupants(found),
    }


class FilterModule:
    """Filters of edgeai.fleet."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"workload_changes": workload_changes}

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter `workload_unready`: what DaemonSets still wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.module_utils.workloads import live

DOCUMENTATION = r"""
name: workload_unready
short_description: What DaemonSets still wait for
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - A DaemonSet is ready when the cluster has looked at its newest version, and as many of its pods are ready as there
    are nodes for them. With the update strategy C(OnDelete) pods of an older version are ready pods.
positional: _input
options:
  _input:
    description: DaemonSets, as C(kubernetes.core.k8s_info) returns them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Wait for the model servers
  kubernetes.core.k8s_info:
    api_version: apps/v1
    kind: DaemonSet
    namespace: edgeai
  register: sets
  until: (sets.resources | edgeai.fleet.workload_unready) == []
  retries: 60
  delay: 5
"""

RETURN = r"""
_value:
  description: One line for each DaemonSet that is not ready.
  type: list
  elements: str
  sample: ["edgeai-server-cpu-int8-onnxruntime-x86-64: 1 of 2 pods are ready"]
"""


def workload_unready(daemonsets: Any) -> list[str]:
    """Return a line for each DaemonSet that is not ready. Raises AnsibleFilterError."""
    if isinstance(daemonsets, str) or not isinstance(daemonsets, Sequence):
        raise AnsibleFilterError(f"workload_unready: give a list of DaemonSets, not {type(daemonsets).__name__}")
    if not all(isinstance(item, Mapping) and "metadata" in item for item in daemonsets):
        raise AnsibleFilterError("workload_unready: an object has no metadata")
    return live.unready(daemonsets)


class FilterModule:
    """Filters of edgeai.fleet."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"workload_unready": workload_unready}

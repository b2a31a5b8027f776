# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter `node_disagreements`: what devices found against what their nodes' labels say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.discovery import all_disagreements

DOCUMENTATION = r"""
name: node_disagreements
short_description: What devices found against what their nodes' labels say
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Where Node Feature Discovery runs, its labels (C(feature.node.kubernetes.io/...)) are compared with the accelerators
    that the device itself found. Without it only the architecture is compared. A node that is not there is left out.
positional: _input
options:
  _input:
    description: Devices, each with C(name), C(node), C(stratum) and the kinds of accelerators it C(detected).
    type: list
    elements: dict
    required: true
  nodes:
    description: Nodes, as C(kubectl get nodes) returns them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show where they do not agree
  ansible.builtin.debug:
    msg: "{{ devices | edgeai.fleet.node_disagreements(found.resources) }}"
"""

RETURN = r"""
_value:
  description: One line for each disagreement, which names both.
  type: list
  elements: str
  sample: ["gate-01, node gate-01: the device computes on nvidia-gpu, Node Feature Discovery saw no accelerator"]
"""


def node_disagreements(devices: Any, nodes: Any) -> list[str]:
    """Return a line for each disagreement. Raises AnsibleFilterError."""
    for value, fields in ((devices, {"name", "node", "stratum"}), (nodes, {"metadata"})):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise AnsibleFilterError(f"node_disagreements: give lists of devices and nodes, not {value!r:.80}")
        if not all(isinstance(item, Mapping) and fields <= set(item) for item in value):
            raise AnsibleFilterError("node_disagreements: an entry lacks {}".format(" or ".join(sorted(fields))))
    try:
        return all_disagreements(devices, nodes)
    except ValueError as error:
        raise AnsibleFilterError(
            f"node_disagreements: a stratum is not accelerator/runtime/architecture ({error})"
        ) from error


class FilterModule:
    """Filters of edgeai.fleet."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"node_disagreements": node_disagreements}

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The filter edgeai.fleet.node_labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.nodes import label_value

DOCUMENTATION = r"""
name: node_labels
short_description: Turn what is known of a device into labels that Kubernetes accepts
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Label values hold letters, digits, dots, dashes and underscores, at most 63 of them. Everything else becomes a dot,
    so the stratum C(cpu-int8/onnxruntime/x86_64) is C(cpu-int8.onnxruntime.x86_64).
  - Labels without a value are left out.
options:
  _input:
    description: Labels and their values.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: The labels of a node
  ansible.builtin.debug:
    msg: "{{ {'edgeai.fleet/stratum': 'cpu-int8/onnxruntime/x86_64'} | edgeai.fleet.node_labels }}"
"""

RETURN = r"""
_value:
  description: The labels.
  type: dict
  sample: {edgeai.fleet/stratum: cpu-int8.onnxruntime.x86_64}
"""


def node_labels(labels: Any) -> dict[str, str]:
    """Return the labels with values that Kubernetes accepts."""
    if not isinstance(labels, Mapping):
        raise AnsibleFilterError(f"edgeai.fleet.node_labels works on a dict, not on {type(labels).__name__}")
    values = {str(key): label_value(str(value)) for key, value in labels.items() if value}
    return {key: value for key, value in values.items() if value}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"node_labels": node_labels}

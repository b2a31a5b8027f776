# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter `workload_manifests`: the Kubernetes objects that run the model server on devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.errors import WorkloadError
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.manifests import manifests

DOCUMENTATION = r"""
name: workload_manifests
short_description: The Kubernetes objects that run the model server on devices
version_added: 0.2.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - A namespace, a priority class, a service account, a network policy, and a DaemonSet for each stratum. Devices of a
    stratum that differ (numeric user, port, directory) have one for each kind, bound to their nodes by name.
positional: _input
options:
  _input:
    description:
      - Devices, each with C(name), C(node), C(platform), C(stratum), C(root), C(uid), C(gid), C(groups), C(host),
        C(port), C(tls) (none, server or mutual), C(memory_mib) (0 for no limit) and C(models).
    type: list
    elements: dict
    required: true
  images:
    description: Image by runtime (C(onnxruntime)), or by runtime and architecture (C(onnxruntime/aarch64)).
    type: dict
    required: true
  options:
    description: The server's workers, threads, queue, max_body_mib, grace, access_log and start_timeout.
    type: dict
  tolerations:
    description: Tolerations in addition to those for the collection's own taints.
    type: list
    elements: dict
    default: []
  pull_policy:
    description: V(Never) for preloaded images, V(IfNotPresent) for a registry.
    type: str
    choices: [Never, IfNotPresent]
    default: Never
  resources:
    description: Resource of a device plugin by kind of accelerator, for what is not known here.
    type: dict
  device_plugins:
    description:
      - Device plugins to run, by name (C(nvidia), C(intel-gpu), C(intel-npu), C(coral)), each with its C(image) by
        digest and where needed C(pull_policy) and C(args). They run where the label C(edgeai.fleet/accelerator) fits.
    type: dict
  nvidia_class:
    description: Whether NVIDIA's RuntimeClass is among the objects where a pod names it.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the objects
  ansible.builtin.debug:
    msg: "{{ devices | edgeai.fleet.workload_manifests({'onnxruntime': 'localhost/edgeai/model-server:1'}) }}"
"""

RETURN = r"""
_value:
  description: The objects, in the order in which they have to be applied.
  type: list
  elements: dict
"""


def workload_manifests(
    devices: Any,
    images: Any,
    options: Any = None,
    tolerations: Any = None,
    pull_policy: str = "Never",
    resources: Any = None,
    device_plugins: Any = None,
    nvidia_class: Any = False,
) -> list[dict[str, Any]]:
    """Return the objects. Raises AnsibleFilterError for wrong input."""
    if isinstance(devices, str) or not isinstance(devices, Sequence) or not isinstance(images, Mapping):
        raise AnsibleFilterError("workload_manifests: give a list of devices, and images as a dict by runtime")
    try:
        return manifests(
            devices, images, options, tolerations or (), pull_policy, resources, device_plugins, boolean(nvidia_class)
        )
    except WorkloadError as error:
        raise AnsibleFilterError(f"workload_manifests: {error}") from error


class FilterModule:
    """Filters of edgeai.fleet."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"workload_manifests": workload_manifests}

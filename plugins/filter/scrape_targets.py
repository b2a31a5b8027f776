# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Filter `scrape_targets`: what Prometheus has to scrape, from an inventory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.scrape_targets import target_of

DOCUMENTATION = r"""
name: scrape_targets
short_description: The addresses and labels under which Prometheus scrapes devices
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Makes the targets that P(edgeai.fleet.monitoring_targets#module) writes from the variables of hosts.
  - The address is C(edge_metrics_address), else C(ansible_host) (the loopback address with C(ansible_connection=local))
    and C(edge_port).
  - The labels are C(edge_site), C(edge_stratum) and C(edge_redundancy_group), else what C(edge_facts) says, in which
    P(edgeai.fleet.model_release_info#module) was registered.
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
  port:
    description: Port of another exporter on the devices, instead of the model server's.
    type: int
"""

EXAMPLES = r"""
- name: Let Prometheus find the fleet
  edgeai.fleet.monitoring_targets:
    path: /etc/prometheus/edgeai/targets/edge.json
    targets: "{{ groups.edge | edgeai.fleet.scrape_targets(hostvars) }}"
"""

RETURN = r"""
_value:
  description: One entry per host.
  type: list
  elements: dict
  sample:
    - {device: gate-1, address: "10.0.0.1:9001", site: harbour, stratum: cpu-int8/onnxruntime/x86_64,
       redundancy_group: gate, loopback: false}
"""


def scrape_targets(hosts: Any, hostvars: Any, port: int | None = None) -> list[dict[str, Any]]:
    """Return the target of every host. Raises AnsibleFilterError for wrong input or a host that is not there."""
    if isinstance(hosts, str) or not isinstance(hosts, Sequence) or not isinstance(hostvars, Mapping):
        raise AnsibleFilterError("scrape_targets takes a list of hosts, and hostvars: hosts | scrape_targets(hostvars)")
    missing = [str(host) for host in hosts if host not in hostvars]
    if missing:
        raise AnsibleFilterError(f"scrape_targets: {missing[0]!r} is not in the inventory")
    return [target_of(str(host), hostvars[host], port) for host in hosts]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"scrape_targets": scrape_targets}

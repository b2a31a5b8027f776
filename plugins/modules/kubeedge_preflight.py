#!/usr/bin/python
# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Say everything that keeps a device from being an edge node of KubeEdge."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kubeedge_preflight
short_description: Say everything that keeps a device from being an edge node of KubeEdge
version_added: 0.2.0
description:
  - Refuses versions of KubeEdge and Kubernetes that do not go together.
  - Looks for another kubelet (a process named kubelet, and K3s, whose kubelet EdgeCore does not notice), for
    containerd, runc and the CNI plugins, for the kernel's memory controller, clock and free space, and reports all
    problems at once.
  - Changes nothing.
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
  cgroup_driver:
    description: Cgroup driver that containerd and EdgeCore will get.
    type: str
    choices: [systemd, cgroupfs]
    default: systemd
  cni_directory:
    description: Directory of the CNI plugins.
    type: path
    default: /usr/lib/cni
  only:
    description:
      - V(exclusivity) looks for another kubelet and for nothing else, V(versions) only at versions.
      - V(cloud) looks at a machine that CloudCore is to run on, at versions and at whether it will find its address.
    type: str
    choices: [all, cloud, exclusivity, versions]
    default: all
  version:
    description: Version of KubeEdge that is to be installed.
    type: str
  kubernetes:
    description: Version of the cluster.
    type: str
  now:
    description: The controller's time, in seconds since the epoch, to compare the device's clock with.
    type: float
"""

EXAMPLES = r"""
- name: Check the device
  edgeai.fleet.kubeedge_preflight:
    now: "{{ now(utc=true).timestamp() }}"
"""

RETURN = r"""
problems:
  description: What is wrong; empty when nothing is.
  returned: success, and when something is wrong
  type: list
  elements: dict
  sample: [{code: k3s, what: k3s-agent.service is active, fix: take the device out of that cluster first}]
facts:
  description: What was looked at.
  returned: success, and when something is wrong
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import preflight, preflight_facts, versions
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cgroup_driver": {"type": "str", "choices": ["systemd", "cgroupfs"], "default": "systemd"},
            "cni_directory": {"type": "path", "default": "/usr/lib/cni"},
            "only": {"type": "str", "choices": ["all", "cloud", "exclusivity", "versions"], "default": "all"},
            "version": {"type": "str"},
            "kubernetes": {"type": "str"},
            "now": {"type": "float"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["version"]:
            versions.check(params["version"], params["kubernetes"])
    except KubeedgeError as error:
        module.fail_json(msg=str(error))
    if params["only"] == "versions":
        module.exit_json(changed=False, problems=[], facts={})
    if params["only"] == "cloud":
        facts = preflight_facts.gather_cloud()
        report(module, facts, preflight.judge_cloud(facts), "CloudCore cannot run on this machine")
    facts = preflight_facts.gather(params["cni_directory"], params["now"])
    found = preflight.exclusivity(facts)
    if params["only"] == "all":
        found = preflight.judge(facts, params["cgroup_driver"])
    report(module, facts, found, "this device cannot become an edge node of KubeEdge")


def report(module: AnsibleModule, facts: dict[str, Any], found: list[preflight.Problem], what: str) -> None:
    """End the module with what was found."""
    result = {"changed": False, "problems": [problem._asdict() for problem in found], "facts": facts}
    if found:
        module.fail_json(msg=preflight.explain(found, what), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

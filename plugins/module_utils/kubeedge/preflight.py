# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What keeps a device from being an edge node of KubeEdge; pure decisions over what `preflight_facts` gathers."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, NamedTuple

#: CNI plugins that the network on the device is made of.
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
CONTAINERD = (1, 6)
SKEW_SECONDS = 300
MIB_NEEDED = 500


class Problem(NamedTuple):
    """One thing that is wrong: a short name for machines, a sentence and a fix for people."""

    code: str
    what: str
    fix: str


def exclusivity(facts: Mapping[str, Any]) -> list[Problem]:
    """Return every sign of another kubelet.

    EdgeCore itself only sees a process named kubelet, and does not even look for that when its metaServer is on; K3s's
    kubelet is part of the process k3s.
    """
    found = []
    for process in facts["processes"]:
        found.append(
            Problem("kubelet", f"process {process['pid']} ({process['name']}) is a kubelet", "stop and remove it first")
        )
    for unit in facts["units"]:
        found.append(Problem("k3s", f"{unit} is {facts['units'][unit]}", "take the device out of that cluster first"))
    for path in facts["files"]:
        found.append(
            Problem("k3s", f"{path} is left from another cluster", "run that cluster's uninstall, or remove it")
        )
    return found


def judge(facts: Mapping[str, Any], wanted_driver: str) -> list[Problem]:
    """Return all problems, those first that no installation can mend.

    :param facts: what `preflight_facts.gather` returns
    :param wanted_driver: cgroup driver that containerd and EdgeCore will get, systemd or cgroupfs
    """
    return [*exclusivity(facts), *_machine(facts, wanted_driver), *_containers(facts)]


def judge_cloud(facts: Mapping[str, Any]) -> list[Problem]:
    """Return what keeps CloudCore from registering nodes.

    Without an address of its own machine it refuses every node, and EdgeCore ends with a panic that names nothing. It
    looks at the machine's name and at the default route.

    :param facts: what `preflight_facts.gather_cloud` returns
    """
    named = any(not ipaddress.ip_address(text.partition("%")[0]).is_loopback for text in facts["name_addresses"])
    if named or facts["default_route"]:
        return []
    what = "there is no default route, and its name has no address but loopback's: CloudCore finds none of its own"
    fix = "add a default route (one to a dummy link will do), or give its name its address in /etc/hosts"
    return [Problem("default_route", what, fix)]


def _machine(facts: Mapping[str, Any], wanted_driver: str) -> list[Problem]:
    found = []
    if not facts["systemd"]:
        found.append(Problem("systemd", "this machine was not booted with systemd", "use one that was"))
    if "memory" not in facts["controllers"]:
        found.append(
            Problem(
                "cgroups",
                "the kernel's memory controller is off",
                "boot with cgroup_enable=memory (Raspberry Pi: in cmdline.txt), then run again",
            )
        )
    if wanted_driver == "systemd" and not facts["systemd"]:
        found.append(Problem("cgroups", "the cgroup driver systemd needs systemd", "use cgroupfs"))
    skew = facts["skew"]
    if skew is not None and abs(skew) > SKEW_SECONDS:
        found.append(
            Problem(
                "clock",
                f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the controller's",
                "set it, and have it kept (systemd-timesyncd, chrony): certificates are judged by it",
            )
        )
    if facts["disk_mib"] is not None and facts["disk_mib"] < MIB_NEEDED:
        found.append(
            Problem("disk", f"{facts['disk_mib']} MiB are free below /var/lib", f"free {MIB_NEEDED} MiB or more")
        )
    return found


def _containers(facts: Mapping[str, Any]) -> list[Problem]:
    found = []
    version = facts["containerd"]
    if version is None:
        found.append(
            Problem("containerd", "containerd is not installed", "install it (Debian: containerd), or a newer image")
        )
    elif tuple(version[:2]) < CONTAINERD:
        said = ".".join(map(str, version))
        found.append(Problem("containerd", f"containerd is {said}", "install 1.6 or newer"))
    if not facts["runc"]:
        found.append(Problem("runc", "runc is not installed", "install it (Debian: runc)"))
    missing = [name for name in CNI_PLUGINS if name not in facts["cni_plugins"]]
    if missing:
        found.append(
            Problem(
                "cni",
                f"{facts['cni_directory']} lacks {', '.join(missing)}",
                "install the CNI plugins (Debian: containernetworking-plugins), or name their directory",
            )
        )
    return found


def explain(problems: list[Problem], what: str = "this device cannot become an edge node of KubeEdge") -> str:
    """One message with every problem and its fix."""
    lines = [f"{problem.code}: {problem.what}; {problem.fix}" for problem in problems]
    return "\n".join([f"{what}:", *lines])

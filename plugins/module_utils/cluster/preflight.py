# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Is this machine fit to be a node of K3s? Pure: facts and limits in, every problem out, each with how to fix it.

`preflight_facts.gather` collects the facts. One check does not hide another: all problems are named at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..device.clock import format_time, parse_time
from ..device.errors import DeviceError
from ..device.preflight import ARCHITECTURES, ERROR, WARNING, Problem
from .errors import ClusterError
from .nodes import check_node_name

SERVER = "server"
AGENT = "agent"
CONTROLLERS = ("cpu", "memory", "pids")
FEATURES = {
    "br_netfilter": "CONFIG_BRIDGE_NETFILTER",
    "overlay": "CONFIG_OVERLAY_FS",
    "vxlan": "CONFIG_VXLAN",
    "nf_conntrack": "CONFIG_NF_CONNTRACK",
    "iptables": "CONFIG_NF_TABLES or CONFIG_IP_NF_IPTABLES",
}
NO_OVERLAY = ("overlay", "overlayfs", "nfs", "nfs4", "vfat", "tmpfs", "9p")
MIN_INODES = 5000
#: Kubelets that are somebody else's, by the name of their process.
OTHERS = {
    "rke2": "RKE2",
    "kubelite": "MicroK8s",
    "k0s": "k0s",
    "kubelet": "a kubelet of its own",
    "edgecore": "EdgeCore",
}


class Limits(NamedTuple):
    """What is asked of the machine. ``accept`` names problems that only warn."""

    controller_time: str
    role: str = SERVER
    node_name: str = "node"
    kubelet: bool = True
    etcd: bool = False
    flannel: str = "vxlan"
    node_ip: str = ""
    min_disk_mib: int = 2048
    min_memory_mib: int = 512
    max_clock_skew: float = 60.0
    accept: tuple[str, ...] = ()


Facts = Mapping[str, Any]


def judge(facts: Facts, limits: Limits) -> list[Problem]:
    """Return every problem, errors first. Problems named in ``limits.accept`` are warnings."""
    found: list[Problem] = []
    for check in CHECKS:
        found += check(facts, limits)
    found = [item._replace(severity=WARNING) if item.name in limits.accept else item for item in found]
    return [item for item in found if item.severity == ERROR] + [item for item in found if item.severity != ERROR]


def _name(facts: Facts, limits: Limits) -> Iterator[Problem]:
    try:
        check_node_name(limits.node_name)
    except ClusterError:
        fix = f"set k3s_{limits.role}_node_name"
        yield Problem("node_name", limits.node_name, "lower-case letters, digits, - and .", fix)


def _architecture(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if facts["architecture"] not in ARCHITECTURES:
        fix = "use another machine: K3s has no program for it"
        yield Problem("architecture", facts["architecture"], " or ".join(ARCHITECTURES), fix)
    elif facts["architecture"] == "armv7l" and limits.etcd:
        fix = "use a 64-bit server, a single server, or an external datastore"
        yield Problem("architecture", "armv7l with embedded etcd", "a 64-bit system", fix)


def _cgroup(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if not limits.kubelet:
        return
    there = facts["cgroup"]["controllers"]
    absent = [name for name in CONTROLLERS if name not in there]
    if not absent:
        return
    fix = f"turn them on at boot: cgroup_enable={' cgroup_enable='.join(absent)}"
    if "Raspberry" in facts["model"]:
        fix = f"set k3s_{limits.role}_boot_arguments: true and reboot (k3s_{limits.role}_reboot: true does it)"
    found = "no {} controller (cgroup v{})".format(" and no ".join(absent), facts["cgroup"]["version"])
    yield Problem("cgroup", found, "the controllers {}".format(", ".join(CONTROLLERS)), fix)


def _kernel(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if not limits.kubelet:
        return
    for name, option in FEATURES.items():
        if name == "vxlan" and limits.flannel != "vxlan":
            continue
        has = facts["features"].get(name)
        if has is None:
            fix = f"see that the kernel has {option}; nothing on this machine tells (no /lib/modules, no configuration)"
            yield Problem(name, "unknown", f"a kernel with {option}", fix, WARNING)
        elif not has:
            fix = f"install the kernel's extra modules (linux-modules-extra), or a kernel with {option}"
            if name == "vxlan":
                fix += ", or set flannel-backend: host-gw when all nodes share one network"
            yield Problem(name, f"not in kernel {facts['kernel']}", f"a kernel with {option}", fix)


def _route(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if facts["routes"] or limits.node_ip:
        return
    fix = (
        "give it one; in a site without a way out a dummy interface will do (ip link add dummy0 type dummy; "
        "ip addr add "
        f"203.0.113.1/32 dev dummy0; ip link set dummy0 up; ip route add default dev dummy0), or set "
        f"k3s_{limits.role}_node_ip"
    )
    yield Problem("default_route", "none", "a default route: K3s takes the node's address from it", fix)


def _clock(facts: Facts, limits: Limits) -> Iterator[Problem]:
    try:
        wanted = parse_time(limits.controller_time, "controller_time").timestamp()
    except DeviceError as error:
        raise ClusterError(error.message) from error
    skew = facts["time"] - wanted
    if abs(skew) > limits.max_clock_skew:
        found = f"{format_time(facts['time'])} ({abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'})"
        fix = f"let it synchronise its time, or once by hand: date -u -s @{wanted:.0f}; certificates fail otherwise"
        yield Problem("clock", found, f"within {limits.max_clock_skew:g} s of {format_time(wanted)}", fix)


def _disk(facts: Facts, limits: Limits) -> Iterator[Problem]:
    disk = facts["disk"]
    where = f"{disk['path']} (on {disk['mount']})"
    started = facts["initialized"] or facts["joined"]
    if disk["read_only"] or disk["noexec"]:
        found = f"{where} is {'read-only' if disk['read_only'] else 'mounted noexec'}"
        yield Problem("disk", found, "K3s unpacks its programs there", "remount it, or set another data directory")
    if disk["free_mib"] < limits.min_disk_mib:
        fix = "free space there, put the data directory elsewhere, or lower the limit (min_disk_mib)"
        severity = WARNING if started else ERROR
        yield Problem("disk", f"{disk['free_mib']} MiB free at {where}", f"{limits.min_disk_mib} MiB", fix, severity)
    if disk["inodes"] and disk["free_inodes"] < MIN_INODES:
        yield Problem(
            "disk", f"{disk['free_inodes']} free inodes at {where}", f"{MIN_INODES} or more", "remove files there"
        )
    if limits.kubelet and disk["type"] in NO_OVERLAY:
        fix = "put it on ext4 or xfs, or set snapshotter: native (slow, large)"
        yield Problem("disk", f"{where} is {disk['type']}", "a file system that overlays can lie on", fix, WARNING)
    if limits.etcd and disk["source"].startswith("/dev/mmcblk"):
        fix = "put the data directory on an SSD, or do without etcd (single, external): it wears an SD card out"
        yield Problem("sd_card", f"{where} is on {disk['source']}", "no etcd on an SD card", fix, WARNING)


def _memory(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if facts["memory_mib"] < limits.min_memory_mib:
        fix = "use a machine with more memory"
        yield Problem("memory", f"{facts['memory_mib']} MiB", f"{limits.min_memory_mib} MiB or more", fix, WARNING)


def _swap(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if facts["swap"] and limits.kubelet:
        fix = "swapoff -a and take it out of /etc/fstab (Raspberry Pi OS: dphys-swapfile)"
        yield Problem(
            "swap", ", ".join(facts["swap"]), "no swap: memory limits and evictions count without it", fix, WARNING
        )


def ports(limits: Limits) -> list[tuple[str, int, str]]:
    """(protocol, port, what for) of what a node has to be able to bind."""
    found = []
    if limits.role == SERVER:
        found.append(("tcp", 6443, "the API server"))
        if limits.etcd:
            found += [("tcp", 2379, "etcd's clients"), ("tcp", 2380, "etcd's members")]
    if limits.kubelet:
        found.append(("tcp", 10250, "the kubelet"))
        if limits.flannel == "vxlan":
            found.append(("udp", 8472, "VXLAN"))
    return found


def _ports(facts: Facts, limits: Limits) -> Iterator[Problem]:
    for protocol, port, purpose in ports(limits):
        for other in facts["listeners"]:
            if (other["protocol"], other["port"]) == (protocol, port) and not other["ours"]:
                who = other["process"] or "another program"
                found = f"{who} has {port}/{protocol} on {other['address']}"
                yield Problem("port", found, f"{port}/{protocol} free for {purpose}", f"stop {who}")
                break


def _others(facts: Facts, limits: Limits) -> Iterator[Problem]:
    """One kubelet per machine: K3s does not notice EdgeCore, and EdgeCore does not notice K3s's embedded kubelet."""
    mine = "k3s" if limits.role == SERVER else "k3s-agent"
    wanted = "no other Kubernetes on this machine"
    names = {item["name"] for item in facts["processes"] if not item["ours"]}
    if "edgecore" in facts["units"] or "edgecore" in names:
        names.discard("edgecore")
        fix = "take this machine out of kubeedge_edges (state absent), or out of the K3s groups"
        yield Problem("edgecore", "EdgeCore is installed here", wanted, fix)
    for name in sorted(names):
        who = OTHERS.get(name, f"{name}, which this collection did not start,")
        yield Problem("kubelet", f"{who} runs here", wanted, "remove it with its own uninstaller, then run again")
    other = ({"k3s", "k3s-agent"} & set(facts["units"])) - {mine}
    if other:
        fix = "remove it first (state absent): a machine is either server or agent"
        yield Problem("other_role", f"{other.pop()}.service is installed here", f"only {mine}.service", fix)


CHECKS = (_name, _architecture, _cgroup, _kernel, _route, _others, _ports, _clock, _disk, _memory, _swap)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Take away what K3s leaves when its unit is stopped: shims, mounts, interfaces, firewall rules, directories."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from .errors import ClusterError

LINKS = ("cni0", "flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", "kube-ipvs0", "kube-dummy-if")
STATE = ("/run/k3s", "/run/flannel", "/var/lib/kubelet", "/var/lib/cni", "/etc/cni", "/etc/rancher/node")
PARENTS = ("/etc/rancher", "/var/lib/rancher")
RULES = re.compile(r"KUBE-|CNI-|cni0|flannel", re.IGNORECASE)
GRACE = 10.0


class Left(NamedTuple):
    """What is still there, each list empty when nothing is."""

    processes: list[int]
    mounts: list[str]
    links: list[str]
    rules: list[str]
    paths: list[str]


def k3s_mounts(text: str, data_dir: str) -> list[str]:
    """Mount points of K3s in the text of /proc/self/mounts, the deepest first. Pure."""
    places = ("/run/k3s", "/var/lib/kubelet", data_dir, "/run/netns/cni-", "/run/flannel")
    points = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), line.split()[1]) for line in text.splitlines()]
    # A directory that is a disk of its own is the administrator's: it is emptied and stays.
    kept = (data_dir, "/var/lib/kubelet")
    inside = [point for point in points if point not in kept and point.startswith(tuple(_below(at) for at in places))]
    ours = [*inside, *(point for point in points if point in ("/run/k3s", "/run/flannel"))]
    return sorted(ours, key=lambda point: (-point.count("/"), point))


def _below(place: str) -> str:
    return place if place.endswith("-") else place + "/"


def without_k3s(rules: str) -> str:
    """The text of iptables-save without the chains and rules of Kubernetes, flannel and CNI. Pure."""
    return "".join(line for line in rules.splitlines(keepends=True) if not RULES.search(line))


def look(data_dir: str, paths: Iterable[str]) -> Left:
    """What is left on this machine."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as stream:
        mounts = k3s_mounts(stream.read(), data_dir)
    links = [name for name in _links() if name in LINKS or _veth_of(name)]
    rules = [tool for tool in _firewalls() if RULES.search(_output([f"{tool}-save"]))]
    there = [path for path in dict.fromkeys([*paths, *STATE]) if os.path.lexists(path) and not _empty_mount(path)]
    return Left(_processes(data_dir), mounts, links, rules, there)


def remove(left: Left, data_dir: str) -> None:
    """Remove it, in the order in which one thing holds another. Raises ClusterError naming what stays."""
    _end(left.processes)
    for point in left.mounts:
        _output(["umount", "--lazy", point])
    for name in _output(["ip", "netns", "list"]).splitlines():
        if name.startswith("cni-"):
            _output(["ip", "netns", "delete", name.split(maxsplit=1)[0]])
    for name in left.links:
        _output(["ip", "link", "delete", name])
    for tool in left.rules:
        kept = without_k3s(_output([f"{tool}-save"]))
        # What is flushed and not restored would open or close the whole machine, so it is one step.
        _output([f"{tool}-restore"], kept)
    for path in left.paths:
        _remove_path(path)
    for path in PARENTS:
        with suppress(OSError):  # somebody else's is in there, or it is a mount point: it stays
            os.rmdir(path)
    still = look(data_dir, left.paths)
    if any(still):
        named = [f"{name} {', '.join(map(str, value))}" for name, value in still._asdict().items() if value]
        raise ClusterError(f"still there: {'; '.join(named)}; see what holds it (lsof, mount), and run again")


def _processes(data_dir: str) -> list[int]:
    """Shims of containerd and what K3s unpacked and runs: their program or command line is K3s's."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            program = os.readlink(f"/proc/{pid}/exe")
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                command = stream.read()
        except OSError:
            continue
        shim = b"containerd-shim" in command and b"/run/k3s/containerd" in command
        if shim or program.startswith(f"{data_dir}/data/"):
            found.append(int(pid))
    return sorted(found)


def _end(pids: list[int]) -> None:
    """End processes and what they started: a shim's children are the pods."""
    every = [pid for root in pids for pid in [root, *_children(root)]]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in every:
            try:
                os.kill(pid, number)
            except OSError:
                continue
        end = time.monotonic() + GRACE
        while time.monotonic() < end and any(os.path.exists(f"/proc/{pid}/exe") and _alive(pid) for pid in every):
            time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split(maxsplit=1)[0] != "Z"
    except (OSError, IndexError):
        return False


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
            direct = [int(text) for text in stream.read().split()]
    except OSError:
        return []
    return [found for child in direct for found in [child, *_children(child)]]


def _links() -> list[str]:
    try:
        return sorted(os.listdir("/sys/class/net"))
    except OSError:
        return []


def _veth_of(name: str) -> bool:
    master = f"/sys/class/net/{name}/master"
    return name.startswith("veth") and os.path.islink(master) and os.path.basename(os.readlink(master)) == "cni0"


def _firewalls() -> list[str]:
    return [
        tool for tool in ("iptables", "ip6tables") if shutil.which(f"{tool}-save") and shutil.which(f"{tool}-restore")
    ]


def _empty_mount(path: str) -> bool:
    """A mount point with nothing in it is the administrator's and stays."""
    return os.path.ismount(path) and not os.listdir(path)


def _remove_path(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
    elif os.path.ismount(path):
        for name in os.listdir(path):
            _remove_path(os.path.join(path, name))
    else:
        shutil.rmtree(path, ignore_errors=True)


def _output(command: list[str], given: str | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            input=given.encode("utf-8") if given is not None else None,
            stdin=subprocess.DEVNULL if given is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Take away what EdgeCore and its pods leave when its unit is gone: pods, images, mounts, interface, rules, files."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ..cluster.removal import RULES, without_k3s
from ..device import fsutil
from . import images
from .errors import KubeedgeError

LINK = "edgeai0"
MOUNTS = ("/var/lib/edged", "/run/netns/cni-")
#: What EdgeCore and the pods write; what the role wrote is named by the caller.
STATE = (
    "/etc/kubeedge",
    "/var/lib/kubeedge",
    "/var/lib/edged",
    "/var/log/pods",
    "/var/log/containers",
    "/var/lib/cni/networks/edgeai",
)
RESULTS = "/var/lib/cni/results/edgeai-*"
_FIREWALLS = ("iptables", "ip6tables")


class Left(NamedTuple):
    """What is still there, each list empty when nothing is."""

    containers: list[str]
    images: list[str]
    mounts: list[str]
    links: list[str]
    rules: list[str]
    paths: list[str]


def mount_points(text: str) -> list[str]:
    """Return the mount points of pods in the text of /proc/self/mounts, the deepest first. Pure."""
    points = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), line.split()[1]) for line in text.splitlines()]
    # A directory of state may be a disk of its own, which stays.
    ours = [point for point in points if any(point.startswith(at if at[-1] == "-" else at + "/") for at in MOUNTS)]
    return sorted(ours, key=lambda point: (-point.count("/"), point))


def look(paths: Sequence[str]) -> Left:
    """Return what is left on this machine. Where containerd does not answer, it holds nothing that runs."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as stream:
        mounts = mount_points(stream.read())
    try:
        containers, named = images.containers(), sorted(images.present())
    except KubeedgeError:
        containers, named = [], []
    links = [LINK] if os.path.isdir(f"/sys/class/net/{LINK}") else []
    rules = [tool for tool in _FIREWALLS if RULES.search(_output([f"{tool}-save"]))]
    every = dict.fromkeys([*paths, *STATE, *sorted(glob.glob(RESULTS))])
    there = [path for path in every if os.path.lexists(path) and not _empty_mount(path)]
    return Left(containers, named, mounts, links, rules, there)


def remove(left: Left, paths: Sequence[str]) -> None:
    """Remove it, in the order in which one thing holds another. Raises KubeedgeError naming what stays."""
    for container in left.containers:
        images.end(container)
    if left.images:
        images.forget(left.images)
    for point in left.mounts:
        _output(["umount", "--lazy", point])
        if point.startswith("/run/netns/"):
            fsutil.unlink_quietly(point)
    for name in left.links:
        _output(["ip", "link", "delete", name])
    for tool in left.rules:
        # What is flushed and not restored would open or close the whole machine, so it is one step.
        _output([f"{tool}-restore"], without_k3s(_output([f"{tool}-save"])))
    for path in left.paths:
        directory = os.path.isdir(path) and path in paths
        _remove_path(path)
        if directory:
            with suppress(OSError):  # what it was in is shared: it goes when nothing else is there
                os.rmdir(os.path.dirname(path))
    still = look(paths)
    if any(still):
        named = [f"{name} {', '.join(value)}" for name, value in still._asdict().items() if value]
        raise KubeedgeError(f"still there: {'; '.join(named)}; see what holds it (lsof, mount), and run again")


def _output(command: list[str], given: str | None = None) -> str:
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _empty_mount(path: str) -> bool:
    return os.path.ismount(path) and not os.listdir(path)


def _remove_path(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        fsutil.remove(path)
    elif os.path.ismount(path):
        for name in os.listdir(path):
            _remove_path(os.path.join(path, name))
    else:
        fsutil.remove_tree(path)

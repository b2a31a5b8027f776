# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What `preflight` decides over: /proc, systemd and a few files. Reads only; what cannot be read is empty."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from typing import Any

KUBELETS = ("kubelet", "k3s", "k3s-server", "k3s-agent", "rke2", "microk8s", "kubelite")
UNITS = ("k3s.service", "k3s-agent.service", "kubelet.service", "rke2-server.service", "rke2-agent.service")
#: What K3s leaves on a machine: its units, its data and the node's password.
FILES = (
    "/etc/systemd/system/k3s.service",
    "/etc/systemd/system/k3s-agent.service",
    "/var/lib/rancher/k3s/agent",
    "/etc/rancher/node/password",
    "/var/lib/kubelet/config.yaml",
)


def gather(cni_directory: str, now: float | None, root: str = "/") -> dict[str, Any]:
    """Return the facts.

    :param cni_directory: where the CNI plugins should be
    :param now: the controller's time in seconds since the epoch, None when it is not known
    :param root: where the device's file system is, for tests
    """
    return {
        "processes": kubelets(_at(root, "/proc")),
        "units": _active_units(),
        "files": [path for path in FILES if os.path.lexists(_at(root, path))],
        "systemd": os.path.isdir(_at(root, "/run/systemd/system")),
        "cgroup_version": 2 if os.path.exists(_at(root, "/sys/fs/cgroup/cgroup.controllers")) else 1,
        "controllers": controllers(root),
        "containerd": _containerd_version(),
        "runc": shutil.which("runc", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is not None,
        "cni_directory": cni_directory,
        "cni_plugins": _names(_at(root, cni_directory)),
        "skew": None if now is None else time.time() - now,
        "disk_mib": _free_mib(_at(root, "/var/lib")),
    }


def gather_cloud(root: str = "/") -> dict[str, Any]:
    """Return where CloudCore looks for the address of its own machine.

    :param root: where the machine's file system is, for tests
    """
    return {"default_route": _default_route(root), "name_addresses": _addresses(socket.gethostname())}


def _default_route(root: str) -> bool:
    """Whether the kernel has a default route, of IPv4 or of IPv6."""
    fields = [line.split() for line in _text(_at(root, "/proc/net/route")).splitlines()[1:]]
    if any(len(line) > 7 and line[1] == line[7] == "00000000" and int(line[3], 16) & 1 for line in fields):
        return True
    # The kernel's own last entry of IPv6, on lo, refuses everything.
    fields = [line.split() for line in _text(_at(root, "/proc/net/ipv6_route")).splitlines()]
    return any(len(line) > 9 and line[0] == "0" * 32 and line[1] == "00" and line[9] != "lo" for line in fields)


def _addresses(name: str) -> list[str]:
    """The addresses of a name, none when it has none."""
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def _at(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 16)
    except OSError:
        return ""


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def kubelets(proc: str) -> list[dict[str, Any]]:
    """Return the processes below ``proc`` that are, or hold, a kubelet."""
    found = []
    for pid in _names(proc):
        name = _text(os.path.join(proc, pid, "comm")).strip() if pid.isdigit() else ""
        if name in KUBELETS:
            found.append({"pid": int(pid), "name": name})
    return found


def controllers(root: str) -> list[str]:
    """Return the cgroup controllers that are on, with cgroup v2 and v1."""
    unified = _text(_at(root, "/sys/fs/cgroup/cgroup.controllers"))
    if unified:
        return sorted(unified.split())
    lines = [line.split() for line in _text(_at(root, "/proc/cgroups")).splitlines() if not line.startswith("#")]
    return sorted(fields[0] for fields in lines if len(fields) == 4 and fields[3] == "1")


def _active_units() -> dict[str, str]:
    """Return those of `UNITS` that are there and not off, with their state."""
    found = {}
    for unit in UNITS:
        state = _output(["systemctl", "is-active", unit]).strip()
        if state in ("active", "activating", "reloading", "deactivating"):
            found[unit] = state
    return found


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _containerd_version() -> list[int] | None:
    """Return containerd's version, None when it is not there; Debian writes 1.6.20~ds1."""
    match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", _output(["containerd", "--version"]))
    return [int(part) for part in match.groups()] if match else None


def _free_mib(path: str) -> int | None:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize >> 20

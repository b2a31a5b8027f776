# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a machine is and has, before anything is installed on it: the system's Python and /proc, nothing else.

Nothing here decides and nothing changes the machine; `preflight.judge` decides over what is returned.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import pwd
import re
import socket
import struct
import subprocess
import sys
import time
from typing import Any

from . import removal
from .errors import DeviceError
from .settings import read_settings

TIME_UNITS = ("systemd-timesyncd", "chrony", "chronyd", "ntpsec", "ntp", "ntpd", "openntpd")
#: By this comment (GECOS) the role knows a user that it made, and may change and remove.
ACCOUNT_COMMENT = "edgeai.fleet model server"
OUR_UNIT = re.compile(r"/edgeai-[a-z]+\.(service|socket)")
MIB = 1024 * 1024


def gather(edge_root: str, runtime_home: str, listen: str, port: int, user: str, device_id: str) -> dict[str, Any]:
    """Return the facts that `preflight.judge` decides over; what cannot be read is empty, never an error."""
    return {
        "time": time.time(),
        "uid": os.geteuid(),
        "architecture": os.uname().machine,
        "os": parse_os_release(_text("/etc/os-release") or _text("/usr/lib/os-release")),
        "python": list(sys.version_info[:3]),
        "python_bits": struct.calcsize("P") * 8,
        "python_modules": {name: importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip")},
        "kernel": _numbers(os.uname().release),
        "kernel_features": _kernel_features(),
        "systemd": _systemd(),
        "container": _text("/run/systemd/container").strip(),
        "disks": {
            "edge_root": _disk(edge_root, os.path.exists(os.path.join(edge_root, "device.json"))),
            "edge_runtime_home": _disk(runtime_home, os.path.exists(os.path.join(runtime_home, "current"))),
        },
        "place": _place(edge_root),
        "memory_mib": _meminfo("MemTotal"),
        "memory_available_mib": _meminfo("MemAvailable"),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "load": os.getloadavg()[0],
        "time_sync": _time_sync(),
        "listen": listen,
        "port": port,
        "listeners": _listeners(port),
        "first_port": _number(_text("/proc/sys/net/ipv4/ip_unprivileged_port_start"), 1024),
        "listen_possible": _listen_possible(listen),
        "hostname": socket.gethostname(),
        "machine_id": _text("/etc/machine-id").strip(),
        "device_id": device_id,
        "known_device_id": _known_device_id(edge_root),
        "service_user_name": user,
        "service_user": _account(user),
    }


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(MIB)
    except OSError:
        return ""


def _number(text: str, default: int) -> int:
    return int(text) if text.strip().isdigit() else default


def _numbers(text: str) -> list[int]:
    """The leading numbers of a version: 6.1.0-18-amd64 gives [6, 1, 0]."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(part) for part in found.group().split(".")] if found else []
    return [*numbers, 0, 0][: max(2, len(numbers))]


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=15,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def parse_os_release(text: str) -> dict[str, str]:
    """Parse the ``NAME="value"`` lines of os-release(5)."""
    found = {}
    for line in text.splitlines():
        name, mark, value = line.strip().partition("=")
        if mark and not name.startswith("#"):
            found[name] = value.strip().strip("\"'")
    return found


def _kernel_features() -> dict[str, bool]:
    controllers = _text("/sys/fs/cgroup/cgroup.controllers").split()
    enabled = [line.split() for line in _text("/proc/cgroups").splitlines() if line.startswith("memory")]
    # With cgroup v1 the controllers are in directories of their own; /proc/cgroups says which are on.
    version1 = os.path.isdir("/sys/fs/cgroup/memory") and bool(enabled) and enabled[0][-1] == "1"
    return {
        "seccomp": bool(_text("/proc/sys/kernel/seccomp/actions_avail")),
        "mount namespaces": os.path.exists("/proc/self/ns/mnt"),
        "memory cgroup": "memory" in controllers or version1,
    }


def _systemd() -> dict[str, Any]:
    found = re.match(r"systemd (\d+)", _output(["systemctl", "--version"]))
    return {"booted": os.path.isdir("/run/systemd/system"), "version": int(found.group(1)) if found else 0}


def _existing(path: str) -> str:
    """The path itself or the nearest directory above it that is there."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.path.realpath(path)


def parse_mounts(text: str, path: str) -> tuple[str, str, list[str]]:
    """(mount point, type, options) of the file system that holds ``path``, from the text of /proc/self/mounts."""
    best = ("/", "", [""])
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), fields[1])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # The last of several mounts on one point is the one that is seen.
        if inside and len(point) >= len(best[0]):
            best = (point, fields[2], fields[3].split(","))
    return best


def _disk(path: str, in_use: bool) -> dict[str, Any]:
    there = _existing(path)
    point, kind, options = parse_mounts(_text("/proc/self/mounts"), there)
    found = os.statvfs(there)
    return {
        "path": path,
        "mount": point,
        "type": kind,
        "read_only": "ro" in options or bool(found.f_flag & os.ST_RDONLY),
        "noexec": "noexec" in options,
        "free_mib": found.f_bavail * found.f_frsize // MIB,
        "inodes": found.f_files,
        "free_inodes": found.f_favail,
        "in_use": in_use,
    }


def _place(path: str) -> dict[str, Any]:
    try:
        seen = removal.look(path)
    except DeviceError:
        return {"path": path, "entries": [], "directory": True}
    entries = None if seen.entries is None else list(seen.entries)[:200]
    return {"path": path, "entries": entries, "directory": seen.directory}


def _meminfo(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return int(found.group(1)) // 1024 if found else 0


def _time_sync() -> dict[str, Any]:
    states = _output(["systemctl", "is-active", *[f"{name}.service" for name in TIME_UNITS]]).split()
    units = [name for name, state in zip(TIME_UNITS, states) if state == "active"]
    said = _output(["timedatectl", "show", "--property=NTPSynchronized", "--value"]).strip()
    timesyncd = any(os.path.exists(base + "/systemd/systemd-timesyncd") for base in ("/lib", "/usr/lib"))
    return {"units": units, "synchronized": bool(units) and said == "yes", "timesyncd": timesyncd}


def parse_listeners(text: str) -> list[tuple[str, int, str]]:
    """(address, port, inode) of the listening sockets in /proc/net/tcp or tcp6."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != "0A":
            continue
        address, _mark, port = fields[1].rpartition(":")
        # The kernel prints 32-bit words in its own byte order.
        words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
        raw = struct.pack(f"={len(words)}I", *words)
        found.append((str(ipaddress.ip_address(raw)), int(port, 16), fields[9]))
    return found


def _listeners(port: int) -> list[dict[str, Any]]:
    sockets = [item for name in ("tcp", "tcp6") for item in parse_listeners(_text(f"/proc/net/{name}"))]
    wanted = {f"socket:[{inode}]": (address, inode) for address, number, inode in sockets if number == port}
    if not wanted:
        return []
    owners = _owners(set(wanted))
    found = []
    for link, (address, _inode) in sorted(wanted.items()):
        pid = owners.get(link)
        unit = _text(f"/proc/{pid}/cgroup") if pid else ""
        command = _text(f"/proc/{pid}/cmdline").replace("\0", " ").strip() if pid else ""
        ours = bool(OUR_UNIT.search(unit)) or "edgeai-device.pyz" in command
        # systemd holds the socket of a socket-activated server.
        ours = ours or (pid == 1 and os.path.exists("/etc/systemd/system/edgeai-server.socket"))
        process = "{} (pid {})".format(_text(f"/proc/{pid}/comm").strip(), pid) if pid else ""
        found.append({"address": address, "port": port, "process": process, "ours": ours})
    return found


def _owners(links: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            for fd in os.listdir(f"/proc/{name}/fd"):
                link = os.readlink(f"/proc/{name}/fd/{fd}")
                # A server may share its socket with the one that made it (systemd): the server counts.
                if link in links and int(name) > found.get(link, 0):
                    found[link] = int(name)
        except OSError:
            continue
    return found


def _listen_possible(listen: str) -> bool:
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((listen, 0))
    except OSError:
        return False
    return True


def _known_device_id(edge_root: str) -> str:
    try:
        settings = read_settings(edge_root)
    except DeviceError:
        return ""  # damaged settings: provisioning writes them anew
    return settings.device_id if settings else ""


def _account(name: str) -> dict[str, Any] | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    ours = found.pw_gecos == ACCOUNT_COMMENT
    return {"uid": found.pw_uid, "shell": found.pw_shell, "ours": ours}

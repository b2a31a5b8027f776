# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a machine has that a node of K3s needs: /proc, /sys and /etc below a root that can be moved, nothing else.

Nothing here decides; `preflight.judge` decides over what is returned. What cannot be read is empty, never an error.
"""

from __future__ import annotations

import gzip
import os
import re
import time
from typing import Any

from ..device.hostfs import Tree
from ..device.preflight_facts import parse_listeners, parse_mounts

MODULES = ("br_netfilter", "overlay", "vxlan", "nf_conntrack", "iptables")
#: What stands for a feature: names of modules and of kernel options. iptables is there in either of its two kinds.
SIGNS = {
    "br_netfilter": (("br_netfilter",), ("BRIDGE_NETFILTER",)),
    "overlay": (("overlay",), ("OVERLAY_FS",)),
    "vxlan": (("vxlan",), ("VXLAN",)),
    "nf_conntrack": (("nf_conntrack",), ("NF_CONNTRACK",)),
    "iptables": (("ip_tables", "nf_tables", "nft_compat"), ("IP_NF_IPTABLES", "NF_TABLES")),
}
#: Files that only exist with a feature.
TRACES = {
    "br_netfilter": ("/proc/sys/net/bridge/bridge-nf-call-iptables",),
    "vxlan": ("/sys/module/vxlan",),
    "nf_conntrack": ("/proc/sys/net/netfilter/nf_conntrack_max", "/proc/net/nf_conntrack"),
    "iptables": ("/proc/net/ip_tables_names", "/sys/module/nf_tables", "/sys/module/ip_tables"),
}
KUBELETS = ("kubelet", "k3s-server", "k3s-agent", "rke2", "kubelite", "k0s", "edgecore")
UNITS = {
    "k3s": ("/etc/systemd/system/k3s.service",),
    "k3s-agent": ("/etc/systemd/system/k3s-agent.service",),
    "edgecore": (
        "/etc/systemd/system/edgecore.service",
        "/usr/lib/systemd/system/edgecore.service",
        "/lib/systemd/system/edgecore.service",
        "/etc/kubeedge/config/edgecore.yaml",
    ),
}
OURS = re.compile(r"/k3s(-agent)?\.service")
MIB = 1024 * 1024


def gather(data_dir: str, root: str = "/") -> dict[str, Any]:
    """Return the facts of the machine whose file tree is below ``root``. Disk and clock are always this machine's."""
    tree = Tree(root)
    release = tree.text("/proc/sys/kernel/osrelease") or ""
    command = tree.text("/proc/cmdline") or ""
    return {
        "time": time.time(),
        "architecture": tree.text("/proc/sys/kernel/arch") or os.uname().machine,
        "kernel": release,
        "command_line": command,
        "model": tree.text("/proc/device-tree/model") or "",
        "cgroup": _cgroup(tree),
        "features": _features(tree, release),
        "routes": _default_routes(tree),
        "memory_mib": _memory(tree),
        "swap": [
            line.split(maxsplit=1)[0] for line in (tree.text("/proc/swaps") or "").splitlines()[1:] if line.strip()
        ],
        "disk": _disk(tree, data_dir),
        "listeners": _listeners(tree),
        "processes": _processes(tree),
        "units": [name for name, paths in UNITS.items() if any(tree.exists(path) for path in paths)],
        "initialized": bool(
            tree.names(f"{data_dir}/server/db/etcd/member") or tree.exists(f"{data_dir}/server/db/state.db")
        )
        or tree.exists(f"{data_dir}/server/tls/server-ca.crt"),
        "joined": tree.exists(f"{data_dir}/agent/client-kubelet.crt") and tree.exists("/etc/rancher/node/password"),
    }


def _cgroup(tree: Tree) -> dict[str, Any]:
    unified = tree.text("/sys/fs/cgroup/cgroup.controllers")
    if unified is not None:
        return {"version": 2, "controllers": unified.split()}
    rows = [line.split() for line in (tree.text("/proc/cgroups") or "").splitlines() if not line.startswith("#")]
    on = [row[0] for row in rows if len(row) == 4 and row[3] == "1"]
    return {"version": 1, "controllers": [name for name in on if tree.exists(f"/sys/fs/cgroup/{name}")]}


def _features(tree: Tree, release: str) -> dict[str, bool | None]:
    """Feature -> whether the kernel has it; None when nothing on this machine tells."""
    base = f"/lib/modules/{release}"
    listed = [tree.text(f"{base}/{name}") for name in ("modules.builtin", "modules.dep")]
    config = kernel_config(tree, release)
    filesystems = (tree.text("/proc/filesystems") or "").split()
    loaded = {line.split(maxsplit=1)[0] for line in (tree.text("/proc/modules") or "").splitlines() if line.strip()}
    known = set(
        re.findall(r"/([\w-]+)\.ko(?:\.\w+)?(?::|\s|$)", "\n".join(text for text in listed if text), re.MULTILINE)
    )
    known = {name.replace("-", "_") for name in known} | loaded
    tells = any(text is not None for text in listed) or bool(config)
    found: dict[str, bool | None] = {}
    for name, (modules, options) in SIGNS.items():
        seen = bool(known & set(modules)) or any(config.get(option) for option in options)
        seen = seen or any(tree.exists(path) for path in TRACES.get(name, ())) or name in filesystems
        found[name] = True if seen else False if tells else None
    return found


def kernel_config(tree: Tree, release: str) -> dict[str, bool]:
    """The options of the kernel's configuration, where it is kept; empty where it is not."""
    text = tree.text(f"/boot/config-{release}")
    if text is None:
        raw = tree.read("/proc/config.gz")
        try:
            text = gzip.decompress(raw).decode("utf-8", "replace") if raw else ""
        except (OSError, EOFError):
            text = ""
    return dict.fromkeys(re.findall(r"^CONFIG_(\w+)=[ym]$", text, re.MULTILINE), True)


def _default_routes(tree: Tree) -> list[str]:
    found = []
    for line in (tree.text("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000" and int(fields[3], 16) & 1:
            found.append(fields[0])
    for line in (tree.text("/proc/net/ipv6_route") or "").splitlines():
        fields = line.split()
        # The kernel's own last entry, on lo, refuses everything.
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            found.append(fields[9])
    return sorted(set(found))


def _memory(tree: Tree) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", tree.text("/proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) // 1024 if found else 0


def _disk(tree: Tree, data_dir: str) -> dict[str, Any]:
    place = os.path.abspath(tree.locate(data_dir) or "/")
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = os.statvfs(place)
    mounts = tree.text("/proc/self/mounts") or tree.text("/proc/mounts") or ""
    point, kind, options = parse_mounts(mounts, data_dir)
    source = next(
        (line.split(maxsplit=1)[0] for line in reversed(mounts.splitlines()) if f" {point} {kind} " in line), ""
    )
    return {
        "path": data_dir,
        "mount": point,
        "type": kind,
        "source": source,
        "noexec": "noexec" in options,
        "read_only": "ro" in options,
        "free_mib": free.f_bavail * free.f_frsize // MIB,
        "inodes": free.f_files,
        "free_inodes": free.f_favail,
    }


def _listeners(tree: Tree) -> list[dict[str, Any]]:
    """What listens on TCP, and what is bound on UDP: {protocol, address, port, process, ours}."""
    sockets = [
        ("tcp", item) for name in ("tcp", "tcp6") for item in parse_listeners(tree.text(f"/proc/net/{name}") or "")
    ]
    sockets += [("udp", item) for name in ("udp", "udp6") for item in _bound(tree.text(f"/proc/net/{name}") or "")]
    wanted = {f"socket:[{inode}]" for _protocol, (_address, _port, inode) in sockets}
    owners = _owners(tree, wanted) if sockets else {}
    found = []
    for protocol, (address, port, inode) in sockets:
        pid = owners.get(f"socket:[{inode}]", "")
        name = tree.text(f"/proc/{pid}/comm") or "" if pid else ""
        # A VXLAN device has its socket in the kernel: no process holds it. Flannel's device says that it is flannel's.
        kernels = protocol == "udp" and not pid and tree.exists("/sys/class/net/flannel.1")
        ours = kernels or bool(OURS.search(tree.text(f"/proc/{pid}/cgroup") or "")) if pid or kernels else False
        process = f"{name} (pid {pid})" if pid else ""
        found.append({"protocol": protocol, "address": address, "port": port, "process": process, "ours": ours})
    return found


def _bound(text: str) -> list[tuple[str, int, str]]:
    """As `parse_listeners`, of unconnected UDP sockets, whose state (07) is the one column that differs."""
    return parse_listeners(re.sub(r"(?m)^(\s*\d+: \S+ \S+) 07 ", r"\1 0A ", text))


def _owners(tree: Tree, wanted: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pid in tree.names("/proc"):
        if not pid.isdigit():
            continue
        for fd in tree.names(f"/proc/{pid}/fd"):
            link = tree.link_name(f"/proc/{pid}/fd/{fd}")
            if link in wanted:
                found[link] = pid
    return found


def _processes(tree: Tree) -> list[dict[str, Any]]:
    """The kubelets that run here, embedded ones among them: {name, pid, ours}."""
    found = []
    for pid in tree.names("/proc"):
        name = (tree.text(f"/proc/{pid}/comm") or "") if pid.isdigit() else ""
        if name in KUBELETS:
            ours = bool(OURS.search(tree.text(f"/proc/{pid}/cgroup") or ""))
            found.append({"name": name, "pid": int(pid), "ours": ours})
    return found

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the model server's unit may use on this device: which device nodes, how much memory, which exceptions.

`confine` decides from facts; the functions that read the machine are at the end.
"""

from __future__ import annotations

import contextlib
import grp
import os
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .hostfs import Tree

#: Device nodes by kind of accelerator: (directory, pattern of the name).
NODES: dict[str, tuple[tuple[str, str], ...]] = {
    "jetson": (
        ("/dev", r"nvhost-.+|nvmap|nvgpu|nvidia\d+|nvidiactl|nvidia-uvm|nvidia-modeset|nvsciipc|tegra_dc_ctrl"),
        ("/dev/nvgpu/igpu0", r".+"),
        ("/dev/dri", r"renderD\d+"),
    ),
    "nvidia-gpu": (("/dev", r"nvidia\d+|nvidiactl|nvidia-uvm|nvidia-uvm-tools"), ("/dev/nvidia-caps", r".+")),
    "amd-gpu": (("/dev", r"kfd"), ("/dev/dri", r"renderD\d+")),
    "intel-gpu": (("/dev/dri", r"renderD\d+"),),
    "intel-npu": (("/dev/accel", r"accel\d+"),),
    "amd-npu": (("/dev/accel", r"accel\d+"),),
    "coral": (("/dev", r"apex_\d+"),),
    "hailo": (("/dev", r"hailo\d+"),),
    "rockchip-npu": (
        ("/dev", r"rknpu"),
        ("/dev/dri", r"renderD\d+"),
        ("/dev/accel", r"accel\d+"),
        ("/dev/dma_heap", r".+"),
    ),
    "qualcomm-htp": (("/dev", r"fastrpc-cdsp.*"), ("/dev/dma_heap", r"system")),
}
_GPU_VENDOR = {"intel-gpu": "0x8086", "amd-gpu": "0x1002"}
#: Runtimes that never make code at run time, on a CPU: everything else needs memory that is writable and executable.
_NO_JIT = ("onnxruntime",)
MEMORY_FLOOR_MIB = 192
_COMMON_GROUPS = frozenset({"root"})


@dataclass(frozen=True)
class Node:
    """A device node, and the group whose members may use it (None: only root, or everyone)."""

    path: str
    group: str | None


@dataclass(frozen=True)
class Confinement:
    """What the unit's file is rendered from.

    ``devices`` are values of DeviceAllow, ``groups`` of SupplementaryGroups; both are empty on a CPU. ``jit``: the
    runtime compiles code, so memory that is writable and executable cannot be denied. ``netlink``: its library asks
    the kernel for devices over netlink. Memory in MiB; ``memory_max`` is 0 when the kernel cannot enforce it.
    """

    accelerator: str
    runtime: str | None
    devices: list[str]
    groups: list[str]
    jit: bool
    netlink: bool
    memory_mib: int
    memory_high_mib: int
    memory_max_mib: int
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def confine(
    facts: Mapping[str, Any], nodes: Sequence[Node], memory_percent: int, memory_controlled: bool
) -> Confinement:
    """Decide. ``facts`` are device_facts(), ``nodes`` those of its accelerator, ``memory_percent`` of all memory.

    MemoryMax is where the kernel kills, MemoryHigh (nine tenths of it) where it begins to slow the server down.
    """
    kind, runtime = str(facts["accelerator"]), facts["runtime"]
    on_cpu = kind.startswith("cpu")
    devices = [f"{node.path} rw" for node in nodes]
    warnings = []
    if kind == "coral":
        # Its number on the bus changes when the firmware is loaded: the whole class has to be allowed.
        devices.append("char-usb_device rw")
    if not on_cpu and not devices:
        warnings.append(
            f"{kind} was detected, but none of its device nodes is there: the server will not reach it. "
            "See that the driver's udev rules and kernel module are loaded, then provision again."
        )
    limit = max(MEMORY_FLOOR_MIB, int(facts["memory_mib"]) * memory_percent // 100)
    if not memory_controlled:
        warnings.append(
            "the kernel's memory controller is off, so the server's memory is not limited: "
            "add cgroup_enable=memory to the kernel command line and reboot"
        )
        limit = 0
    return Confinement(
        accelerator=kind,
        runtime=runtime,
        devices=devices,
        groups=sorted({node.group for node in nodes if node.group} - _COMMON_GROUPS),
        jit=not (on_cpu and runtime in _NO_JIT),
        netlink=kind == "coral",
        memory_mib=int(facts["memory_mib"]),
        memory_high_mib=limit * 9 // 10,
        memory_max_mib=limit,
        warnings=warnings,
    )


def stale_reasons(running: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Why the running server (run/server.json) is not the one that would start now; empty when it is, or none runs.

    ``wanted`` has the same fields: bundle, environment, url, tls. A field that the running one does not tell is not
    compared.
    """
    words = {
        "bundle": "program",
        "environment": "runtime environment",
        "url": "address",
        "tls": "certificate paths",
    }
    return [
        f"{text}: {running[name]} runs, {wanted[name]} is set"
        for name, text in words.items()
        if name in running and running[name] != wanted.get(name)
    ]


# -- reading the machine


def find_nodes(tree: Tree, kind: str) -> list[Node]:
    """The device nodes of a kind of accelerator that are there, in order."""
    found = []
    for directory, pattern in NODES.get(kind, ()):
        for name in tree.names(directory):
            path = f"{directory}/{name}"
            if re.fullmatch(pattern, name) and _is_of_vendor(tree, kind, path) and _is_leaf(tree, path):
                found.append(Node(path, _group(tree.locate(path))))
    return found


def _is_leaf(tree: Tree, path: str) -> bool:
    place = tree.locate(path)
    return place is not None and not os.path.isdir(place)


def _is_of_vendor(tree: Tree, kind: str, path: str) -> bool:
    """Whether a render node belongs to the accelerator's vendor (a machine may have two GPUs)."""
    name = os.path.basename(path)
    vendor = _GPU_VENDOR.get(kind)
    if vendor is None or not name.startswith("renderD"):
        return True
    return (tree.text(f"/sys/class/drm/{name}/device/vendor") or "").lower() == vendor


def _group(place: str | None) -> str | None:
    """The name of the group that may use a node; None when group membership does not matter or has no name."""
    with contextlib.suppress(OSError, KeyError):
        status = os.stat(place or "")
        everyone = status.st_mode & stat.S_IROTH and status.st_mode & stat.S_IWOTH
        if not everyone and status.st_mode & stat.S_IWGRP:
            return grp.getgrgid(status.st_gid).gr_name
    return None


def memory_controlled(tree: Tree) -> bool:
    """Whether the kernel can limit a unit's memory (Raspberry Pi OS boots with that off)."""
    unified = tree.text("/sys/fs/cgroup/cgroup.controllers")
    if unified is not None:
        return "memory" in unified.split()
    return tree.exists("/sys/fs/cgroup/memory")


def systemd_version() -> int:
    """systemd's major version, 0 when there is none."""
    try:
        done = subprocess.run(
            ["systemctl", "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30.0, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(rb"systemd (\d+)", done.stdout)
    return int(match.group(1)) if match else 0

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a machine's processor is and can do, from procfs alone."""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterable
from typing import Any

from .hostfs import Tree

#: Instructions that multiply-accumulate int8 without the 16-bit saturation of plain AVX2/AVX-512 (and fast on arm64).
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})

#: The flags that are reported: those a model's kernels are chosen by. The rest of a cpuinfo line is noise in facts.
REPORTED_FLAGS = INT8_FLAGS | frozenset(
    {
        "sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_bf16",
        "avx512_fp16", "avx_vnni_int8", "avx_ifma", "amx_tile", "amx_bf16", "amx_fp16",
        "neon", "vfpv4", "asimd", "asimdhp", "asimdfhm", "bf16", "sve", "sve2", "sveint8", "svei8mm", "sme", "sme2",
    }
)  # fmt: skip

_ARCHITECTURES = {
    "amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv7": "armv7l", "armv7hl": "armv7l", "armhf": "armv7l",
    "armv8l": "armv7l", "i386": "i686", "i486": "i686", "i586": "i686",
}  # fmt: skip


def normal_architecture(name: str) -> str:
    """One spelling per architecture: x86_64, aarch64, armv7l, i686, riscv64, ..."""
    lowered = name.strip().lower()
    return _ARCHITECTURES.get(lowered, lowered)


def processors(cpuinfo: str) -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo as dictionaries with lower-case keys (a trailing block of board data included)."""
    blocks: list[dict[str, str]] = []
    for chunk in cpuinfo.split("\n\n"):
        block: dict[str, str] = {}
        for line in chunk.splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip():
                block[key.strip().lower()] = value.strip()
        if block:
            blocks.append(block)
    return blocks


def cpu_flags(cpuinfo: str) -> list[str]:
    """Sorted flags that every processor has (big.LITTLE: a thread may run on the smallest), of REPORTED_FLAGS.

    x86 calls the line ``flags``, arm ``Features``.
    """
    common: set[str] | None = None
    for block in processors(cpuinfo):
        line = block.get("flags", block.get("features"))
        if line is None:
            continue
        flags = set(line.split())
        common = flags if common is None else common & flags
    return sorted((common or set()) & REPORTED_FLAGS)


def cpu_label(flags: Iterable[str]) -> str:
    """``cpu-int8`` with an int8 dot product, else ``cpu``: int8 models give other numbers and speed on the two."""
    return "cpu-int8" if INT8_FLAGS & set(flags) else "cpu"


def cpu_name(cpuinfo: str) -> str:
    """The processor's name as the kernel prints it, or a description from its arm identification."""
    blocks = processors(cpuinfo)
    for block in blocks:
        if block.get("model name"):
            return block["model name"]
    for block in blocks:
        if block.get("cpu part"):
            return "arm implementer {} part {}".format(block.get("cpu implementer", "?"), block["cpu part"])
    return "unknown processor"


def _architecture_of_cpuinfo(cpuinfo: str) -> str | None:
    for block in processors(cpuinfo):
        flags = set(block.get("flags", "").split())
        if flags:
            return "x86_64" if "lm" in flags else "i686"
        features = set(block.get("features", "").split())
        if "asimd" in features:
            return "aarch64"
        if features & {"neon", "thumb", "vfpv3", "vfpv4"}:
            return "armv7l" if "neon" in features else "armv6l"
        if block.get("isa", "").startswith("rv64"):
            return "riscv64"
    return None


def _host_architecture() -> str:
    """This process's architecture: a 32-bit system on a 64-bit kernel (Raspberry Pi OS) needs 32-bit runtimes."""
    machine = normal_architecture(platform.machine())
    if struct.calcsize("P") == 4:
        return {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)
    return machine


def architecture(tree: Tree, cpuinfo: str) -> str:
    """The tree's architecture.

    For ``/`` it is the running process's. A moved tree must say so itself: ``/proc/sys/kernel/arch`` (Linux 6.1) or
    cpuinfo; ``unknown`` when it does not, never this machine's.
    """
    if tree.is_host:
        return _host_architecture()
    told = tree.text("/proc/sys/kernel/arch")
    if told:
        return normal_architecture(told)
    return _architecture_of_cpuinfo(cpuinfo) or "unknown"


def memory_mib(tree: Tree) -> int:
    """MemTotal of /proc/meminfo in MiB; 0 when it cannot be read."""
    for line in (tree.text("/proc/meminfo") or "").splitlines():
        key, _colon, value = line.partition(":")
        fields = value.split()
        if key == "MemTotal" and fields and fields[0].isdigit():
            return int(fields[0]) // 1024
    return 0


def cpu_record(tree: Tree) -> dict[str, Any]:
    """The processor as an accelerator record (see accelerators.detect)."""
    cpuinfo = tree.text("/proc/cpuinfo")
    return {
        "kind": "cpu",
        "name": cpu_name(cpuinfo or ""),
        "evidence": "/proc/cpuinfo" if cpuinfo else None,
        "driver": None,
        "usable": True,
        "reason": None,
    }

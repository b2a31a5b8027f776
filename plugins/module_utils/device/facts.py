# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A device's facts: accelerators, runtimes, and the stratum that follows from them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from .accelerators import detect
from .errors import DeviceError
from .runtimes import drives, probe_runtimes
from .settings import Settings, read_settings

#: Which runtime serves a kind of accelerator when several can and the device does not pin one. TensorRT comes after
#: onnxruntime because its engines are bound to one GPU and one version, so releases seldom carry them.
_PREFERENCE = {
    "jetson": ("onnxruntime", "tensorrt"),
    "nvidia-gpu": ("onnxruntime", "tensorrt"),
    "intel-gpu": ("openvino", "onnxruntime"),
    "intel-npu": ("openvino", "onnxruntime"),
    "coral": ("litert",),
}
_DEFAULT_PREFERENCE = ("onnxruntime", "openvino", "litert", "tensorrt")

_ENUMERATED_BY = {"intel-gpu": "openvino", "intel-npu": "openvino", "coral": "litert"}


def select(
    machine: Mapping[str, Any],
    runtimes: Mapping[str, Mapping[str, Any]],
    runtime: str | None = None,
    accelerator: str | None = None,
) -> tuple[str, str | None]:
    """The (accelerator, runtime) a device computes with: the best-ranked usable accelerator that a runtime drives.

    ``machine`` is accelerators.detect()'s answer. ``runtime`` and ``accelerator`` pin one each (``cpu`` too).
    An accelerator that no installed runtime drives is not chosen: the device would compute on its CPU, and its
    stratum has to say so. Without any runtime the answer is the CPU and ``runtime`` (None unless pinned).
    Raises DeviceError("bad_input") when a pinned accelerator is absent, unusable or not driven.
    """
    for record in machine["accelerators"]:
        kind = record["kind"]
        if not record["usable"] or (accelerator is not None and kind != accelerator.replace("cpu-int8", "cpu")):
            continue
        for name in (runtime,) if runtime else _PREFERENCE.get(kind, _DEFAULT_PREFERENCE):
            if name in runtimes and drives(name, runtimes[name], kind):
                return (machine["cpu_label"] if kind == "cpu" else kind), name
    if accelerator not in (None, "cpu", "cpu-int8"):
        raise DeviceError("bad_input", _why_not(machine, runtimes, str(accelerator)))
    return machine["cpu_label"], runtime


def _why_not(machine: Mapping[str, Any], runtimes: Mapping[str, Any], accelerator: str) -> str:
    said = f"accelerator {accelerator!r} is set for this device, but "
    records = [record for record in machine["accelerators"] if record["kind"] == accelerator]
    if not records:
        return said + "it was not detected (found: {})".format(", ".join(r["kind"] for r in machine["accelerators"]))
    if not any(record["usable"] for record in records):
        return said + "it cannot be used: {}".format(records[0]["reason"])
    return said + "no installed runtime drives it (installed: %s)" % (", ".join(sorted(runtimes)) or "none")


def stratum_of(accelerator: str, runtime: str | None, architecture: str) -> str:
    """The stratum's name: accelerator/runtime/architecture, ``none`` for a device without a runtime."""
    return "{}/{}/{}".format(accelerator, runtime or "none", architecture)


def _runtimes(
    machine: Mapping[str, Any], interpreter: str, pinned: str | None, cache: str | None
) -> tuple[str, dict[str, Any], list[str]]:
    """The interpreter's version, its runtimes, and everything on the machine that is there and does not work."""
    usable = {record["kind"] for record in machine["accelerators"] if record["usable"]}
    problems = [
        f"{record['kind']} ({record['name']}): {record['reason']}"
        for record in machine["accelerators"]
        if not record["usable"]
    ]
    asked = {_ENUMERATED_BY[kind] for kind in usable if kind in _ENUMERATED_BY}
    try:
        probed = probe_runtimes(interpreter, only=pinned, devices=asked, cache_dir=cache)
    except DeviceError as error:
        return platform.python_version(), {}, [*problems, error.message]
    runtimes = probed["runtimes"]
    broken = [f"runtime {name}: {info['reason']}" for name, info in runtimes.items() if not info["usable"]]
    return probed["python"], runtimes, problems + broken


def device_facts(
    edge_root: str | None = None,
    sysroot: str | None = None,
    python: str | None = None,
    runtime: str | None = None,
    accelerator: str | None = None,
) -> dict[str, Any]:
    """Everything planning and variant choice need to know of a device, as plain data.

    Arguments that are None come from <edge_root>/device.json (sysroot, python, runtime, accelerator), then from the
    defaults: ``/``, this interpreter, the best runtime found, the best accelerator driven.
    Keys: architecture, accelerator, accelerators, cpu_flags, memory_mib, python, runtimes, runtime, runtime_pinned,
    stratum, problems (texts a person should read: what is there but unusable).
    Raises DeviceError("bad_input" or "damaged") for wrong settings only.
    """
    settings = read_settings(edge_root) or Settings()
    root = sysroot or settings.sysroot
    interpreter = python or settings.python or "python3"
    pinned = runtime or settings.runtime
    if edge_root is not None and not os.path.isabs(root):
        root = os.path.join(edge_root, root)
    machine = detect(root)
    # Not in run/, which is the model server's: whoever can write there must not tell root which runtimes are here.
    cache = os.path.join(edge_root, "engine") if edge_root else None
    version, runtimes, problems = _runtimes(machine, interpreter, pinned, cache)
    chosen, served_by = select(machine, runtimes, pinned, accelerator or settings.accelerator)
    return {
        "architecture": machine["architecture"],
        "accelerator": chosen,
        "accelerators": machine["accelerators"],
        "cpu_flags": machine["cpu_flags"],
        "memory_mib": machine["memory_mib"],
        "python": version,
        "runtimes": runtimes,
        "runtime": served_by,
        "runtime_pinned": pinned is not None,
        "stratum": stratum_of(chosen, served_by, machine["architecture"]),
        "problems": problems,
    }

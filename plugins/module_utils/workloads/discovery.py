# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a node's labels say of its hardware against what its device found. Pure.

Node Feature Discovery labels a node with what it sees, where it runs. Two programs that look at one machine have to see
the same; where they do not, a name belongs to another machine, or one of them looks through too narrow a window.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .image import PLATFORMS

PREFIX = "feature.node.kubernetes.io/"
ARCHITECTURE = "kubernetes.io/arch"
#: Kind by class (two digits) and vendor of a PCI function: what Node Feature Discovery labels without being told to.
_PCI = {
    ("03", "10de"): "nvidia-gpu",
    ("03", "1002"): "amd-gpu",
    ("03", "8086"): "intel-gpu",
    ("12", "8086"): "intel-npu",
}
#: Coral by USB, before and after its firmware is loaded.
_USB = {("1a6e", "089a"): "coral", ("18d1", "9302"): "coral"}
#: A processor's int8 dot products, as its labels have them.
_INT8 = frozenset({"AMXINT8", "ASIMDDP", "AVX512VNNI", "AVXVNNI", "I8MM"})
#: Kinds that labels show without being told to; of others their silence says nothing.
_SHOWN = frozenset(_PCI.values())
_LABEL = re.compile(r"(pci|usb)-([0-9a-f_]+)\.present")


def kinds(labels: Mapping[str, str]) -> set[str]:
    """The kinds of accelerators that Node Feature Discovery saw, whichever fields its labels are made of."""
    found: set[str] = set()
    for label, value in labels.items():
        match = _LABEL.fullmatch(label[len(PREFIX) :]) if label.startswith(PREFIX) and value == "true" else None
        if match is None:
            continue
        fields = match.group(2).split("_")
        if match.group(1) == "usb":
            found.update(kind for pair, kind in _USB.items() if set(pair) <= set(fields))
        else:
            found.update(
                kind for (group, vendor), kind in _PCI.items() if vendor in fields[1:] and fields[0][:2] == group
            )
    return found


def disagreements(device: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """What the device and its node's labels say differently, each with both; empty when they agree.

    ``device``: its ``name``, ``node``, ``stratum`` and the kinds it ``detected``. Without Node Feature Discovery's
    labels only the architecture is compared, which every kubelet says.
    """
    accelerator, _runtime, architecture = str(device["stratum"]).split("/")
    said, where = [], f"{device['name']}, node {device['node']}"
    word = PLATFORMS.get(architecture, "/").split("/")[1]
    if word and labels.get(ARCHITECTURE, word) != word:
        said.append(f"{where}: the device is {architecture}, the node says {labels[ARCHITECTURE]}")
    if not any(label.startswith(PREFIX) for label in labels):
        return said
    seen, detected = kinds(labels), set(device.get("detected") or ())
    if accelerator in _SHOWN and accelerator not in seen:
        shown = ", ".join(sorted(seen)) or "no accelerator"
        said.append(f"{where}: the device computes on {accelerator}, Node Feature Discovery saw {shown}")
    # A Jetson's own GPU can be on PCI.
    for kind in sorted(seen - detected - ({"nvidia-gpu"} if "jetson" in detected else set())):
        own = ", ".join(sorted(detected - {"cpu"})) or "no accelerator"
        said.append(f"{where}: Node Feature Discovery saw {kind}, the device found {own}")
    flags = {label.rpartition(".")[2] for label in labels if label.startswith(PREFIX + "cpu-cpuid.")}
    if accelerator == "cpu-int8" and flags and not flags & _INT8:
        said.append(f"{where}: the device's processor has int8 dot products, Node Feature Discovery saw none")
    return said


def all_disagreements(devices: Iterable[Mapping[str, Any]], nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The same for every device whose node is there, in their order."""
    labels = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in nodes}
    return [text for item in devices if item["node"] in labels for text in disagreements(item, labels[item["node"]])]

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The devices whose model server runs in a pod, checked, and sorted into those that one DaemonSet serves. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..cluster.nodes import label_value
from .errors import WorkloadError, bad_value

PLATFORMS = ("k3s", "kubeedge")
#: The resource of an accelerator's device plugin, by kind.
RESOURCES = {
    "nvidia-gpu": "nvidia.com/gpu",
    "jetson": "nvidia.com/gpu",
    "intel-gpu": "gpu.intel.com/i915",
    "intel-npu": "npu.intel.com/accel",
    "coral": "squat.ai/coral",
}
_NODE = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]{0,510}")
_RESOURCE = re.compile(r"[a-z0-9][a-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")


@dataclass(frozen=True)
class Shape:
    """What the pods of one DaemonSet share. ``resource``: what the accelerator's plugin gives out; none on a CPU."""

    stratum: str
    accelerator: str
    runtime: str
    platform: str
    image: str
    root: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    host: str
    port: int
    tls: str
    resource: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Device:
    """One device: its name in the inventory, its node's, and its shape. ``memory_mib``: its limit, 0 for none."""

    name: str
    node: str
    memory_mib: int
    shape: Shape


@dataclass(frozen=True)
class Group:
    """The devices of one DaemonSet. ``alone``: no other DaemonSet has the same labels, so it needs no list of nodes."""

    name: str
    shape: Shape
    devices: tuple[Device, ...]
    alone: bool

    @property
    def memory_mib(self) -> int:
        """The smallest limit of its devices, 0 when none has one: a larger one would not protect the smallest."""
        return min((device.memory_mib for device in self.devices if device.memory_mib), default=0)

    @property
    def nodes(self) -> list[str]:
        """Their nodes, in order."""
        return sorted(device.node for device in self.devices)


def _field(data: Mapping[str, Any], where: str, name: str, pattern: re.Pattern[str]) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise bad_value(f"{where}.{name}", value, f"give a text like {pattern.pattern}")
    return value


def _number(data: Mapping[str, Any], where: str, name: str, least: int, most: int) -> int:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad_value(f"{where}.{name}", value, f"give a whole number from {least} to {most}")
    return value


def _host(data: Mapping[str, Any], where: str) -> str:
    try:
        return str(ipaddress.ip_address(str(data.get("host"))))
    except ValueError:
        raise bad_value(f"{where}.host", data.get("host"), "give the address the server listens on") from None


def _resource(accelerator: str, resources: Mapping[str, str], where: str) -> str:
    """What has to be asked for to get the accelerator: a container without rights may not open a host's device node."""
    if accelerator.startswith("cpu"):
        return ""
    resource = resources.get(accelerator) or RESOURCES.get(accelerator) or ""
    if not _RESOURCE.fullmatch(resource):
        fix = "name the resource of its device plugin in workloads_resources, for example squat.ai/hailo"
        raise bad_value(f"{where}: resource of {accelerator}", resource, fix)
    return resource


def read_device(
    data: Mapping[str, Any], images: Mapping[str, str], resources: Mapping[str, str] | None = None
) -> Device:
    """Check one device. ``images``: by runtime/architecture or by runtime; ``resources``: by kind of accelerator.

    Raises WorkloadError.
    """
    name = str(data.get("name") or "a device")
    parts = str(data.get("stratum") or "").split("/")
    if len(parts) != 3 or not all(parts) or parts[1] == "none":
        raise bad_value(
            f"{name}.stratum",
            data.get("stratum"),
            "a pod needs accelerator/runtime/architecture: provision its runtime",
        )
    accelerator, runtime, architecture = parts
    image = images.get(f"{runtime}/{architecture}") or images.get(runtime)
    if not image or not _IMAGE.fullmatch(str(image)):
        fix = f"name an image for {runtime}/{architecture} in workloads_images (playbook edgeai.fleet.image builds it)"
        raise bad_value(f"{name}: image", image, fix)
    platform = str(data.get("platform"))
    if platform not in PLATFORMS:
        raise bad_value(f"{name}.platform", platform, "use one of {}".format(", ".join(PLATFORMS)))
    uid, gid = _number(data, name, "uid", 1, 2**31), _number(data, name, "gid", 1, 2**31)
    shape = Shape(
        stratum="/".join(parts),
        accelerator=accelerator,
        runtime=runtime,
        platform=platform,
        image=str(image),
        root=_field(data, name, "root", _PATH),
        uid=uid,
        gid=gid,
        groups=tuple(sorted({int(group) for group in data.get("groups") or ()} - {gid})),
        host=_host(data, name),
        port=_number(data, name, "port", 1, 65535),
        tls=_tls(data, name),
        resource=_resource(accelerator, resources or {}, name),
        models=tuple(sorted(str(model) for model in data.get("models") or ())),
    )
    return Device(name, _field(data, name, "node", _NODE), _number(data, name, "memory_mib", 0, 2**31), shape)


def _tls(data: Mapping[str, Any], where: str) -> str:
    value = data.get("tls") or "none"
    if value not in ("none", "server", "mutual"):
        raise bad_value(f"{where}.tls", value, "use none, server or mutual")
    return str(value)


def group(
    devices: Sequence[Mapping[str, Any]], images: Mapping[str, str], resources: Mapping[str, str] | None = None
) -> list[Group]:
    """Sort devices into DaemonSets, in order of their names. Raises WorkloadError, also for two devices on one node.

    Devices of a stratum that are alike share one, which takes every node with the stratum's labels. Where they differ
    (numeric user, port, directory, ...), each kind has its own, bound to its nodes by name.
    """
    read = [read_device(device, images, resources) for device in devices]
    seen: dict[str, str] = {}
    for device in read:
        if device.node in seen:
            raise WorkloadError(f"{device.name} and {seen[device.node]} are both on node {device.node!r}; name one")
        seen[device.node] = device.name
    kinds: dict[str, dict[Shape, list[Device]]] = {}
    for device in read:
        kinds.setdefault(device.shape.stratum, {}).setdefault(device.shape, []).append(device)
    found = []
    for stratum, shapes in kinds.items():
        for shape, members in shapes.items():
            name = "edgeai-server-" + re.sub(r"[^a-z0-9]+", "-", label_value(stratum).lower())
            if len(shapes) > 1:
                text = json.dumps(vars(shape), sort_keys=True, default=list)
                name += "-" + hashlib.sha256(text.encode()).hexdigest()[:6]
            members = sorted(members, key=lambda device: device.name)
            found.append(Group(name[:63].strip("-"), shape, tuple(members), len(shapes) == 1))
    return sorted(found, key=lambda item: item.name)

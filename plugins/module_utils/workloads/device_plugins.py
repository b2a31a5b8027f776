# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Device plugins, which tell a kubelet of its node's accelerators, as declared, and NVIDIA's RuntimeClass. Pure.

Nothing is applied that was not asked for, and only by an image's digest. A plugin runs where the label
``edgeai.fleet/accelerator`` names its accelerator, so never on a node that computes on its CPU.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .devices import RESOURCES
from .errors import bad_value

ACCELERATOR = "edgeai.fleet/accelerator"
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:-]{0,400}@sha256:[0-9a-f]{64}")
_SOCKETS = "/var/lib/kubelet/device-plugins"
_KNOWN = ("image", "pull_policy", "args")
#: Without rights, but root: a kubelet's directory of sockets is root's.
_CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
#: Coral by USB, before and after its firmware is loaded, and by PCIe.
_CORAL = {
    "name": "coral",
    "groups": [
        {"usb": [{"vendor": "1a6e", "product": "089a"}]},
        {"usb": [{"vendor": "18d1", "product": "9302"}]},
        {"paths": [{"path": "/dev/apex_*"}]},
    ],
}


class Place(NamedTuple):
    """What of the host a plugin sees. ``kind``: hostPath's type, empty for no check."""

    name: str
    path: str
    read_only: bool = False
    kind: str = ""


class Plugin(NamedTuple):
    """A device plugin: the accelerators it is for, what it is told, what it sees and may."""

    accelerators: tuple[str, ...]
    resource: str
    places: tuple[Place, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    args: tuple[str, ...] = ()
    security: Mapping[str, Any] = _CONFINED
    runtime_class: str = ""
    architectures: tuple[str, ...] = ()


#: NVIDIA's k8s-device-plugin, Intel's device-plugins-for-kubernetes (GPU and NPU), squat's generic-device-plugin.
PLUGINS = {
    "nvidia": Plugin(
        ("nvidia-gpu", "jetson"),
        RESOURCES["nvidia-gpu"],
        environment=(("FAIL_ON_INIT_ERROR", "false"),),
        security={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        runtime_class="nvidia",
    ),
    "intel-gpu": Plugin(
        ("intel-gpu",),
        RESOURCES["intel-gpu"],
        (
            Place("devices", "/dev/dri", True),
            Place("sysfs", "/sys/class/drm", True),
            Place("cdi", "/var/run/cdi", kind="DirectoryOrCreate"),
        ),
        architectures=("amd64",),
    ),
    "intel-npu": Plugin(
        ("intel-npu",),
        RESOURCES["intel-npu"],
        (Place("devices", "/dev/accel", True), Place("sysfs", "/sys/class/accel", True)),
        architectures=("amd64",),
    ),
    "coral": Plugin(
        ("coral",),
        RESOURCES["coral"],
        (Place("devices", "/dev"),),
        args=("--device", json.dumps(_CORAL, sort_keys=True)),
        # It looks through USB's devices of the host, and makes its nodes ready for a container.
        security={"privileged": True},
    ),
}


def check_plugins(given: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What was declared, checked. Raises WorkloadError that names plugin and field; a tag is no digest."""
    if not isinstance(given or {}, Mapping):
        raise bad_value("device_plugins", given, "give a dict by plugin: {nvidia: {image: ...@sha256:...}}")
    checked = {}
    for name, item in sorted((given or {}).items()):
        where = f"device_plugins.{name}"
        if name not in PLUGINS:
            raise bad_value("device_plugins", name, "known are {}".format(", ".join(sorted(PLUGINS))))
        if not isinstance(item, Mapping) or set(item) - set(_KNOWN):
            raise bad_value(where, item, "give image, and where needed pull_policy and args")
        image, args = str(item.get("image") or ""), item.get("args")
        if not _IMAGE.fullmatch(image):
            fix = "pin it by its digest, registry/image@sha256:<64 digits>: a tag can be another image tomorrow"
            raise bad_value(f"{where}.image", image, fix)
        policy = item.get("pull_policy", "IfNotPresent")
        if policy not in ("Never", "IfNotPresent"):
            raise bad_value(f"{where}.pull_policy", policy, "use Never or IfNotPresent")
        if args is not None and (isinstance(args, str) or not isinstance(args, Sequence)):
            raise bad_value(f"{where}.args", args, "give a list of texts")
        checked[str(name)] = {"image": image, "pull_policy": policy, "args": args}
    return checked


def runtime_class() -> dict[str, Any]:
    """The RuntimeClass ``nvidia``: containerd's runtime of that name."""
    return {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}


def plugin_pod(name: str, declared: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pod's spec of one plugin; ``declared`` is from `check_plugins`."""
    plugin = PLUGINS[name]
    keys = (ACCELERATOR, plugin.resource, "node-role.kubernetes.io/edge")
    spec: dict[str, Any] = {
        "serviceAccountName": "edgeai-server",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": "system-node-critical",
        "affinity": {"nodeAffinity": _where(plugin)},
        "tolerations": [*({"key": key, "operator": "Exists"} for key in keys), *map(dict, tolerations)],
        "containers": [_container(plugin, declared)],
        "volumes": [_volume(place) for place in _places(plugin)],
    }
    if plugin.runtime_class:
        spec["runtimeClassName"] = plugin.runtime_class
    return spec


def _where(plugin: Plugin) -> dict[str, Any]:
    rules = [{"key": ACCELERATOR, "operator": "In", "values": list(plugin.accelerators)}]
    if plugin.architectures:
        rules.append({"key": "kubernetes.io/arch", "operator": "In", "values": list(plugin.architectures)})
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": rules}]}}


def _places(plugin: Plugin) -> tuple[Place, ...]:
    return (Place("sockets", _SOCKETS, kind="Directory"), *plugin.places)


def _volume(place: Place) -> dict[str, Any]:
    # The API server fills in an empty type, and would take its absence for a change every time.
    return {"name": place.name, "hostPath": {"path": place.path, "type": place.kind}}


def _container(plugin: Plugin, declared: Mapping[str, Any]) -> dict[str, Any]:
    args = plugin.args if declared["args"] is None else declared["args"]
    environment: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in plugin.environment]
    environment.append({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    mounts = [
        {"name": place.name, "mountPath": place.path, **({"readOnly": True} if place.read_only else {})}
        for place in _places(plugin)
    ]
    found = {
        "name": "plugin",
        "image": declared["image"],
        "imagePullPolicy": declared["pull_policy"],
        "env": environment,
        # No limit: a plugin that is killed for its memory takes the node's accelerators out of service.
        "resources": {"requests": {"cpu": "40m", "memory": "45Mi"}},
        "securityContext": dict(plugin.security),
        "volumeMounts": mounts,
    }
    return {**found, "args": [str(item) for item in args]} if args else found

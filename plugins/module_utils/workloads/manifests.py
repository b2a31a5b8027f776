# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Kubernetes objects that run the model server on the devices of a cluster, as plain data. Pure.

A pod gets what edgeai-server.service has: the store to read, run/ and log/ to write, its accelerator, the device's
address, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..cluster.nodes import label_value
from .device_plugins import check_plugins, plugin_pod, runtime_class
from .devices import Group, Shape, group
from .errors import bad_value
from .image import PYTHON

NAMESPACE = "edgeai"
PRIORITY = "edgeai-server"
NAME = "app.kubernetes.io/name"
PART_OF = {"app.kubernetes.io/part-of": "edgeai.fleet", "app.kubernetes.io/managed-by": "edgeai.fleet"}
STRATUM, RUNTIME = "edgeai.fleet/stratum", "edgeai.fleet/runtime"
SERVER_DEFAULTS: dict[str, Any] = {
    "workers": 2,
    "threads": 1,
    "queue": 64,
    "max_body_mib": 64,
    "grace": 10,
    "access_log": "errors",
    "start_timeout": 120,
}
_CPU_REQUEST = "100m"
_PROBE_S = 10


def manifests(
    devices: Sequence[Mapping[str, Any]],
    images: Mapping[str, str],
    options: Mapping[str, Any] | None = None,
    tolerations: Sequence[Mapping[str, Any]] = (),
    pull_policy: str = "Never",
    resources: Mapping[str, str] | None = None,
    plugins: Mapping[str, Any] | None = None,
    nvidia_class: bool = False,
) -> list[dict[str, Any]]:
    """Every object for these devices, in the order in which they have to be applied. Raises WorkloadError.

    ``devices``: see `devices.read_device`; ``options``: of the server, others than `SERVER_DEFAULTS`; ``tolerations``
    in addition to those for the taints of the collection's roles and of KubeEdge's nodes; ``plugins``: device plugins,
    see `device_plugins.check_plugins`; ``nvidia_class``: with NVIDIA's RuntimeClass where something names it.
    """
    if pull_policy not in ("Never", "IfNotPresent"):
        raise bad_value("pull_policy", pull_policy, "use Never for preloaded images, IfNotPresent for a registry")
    unknown = sorted(set(options or {}) - set(SERVER_DEFAULTS))
    if unknown:
        raise bad_value("options", unknown[0], "known are {}".format(", ".join(sorted(SERVER_DEFAULTS))))
    settings = {**SERVER_DEFAULTS, **(options or {})}
    groups = group(devices, images, resources)
    declared = check_plugins(plugins)
    common = [namespace(), priority_class(), service_account(), network_policy()]
    sets = [plugin_set(name, item, tolerations) for name, item in declared.items()]
    sets += [daemon_set(item, settings, tolerations, pull_policy) for item in groups]
    if nvidia_class and any("runtimeClassName" in item["spec"]["template"]["spec"] for item in sets):
        common.append(owned(runtime_class()))
    return common + sets


def owned(item: dict[str, Any]) -> dict[str, Any]:
    """The object with the labels by which it is known as this collection's."""
    return {**item, "metadata": {**item["metadata"], "labels": dict(PART_OF)}}


def plugin_set(name: str, declared: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The DaemonSet of one device plugin. It may restart at any time: pods keep what they were given."""
    labels = {**PART_OF, NAME: "edgeai-device-plugin", "app.kubernetes.io/instance": name}
    selector = {key: labels[key] for key in (NAME, "app.kubernetes.io/instance")}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": f"edgeai-device-plugin-{name}", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": selector},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "revisionHistoryLimit": 3,
            "template": {"metadata": {"labels": labels}, "spec": plugin_pod(name, declared, tolerations)},
        },
    }


def namespace() -> dict[str, Any]:
    """The namespace. hostPath and hostNetwork are what `baseline` forbids, so only `privileged` can be enforced;

    what the pods lack to `restricted` is told by warnings and the audit log, and their own settings are as strict.
    """
    level = "pod-security.kubernetes.io/"
    labels = {**PART_OF, f"{level}enforce": "privileged", f"{level}warn": "restricted", f"{level}audit": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def priority_class() -> dict[str, Any]:
    """Above every ordinary pod: serving is what the device is there for. Below the system's own."""
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": PRIORITY, "labels": PART_OF},
        "value": 900_000_000,
        "preemptionPolicy": "PreemptLowerPriority",
        "description": "The model server of an edge device",
    }


def service_account() -> dict[str, Any]:
    """An account without any right, whose token no pod gets."""
    metadata = {"name": "edgeai-server", "namespace": NAMESPACE, "labels": PART_OF}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}


def network_policy() -> dict[str, Any]:
    """Nothing in or out of the namespace's pods. It does not reach pods with hostNetwork, which the servers are.

    It holds whatever else somebody puts there; the server itself is bound to the address in device.json.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all", "namespace": NAMESPACE, "labels": PART_OF},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def daemon_set(
    item: Group, settings: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]], pull_policy: str
) -> dict[str, Any]:
    """The DaemonSet of one group."""
    labels = {**PART_OF, NAME: "edgeai-server", "app.kubernetes.io/instance": item.name}
    spec = pod(item, settings, tolerations, pull_policy)
    selector = {key: labels[key] for key in (NAME, "app.kubernetes.io/instance")}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": item.name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": selector},
            # A change waits until the pod is deleted: who changes together is the plan's to say, not this controller's.
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 3,
            "template": {
                "metadata": {"labels": {**labels, STRATUM: label_value(item.shape.stratum)}},
                "spec": spec,
            },
        },
    }


def pod(
    item: Group, settings: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]], pull_policy: str
) -> dict[str, Any]:
    """The pod's spec."""
    shape = item.shape
    spec: dict[str, Any] = {
        "serviceAccountName": "edgeai-server",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "priorityClassName": PRIORITY,
        "terminationGracePeriodSeconds": int(settings["grace"]) + 10,
        "nodeSelector": {STRATUM: label_value(shape.stratum), RUNTIME: label_value(shape.runtime)},
        "tolerations": [*own_tolerations(shape), *map(dict, tolerations)],
        "securityContext": pod_security(shape),
        "containers": [container(item, settings, pull_policy)],
        "volumes": volumes(shape),
    }
    if not item.alone:
        spec["affinity"] = {"nodeAffinity": _on_nodes(item.nodes)}
    if shape.resource.startswith("nvidia.com/"):
        spec["runtimeClassName"] = "nvidia"
    return spec


def _on_nodes(nodes: Sequence[str]) -> dict[str, Any]:
    rule = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": terms}


def own_tolerations(shape: Shape) -> list[dict[str, Any]]:
    """The taints of the accelerator, and of KubeEdge's nodes."""
    found: list[dict[str, Any]] = [{"key": "edgeai.fleet/accelerator", "operator": "Exists"}]
    if shape.resource:
        found.append({"key": shape.resource, "operator": "Exists", "effect": "NoSchedule"})
    if shape.platform == "kubeedge":
        found.append({"key": "node-role.kubernetes.io/edge", "operator": "Exists"})
    return found


def pod_security(shape: Shape) -> dict[str, Any]:
    """The device's service user, by number: the names of a device are not the image's."""
    context: dict[str, Any] = {"runAsNonRoot": True, "runAsUser": shape.uid, "runAsGroup": shape.gid}
    context["seccompProfile"] = {"type": "RuntimeDefault"}
    if shape.groups:
        context["supplementalGroups"] = list(shape.groups)
    return context


def container_security() -> dict[str, Any]:
    """No rights at all, and nothing to write but what is mounted for it."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }


def container(item: Group, settings: Mapping[str, Any], pull_policy: str) -> dict[str, Any]:
    """The one container."""
    shape = item.shape
    return {
        "name": "server",
        "image": shape.image,
        "imagePullPolicy": pull_policy,
        "command": command(shape, "serve"),
        "args": arguments(settings),
        "env": [{"name": "EDGEAI_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"name": "oip", "containerPort": shape.port, "hostPort": shape.port, "protocol": "TCP"}],
        "resources": resources(item),
        "securityContext": container_security(),
        "volumeMounts": mounts(shape),
        **probes(shape, settings),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def command(shape: Shape, word: str) -> list[str]:
    """A command of the program that is mounted with the store, in the image's Python."""
    return [PYTHON, "-I", f"{shape.root}/lib/edgeai-device.pyz", word, "--root", shape.root]


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """The server's options."""
    names = ("workers", "threads", "queue", "max_body_mib", "grace", "access_log")
    return [f"--{name.replace('_', '-')}={settings[name]}" for name in names]


def resources(item: Group) -> dict[str, Any]:
    """Memory: all of the limit is requested, so that the kubelet never evicts the server for it. CPU: no limit,

    because a throttled server has no latency to promise. The accelerator's resource, where its plugin gives it out.
    """
    limits: dict[str, Any] = {"memory": f"{item.memory_mib}Mi"} if item.memory_mib else {}
    requests = {**limits, "cpu": _CPU_REQUEST}
    if item.shape.resource:
        limits[item.shape.resource] = requests[item.shape.resource] = "1"
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def _places(shape: Shape) -> list[tuple[str, str, bool]]:
    """(name, path, read-only) of everything of the device that is mounted, where it is on the device."""
    run, log = f"{shape.root}/run", f"{shape.root}/log"
    return [("store", shape.root, True), ("run", run, False), ("log", log, False)]


def volumes(shape: Shape) -> list[dict[str, Any]]:
    """The store, what of it the server writes, and a little space for temporary files."""
    found = [{"name": name, "hostPath": {"path": path, "type": "Directory"}} for name, path, _ro in _places(shape)]
    return [*found, {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]


def mounts(shape: Shape) -> list[dict[str, Any]]:
    """The same at the same paths, because the store's links and device.json name them."""
    # The API server leaves `readOnly: false` out, and would take it for a change every time.
    found = [
        {"name": name, "mountPath": path, **({"readOnly": True} if ro else {})} for name, path, ro in _places(shape)
    ]
    return [*found, {"name": "tmp", "mountPath": "/tmp"}]


def probes(shape: Shape, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Started and alive: the server answers. Ready: it serves. Which release it serves is the gate's business.

    A kubelet has no client certificate: where one is asked for, it asks the program over the device's own socket.
    """
    period = {"periodSeconds": _PROBE_S, "timeoutSeconds": 5}
    path = f"/v2/models/{shape.models[0]}/ready" if len(shape.models) == 1 else "/v2/health/ready"
    live, ready = _probe(shape, "/v2/health/live"), _probe(shape, path)
    tries = max(3, -(-int(settings["start_timeout"]) // 2))
    return {
        "startupProbe": {**live, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": tries},
        "livenessProbe": {**live, **period, "failureThreshold": 6},
        "readinessProbe": {**ready, **period, "failureThreshold": 2},
    }


def _probe(shape: Shape, path: str) -> dict[str, Any]:
    if shape.tls == "mutual":
        if path.endswith("live"):
            return {"tcpSocket": {"port": shape.port, "host": _local(shape)}}
        return {"exec": {"command": command(shape, "status")}}
    scheme = "HTTPS" if shape.tls == "server" else "HTTP"
    return {"httpGet": {"path": path, "port": shape.port, "host": _local(shape), "scheme": scheme}}


def _local(shape: Shape) -> str:
    """Where the kubelet, in the same network, finds the server."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(shape.host, shape.host)

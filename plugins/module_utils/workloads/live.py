# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What is in a cluster against what is wanted there: what to remove, what is not ours, what is not ready. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .manifests import NAMESPACE, PART_OF

#: Kinds of which the manifests have objects, with their API version, and whether they lie in the namespace.
OWN_KINDS = (
    ("apps/v1", "DaemonSet", True),
    ("networking.k8s.io/v1", "NetworkPolicy", True),
    ("v1", "ServiceAccount", True),
    ("scheduling.k8s.io/v1", "PriorityClass", False),
    ("node.k8s.io/v1", "RuntimeClass", False),
    ("v1", "Namespace", False),
)
#: Kinds that somebody else may have put into the namespace: with one of them in it, it stays.
OTHER_KINDS = (
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "PersistentVolumeClaim"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
)
#: What Kubernetes puts into every namespace.
_GIVEN = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}

Reference = dict[str, str]


def is_ours(item: Mapping[str, Any]) -> bool:
    """Whether an object says that it is from here."""
    labels = (item.get("metadata") or {}).get("labels") or {}
    return all(labels.get(key) == value for key, value in PART_OF.items())


def reference(item: Mapping[str, Any]) -> Reference:
    """What names an object: kind, API version, name, and the namespace (empty for what lies in none)."""
    metadata = item["metadata"]
    names = {"kind": str(item["kind"]), "api_version": str(item["apiVersion"]), "name": str(metadata["name"])}
    return {**names, "namespace": str(metadata.get("namespace") or "")}


def _order(item: Reference) -> tuple[int, str, str]:
    kinds = [kind for _version, kind, _namespaced in OWN_KINDS]
    return kinds.index(item["kind"]), item["namespace"], item["name"]


def leftovers(found: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]) -> list[Reference]:
    """Objects of ours that are there and no longer wanted, in the order in which they are to be removed.

    The namespace is among them only when nothing of others is in it, as far as ``found`` tells.
    """
    items = list(found)
    keep = {(item["kind"], item["metadata"]["name"]) for item in wanted}
    own = {kind for _version, kind, _namespaced in OWN_KINDS}
    gone = [item for item in items if item["kind"] in own and is_ours(item)]
    gone = [item for item in gone if (item["kind"], item["metadata"]["name"]) not in keep]
    if occupants(items):
        gone = [item for item in gone if item["kind"] != "Namespace"]
    return sorted((reference(item) for item in gone), key=_order)


def occupants(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """What others keep in the namespace, as Kind/name; what another object made (pods of a DaemonSet) not counted."""
    others = []
    for item in found:
        metadata = item["metadata"]
        if metadata.get("namespace") != NAMESPACE or metadata.get("ownerReferences") or is_ours(item):
            continue
        if (item["kind"], metadata["name"]) not in _GIVEN:
            others.append("{}/{}".format(item["kind"], metadata["name"]))
    return sorted(others)


def foreign(found: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]) -> list[Reference]:
    """Wanted objects whose name another object has, one that is not from here: it is not to be overwritten."""
    names = {(item["kind"], item["metadata"]["name"]) for item in wanted}
    there = [item for item in found if (item["kind"], item["metadata"]["name"]) in names and not is_ours(item)]
    return sorted((reference(item) for item in there), key=_order)


def unready(daemonsets: Iterable[Mapping[str, Any]]) -> list[str]:
    """What each DaemonSet still waits for; empty when the pods of all of them are ready.

    Pods of an older template count as ready: they change when they are deleted (``OnDelete``).
    """
    waiting = []
    for item in daemonsets:
        status, metadata = item.get("status") or {}, item["metadata"]
        if int(status.get("observedGeneration") or 0) < int(metadata.get("generation") or 1):
            waiting.append(f"{metadata['name']}: not looked at by the cluster yet")
            continue
        wanted, ready = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberReady") or 0)
        if ready < wanted:
            waiting.append(f"{metadata['name']}: {ready} of {wanted} pods are ready")
    return sorted(waiting)

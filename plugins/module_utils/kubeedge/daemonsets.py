# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""DaemonSets of the cloud on edge nodes: which ones have to be kept off, and how. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .nodes import EDGE_ROLE

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
NOT_ON_EDGES = {"key": EDGE_ROLE, "operator": "DoesNotExist"}


def _terms(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    return list((affinity.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [])


def speaks_of_edges(daemonset: Mapping[str, Any]) -> bool:
    """Whether a DaemonSet says itself whether it belongs on edge nodes."""
    pod = daemonset["spec"]["template"]["spec"]
    expressions = [entry for term in _terms(pod) for entry in term.get("matchExpressions") or []]
    return EDGE_ROLE in (pod.get("nodeSelector") or {}) or any(entry.get("key") == EDGE_ROLE for entry in expressions)


def patch(daemonset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that keeps a DaemonSet off edge nodes; what it required before stays required.

    Terms are alternatives, so each of them gets the condition.
    """
    terms = _terms(daemonset["spec"]["template"]["spec"]) or [{}]
    limited = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or []), dict(NOT_ON_EDGES)]} for term in terms
    ]
    affinity = {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": limited}}}
    return {"spec": {"template": {"spec": {"affinity": affinity}}}}


def to_patch(daemonsets: Iterable[Mapping[str, Any]], namespaces: Iterable[str]) -> list[Mapping[str, Any]]:
    """Return the DaemonSets of these namespaces that have to be patched."""
    wanted = set(namespaces)
    return [item for item in daemonsets if item["metadata"]["namespace"] in wanted and not speaks_of_edges(item)]

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the API server says about a node. Pure predicates; the waiting is done by whoever asks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EDGE_ROLE = "node-role.kubernetes.io/edge"


def condition(node: Mapping[str, Any], kind: str = "Ready") -> dict[str, Any]:
    """Return a node's condition, an empty one when it has none."""
    for entry in (node.get("status") or {}).get("conditions") or []:
        if entry.get("type") == kind:
            return dict(entry)
    return {}


def is_ready(node: Mapping[str, Any] | None) -> bool:
    """Whether the node is there and Ready; a cordoned one is Ready, too."""
    return node is not None and condition(node).get("status") == "True"


def summary(node: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a person wants to know of a node."""
    if node is None:
        return {"present": False, "ready": False}
    meta, status, ready = node.get("metadata") or {}, node.get("status") or {}, condition(node)
    return {
        "present": True,
        "ready": is_ready(node),
        "reason": ready.get("reason", ""),
        "message": ready.get("message", ""),
        "version": (status.get("nodeInfo") or {}).get("kubeletVersion", ""),
        "edge": EDGE_ROLE in (meta.get("labels") or {}),
        "schedulable": not (node.get("spec") or {}).get("unschedulable", False),
    }


def is_edge(node: Mapping[str, Any] | None) -> bool:
    """Whether the node is KubeEdge's; another kind of node of that name belongs to somebody else."""
    return node is not None and EDGE_ROLE in ((node.get("metadata") or {}).get("labels") or {})


def label_changes(node: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that a node lacks or has with another value; nothing for a node that is not there."""
    if node is None:
        return {}
    there = (node.get("metadata") or {}).get("labels") or {}
    return {str(key): str(value) for key, value in wanted.items() if there.get(key) != str(value)}


def other_version(node: Mapping[str, Any] | None, version: str | None) -> bool:
    """Whether a node reports another version of KubeEdge (``v1.32.10-kubeedge-v1.23.1``) than the wanted one."""
    return bool(version) and summary(node).get("version", "").rpartition("-kubeedge-")[2] != version

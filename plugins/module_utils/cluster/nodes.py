# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Is a node ready, and which labels does it lack? Pure, over what the API server says about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import ClusterError

#: Kubernetes' rules for names of nodes and for labels.
NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


def check_node_name(name: str) -> str:
    """Return ``name``. Raises ClusterError when Kubernetes would not take it."""
    if not NODE_NAME.fullmatch(name) or ".." in name:
        raise ClusterError(f"node name {name!r}: use lower-case letters, digits, - and . (set k3s_node_name)")
    return name


def label_value(text: str) -> str:
    """A label's value for any text: cpu-int8/onnxruntime/x86_64 becomes cpu-int8.onnxruntime.x86_64."""
    value = re.sub(r"[^A-Za-z0-9._-]", ".", text)[:63].strip("._-")
    return value if LABEL_VALUE.fullmatch(value) else ""


def lacks(node: Mapping[str, Any], version: str, since: str = "") -> str:
    """Why this node is not as it should be, empty when it is: Ready, and running ``version`` (when that is given).

    ``since``: the node's own clock, as 2026-11-23T11:00:00Z; what its kubelet said before that does not count.
    """
    status = node.get("status") or {}
    ready = next((item for item in status.get("conditions") or () if item.get("type") == "Ready"), None)
    if ready is None:
        return "has not said yet whether it is ready"
    if ready.get("status") != "True":
        said = str(ready.get("message") or ready.get("reason") or "no reason given")
        return f"is not Ready ({said[:200]})"
    if since and str(ready.get("lastHeartbeatTime") or "") < since:
        return "has said nothing since its kubelet was restarted"
    found = str((status.get("nodeInfo") or {}).get("kubeletVersion", ""))
    if version and found != version:
        return f"reports version {found or 'none'}, not {version}"
    return ""


def label_changes(node: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, str]:
    """The labels that have to be set; others are not touched."""
    there = (node.get("metadata") or {}).get("labels") or {}
    return {key: value for key, value in sorted(wanted.items()) if there.get(key) != value}

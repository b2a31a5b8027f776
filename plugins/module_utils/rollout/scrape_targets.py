# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Prometheus' scrape targets of a fleet (file_sd): from inventory variables to the file's content. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import RolloutError, field_error

LABELS = ("site", "stratum", "redundancy_group")
DEFAULT_PORT = 9001
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LOOPBACK = re.compile(r"127\.[0-9.]+|::1|\[::1\]|localhost")


def target_of(host: str, variables: Mapping[str, Any], port: int | None = None) -> dict[str, Any]:
    """Return one device as ``monitoring_targets`` takes it: device, address, labels, and ``loopback``.

    variables: the host's; port: instead of the model server's (for another exporter on the device).
    loopback: its server listens on its own loopback address, so only a Prometheus on that machine reaches it.
    """
    local = variables.get("ansible_connection") == "local"
    name = "127.0.0.1" if local else str(variables.get("ansible_host") or host)
    listens = str(variables.get("edge_listen") or ("" if local else "127.0.0.1"))
    address = variables.get("edge_metrics_address") if port is None else None
    if not address:
        number = variables.get("edge_port") or DEFAULT_PORT if port is None else port
        address = f"[{name}]:{number}" if ":" in name and not name.startswith("[") else f"{name}:{number}"
    facts = variables.get("edge_facts")
    device = facts.get("device") if isinstance(facts, Mapping) else None
    known = device if isinstance(device, Mapping) else {}
    labels = {label: str(variables.get(f"edge_{label}") or known.get(label) or "") for label in LABELS}
    reachable = bool(variables.get("edge_metrics_address")) or port is not None
    loopback = not local and not reachable and bool(_LOOPBACK.fullmatch(listens))
    return {"device": host, "address": str(address), "loopback": loopback, **labels}


def render(targets: Iterable[Mapping[str, Any]], labels: Mapping[str, str], before: str, where: str) -> str:
    """Return the file's content: one group per device, sorted, so that the same fleet gives the same bytes.

    labels: of every target; before: the file as it is, from which a stratum that is not known now is kept (a device
    that is away keeps its label). Raises RolloutError for a device without a name or address, or named twice.
    """
    known = _strata(before)
    found: dict[str, dict[str, Any]] = {}
    for index, target in enumerate(targets):
        device, address = str(target.get("device") or ""), str(target.get("address") or "")
        if not device or not address:
            raise field_error(where, f"targets[{index}]", dict(target), "give each a device and an address")
        if device in found:
            raise field_error(where, f"targets[{index}].device", device, "it is there twice: name each device once")
        own = {name: str(target.get(name) or "") for name in LABELS}
        own["stratum"] = own["stratum"] or known.get(device, "")
        merged = {**labels, **{name: value for name, value in own.items() if value}, "device": device}
        found[device] = {"targets": [address], "labels": dict(sorted(merged.items()))}
    for name in labels:
        if not _LABEL.fullmatch(str(name)):
            raise field_error(where, "labels", name, "a label is letters, digits and _, and begins with no digit")
    return json.dumps([found[device] for device in sorted(found)], indent=1) + "\n"


def _strata(before: str) -> dict[str, str]:
    """The stratum of each device in the file as it is; what cannot be read tells nothing."""
    try:
        groups = json.loads(before)
        labels = [group["labels"] for group in groups]
        return {str(item["device"]): str(item["stratum"]) for item in labels if "stratum" in item}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}


def read(path: str) -> str:
    """Return a file's text, empty when there is none. Raises RolloutError when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RolloutError(f"{path}: cannot be read: {error.strerror}") from error

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a fleet's ledger says about one release, as tags of the model version it was built from. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Protocol

from .errors import RegistryError

SERVES = ("confirmed", "activated", "unchanged")
MAX_VALUE = 500
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


class Device(Protocol):
    """A device in a rollout, as the ledger's history has it."""

    stratum: str
    outcome: str
    gates: list[dict[str, Any]]


class Rollout(Protocol):
    """A rollout, as the ledger's history has it."""

    rollout_id: str
    digest: str
    model: str
    status: str
    devices: Mapping[str, Any]

    @property
    def end(self) -> float:
        """When it ended (POSIX seconds)."""


def check_label(text: str, what: str) -> str:
    """Return a word that can be part of a tag's name. Raises RegistryError."""
    if not _LABEL.fullmatch(text):
        raise RegistryError(f"{what} is {text!r}: use letters, digits, - and _, at most 63")
    return text


def serving(rollouts: Iterable[Rollout], model: str) -> dict[str, tuple[str, str]]:
    """Host -> (digest, stratum) of the release of a model that it serves, by the rollouts in their order.

    A device that did not take a release, or went back, has what it had before.
    """
    found: dict[str, tuple[str, str]] = {}
    for rollout in rollouts:
        if rollout.model != model:
            continue
        for host, device in rollout.devices.items():
            if device.outcome in SERVES:
                found[host] = (rollout.digest, device.stratum)
            elif found.get(host, ("", ""))[0] == rollout.digest and device.outcome in ("rolled_back", "self_reverted"):
                del found[host]  # taken back later, under the same digest: what it serves now is not known here
    return found


def compose(
    rollouts: Iterable[Rollout], held: Iterable[str], release: Mapping[str, str], prefix: str, label: str
) -> dict[str, str]:
    """Tags for one release; empty when no rollout was of it.

    release: model, version, digest. held: strata in which it is quarantined. Every value has at most MAX_VALUE
    characters. Raises RegistryError for a prefix or label that cannot be part of a name.
    """
    rollouts = list(rollouts)
    mine = [rollout for rollout in rollouts if rollout.digest == release["digest"]]
    if not mine:
        return {}
    last = mine[-1]
    where = serving(rollouts, release["model"])
    hosts = [stratum for digest, stratum in where.values() if digest == release["digest"]]
    base = f"{check_label(prefix, 'prefix')}.{check_label(label, 'label')}."
    values = {
        "release": f"{release['model']} {release['version']} {release['digest']}",
        "serving": f"{len(hosts)} of {len(where)} devices",
        "strata": _counts(hosts),
        "quarantined": ", ".join(sorted(set(held))) or "none",
        "rollout": last.rollout_id,
        "status": last.status,
        "devices": _counts(device.outcome for device in last.devices.values()),
        "gates": _gates(mine),
        "updated": datetime.fromtimestamp(last.end, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {base + name: _short(value) for name, value in values.items()}


def _counts(items: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(items).items())) or "none"


def _gates(rollouts: Iterable[Rollout]) -> str:
    """How often each gate gave which verdict, over every device and phase."""
    found: dict[str, Counter[str]] = {}
    for device in (device for rollout in rollouts for device in rollout.devices.values()):
        for gate in device.gates:
            found.setdefault(str(gate.get("gate")), Counter())[str(gate.get("verdict"))] += 1
    return "; ".join(f"{name} {_counts(found[name].elements())}" for name in sorted(found)) or "none"


def _short(value: str) -> str:
    return value if len(value) <= MAX_VALUE else value[: MAX_VALUE - 4] + " ..."

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the module quarantine does: list, set and lift entries of the quarantine in a ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import RolloutError
from .ledger import Ledger, quarantine_entries


@dataclass(frozen=True)
class Selection:
    """Which entries are meant; None matches any."""

    model: str | None = None
    version: str | None = None
    digest: str | None = None
    stratum: str | None = None

    def chosen(self, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The entries that fit, in their order."""
        wanted = {name: value for name, value in vars(self).items() if value is not None}
        return [entry for entry in entries if all(entry.get(name) == value for name, value in wanted.items())]


def apply(ledger: Ledger, state: str, selection: Selection, by: str, reason: str | None, check: bool) -> dict[str, Any]:
    """Bring the quarantine to ``state`` (listed, lifted, quarantined); returns changed, entries (standing now), lifted.

    ``by`` and ``reason`` go into the record: a person answers for it. ``check`` writes nothing.
    """
    standing = quarantine_entries(ledger.records())
    chosen = selection.chosen(standing)
    if state == "listed":
        return {"changed": False, "entries": chosen, "lifted": []}
    if not reason:
        raise RolloutError(f"reason is empty: state={state} needs one, it is what others will read in the ledger")
    if state == "lifted":
        return _lift(ledger, standing, chosen, by, reason, check)
    return _set(ledger, standing, selection, by, reason, check)


def _lift(
    ledger: Ledger, standing: list[dict[str, Any]], chosen: list[dict[str, Any]], by: str, reason: str, check: bool
) -> dict[str, Any]:
    if not check:
        for entry in chosen:
            about = {name: entry[name] for name in ("model", "version", "digest", "stratum")}
            ledger.append("quarantine_lifted", {**about, "by": by, "reason": reason}, entry["rollout"])
        if chosen:
            ledger.checkpoint()
    return {"changed": bool(chosen), "entries": [e for e in standing if e not in chosen], "lifted": chosen}


def _set(
    ledger: Ledger, standing: list[dict[str, Any]], selection: Selection, by: str, reason: str, check: bool
) -> dict[str, Any]:
    if not selection.digest or not selection.stratum:
        raise RolloutError("state=quarantined needs digest (sha256:...) and stratum: these two are what is refused")
    if Selection(digest=selection.digest, stratum=selection.stratum).chosen(standing):
        return {"changed": False, "entries": standing, "lifted": []}
    entry = {**vars(selection), "reason": reason}
    if not check:
        ledger.append("quarantine", {**entry, "by": by})
        ledger.checkpoint()
    return {"changed": True, "entries": [*standing, entry], "lifted": []}

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Vetoes: a site says "not now", with who, why and until when. Pure; from the inventory and from the ledger.

A veto has an end: nobody remembers to lift one, and a device that is left out for ever is a device that is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .errors import field_error

_KEYS = ("by", "reason", "until")
_ALL_KEYS = frozenset((*_KEYS, "model"))


@dataclass(frozen=True)
class Veto:
    """Who asks for what reason to be left alone until when (UTC); model: the only one meant, empty for all."""

    by: str
    reason: str
    until: datetime
    model: str = ""

    def stands(self, now: datetime, model: str) -> bool:
        """Whether it counts now for this model."""
        return now < self.until and self.model in ("", model)

    def words(self) -> str:
        """Return it as the reason of a deferral."""
        return f"vetoed by {self.by} until {self.until:%Y-%m-%d %H:%M} UTC: {self.reason}"


def parse_vetoes(where: str, name: str, value: Any) -> list[Veto]:
    """Return the checked vetoes of one host. Raises RolloutError that names host, field and value."""
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise field_error(where, name, value, "write a list of {by: NAME, reason: WHY, until: 2026-12-01T06:00:00Z}")
    return [_veto(where, f"{name}[{index}]", item) for index, item in enumerate(value)]


def _veto(where: str, name: str, value: Any) -> Veto:
    if not isinstance(value, Mapping) or set(value) - _ALL_KEYS:
        raise field_error(where, name, value, "write a mapping with by, reason, until and, if it is about one, model")
    for key in _KEYS:
        if not value.get(key):
            raise field_error(where, f"{name}.{key}", value.get(key), "say who, why and until when")
    until = parse_moment(where, f"{name}.until", value["until"])
    return Veto(str(value["by"]), str(value["reason"]), until, str(value.get("model") or ""))


def parse_moment(where: str, name: str, value: Any) -> datetime:
    """Return a moment (UTC) from text with an offset. Raises RolloutError: a time without one means many moments."""
    if isinstance(value, datetime):  # YAML reads what has no quotes
        moment = value
    else:
        try:
            moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        except ValueError as error:
            raise field_error(where, name, value, "write a time as 2026-12-01T06:00:00+01:00") from error
    if moment.tzinfo is None:
        raise field_error(where, name, str(value), "say in which zone: 2026-12-01T06:00:00+01:00, or with Z for UTC")
    return moment.astimezone(timezone.utc)


def veto_reason(vetoes: Iterable[Veto], now: datetime, model: str) -> str:
    """Return the reason of the veto that lasts longest; empty when none stands now."""
    standing = [veto for veto in vetoes if veto.stands(now, model)]
    return max(standing, key=lambda veto: (veto.until, veto.words())).words() if standing else ""


def recorded_vetoes(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Veto]]:
    """Return host -> vetoes that were recorded in the ledger and not lifted since. records: oldest first."""
    found: dict[str, list[Veto]] = {}
    for record in records:
        data = record["data"]
        if record["type"] == "veto":
            veto = _veto(f"ledger record {record['seq']}", "veto", {key: data.get(key) for key in _ALL_KEYS})
            for host in data.get("hosts") or ():
                found.setdefault(str(host), []).append(veto)
        elif record["type"] == "veto_lifted":
            for host in data.get("hosts") or ():
                model = str(data.get("model") or "")
                found[str(host)] = [veto for veto in found.get(str(host), []) if model and veto.model != model]
    return {host: vetoes for host, vetoes in found.items() if vetoes}

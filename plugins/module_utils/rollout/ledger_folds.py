# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Questions to a ledger, as pure folds over its records (any iterable, oldest first; never held as a whole)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .ledger_format import Record

# Results of `activate` after which the device is not on the new release because of this rollout.
NOT_TAKEN = frozenset(("refused", "unchanged", "reverted"))


def quarantine_entries(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The standing quarantine, oldest first: model, version, digest, stratum, reason, time, rollout of each entry."""
    standing: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        data = record["data"]
        pair = (str(data.get("digest")), str(data.get("stratum")))
        if record["type"] == "quarantine":
            entry = {name: data.get(name) for name in ("model", "version", "digest", "stratum")}
            entry["reason"] = str(data.get("reason") or "no reason given")
            standing[pair] = {**entry, "time": record.get("time"), "rollout": record["rollout"]}
        elif record["type"] == "quarantine_lifted":
            standing.pop(pair, None)
    return list(standing.values())


def quarantined(records: Iterable[Record]) -> dict[tuple[str, str], str]:
    """The standing quarantine: ``(release digest, stratum) -> reason``."""
    return {(str(e["digest"]), str(e["stratum"])): e["reason"] for e in quarantine_entries(records)}


def lifted(records: Iterable[Record]) -> set[tuple[str, str]]:
    """The pairs ``(release digest, stratum)`` whose last word in the ledger is that a person lifted the quarantine."""
    pairs: set[tuple[str, str]] = set()
    for record in records:
        pair = (str(record["data"].get("digest")), str(record["data"].get("stratum")))
        if record["type"] == "quarantine_lifted":
            pairs.add(pair)
        elif record["type"] == "quarantine":
            pairs.discard(pair)
    return pairs


def open_rollout(records: Iterable[Record], model: str, digest: str) -> str | None:
    """The id of the newest rollout of this release that was started and never finished."""
    open_ids: dict[str, None] = {}
    for record in records:
        rollout = record["rollout"]
        if record["type"] == "rollout_started":
            if record["data"].get("model") == model and record["data"].get("digest") == digest:
                open_ids.pop(rollout, None)
                open_ids[rollout] = None
        elif record["type"] == "rollout_finished":
            open_ids.pop(rollout, None)
    return next(reversed(list(open_ids)), None)


def last_rollout(records: Iterable[Record]) -> str | None:
    """The id of the rollout that was started last. Upgrades of K3s go back by themselves and do not count."""
    last: str | None = None
    for record in records:
        if record["type"] == "rollout_started" and record["data"].get("kind") != "upgrade":
            last = record["rollout"]
    return last


def finished(records: Iterable[Record], rollout_id: str) -> str | None:
    """The status a rollout ended with, or None while it is open (a resumed rollout is open again)."""
    status: str | None = None
    for record in records:
        if record["rollout"] != rollout_id:
            continue
        if record["type"] == "rollout_finished":
            status = str(record["data"].get("status"))
        elif record["type"] == "rollout_started":
            status = None
    return status


def _settles(data: Record, confirmed_counts: bool) -> bool:
    """True when this result means the device needs no way back."""
    action, result = data.get("action"), data.get("result")
    if action == "confirm":
        if data.get("reverted") or result == "reverted":
            return True
        return confirmed_counts and not data.get("failed") and result in ("confirmed", "unchanged")
    if action == "revert":
        return not data.get("failed") and not data.get("unreachable") and data.get("golden_restored") is not False
    if action == "activate":
        if data.get("touched") is False:
            return True
        if data.get("unreachable"):
            return False
        return bool(data.get("reverted")) or result in NOT_TAKEN
    return False


def _fold(records: Iterable[Record], rollout_id: str, confirmed_counts: bool) -> list[dict[str, Any]]:
    waiting: dict[str, dict[str, Any]] = {}
    for record in records:
        host = record["host"]
        if record["rollout"] != rollout_id or host is None:
            continue
        data = record["data"]
        if record["type"] == "intent" and data.get("action") == "activate":
            waiting.pop(host, None)
            waiting[host] = {
                "host": host,
                "model": data.get("model"),
                "version": data.get("version"),
                "digest": data.get("digest"),
                "stratum": data.get("stratum"),
                "wave": data.get("wave"),
            }
        elif record["type"] == "result" and host in waiting and _settles(data, confirmed_counts):
            del waiting[host]
    return sorted(waiting.values(), key=lambda item: -(item["wave"] or 0))


def unsettled(records: Iterable[Record], rollout_id: str) -> list[dict[str, Any]]:
    """The devices of a rollout that may be on the new release without it being accepted, newest wave first.

    A device is in the list from its intent to activate until a result says that it confirmed, went back, or never
    took the release. A device that was unreachable stays in the list.
    Each item: host, model, version, digest, stratum, wave.
    """
    return _fold(records, rollout_id, True)


def taken_back(records: Iterable[Record], rollout_id: str) -> set[str]:
    """The devices of a rollout that were taken back from it, and have not been asked to take it again since."""
    back: set[str] = set()
    for record in records:
        host, data = record["host"], record["data"]
        if record["rollout"] != rollout_id or host is None:
            continue
        if record["type"] == "intent" and data.get("action") == "activate":
            back.discard(host)
        elif record["type"] == "result" and data.get("action") == "revert" and _settles(data, True):
            back.add(host)
    return back


def activated(records: Iterable[Record], rollout_id: str) -> list[dict[str, Any]]:
    """Like `unsettled`, with the devices that confirmed: everything that would have to go back to undo the rollout."""
    return _fold(records, rollout_id, False)

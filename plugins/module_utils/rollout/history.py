# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the ledger says that a new plan or a verdict depends on: one pass over its records, kept small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .findings import DEVICE_CODES, RELEASE_CODES

Record = Mapping[str, Any]

NEVER_SWITCHED = (RELEASE_CODES | DEVICE_CODES) - {"damaged"}
"""Failures that end before a device switches."""


@dataclass
class History:
    """quarantined: (digest, stratum) -> reason; lifted: pairs whose last word is that a person lifted them;
    finished: how many rollouts of this release ended; open_id and open_seed: the newest one that did not;
    suspects: hosts whose last attempt at this release failed by a condition of their own;
    A rollout that stopped between two waves has not ended: the next run goes on with it.
    unsettled: host -> (rollout id, ledger time) of an activation, of any release, that was not settled since.
    """

    quarantined: dict[tuple[str, str], str] = field(default_factory=dict)
    lifted: set[tuple[str, str]] = field(default_factory=set)
    finished: int = 0
    open_id: str | None = None
    open_seed: str | None = None
    suspects: set[str] = field(default_factory=set)
    unsettled: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_history(records: Iterable[Record], model: str, digest: str) -> History:
    """Fold the ledger for a rollout of this release. records: oldest first, any iterable."""
    history = History()
    opened: dict[str, str | None] = {}
    about: set[str] = set()
    for record in records:
        kind, data, rollout = record["type"], record["data"], record["rollout"]
        if kind in ("quarantine", "quarantine_lifted"):
            _note_quarantine(history, kind, data)
        elif kind == "rollout_started" and data.get("model") == model and data.get("digest") == digest:
            about.add(rollout)
            opened.pop(rollout, None)
            opened[rollout] = _mapping(data.get("plan")).get("seed")
        elif kind == "rollout_finished" and rollout in about and data.get("status") != "stopped":
            opened.pop(rollout, None)
            history.finished += 1
        elif kind == "intent" and data.get("action") == "activate" and record["host"]:
            history.unsettled[record["host"]] = (str(rollout), str(record["time"]))
        elif kind == "result" and record["host"]:
            _note_result(history, record["host"], data, digest)
    if opened:
        history.open_id, history.open_seed = list(opened.items())[-1]
    return history


@dataclass
class Progress:
    """One rollout since it was last started. verdicts: (wave, stage) pairs judged; intents: hosts that were to be
    activated; status: how it was finished, None while it is open; halted: why nothing new may start, empty if it may;
    stopped: why it stopped between two waves; aborted: who asked for its end, and why; worse: what its A/B test found.
    """

    started: bool = False
    status: str | None = None
    verdicts: set[tuple[int, str]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    halted_strata: set[str] = field(default_factory=set)
    halted: str = ""
    intents: set[str] = field(default_factory=set)
    deferred: set[str] = field(default_factory=set)
    stopped: str = ""
    aborted: str = ""
    worse: str = ""


def read_progress(records: Iterable[Record], rollout_id: str) -> Progress:
    """Fold the ledger for one rollout. records: oldest first, any iterable."""
    progress = Progress()
    for record in records:
        if record["rollout"] != rollout_id:
            continue
        kind, data = record["type"], record["data"]
        if kind == "rollout_started" and data.get("continued"):
            progress.status, progress.stopped, progress.aborted = None, "", ""
        elif kind == "rollout_started":
            progress = Progress(started=True)
        elif kind == "stopped":
            progress.stopped = str(data.get("reason"))
        elif kind == "abort_requested":
            progress.aborted = f"{data.get('by')}: {data.get('reason')}"
        elif kind == "rollout_finished":
            progress.status = str(data.get("status"))
        elif kind == "verdict":
            progress.verdicts.add((int(data.get("wave") or 0), str(data.get("stage"))))
            progress.failed.update(data.get("failed_strata") or ())
            progress.held.update(data.get("held_strata") or ())
            progress.halted_strata.update(data.get("halted_strata") or ())
            progress.halted = progress.halted or str(data.get("halt_reason") or "")
        elif kind == "ab_test" and data.get("verdict") == "fail":
            progress.failed.update(data.get("strata") or ())
            progress.halted = progress.worse = str(data.get("reason"))
        elif kind == "intent" and data.get("action") == "activate":
            progress.intents.add(record["host"])
        elif kind == "deferred":
            progress.deferred.add(record["host"])
    return progress


def final_status(plan: Mapping[str, Any], progress: Progress) -> str:
    """Return how a rollout ended: nothing_to_do, halted, stopped (between two waves), succeeded, or aborted (somebody
    asked for it, or a wave was never judged)."""
    if not plan["waves"]:
        return "nothing_to_do"
    if progress.aborted:
        return "aborted"
    if progress.stopped:
        return "stopped"
    if progress.halted_strata or progress.halted:
        return "halted"
    judged = all((wave["number"], "soak") in progress.verdicts for wave in plan["waves"])
    return "succeeded" if judged else "aborted"


def _note_quarantine(history: History, kind: str, data: Mapping[str, Any]) -> None:
    pair = (str(data.get("digest")), str(data.get("stratum")))
    if kind == "quarantine":
        history.quarantined[pair] = str(data.get("reason") or "no reason given")
        history.lifted.discard(pair)
    else:
        history.quarantined.pop(pair, None)
        history.lifted.add(pair)


def _note_result(history: History, host: str, data: Mapping[str, Any], digest: str) -> None:
    if data.get("action") == "upgrade":
        return  # of K3s: it says nothing about a release
    failed, code, named = bool(data.get("failed")), data.get("code"), data.get("result")
    if data.get("digest") == digest and data.get("action") == "activate":
        if failed and code in DEVICE_CODES:
            history.suspects.add(host)
        else:
            history.suspects.discard(host)
    if data.get("unreachable"):
        return
    back = bool(data.get("reverted")) or named in ("reverted", "refused")
    done = not failed and named in ("confirmed", "unchanged")
    if back or done or (failed and code in NEVER_SWITCHED):
        history.unsettled.pop(host, None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

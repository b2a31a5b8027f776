# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What people say to a rollout while it runs, as folds over the ledger: pause, resume, abort, approve. Pure.

Everything is a record with who and why, so it outlives the controller, and the next run obeys it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from .approvers import Keys, problem
from .policy import Approval
from .vetoes import parse_moment

Record = Mapping[str, Any]
_OF_OTHERS = frozenset(("watchdog", "paused", "resumed", "approved", "checkpoint", "notify_failed", "ab_test"))


class Word(NamedTuple):
    """Who said it, why, and when (as the ledger writes it)."""

    by: str
    reason: str
    time: str


class Approved(NamedTuple):
    """One approval to go on behind a wave of a plan (0: before its first one), which counts until a moment (UTC)."""

    by: str
    wave: int
    until: datetime


def _word(record: Record) -> Word:
    return Word(str(record["data"].get("by")), str(record["data"].get("reason")), str(record["time"]))


def paused(records: Iterable[Record], model: str) -> Word | None:
    """Return who paused the rollouts of a model, None when nobody did or somebody resumed them since."""
    word = None
    for record in records:
        if record["type"] in ("paused", "resumed") and record["data"].get("model") == model:
            word = _word(record) if record["type"] == "paused" else None
    return word


def abort_asked(records: Iterable[Record], rollout: str) -> Word | None:
    """Return who asked to abort this rollout since it was last started."""
    word = None
    for record in records:
        if record["rollout"] == rollout and record["type"] == "abort_requested":
            word = _word(record)
        elif record["rollout"] == rollout and record["type"] == "rollout_started":
            word = None
    return word


def approvals(records: Iterable[Record], plan_hash: str, keys: Keys | None = None) -> list[Approved]:
    """Return the approvals of exactly this plan, of any rollout; with keys, only those that are signed."""
    found = []
    for record in records:
        data = record["data"]
        if record["type"] == "approved" and data.get("plan_hash") == plan_hash:
            until = parse_moment(f"ledger record {record['seq']}", "until", data.get("until"))
            by, wave = str(data.get("by")), int(data.get("wave") or 0)
            if not problem(keys, by, plan_hash, wave, data.get("signature")):
                found.append(Approved(by, wave, until))
    return found


def approvers(found: Iterable[Approved], wave: int, now: datetime) -> list[str]:
    """Return the different people whose approval of what follows ``wave`` counts now, sorted."""
    return sorted({item.by for item in found if item.wave == wave and now < item.until})


def approval_due(approval: Approval, plan: Mapping[str, Any], wave: int) -> int | None:
    """Return the wave (0: the plan itself) behind which people must approve before ``wave`` begins; None for none."""
    before = wave - 1
    kinds = {item["number"]: item["kind"] for item in plan["waves"]}
    if before == 0:
        return 0 if "plan" in approval.after else None
    last_canary = max((number for number, kind in kinds.items() if kind == "canary"), default=0)
    if "every" in approval.after or ("canary" in approval.after and before == last_canary):
        return before
    return None


def missing_approval(approval: Approval, given: Iterable[Approved], after: int, now: datetime) -> str:
    """Return what is still missing before the rollout may go on behind ``after``; empty when nothing is."""
    people = approvers(given, after, now)
    if len(people) >= approval.people:
        return ""
    who = f" ({', '.join(people)})" if people else ""
    what = f"wave {after}" if after else "the plan"
    return f"{len(people)} of {approval.people} approvals{who} to go on behind {what}"


class Current(NamedTuple):
    """The rollout that a person means. status: None while it is open; after: the wave behind which it
    waits, or stopped."""

    rollout: str
    plan: Mapping[str, Any]
    status: str | None
    after: int | None


def current(records: Iterable[Record], model: str | None, rollout: str | None) -> Current | None:
    """Return the rollout with this id, or the one that was started last (of this model, if given); None for none."""
    found: Current | None = None
    for record in records:
        data = record["data"]
        if record["type"] == "rollout_started":
            if (rollout is None or record["rollout"] == rollout) and model in (None, data.get("model")):
                found = Current(str(record["rollout"]), data.get("plan") or {}, None, None)
        elif found is None or record["rollout"] != found.rollout:
            continue
        elif record["type"] in ("waiting", "stopped"):
            found = found._replace(after=int(data.get("after") or 0))
        elif record["type"] in ("intent", "verdict"):
            found = found._replace(after=None)
        elif record["type"] == "rollout_finished":
            found = found._replace(status=str(data.get("status")))
    return found


def waiting(records: Iterable[Record], rollout: str) -> Mapping[str, Any] | None:
    """Return what a rollout waits for (after, why), and for how many seconds in all, if that is the last it said."""
    found: Mapping[str, Any] | None = None
    for record in records:
        if record["rollout"] != rollout or record["type"] in _OF_OTHERS:
            continue
        if record["type"] == "waiting":
            seconds = int(record["data"].get("seconds") or 0)
            found = {**record["data"], "seconds": seconds + (found["seconds"] if found else 0)}
        else:
            found = None
    return found


def clock() -> datetime:
    """The controller's clock, UTC: the only one that decides."""
    return datetime.now(timezone.utc)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What rollout_control does: check what a person says against the ledger, and append it to that."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Callable

from . import control
from .approvers import Keys, problem
from .errors import RolloutError, field_error
from .ledger import Ledger
from .ledger_format import timestamp
from .policy import parse_policy
from .vetoes import parse_moment, recorded_vetoes
from .waves_text import some

ENDED = ("succeeded", "halted", "aborted", "nothing_to_do")
MAX_VETO_DAYS = 92


@dataclass(frozen=True)
class Order:
    """What somebody wants. by: who; now: the controller's clock (UTC); check: write nothing."""

    by: str
    reason: str
    now: datetime
    check: bool = False
    model: str | None = None
    rollout: str | None = None
    plan_hash: str | None = None
    wave: int | None = None
    hosts: list[str] = field(default_factory=list)
    until: str | None = None
    signature: str | None = None
    approvers: Keys | None = None


def apply(ledger: Ledger, state: str, order: Order) -> dict[str, Any]:
    """Do what ``state`` says; returns changed and msg, and what is known of the rollout meant. Raises RolloutError."""
    return _ACTIONS[state](ledger, order)


def _reason(order: Order, what: str) -> str:
    if not order.reason.strip():
        raise RolloutError(f"reason is empty: to {what} needs one, it is what others will read in the ledger")
    return order.reason


def _current(ledger: Ledger, order: Order) -> control.Current:
    found = control.current(ledger.records(), order.model, order.rollout)
    if found is None:
        named = order.rollout or order.model
        raise RolloutError(f"the ledger {ledger.path} has no rollout" + (f" of {named}" if named else " yet"))
    return found


def _write(
    ledger: Ledger, order: Order, kind: str, data: dict[str, Any], rollout: str | None, msg: str
) -> dict[str, Any]:
    if not order.check:
        ledger.append(kind, {**data, "by": order.by, "reason": order.reason}, rollout)
        ledger.checkpoint()
    return {"changed": True, "rollout_id": rollout, "msg": msg}


def _pause(ledger: Ledger, order: Order) -> dict[str, Any]:
    _reason(order, "pause")
    found = control.current(ledger.records(), order.model, order.rollout)
    model = order.model or (found.plan.get("model") if found else None)
    if not model:
        raise RolloutError(f"model is missing: the ledger {ledger.path} has no rollout yet that could name it")
    word = control.paused(ledger.records(), str(model))
    if word:
        msg = f"{model} is paused already, by {word.by} at {word.time}: {word.reason}"
        return {"changed": False, "rollout_id": found.rollout if found else None, "msg": msg}
    rollout = found.rollout if found and found.status in (None, "stopped") else None
    msg = f"{model} is paused: no further wave begins until somebody resumes it"
    return _write(ledger, order, "paused", {"model": model}, rollout, msg)


def _resume(ledger: Ledger, order: Order) -> dict[str, Any]:
    found = control.current(ledger.records(), order.model, order.rollout)
    model = order.model or (found.plan.get("model") if found else None)
    rollout = found.rollout if found else None
    if not model or control.paused(ledger.records(), str(model)) is None:
        return {"changed": False, "rollout_id": rollout, "msg": f"{model or 'no model'} is not paused"}
    again = found is not None and found.status == "stopped"
    msg = f"{model} is no longer paused" + ("; run edgeai.fleet.rollout again to go on" if again else "")
    return _write(ledger, order, "resumed", {"model": model}, rollout, msg)


def _abort(ledger: Ledger, order: Order) -> dict[str, Any]:
    _reason(order, "abort")
    found = _current(ledger, order)
    if found.status == "aborted":
        return {"changed": False, "rollout_id": found.rollout, "msg": f"{found.rollout} was aborted already"}
    if found.status in ENDED:
        raise RolloutError(
            f"rollout {found.rollout} has ended: {found.status}; to take a whole rollout back, run "
            "edgeai.fleet.rollback with edge_rollback_scope=all"
        )
    if control.abort_asked(ledger.records(found.rollout), found.rollout):
        return {"changed": False, "rollout_id": found.rollout, "msg": f"{found.rollout} is being aborted already"}
    msg = f"{found.rollout} is aborted: what it changed goes back"
    return _write(ledger, order, "abort_requested", {"model": found.plan.get("model")}, found.rollout, msg)


def _approve(ledger: Ledger, order: Order) -> dict[str, Any]:
    found = _current(ledger, order)
    known = str(found.plan.get("plan_hash"))
    if found.status in ENDED:
        raise RolloutError(f"rollout {found.rollout} has ended: {found.status}; there is nothing to approve")
    if order.plan_hash != known:
        raise field_error(
            "approval", "plan_hash", order.plan_hash,
            f"the plan of rollout {found.rollout} is {known}: look at that one and approve it",
        )  # fmt: skip
    after = found.after if order.wave is None else order.wave
    waves = len(found.plan.get("waves") or ())
    if after is None or not 0 <= after < waves:
        raise field_error(
            "approval",
            "wave",
            after,
            f"it waits for none now; name the wave behind which it may go on, 0 to {waves - 1}",
        )
    why = problem(order.approvers, order.by, known, after, order.signature)
    if why:
        raise field_error("approval", "by", order.by, f"it does not count: {why}")
    given = control.approvals(ledger.records(), known, order.approvers)
    if order.by in control.approvers(given, after, order.now):
        raise field_error("approval", "by", order.by, "has approved this already: another person has to")
    policy = parse_policy(found.plan.get("policy"), "plan.policy")
    until = timestamp(order.now + timedelta(seconds=policy.approval.valid))
    people = len(control.approvers(given, after, order.now)) + 1
    msg = f"{people} of {policy.approval.people} approvals to go on behind wave {after}, this one until {until}"
    if found.status == "stopped" and people >= policy.approval.people:
        msg += "; run edgeai.fleet.rollout again to go on"
    data = {"plan_hash": known, "wave": after, "until": until, "signature": order.signature}
    return _write(ledger, order, "approved", data, found.rollout, msg)


def _veto(ledger: Ledger, order: Order) -> dict[str, Any]:
    _reason(order, "veto")
    if not order.hosts:
        raise RolloutError("hosts is empty: a veto is about devices; name a site's group with --limit")
    if not order.until:
        raise field_error("veto", "expires", order.until, "a veto ends: write a time as 2026-12-01T06:00:00+01:00")
    until = parse_moment("veto", "expires", order.until)
    if not order.now < until <= order.now + timedelta(days=MAX_VETO_DAYS):
        raise field_error("veto", "expires", order.until, f"write a time within the next {MAX_VETO_DAYS} days")
    data = {"hosts": sorted(order.hosts), "until": timestamp(until), "model": order.model or ""}
    msg = f"left alone until {timestamp(until)}: {some(sorted(order.hosts), 20)}"
    return _write(ledger, order, "veto", data, None, msg)


def _unveto(ledger: Ledger, order: Order) -> dict[str, Any]:
    _reason(order, "lift a veto")
    standing = recorded_vetoes(ledger.records())
    hosts = sorted(host for host in order.hosts if host in standing)
    if not hosts:
        return {"changed": False, "rollout_id": None, "msg": "the ledger has no veto for these devices"}
    data = {"hosts": hosts, "model": order.model or ""}
    return _write(ledger, order, "veto_lifted", data, None, f"no longer vetoed: {some(hosts, 20)}")


_ACTIONS: dict[str, Callable[[Ledger, Order], dict[str, Any]]] = {
    "paused": _pause,
    "running": _resume,
    "aborted": _abort,
    "approved": _approve,
    "vetoed": _veto,
    "unvetoed": _unveto,
}
STATES = tuple(_ACTIONS)

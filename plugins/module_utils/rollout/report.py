# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Fold ledger records into the story of each rollout: who changed when, how it ended, on what evidence.

Pure: records in, data out, one pass, in ledger order. Memory grows with the devices of the rollouts that are kept
(the latest ``keep``), not with the length of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .errors import RolloutError

# How a device can stand in a rollout, in the order a reader wants them; bad ends first.
OUTCOMES = (
    ("failed", "failed"),
    ("candidate_failed", "failed its gate"),
    ("self_reverted", "reverted itself"),
    ("rolled_back", "rolled back"),
    ("in_flight", "unsettled"),
    ("activated", "active, unconfirmed"),
    ("unreachable", "unreachable"),
    ("confirmed", "confirmed"),
    ("unchanged", "unchanged"),
    ("refused", "refused"),
    ("deferred", "deferred"),
    ("waiting", "not started"),
)
OUTCOME_TEXT = dict(OUTCOMES)
SAID = ("paused", "resumed", "abort_requested", "approved", "waiting", "stopped", "notify_failed", "ab_test")
"""Records of what people say while a rollout is open, and of what it does about it."""
BAD = ("failed", "candidate_failed", "self_reverted", "rolled_back", "in_flight", "unreachable")


def parse_time(text: str) -> float:
    """Return the POSIX time (s) of an ISO 8601 time as the ledger writes it (UTC, ``Z`` or an offset)."""
    try:
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except (ValueError, AttributeError) as exc:
        raise RolloutError(f"ledger: time is {text!r}: must be ISO 8601, like 2026-11-23T11:00:00Z") from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


@dataclass
class Device:
    """One device in one rollout. Times are POSIX seconds."""

    host: str
    stratum: str = ""
    wave: int = 0
    outcome: str = "waiting"
    started: float | None = None
    activated: float | None = None
    settled: float | None = None
    message: str = ""
    code: str = ""
    variant: str = ""
    gates: list[dict[str, Any]] = field(default_factory=list)
    transfer: dict[str, Any] = field(default_factory=dict)
    durations_ms: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    golden_before: str = ""
    golden_after: str = ""
    golden_restored: bool | None = None

    @property
    def went_back(self) -> bool:
        """True when the device is on the release before, after it took this one or tried it as a candidate."""
        return self.outcome in ("candidate_failed", "self_reverted", "rolled_back")

    @property
    def switched(self) -> bool:
        """False when all that was measured, was measured beside the release in service: this one never served."""
        return not self.gates or any(gate.get("phase") != "candidate" for gate in self.gates)


@dataclass
class Rollout:
    """Everything one rollout id left in the ledger. Times are POSIX seconds."""

    rollout_id: str
    started: float
    model: str = ""
    version: str = ""
    digest: str = ""
    plan_hash: str = ""
    user: str = ""
    playbook: str = ""
    finished: float | None = None
    last: float = 0.0
    status: str = "open"
    runs: int = 1
    policy: dict[str, Any] = field(default_factory=dict)
    waves: list[dict[str, Any]] = field(default_factory=list)
    devices: dict[str, Device] = field(default_factory=dict)
    deferred: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def end(self) -> float:
        """When it ended, or the time of the last thing known about it. A rollback afterwards does not prolong it."""
        return self.finished if self.finished is not None else max(self.last, self.started)

    @property
    def taken_back(self) -> bool:
        """True when it had ended, and somebody took it back afterwards."""
        started = (event["time"] for event in self.events if event["kind"] == "rollback started")
        return self.finished is not None and any(time >= self.finished for time in started)

    def device(self, host: str) -> Device:
        """Return the device, made on first sight: a ledger may name a host that its plan does not."""
        if host not in self.devices:
            self.devices[host] = Device(host)
        return self.devices[host]

    def counts(self) -> dict[str, int]:
        """Return how many devices ended how, in the order of OUTCOMES, without zeros."""
        found: dict[str, int] = {}
        for device in self.devices.values():
            found[device.outcome] = found.get(device.outcome, 0) + 1
        return {key: found[key] for key, _text in OUTCOMES if key in found}


@dataclass
class Quarantine:
    """One (release digest x stratum) that was refused, and by whom it was let go again, if it was."""

    model: str
    version: str
    digest: str
    stratum: str
    reason: str
    time: float
    rollout_id: str
    lifted: float | None = None
    lifted_by: str = ""
    lifted_reason: str = ""


@dataclass
class History:
    """What a ledger tells: its rollouts (oldest first), its quarantine, its extent."""

    rollouts: dict[str, Rollout] = field(default_factory=dict)
    quarantine: list[Quarantine] = field(default_factory=list)
    records: int = 0
    first: float | None = None
    last: float | None = None
    left_out: int = 0
    unreadable: str = ""


def fold(records: Iterable[dict[str, Any]], only: Sequence[str] = (), keep: int = 20) -> History:
    """Read all records once and return the history.

    only: rollout ids to keep (all when empty). keep: of those, at most the latest this many, which bounds memory.
    Raises RolloutError when an id in ``only`` is not in the ledger.
    """
    history = History()
    dropped: set[str] = set()
    for record in _readable(records, history):
        when = parse_time(record.get("time", ""))
        history.records += 1
        history.first = when if history.first is None else history.first
        history.last = when
        kind, data, rollout_id = record.get("type", ""), record.get("data") or {}, record.get("rollout")
        if kind in ("quarantine", "quarantine_lifted"):
            _fold_quarantine(history, kind, data, when, rollout_id or "")
        if not rollout_id or rollout_id in dropped or (only and rollout_id not in only):
            continue
        if rollout_id not in history.rollouts:
            history.rollouts[rollout_id] = Rollout(rollout_id, when)
            if len(history.rollouts) > keep:
                oldest = next(iter(history.rollouts))
                del history.rollouts[oldest]
                dropped.add(oldest)
                history.left_out += 1
        rollout = history.rollouts[rollout_id]
        rollout.last = when
        handler = _HANDLERS.get(kind)
        if handler:
            handler(rollout, data, record.get("host"), when)
    missing = [name for name in only if name not in history.rollouts and name not in dropped]
    if missing:
        raise RolloutError(f"ledger: rollouts is {missing[0]!r}: no record of it; name a rollout id of this ledger")
    return history


def _readable(records: Iterable[dict[str, Any]], history: History) -> Iterator[dict[str, Any]]:
    """Yield records up to the first damaged one: a report must still show what a damaged ledger holds, and say so."""
    try:
        for record in records:
            parse_time(record["time"])
            yield record
    except (RolloutError, KeyError) as error:
        history.unreadable = str(error)


def _fold_quarantine(history: History, kind: str, data: dict[str, Any], when: float, rollout_id: str) -> None:
    digest, stratum = str(data.get("digest", "")), str(data.get("stratum", ""))
    held = [q for q in history.quarantine if (q.digest, q.stratum) == (digest, stratum) and q.lifted is None]
    if kind == "quarantine_lifted":
        for item in held:
            item.lifted, item.lifted_by = when, str(data.get("by", ""))
            item.lifted_reason = str(data.get("reason", ""))
    elif not held:
        history.quarantine.append(
            Quarantine(
                str(data.get("model", "")),
                str(data.get("version", "")),
                digest,
                stratum,
                str(data.get("reason", "")),
                when,
                rollout_id,
            )
        )


def _on_started(rollout: Rollout, data: dict[str, Any], _host: str | None, when: float) -> None:
    if rollout.waves or rollout.plan_hash:
        rollout.runs += 1  # the same id again: a resumed run
    for name in ("model", "version", "digest", "plan_hash", "user", "playbook"):
        setattr(rollout, name, str(data.get(name) or getattr(rollout, name)))
    rollout.status, rollout.finished = "open", None
    plan = data.get("plan") or {}
    rollout.policy = plan.get("policy") or rollout.policy
    strata = plan.get("stratum_of") or {}
    known = {wave.get("number") for wave in plan.get("waves") or []}
    # A resumed run plans only what is left: waves that already ran stay in the picture.
    rollout.waves = [w for w in rollout.waves if w.get("number") not in known] + list(plan.get("waves") or [])
    rollout.waves.sort(key=lambda wave: wave.get("number") or 0)
    for wave in plan.get("waves") or []:
        for host in wave.get("hosts") or []:
            device = rollout.device(host)
            device.wave, device.stratum = int(wave.get("number") or 0), str(strata.get(host) or device.stratum)
    for host in plan.get("unchanged") or []:
        device = rollout.device(host)
        device.stratum = str(strata.get(host) or device.stratum)
        if device.started is None:
            device.outcome = "unchanged"
    for item in plan.get("deferred") or []:
        _on_deferred(rollout, item, item.get("host"), when)
    for item in plan.get("refused") or []:
        _on_refused(rollout, item, item.get("host"), when)


def _on_deferred(rollout: Rollout, data: dict[str, Any], host: str | None, _when: float) -> None:
    device = rollout.device(str(data.get("host") or host or ""))
    device.stratum = str(data.get("stratum") or device.stratum)
    rollout.deferred[device.host] = (device.stratum, str(data.get("reason", "")))
    if data.get("kind") != "held":  # held: it was planned, and the rollout ended before its wave
        device.outcome = "deferred"


def _on_refused(rollout: Rollout, data: dict[str, Any], host: str | None, _when: float) -> None:
    name = str(data.get("host") or host or "")
    device = rollout.device(name)
    device.outcome, device.stratum = "refused", str(data.get("stratum") or device.stratum)
    rollout.refused[name] = (device.stratum, str(data.get("reason", "")))


def _on_intent(rollout: Rollout, data: dict[str, Any], host: str | None, when: float) -> None:
    device = rollout.device(str(host or ""))
    device.stratum = str(data.get("stratum") or device.stratum)
    device.wave = int(data.get("wave") or device.wave)
    if data.get("action") in ("activate", "upgrade"):
        rollout.deferred.pop(device.host, None)  # an earlier run had deferred it
        device.started, device.activated, device.settled = when, None, None
        device.outcome, device.gates = "in_flight", []


def _on_result(rollout: Rollout, data: dict[str, Any], host: str | None, when: float) -> None:
    device = rollout.device(str(host or ""))
    _keep_evidence(device, data)
    action, result, failed = data.get("action"), str(data.get("result") or ""), bool(data.get("failed"))
    if data.get("unreachable"):
        device.outcome, device.settled = "unreachable", None  # what it serves is not known; its own deadline settles it
        return
    if result == "refused":
        device.outcome = "refused"
        rollout.refused[device.host] = (device.stratum, device.message)
    elif action == "upgrade":  # of K3s: judged on the device at once, and back by itself
        device.outcome = {"upgraded": "confirmed", "unchanged": "unchanged", "reverted": "self_reverted"}.get(
            result, "failed"
        )
        device.activated = when if result == "upgraded" else None
    elif action == "activate" and not failed:
        device.outcome = "unchanged" if result == "unchanged" else "activated"
        device.activated = when
    elif action == "confirm" and not failed:
        device.outcome, device.settled = "confirmed", when
        return
    elif action == "revert" and not failed:
        if result != "unchanged" or not device.went_back:  # a rollback play also asks who is back already
            device.outcome, device.settled = "rolled_back", when
        return
    else:
        reverted = bool(data.get("reverted")) or result == "reverted"
        back = "self_reverted" if device.switched else "candidate_failed"
        device.outcome = back if reverted else "failed"
    if device.outcome != "activated":
        device.settled = when


def _keep_evidence(device: Device, data: dict[str, Any]) -> None:
    action = str(data.get("action") or "")
    for gate in data.get("gates") or []:
        if isinstance(gate, dict):
            device.gates.append(dict(gate, action=action))
    if data.get("failed"):
        device.message, device.code = str(data.get("msg") or device.message), str(data.get("code") or device.code)
    active = data.get("active") or {}
    if action == "activate":
        device.transfer = dict(data.get("transfer") or {})
        device.durations_ms = dict(data.get("durations_ms") or {})
    if action in ("activate", "confirm") and (data.get("variant") or not data.get("failed")):
        device.variant = str(data.get("variant") or active.get("variant") or device.variant)
    device.server = dict(data.get("server") or device.server)
    for name in ("golden_before", "golden_after"):
        if data.get(name):
            setattr(device, name, str(data[name]))
    if data.get("golden_restored") is not None:
        device.golden_restored = bool(data["golden_restored"])


def _on_unreachable(rollout: Rollout, data: dict[str, Any], host: str | None, when: float) -> None:
    device = rollout.device(str(host or data.get("host") or ""))
    if device.outcome in ("waiting", "in_flight", "activated"):
        device.outcome = "unreachable"
    device.message = str(data.get("msg") or data.get("reason") or "unreachable")
    rollout.failures.append({"host": device.host, "kind": "unreachable", "time": when, "message": device.message})


def _on_task_failed(rollout: Rollout, data: dict[str, Any], host: str | None, when: float) -> None:
    if rollout.finished is not None:
        return  # the playbook ends in a failing task when the rollout did not succeed: that is its status, said already
    rollout.failures.append(
        {
            "host": str(host or data.get("host") or ""),
            "kind": str(data.get("task") or "task"),
            "time": when,
            "message": str(data.get("msg") or data.get("reason") or ""),
        }
    )


def _on_verdict(rollout: Rollout, data: dict[str, Any], _host: str | None, when: float) -> None:
    rollout.verdicts.append(dict(data, time=when))


def _on_finished(rollout: Rollout, data: dict[str, Any], _host: str | None, when: float) -> None:
    rollout.status, rollout.finished = str(data.get("status") or "finished"), when


def _event(kind: str) -> Callable[..., None]:
    def handler(rollout: Rollout, data: dict[str, Any], _host: str | None, when: float) -> None:
        rollout.events.append({"kind": kind, "time": when, "data": data})

    return handler


_HANDLERS: dict[str, Callable[..., None]] = {
    "rollout_started": _on_started,
    "deferred": _on_deferred,
    "refused": _on_refused,
    "intent": _on_intent,
    "result": _on_result,
    "unreachable": _on_unreachable,
    "task_failed": _on_task_failed,
    "verdict": _on_verdict,
    "rollback_started": _event("rollback started"),
    "rollback_finished": _event("rollback finished"),
    "watchdog": _event("watchdog"),
    **{name: _event(name.replace("_", " ")) for name in SAID},
    "rollout_finished": _on_finished,
}

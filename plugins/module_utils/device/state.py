# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a device knows about one model, and every transition of it as a pure function.

A transition is made in two steps so that a power cut between them is told apart from a finished one: first a state with
``pending`` is written (journal, then state.json), then the links move, then the finished state is written. `reconcile`
looks at a state and at the links and says which of the two it is:

* pending activation, link still on the old release: rolled back (the old one serves, a rerun starts anew);
* pending activation, link on the new release: rolled forward, unconfirmed, with the deadline set before the switch;
* pending revert or removal: rolled forward (the decision to leave a release is never forgotten);
* nothing pending and the link disagrees: the link is what serves, so the link is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from .clock import EPOCH, Deadline, parse_time
from .errors import DeviceError

FORMAT = 1
MAX_BYTES = 256 * 1024
MAX_QUARANTINE = 200
OPERATIONS = ("activate", "revert", "absent")


@dataclass(frozen=True)
class Ref:
    """One variant of one release: what ``current`` and ``previous`` point to. ``digest`` is ``sha256:<hex>``."""

    version: str
    digest: str
    variant: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"version": self.version, "digest": self.digest, "variant": self.variant}


@dataclass(frozen=True)
class Unconfirmed:
    """The active release while nobody has accepted it for good.

    ``gated``: the serving gate passed. ``evidence``: what it saw (start_id, boot_id, error counters), compared at the
    confirmation. ``before``: the release before the one that a revert goes back to, so that a revert restores both.
    """

    version: str
    digest: str
    variant: str
    rollout_id: str | None
    deadline: Deadline
    gated: bool = False
    evidence: dict[str, Any] = field(default_factory=dict)
    before: Ref | None = None

    @property
    def ref(self) -> Ref:
        """The release it is about."""
        return Ref(self.version, self.digest, self.variant)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "version": self.version,
            "digest": self.digest,
            "variant": self.variant,
            "rollout_id": self.rollout_id,
            "deadline": self.deadline.to_dict(),
            "gated": self.gated,
            "evidence": self.evidence,
            "before": self.before.to_dict() if self.before else None,
        }


@dataclass(frozen=True)
class Quarantined:
    """A release (by digest) that failed on a stratum: refused here until a person lifts it."""

    digest: str
    stratum: str
    reason: str
    time: str
    rollout_id: str | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "digest": self.digest,
            "stratum": self.stratum,
            "reason": self.reason,
            "time": self.time,
            "rollout_id": self.rollout_id,
        }


@dataclass(frozen=True)
class Pending:
    """A transition that has been decided and may not be finished: where ``current`` and ``previous`` are going."""

    op: str
    target: Ref | None
    previous: Ref | None
    unconfirmed: Unconfirmed | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "op": self.op,
            "target": self.target.to_dict() if self.target else None,
            "previous": self.previous.to_dict() if self.previous else None,
            "unconfirmed": self.unconfirmed.to_dict() if self.unconfirmed else None,
        }


@dataclass(frozen=True)
class State:
    """Everything the device knows about one model. ``seq`` is the number of the journal record it belongs to."""

    model: str
    active: Ref | None = None
    previous: Ref | None = None
    unconfirmed: Unconfirmed | None = None
    quarantine: tuple[Quarantined, ...] = ()
    security_counter: int = 0
    time_floor: str = EPOCH
    pending: Pending | None = None
    seq: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The JSON form kept in state.json and in the journal."""
        return {
            "format": FORMAT,
            "model": self.model,
            "active": self.active.to_dict() if self.active else None,
            "previous": self.previous.to_dict() if self.previous else None,
            "unconfirmed": self.unconfirmed.to_dict() if self.unconfirmed else None,
            "quarantine": [entry.to_dict() for entry in self.quarantine],
            "security_counter": self.security_counter,
            "time_floor": self.time_floor,
            "pending": self.pending.to_dict() if self.pending else None,
            "seq": self.seq,
        }

    def quarantined(self, digest: str, stratum: str) -> Quarantined | None:
        """The entry that forbids ``digest`` on ``stratum``, if there is one."""
        for entry in self.quarantine:
            if entry.digest == digest and entry.stratum == stratum:
                return entry
        return None


# -- JSON ----------------------------------------------------------------------------------------------------------


def _damaged(where: str, problem: str) -> DeviceError:
    return DeviceError("damaged", f"{where}: {problem}")


def _keys(raw: Any, names: set[str], where: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping) or set(raw) != names:
        found = sorted(raw) if isinstance(raw, Mapping) else type(raw).__name__
        raise _damaged(where, f"expected the fields {sorted(names)}, found {found}")
    return raw


def _text(raw: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(raw[name], str):
        raise _damaged(where, f"{name} is not text: {raw[name]!r}")
    return str(raw[name])


def _text_or_none(raw: Mapping[str, Any], name: str, where: str) -> str | None:
    return None if raw[name] is None else _text(raw, name, where)


def _ref(raw: Any, where: str) -> Ref | None:
    if raw is None:
        return None
    body = _keys(raw, {"version", "digest", "variant"}, where)
    return Ref(_text(body, "version", where), _text(body, "digest", where), _text(body, "variant", where))


def _unconfirmed(raw: Any, where: str) -> Unconfirmed | None:
    if raw is None:
        return None
    names = {"version", "digest", "variant", "rollout_id", "deadline", "gated", "evidence", "before"}
    body = _keys(raw, names, where)
    if not isinstance(body["gated"], bool) or not isinstance(body["evidence"], dict):
        raise _damaged(where, "gated must be true or false and evidence an object")
    return Unconfirmed(
        _text(body, "version", where),
        _text(body, "digest", where),
        _text(body, "variant", where),
        _text_or_none(body, "rollout_id", where),
        Deadline.from_dict(body["deadline"], where + ".deadline"),
        body["gated"],
        body["evidence"],
        _ref(body["before"], where + ".before"),
    )


def _quarantined(raw: Any, where: str) -> Quarantined:
    body = _keys(raw, {"digest", "stratum", "reason", "time", "rollout_id"}, where)
    texts = [_text(body, name, where) for name in ("digest", "stratum", "reason", "time")]
    return Quarantined(texts[0], texts[1], texts[2], texts[3], _text_or_none(body, "rollout_id", where))


def _pending(raw: Any, where: str) -> Pending | None:
    if raw is None:
        return None
    body = _keys(raw, {"op", "target", "previous", "unconfirmed"}, where)
    if body["op"] not in OPERATIONS:
        raise _damaged(where, "op is none of {}: {!r}".format(", ".join(OPERATIONS), body["op"]))
    return Pending(
        body["op"],
        _ref(body["target"], where + ".target"),
        _ref(body["previous"], where + ".previous"),
        _unconfirmed(body["unconfirmed"], where + ".unconfirmed"),
    )


_FIELDS = {
    "format",
    "model",
    "active",
    "previous",
    "unconfirmed",
    "quarantine",
    "security_counter",
    "time_floor",
    "pending",
    "seq",
}


def from_dict(raw: Any, model: str, where: str) -> State:
    """Parse `State.to_dict`'s form. Raises DeviceError(damaged) for anything else, naming ``where`` and the field."""
    body = _keys(raw, _FIELDS, where)
    if body["format"] != FORMAT or body["model"] != model:
        raise _damaged(where, f"format {body['format']!r} of model {body['model']!r}, expected {FORMAT} of {model!r}")
    for name in ("security_counter", "seq"):
        if not isinstance(body[name], int) or isinstance(body[name], bool) or body[name] < 0:
            raise _damaged(where, f"{name} is not a count: {body[name]!r}")
    if not isinstance(body["quarantine"], list) or len(body["quarantine"]) > MAX_QUARANTINE:
        raise _damaged(where, f"quarantine is not a list of at most {MAX_QUARANTINE} entries")
    try:
        parse_time(body["time_floor"], "time_floor")
    except (DeviceError, AttributeError) as exc:
        raise _damaged(where, str(exc)) from None
    return State(
        model,
        _ref(body["active"], where + ".active"),
        _ref(body["previous"], where + ".previous"),
        _unconfirmed(body["unconfirmed"], where + ".unconfirmed"),
        tuple(_quarantined(entry, where + ".quarantine") for entry in body["quarantine"]),
        body["security_counter"],
        body["time_floor"],
        _pending(body["pending"], where + ".pending"),
        body["seq"],
    )


def parse(data: bytes, model: str, where: str) -> State:
    """Parse the bytes of a state.json. Raises DeviceError(damaged)."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise _damaged(where, f"not JSON: {exc}") from None
    return from_dict(raw, model, where)


def dump(state: State) -> bytes:
    """The bytes of a state.json."""
    return json.dumps(state.to_dict(), sort_keys=True, indent=1).encode() + b"\n"


# -- transitions (pure) ----------------------------------------------------------------------------------------------


def begin_activation(state: State, new: Unconfirmed) -> State:
    """Decide to switch to ``new``. A revert will go to the last confirmed release, never to another unconfirmed one."""
    if state.unconfirmed is None:
        back_to, before = state.active, state.previous
    else:
        back_to, before = state.previous, state.unconfirmed.before
    if back_to == new.ref:
        back_to, before = before, None
    target = replace(new, gated=False, before=before)
    return replace(state, pending=Pending("activate", new.ref, back_to, target))


def begin_revert(state: State) -> State:
    """Decide to go back to ``previous`` (nothing at all when the first release ever is the one to leave)."""
    before = state.unconfirmed.before if state.unconfirmed else None
    return replace(state, pending=Pending("revert", state.previous, before))


def begin_absent(state: State) -> State:
    """Decide to serve nothing. Quarantine, counter and time floor stay: removing a model must not reset its guards."""
    return replace(state, pending=Pending("absent", None, None))


def finish(state: State) -> State:
    """The state once the pending transition's links are in place."""
    pending = state.pending
    if pending is None:
        return state
    return replace(
        state, active=pending.target, previous=pending.previous, unconfirmed=pending.unconfirmed, pending=None
    )


def cancel(state: State) -> State:
    """The state when a pending activation never reached its switch."""
    return replace(state, pending=None)


def forget_previous(state: State) -> State:
    """The state once the previous release has been removed from the store."""
    return replace(state, previous=None)


def confirm(state: State, security_counter: int, time_floor: str) -> State:
    """Accept the active release for good. The counter and the floor only ever rise."""
    return replace(
        state,
        unconfirmed=None,
        security_counter=max(state.security_counter, security_counter),
        time_floor=time_floor,
    )


def quarantine(state: State, entry: Quarantined) -> State:
    """Add an entry, replacing an older one for the same release and stratum; the oldest goes when the list is full."""
    others = [q for q in state.quarantine if (q.digest, q.stratum) != (entry.digest, entry.stratum)]
    return replace(state, quarantine=tuple(([*others, entry])[-MAX_QUARANTINE:]))


def lift(state: State, digest: str, stratum: str) -> State:
    """Remove the entry for a release and stratum."""
    return replace(state, quarantine=tuple(q for q in state.quarantine if (q.digest, q.stratum) != (digest, stratum)))


def newest(stored: State | None, journaled: State | None) -> State | None:
    """The later of what state.json and the journal say; either may be missing or damaged (None)."""
    if stored is None or journaled is None:
        return stored or journaled
    return journaled if journaled.seq > stored.seq else stored


def reconcile(
    state: State, current: Ref | None, previous: Ref | None, intact: Callable[[Ref], bool]
) -> tuple[State, list[str]]:
    """The state that is true given the links, and what had to be repaired. Pure apart from ``intact``.

    ``current`` and ``previous`` are what the links name (None: no link, or one that leads nowhere); ``intact`` says
    whether a release's files are there. The result has nothing pending; the links are to be set to its active/previous.
    """
    if state.pending is not None:
        op, target = state.pending.op, state.pending.target
        if op != "activate" or current == target:
            return finish(state), [f"{op} of {state.model} was interrupted and has been finished"]
        state = cancel(state)
        repairs = [f"activate of {state.model} was interrupted before the switch: the old release stays"]
        return _follow_links(state, current, previous, intact, repairs)
    return _follow_links(state, current, previous, intact, [])


def _follow_links(
    state: State,
    current: Ref | None,
    previous: Ref | None,
    intact: Callable[[Ref], bool],
    repairs: list[str],
) -> tuple[State, list[str]]:
    if current is not None and current != state.active:
        keep = state.unconfirmed if state.unconfirmed and state.unconfirmed.ref == current else None
        back = previous if previous != current else state.previous
        if back == current:
            back = None
        repairs.append(
            f"state.json of {state.model} named another release than the link that serves: the link is right"
        )
        return replace(state, active=current, previous=back, unconfirmed=keep), repairs
    if current is None and state.active is not None and not intact(state.active):
        back = state.previous if state.previous and intact(state.previous) else None
        repairs.append(
            "release {} of {} is gone or damaged: {}".format(
                state.active.version, state.model, f"back on {back.version}" if back else "nothing is left to serve"
            )
        )
        return replace(state, active=back, previous=None, unconfirmed=None), repairs
    if current is None and state.active is not None:
        repairs.append(f"the link that serves {state.model} was missing and has been restored")
    return state, repairs

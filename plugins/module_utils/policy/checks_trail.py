# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checks of evidence and people: the ledger, the age of keys, approvals, and a team's own conditions. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from .facts import (
    FAIL,
    NO_DATA,
    PASS,
    ApprovalFacts,
    DeviceFacts,
    Fleet,
    KeyFacts,
    Place,
    ReleaseFacts,
    Result,
)
from .requirement import Condition, holds

Parameters = Mapping[str, Any]


def audit_trail(parameters: Parameters, fleet: Fleet, subject: None) -> Iterator[Result]:
    """The ledger is configured, signed, verifies with its public key, and is kept for as long as it has to be."""
    ledger = fleet.ledger
    if ledger is None or not ledger.configured:
        place = ledger.place if ledger else fleet.declared_at(1)
        yield Result(FAIL, "ledger", "edge_ledger is not set: what happens is not recorded", place)
        return
    if not ledger.signed:
        yield Result(FAIL, ledger.subject, "edge_ledger_key is not set: the record is not signed", ledger.place)
    elif not ledger.verified:
        yield Result(NO_DATA, ledger.subject, ledger.error, ledger.place)
    elif ledger.problems:
        more = f" (and {len(ledger.problems) - 1} more)" if len(ledger.problems) > 1 else ""
        yield Result(FAIL, ledger.subject, f"it does not verify: {ledger.problems[0]}{more}", ledger.place)
    elif not ledger.records:
        yield Result(NO_DATA, ledger.subject, "it has no record yet", ledger.place)
    elif ledger.unsigned_tail > parameters["max_unsigned"]:
        text = f"{ledger.unsigned_tail} records follow the last signature; {parameters['max_unsigned']} are allowed"
        yield Result(FAIL, ledger.subject, text, ledger.place)
    else:
        yield Result(PASS, ledger.subject, f"verified: {ledger.records} records, chained and signed", ledger.place)
    if parameters["keep_days"]:
        yield _kept(fleet, parameters["keep_days"])


def _kept(fleet: Fleet, days: int) -> Result:
    declared, place = fleet.governance.ledger_retention_days, fleet.declared_at(1)
    if declared is None:
        return Result(NO_DATA, "ledger", "ledger.retention_days is not declared", place)
    if declared < days:
        return Result(FAIL, "ledger", f"declared to be kept for {declared} days; at least {days} are asked for", place)
    return Result(PASS, "ledger", f"declared to be kept for {declared} days", place)


def key_age(parameters: Parameters, fleet: Fleet, key: KeyFacts) -> Iterator[Result]:
    """A key that signs is not older than allowed; its declared birth agrees with what it is known to have signed."""
    if key.problem or key.key_id is None:
        yield Result(NO_DATA, key.subject, key.problem or "it cannot be read", key.place)
        return
    entry = fleet.governance.keys.get(key.key_id) or fleet.governance.keys.get(key.file)
    if entry is None:
        text = f"nothing says when it was made: add keys.{key.file} (or its id {key.key_id[:12]}…) with created"
        yield Result(NO_DATA, key.subject, text, fleet.declared_at(1))
        return
    place, today = fleet.declared_at(entry.line), fleet.now.date()
    age = (today - entry.created).days
    if entry.created > today:
        yield Result(FAIL, key.subject, f"declared to be made on {entry.created}, which is to come", place)
    elif key.first_used is not None and key.first_used.date() < entry.created:
        text = f"declared to be made on {entry.created}, but it signed something of {key.first_used.date()}"
        yield Result(FAIL, key.subject, text, place)
    elif entry.retired is not None and entry.retired <= today:
        yield _retired(key, entry.retired, place)
    elif age > parameters["max_days"]:
        text = f"is {age} days old; at most {parameters['max_days']} are allowed: make a new one and retire it"
        yield Result(FAIL, key.subject, text, place)
    else:
        yield Result(PASS, key.subject, f"is {age} of at most {parameters['max_days']} days old (declared)", place)


def _retired(key: KeyFacts, retired: datetime.date, place: Place) -> Result:
    if key.last_used is not None and key.last_used.date() > retired:
        text = f"retired on {retired}, but it signed something of {key.last_used.date()}"
        return Result(FAIL, key.subject, text, place)
    return Result(PASS, key.subject, f"retired on {retired}, kept for what it signed before", place)


def approvals(parameters: Parameters, fleet: Fleet, release: ReleaseFacts) -> Iterator[Result]:
    """So many different people approved exactly this release, and this plan where there is one."""
    if release.digest is None:
        yield Result(NO_DATA, release.subject, release.problem, release.place)
        return
    if release.problem:
        yield Result(FAIL, release.subject, f"it cannot be approved as it is: {release.problem}", release.place)
        return
    plan_hash, wanted_release = _plan_hash(fleet, release), (release.model, release.version)
    named = [item for item in fleet.approvals if (item.approval.model, item.approval.version) == wanted_release]
    if parameters["plan"] and plan_hash is None:
        yield Result(
            NO_DATA,
            release.subject,
            "approvals have to be of a plan, and no plan of this release was given",
            release.place,
        )
        return
    good: dict[str, ApprovalFacts] = {}
    ignored: list[str] = []
    for item in named:
        why = _discounted(parameters, fleet, release, item, plan_hash)
        if why:
            ignored.append(f"{item.approval.approver}: {why}")
        else:
            good[item.approval.approver] = item
    place = Place(named[-1].approval.where, named[-1].approval.line) if named else release.place
    wanted = parameters["people"]
    people = ", ".join(f"{name} ({'signed' if good[name].signed else 'not signed'})" for name in sorted(good))
    left_out = f"; does not count: {'; '.join(ignored)}" if ignored else ""
    if len(good) >= wanted:
        yield Result(PASS, release.subject, f"approved by {people}{left_out}", place)
    else:
        verdict = FAIL if named else NO_DATA
        text = f"{len(good)} of {wanted} people approved{': ' + people if people else ''}{left_out}"
        yield Result(verdict, release.subject, text, place)


def _plan_hash(fleet: Fleet, release: ReleaseFacts) -> str | None:
    plan = fleet.plan
    if plan is None or (plan.get("model"), plan.get("version")) != (release.model, release.version):
        return None
    return str(plan.get("plan_hash"))


def _discounted(
    parameters: Parameters, fleet: Fleet, release: ReleaseFacts, item: ApprovalFacts, plan_hash: str | None
) -> str:
    """Return why an approval does not count, or an empty text."""
    approval = item.approval
    if approval.digest != release.digest:
        return "it is of other bytes (digest)"
    if item.problem:
        return item.problem
    if parameters["signed"] and not item.signed:
        return "it is not signed"
    if plan_hash is not None and approval.plan_hash not in (None, plan_hash):
        return "it is of another plan"
    if parameters["plan"] and approval.plan_hash is None:
        return "it names no plan"
    if approval.time > fleet.now:
        return "its time is to come"
    if release.created is not None and approval.time < release.created:
        return "it is older than the release"
    return ""


def require(parameters: Parameters, fleet: Fleet, subject: Any) -> Iterator[Result]:
    """A team's own conditions over the data of a subject (a device, release, model, site or the plan)."""
    name, data, place, group = _data_of(parameters["of"], fleet, subject)
    if data is None:
        yield Result(NO_DATA, name, "there is nothing to look at", place, group)
        return
    for condition in parameters["when"]:
        if holds(condition, data) is not True:
            return
    broken = [(condition, holds(condition, data)) for condition in parameters["must"]]
    failed = [condition for condition, held in broken if held is False]
    missing = [condition for condition, held in broken if held is None]
    if failed:
        yield Result(FAIL, name, "does not hold: " + _said(failed), _where(failed[0], subject, place), group)
    elif missing:
        yield Result(NO_DATA, name, "not there to judge: " + _said(missing), place, group)
    else:
        yield Result(PASS, name, "holds: " + _said(list(parameters["must"])), place, group)


def _said(conditions: list[Condition]) -> str:
    """Say conditions, never values: an inventory holds secrets."""
    return "; ".join(str(condition) for condition in conditions)


def _where(condition: Condition, subject: Any, place: Place) -> Place:
    if isinstance(subject, DeviceFacts):
        return subject.places.get(condition.field.split(".")[0], place)
    return place


def _data_of(kind: str, fleet: Fleet, subject: Any) -> tuple[str, Any, Place, str]:
    """Return (subject's name, its data or None, where it is, its group)."""
    if isinstance(subject, DeviceFacts):
        if kind == "site":
            data = (fleet.governance.raw.get("sites") or {}).get(subject.site)
            return subject.subject, data, subject.place, subject.group
        return subject.subject, subject.values, subject.place, subject.group
    if isinstance(subject, ReleaseFacts):
        data = None if subject.manifest is None or subject.problem else subject.manifest
        return subject.subject, data, subject.place, ""
    if isinstance(subject, str):
        entry = fleet.model(subject)
        data = (fleet.governance.raw.get("models") or {}).get(subject)
        return f"model:{subject}", data, fleet.declared_at(entry.line if entry else 1), ""
    return "plan", fleet.plan, fleet.plan_place, ""

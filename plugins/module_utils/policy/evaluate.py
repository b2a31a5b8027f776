# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Rules over a fleet: findings, what is waived, and whether it may go on. Pure.

Only ``pass`` passes, and a rule that found nothing to look at has not passed. ``not_applicable`` is given only where a
declaration says that the rule's tag does not concern the subject.
"""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .checks import CHECKS, DEVICE, FLEET, KEY, MODEL, RELEASE, kind_of
from .facts import NO_DATA, NOT_APPLICABLE, PASS, VERDICTS, DeviceFacts, Fleet, Place, ReleaseFacts, Result
from .ruleset import SEVERITIES, Rule, Rules, Waiver

_SHOWN = 5
_LONG_WAIVER = 366


@dataclass(frozen=True)
class Finding:
    """A rule's verdict about a subject; devices of one site with the same finding are one, with their names."""

    rule: Rule
    verdict: str
    subject: str
    message: str
    place: Place
    hosts: tuple[str, ...] = ()
    waiver: Waiver | None = None
    note: str = ""

    @property
    def open(self) -> bool:
        """Whether it did not pass and nobody accepted that."""
        return self.verdict not in (PASS, NOT_APPLICABLE) and self.waiver is None

    @property
    def text(self) -> str:
        """The message, with the devices it is about."""
        hosts = ", ".join(self.hosts[:_SHOWN]) + (
            f" and {len(self.hosts) - _SHOWN} more" if len(self.hosts) > _SHOWN else ""
        )
        text = f"{self.message} [{hosts}]" if hosts else self.message
        return f"{text} ({self.note})" if self.note else text


@dataclass(frozen=True)
class Evaluation:
    """All findings, in the order of rules; waivers that do nothing, with the reason; the day it was made for."""

    findings: tuple[Finding, ...]
    idle_waivers: tuple[tuple[Waiver, str], ...]
    rules: Rules
    day: datetime.date

    def blocking(self, fail_on: str) -> list[Finding]:
        """Return the open findings of severity ``fail_on`` or more severe; none for ``never``."""
        if fail_on == "never":
            return []
        severe = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
        return [finding for finding in self.findings if finding.open and finding.rule.severity in severe]

    def counts(self) -> dict[str, int]:
        """Return how many findings have each verdict, and ``waived`` (counted there and not under their verdict)."""
        counts = {**dict.fromkeys(VERDICTS, 0), "waived": 0}
        for finding in self.findings:
            counts["waived" if finding.waiver else finding.verdict] += 1
        return counts


def evaluate(rules: Rules, fleet: Fleet) -> Evaluation:
    """Evaluate every rule over everything it is about."""
    findings: list[Finding] = []
    used: set[Waiver] = set()
    for rule in rules.rules:
        waivers = [waiver for waiver in rules.waivers if waiver.rule == rule.id]
        raw = [_waived(rule, result, waivers, fleet) for result in _results(rule, fleet)]
        used.update(finding.waiver for finding in raw if finding.waiver)
        findings += _folded(raw)
    return Evaluation(tuple(findings), tuple(_idle(rules, used, fleet)), rules, fleet.now.date())


def _results(rule: Rule, fleet: Fleet) -> list[Result]:
    function, kind = CHECKS[rule.check].function, kind_of(rule.check, rule.parameters)
    results: list[Result] = []
    subjects = list(_subjects(kind, fleet))
    looked_at = 0
    for subject in subjects:
        away = _not_concerned(rule, kind, fleet, subject)
        if away is None:
            continue
        looked_at += 1
        found = [away] if isinstance(away, Result) else list(function(rule.parameters, fleet, subject))
        results += found or [_outside(kind, subject, fleet, "its conditions (when) do not hold here")]
    if not results:
        what = (
            f"there is no {kind} to look at"
            if not subjects
            else f"none of {len(subjects)} {kind}s is what it applies to"
        )
        results.append(Result(NO_DATA, "fleet", what, fleet.declared_at(1)))
    return results


def _subjects(kind: str, fleet: Fleet) -> Iterator[Any]:
    if kind == RELEASE:
        yield from fleet.releases
    elif kind == MODEL:
        yield from sorted({release.model for release in fleet.releases})
    elif kind == DEVICE:
        yield from fleet.devices
    elif kind == KEY:
        yield from fleet.keys
    elif kind == FLEET:
        yield None


def _not_concerned(rule: Rule, kind: str, fleet: Fleet, subject: Any) -> Result | bool | None:
    """Return False when the rule concerns the subject, None when its name is not meant, or a result: why not."""
    applies, tags, owner = rule.applies, (), ""
    if kind in (FLEET, KEY):
        return False
    if kind == DEVICE:
        if applies.sites and not _matches(subject.site or "", applies.sites):
            return None
        if applies.models and not any(_matches(name, applies.models) for name in subject.models):
            return None
        site, owner = fleet.site(subject.site), f"site {subject.site}"
        tags = site.tags if site else None  # type: ignore[assignment]
    else:
        name = subject.model if isinstance(subject, ReleaseFacts) else str(subject)
        if applies.models and not _matches(name, applies.models):
            return None
        model, owner = fleet.model(name), f"model {name}"
        tags = model.tags if model else None  # type: ignore[assignment]
    if not applies.tags:
        return False
    if tags is None:
        missing = "it has no edge_site" if owner == "site None" else f"{owner} is not in {fleet.governance.where}"
        wanted = ", ".join(applies.tags)
        return _outside(kind, subject, fleet, f"{missing}, so whether it is tagged {wanted} is not known", NO_DATA)
    if not set(tags) & set(applies.tags):
        return _outside(kind, subject, fleet, f"{owner} is not tagged {' or '.join(applies.tags)}")
    return False


def _outside(kind: str, subject: Any, fleet: Fleet, text: str, verdict: str = NOT_APPLICABLE) -> Result:
    if isinstance(subject, DeviceFacts):
        site = fleet.site(subject.site)
        place = fleet.declared_at(site.line) if site else subject.place
        return Result(verdict, subject.subject, text, place, subject.group)
    if isinstance(subject, ReleaseFacts):
        return Result(verdict, subject.subject, text, subject.place)
    name = f"model:{subject}" if kind == MODEL else "plan"
    model = fleet.model(str(subject))
    return Result(verdict, name, text, fleet.declared_at(model.line if model else 1))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _waived(rule: Rule, result: Result, waivers: Sequence[Waiver], fleet: Fleet) -> Finding:
    """Attach the waiver that covers a result, or a note on why one that names it does not."""
    finding = Finding(rule, result.verdict, result.subject, result.message, result.place, (), None)
    if result.group:
        finding = Finding(
            rule, result.verdict, result.group, result.message, result.place, (result.subject.partition(":")[2],)
        )
    if result.verdict in (PASS, NOT_APPLICABLE):
        return finding
    note = ""
    for waiver in waivers:
        if not _matches(result.subject, (waiver.subject,)) and not _matches(result.group, (waiver.subject,)):
            continue
        note = _invalid(waiver, fleet)
        if not note:
            return Finding(
                rule, finding.verdict, finding.subject, finding.message, finding.place, finding.hosts, waiver
            )
    return Finding(rule, finding.verdict, finding.subject, finding.message, finding.place, finding.hosts, None, note)


def _invalid(waiver: Waiver, fleet: Fleet) -> str:
    """Return why a waiver does not count, or an empty text."""
    if waiver.expires < fleet.now.date():
        return f"its waiver by {waiver.approver} expired on {waiver.expires}"
    if waiver.approver not in fleet.governance.approvers:
        return f"its waiver does not count: {waiver.approver} is not among the approvers in {fleet.governance.where}"
    if (waiver.expires - fleet.now.date()).days > _LONG_WAIVER:
        return f"its waiver does not count: it is for more than {_LONG_WAIVER} days, until {waiver.expires}"
    return ""


def _idle(rules: Rules, used: set[Waiver], fleet: Fleet) -> Iterator[tuple[Waiver, str]]:
    for waiver in rules.waivers:
        if waiver not in used:
            yield waiver, _invalid(waiver, fleet) or "it covers nothing: remove it"


def _folded(findings: Sequence[Finding]) -> list[Finding]:
    """Make devices of one site with the same finding one finding; the order is by verdict, then as found."""
    folded: dict[tuple[Any, ...], Finding] = {}
    for finding in findings:
        number = 0 if finding.hosts else len(folded)
        key = (finding.verdict, finding.subject, finding.message, finding.waiver, finding.note, number)
        if key in folded:
            before = folded[key]
            hosts = before.hosts if finding.hosts[0] in before.hosts else (*before.hosts, *finding.hosts)
            finding = Finding(
                before.rule,
                before.verdict,
                before.subject,
                before.message,
                before.place,
                hosts,
                before.waiver,
                before.note,
            )
        folded[key] = finding
    return sorted(folded.values(), key=lambda finding: VERDICTS.index(finding.verdict))

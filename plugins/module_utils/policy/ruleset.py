# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Rule files: what a rule set says, checked. What a check does is in ``checks``; here is which, how strict, and why."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import PolicyError, field_error
from .parameters import Parameter, read_parameters
from .reader import MAX_LONG, WORD, Reader, check_format, mapping_at
from .yamlfile import Document

SEVERITIES = ("error", "warning", "note")
_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_RULE_ID = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)+")
_URL = re.compile(r"https://\S+")
_PATTERN = re.compile(r"[^\s]{1,256}")
Catalogue = Mapping[str, Mapping[str, Parameter]]
"""Check name to its parameters."""


@dataclass(frozen=True)
class Reference:
    """What a rule helps with: an article, and where it can be read."""

    name: str
    url: str


@dataclass(frozen=True)
class Applies:
    """What a rule is about: names match any pattern, tags any tag; empty means all."""

    models: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """One rule, with defaults filled in. ``adjusted`` says which file changed what of a rule from another."""

    id: str
    title: str
    description: str
    check: str
    parameters: Mapping[str, Any]
    severity: str
    applies: Applies
    references: tuple[Reference, ...]
    fix: str
    set_name: str
    set_version: str
    where: str
    line: int
    adjusted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waiver:
    """An accepted finding, until a day (inclusive). It stays in every report."""

    rule: str
    subject: str
    reason: str
    approver: str
    expires: datetime.date
    where: str
    line: int


@dataclass(frozen=True)
class Adjustment:
    """A change of another set's rule: its severity, some parameters, or what it applies to."""

    rule: str
    severity: str | None
    parameters: Mapping[str, Any]
    applies: Applies | None
    where: str
    line: int


@dataclass(frozen=True)
class RuleSet:
    """One rule file."""

    name: str
    version: str
    title: str
    notice: str
    uses: tuple[str, ...]
    rules: tuple[Rule, ...]
    waivers: tuple[Waiver, ...]
    adjustments: tuple[Adjustment, ...]
    where: str


@dataclass(frozen=True)
class Rules:
    """All sets together: rules by id, in order; waivers; and of each set its name, version and notice."""

    rules: tuple[Rule, ...]
    waivers: tuple[Waiver, ...]
    sets: tuple[RuleSet, ...] = field(default=())


def read_ruleset(document: Document, catalogue: Catalogue) -> RuleSet:
    """Return a checked rule file. Raises PolicyError naming file, line, field, value and fix."""
    if "format" in mapping_at(document, ()):
        check_format(Reader(document, (), (), tuple(document.data)))
    optional = ("notice", "uses", "rules", "waivers", "adjust")
    top = Reader(document, (), ("format", "name", "version", "title"), optional)
    name = top.text("name", WORD)
    version = top.text("version", _VERSION, 'use three numbers in quotes, such as "1.0.0"')
    count = len(top.array("rules")) if "rules" in top else 0
    rules = tuple(_rule(top, index, name, version, catalogue) for index in range(count))
    seen: dict[str, int] = {}
    for rule in rules:
        if rule.id in seen:
            raise PolicyError(
                f"{document.where}, line {rule.line}: rule {rule.id!r} is there twice, also on line {seen[rule.id]}"
            )
        seen[rule.id] = rule.line
    waivers = len(top.array("waivers")) if "waivers" in top else 0
    return RuleSet(
        name=name,
        version=version,
        title=top.text("title"),
        notice=top.text("notice", limit=MAX_LONG) if "notice" in top else "",
        uses=top.texts("uses", WORD) if "uses" in top else (),
        rules=rules,
        waivers=tuple(_waiver(top, index) for index in range(waivers)),
        adjustments=tuple(_adjustment(top, rule) for rule in top.names("adjust", _RULE_ID)),
        where=document.where,
    )


def _rule(top: Reader, index: int, set_name: str, version: str, catalogue: Catalogue) -> Rule:
    required = ("id", "title", "description", "check", "severity", "references", "fix")
    fields = top.below("rules", index, required=required, optional=("parameters", "applies_to"))
    check = fields.choice("check", sorted(catalogue))
    references = []
    for number in range(len(fields.array("references", 1, 32))):
        item = fields.below("references", number, required=("name", "url"))
        references.append(
            Reference(item.text("name"), item.text("url", _URL, "use an address that begins with https://"))
        )
    given = fields.below("parameters", optional=tuple(catalogue[check])) if "parameters" in fields else None
    return Rule(
        id=fields.text("id", _RULE_ID, f"use words of a-z and 0-9 with dashes, such as {set_name}-key-age"),
        title=fields.text("title"),
        description=fields.text("description", limit=MAX_LONG),
        check=check,
        parameters=read_parameters(catalogue[check], given, fields),
        severity=fields.choice("severity", SEVERITIES),
        applies=_applies(fields),
        references=tuple(references),
        fix=fields.text("fix", limit=MAX_LONG),
        set_name=set_name,
        set_version=version,
        where=top.document.where,
        line=fields.line(),
    )


def _applies(fields: Reader) -> Applies:
    if "applies_to" not in fields:
        return Applies()
    inner = fields.below("applies_to", optional=("models", "sites", "tags"))
    found = {name: inner.texts(name, _PATTERN, 1) for name in ("models", "sites") if name in inner}
    return Applies(**found, tags=inner.texts("tags", WORD, 1) if "tags" in inner else ())


def _waiver(top: Reader, index: int) -> Waiver:
    required = ("rule", "subject", "reason", "approver", "expires")
    fields = top.below("waivers", index, required=required)
    reason = fields.text("reason", limit=MAX_LONG)
    if len(reason) < 10:
        raise fields.error("reason", "say why, so that somebody else understands it in a year")
    return Waiver(
        rule=fields.text("rule", _RULE_ID),
        subject=fields.text(
            "subject", _PATTERN, "name it as the report does, such as site:harbour; * matches anything"
        ),
        reason=reason,
        approver=fields.text("approver"),
        expires=fields.day("expires"),
        where=top.document.where,
        line=fields.line(),
    )


def _adjustment(top: Reader, rule: str) -> Adjustment:
    fields = top.below("adjust", rule, optional=("severity", "parameters", "applies_to"))
    if not fields.value:
        raise PolicyError(
            f"{top.document.at('adjust', rule)}: adjust.{rule} is empty: say what to change, or remove it"
        )
    return Adjustment(
        rule=rule,
        severity=fields.choice("severity", SEVERITIES) if "severity" in fields else None,
        parameters=dict(mapping_at(top.document, ("adjust", rule, "parameters"))) if "parameters" in fields else {},
        applies=_applies(fields) if "applies_to" in fields else None,
        where=top.document.where,
        line=fields.line(),
    )


def combine(sets: Sequence[tuple[RuleSet, Document]], catalogue: Catalogue) -> Rules:
    """Put rule sets together: adjustments applied, waivers collected.

    Raises PolicyError when two sets have a rule of the same id, or an adjustment or waiver names a rule nobody has.
    """
    rules: dict[str, Rule] = {}
    for ruleset, _document in sets:
        for rule in ruleset.rules:
            if rule.id in rules:
                where = f"{rule.where}, line {rule.line}"
                raise PolicyError(f"{where}: rule {rule.id!r} is also in {rules[rule.id].where}: rename this one")
            rules[rule.id] = rule
    for ruleset, document in sets:
        for change in ruleset.adjustments:
            _known(rules, change.rule, f"{change.where}, line {change.line}", f"adjust.{change.rule}")
            rules[change.rule] = _adjusted(rules[change.rule], change, document, catalogue)
        for waiver in ruleset.waivers:
            _known(rules, waiver.rule, f"{waiver.where}, line {waiver.line}", "waivers.rule")
    if not rules:
        names = ", ".join(ruleset.where for ruleset, _document in sets) or "no file"
        raise PolicyError(f"there are no rules in {names}: use a shipped set (uses: [gdpr]) or write some")
    waivers = tuple(waiver for ruleset, _document in sets for waiver in ruleset.waivers)
    return Rules(tuple(rules.values()), waivers, tuple(ruleset for ruleset, _document in sets))


def _known(rules: Mapping[str, Rule], name: str, where: str, at: str) -> None:
    if name not in rules:
        raise field_error(where, at, name, "there is no such rule; rules are " + ", ".join(sorted(rules)))


def _adjusted(rule: Rule, change: Adjustment, document: Document, catalogue: Catalogue) -> Rule:
    parameters, notes = dict(rule.parameters), []
    if change.parameters:
        given = Reader(document, ("adjust", rule.id, "parameters"), (), tuple(catalogue[rule.check]))
        read = read_parameters(catalogue[rule.check], given, given)
        for name in change.parameters:
            notes.append(f"{name} {_shown(read[name])} (was {_shown(parameters[name])})")
            parameters[name] = read[name]
    if change.severity:
        notes.append(f"severity {change.severity} (was {rule.severity})")
    if change.applies is not None:
        notes.append("applies to other things")
    note = f"{change.where} sets " + ", ".join(notes)
    return replace(
        rule,
        severity=change.severity or rule.severity,
        parameters=parameters,
        applies=rule.applies if change.applies is None else change.applies,
        adjusted=(*rule.adjusted, note),
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Findings as Markdown: what a person reads in a pull request or hands to an auditor. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .evaluate import Evaluation, Finding
from .facts import NOT_APPLICABLE, PASS
from .ruleset import Rule
from .sarif import NOTICE

_SPECIAL = re.compile(r"([\\`*\[\]<>|])")


def text(value: object) -> str:
    """Return a value as one line of plain text, with nothing in it that Markdown or HTML would act on."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split())).replace("&", "&amp;")


def to_markdown(evaluation: Evaluation, fail_on: str) -> str:
    """Return the report of an evaluation."""
    return "\n".join(_report(evaluation, fail_on)) + "\n"


def verdict_line(evaluation: Evaluation, fail_on: str) -> str:
    """Return one line that says how it went, in numbers."""
    counts, blocking = evaluation.counts(), evaluation.blocking(fail_on)
    unmet = [finding for finding in evaluation.findings if finding.open]
    parts = [
        f"{len(blocking)} blocking",
        f"{len(unmet) - len(blocking)} open below {fail_on}" if fail_on != "never" else f"{len(unmet)} open",
        f"{counts['waived']} waived",
        f"{counts[PASS]} passed",
        f"{counts[NOT_APPLICABLE]} do not apply",
    ]
    return ", ".join(parts)


def _report(evaluation: Evaluation, fail_on: str) -> Iterator[str]:
    blocking = evaluation.blocking(fail_on)
    yield f"# Policy check: {'NOT PASSED' if blocking else 'passed'}"
    yield ""
    sets = ", ".join(f"{item.name} {item.version}" for item in evaluation.rules.sets)
    yield f"{verdict_line(evaluation, fail_on)}. Rule sets: {text(sets)}. Evaluated for {evaluation.day}."
    yield ""
    for notice in [NOTICE, *(item.notice for item in evaluation.rules.sets if item.notice)]:
        yield f"> {text(notice)}"
        yield ">"
    yield ""
    unmet = [finding for finding in evaluation.findings if finding.open]
    waived = [finding for finding in evaluation.findings if finding.waiver]
    yield from _table("Open", ("severity", "rule", "about", "verdict", "finding", "where"), map(_open_row, unmet))
    heads = ("rule", "about", "verdict", "finding", "accepted because", "by", "until")
    yield from _table("Waived", heads, map(_waived_row, waived))
    idle = [(w.rule, w.subject, why, f"{w.where}:{w.line}") for w, why in evaluation.idle_waivers]
    yield from _table("Waivers without effect", ("rule", "about", "why", "where"), idle)
    for title, verdict in (("Passed", PASS), ("Does not apply", NOT_APPLICABLE)):
        rows = [(f.rule.id, f.subject, f.text, _at(f)) for f in evaluation.findings if f.verdict == verdict]
        yield from _table(title, ("rule", "about", "evidence", "where"), rows)
    yield "## What the rules check"
    yield ""
    for rule in evaluation.rules.rules:
        yield from _described(rule)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    cells = [" | ".join(text(cell) for cell in row) for row in rows]
    if not cells:
        return
    yield f"## {title} ({len(cells)})"
    yield ""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    yield from (f"| {row} |" for row in cells)
    yield ""


def _at(finding: Finding) -> str:
    return f"{finding.place.path}:{finding.place.line}"


def _open_row(finding: Finding) -> tuple[str, ...]:
    rule = finding.rule
    return (rule.severity, rule.id, finding.subject, finding.verdict, finding.text, _at(finding))


def _waived_row(finding: Finding) -> tuple[str, ...]:
    waiver = finding.waiver
    if waiver is None:
        return ()
    said = (waiver.reason, waiver.approver, str(waiver.expires))
    return (finding.rule.id, finding.subject, finding.verdict, finding.text, *said)


def _described(rule: Rule) -> Iterator[str]:
    links = ", ".join(f"[{text(reference.name)}]({reference.url})" for reference in rule.references)
    yield f"**{text(rule.id)}** ({rule.severity}): {text(rule.title)}."
    yield f"Checks: {text(rule.description)}"
    yield f"Helps with: {links}. To mend it: {text(rule.fix)}"
    for note in rule.adjusted:
        yield f"Adjusted: {text(note)}."
    yield ""

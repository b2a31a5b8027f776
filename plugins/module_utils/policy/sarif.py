# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Findings as SARIF 2.1.0 (OASIS standard, 27 March 2020). Pure; the same findings give the same document.

A finding that did not pass has kind ``fail`` and its rule's severity as level, whatever the verdict: a viewer hides
everything else, and not to know is not to pass. A waived one is suppressed, with the justification, and stays in.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

from .evaluate import Evaluation, Finding
from .facts import NOT_APPLICABLE, PASS
from .ruleset import Rule, Waiver

VERSION = "2.1.0"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
ROOT = "FLEETREPOSITORY"
INFORMATION = "https://github.com/edgeai-fleet/edgeai.fleet/blob/main/docs/policy.md"
NOTICE = "Passing is evidence that can be shown to an auditor. It is not legal advice, and not compliance by itself."
_KINDS = {PASS: "pass", NOT_APPLICABLE: "notApplicable"}


def to_sarif(evaluation: Evaluation, tool_version: str, fail_on: str) -> dict[str, Any]:
    """Return the SARIF log of an evaluation, as data for JSON."""
    rules = evaluation.rules.rules
    index = {rule.id: number for number, rule in enumerate(rules)}
    driver = {
        "name": "edgeai.fleet policy_check",
        "version": tool_version,
        "semanticVersion": tool_version,
        "informationUri": INFORMATION,
        "fullDescription": {"text": NOTICE},
        "rules": [_rule(rule) for rule in rules],
    }
    blocking = evaluation.blocking(fail_on)
    run = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "originalUriBaseIds": {ROOT: {"description": {"text": "The fleet repository."}}},
        "results": [_result(finding, index[finding.rule.id]) for finding in evaluation.findings],
        "properties": {
            "evaluatedFor": evaluation.day.isoformat(),
            "passed": not blocking,
            "failOn": fail_on,
            "counts": evaluation.counts(),
            "ruleSets": [f"{item.name} {item.version}" for item in evaluation.rules.sets],
            "notices": [NOTICE, *(item.notice for item in evaluation.rules.sets if item.notice)],
            "idleWaivers": [
                {"rule": waiver.rule, "subject": waiver.subject, "file": waiver.where, "line": waiver.line, "why": why}
                for waiver, why in evaluation.idle_waivers
            ],
        },
    }
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    cited = ", ".join(reference.name for reference in rule.references)
    links = ", ".join(f"[{reference.name}]({reference.url})" for reference in rule.references)
    properties: dict[str, Any] = {
        "tags": ["policy", rule.set_name],
        "check": rule.check,
        "ruleSet": f"{rule.set_name} {rule.set_version}",
        "references": [{"name": reference.name, "url": reference.url} for reference in rule.references],
    }
    if rule.adjusted:
        properties["adjusted"] = list(rule.adjusted)
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.description},
        "help": {
            "text": f"{rule.fix}\n\nHelps with: {cited}. {NOTICE}",
            "markdown": f"{rule.fix}\n\nHelps with: {links}. {NOTICE}",
        },
        "helpUri": rule.references[0].url,
        "defaultConfiguration": {"level": rule.severity},
        "properties": properties,
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    kind = _KINDS.get(finding.verdict, "fail")
    result: dict[str, Any] = {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "kind": kind,
        "level": finding.rule.severity if kind == "fail" else "none",
        "message": {"text": f"{finding.subject}: {finding.text}"},
        "locations": [
            {
                "physicalLocation": _location(finding.place.path, finding.place.line),
                "logicalLocations": [{"fullyQualifiedName": finding.subject, "kind": "resource"}],
            }
        ],
        # Not the message: a number in it changes from day to day, and it stays the same finding.
        "partialFingerprints": {"ruleAndSubject/v1": _fingerprint(finding)},
        "properties": {"verdict": finding.verdict, "subject": finding.subject, "hosts": list(finding.hosts)},
    }
    if finding.waiver:
        result["suppressions"] = [_suppression(finding.waiver)]
    return result


def _fingerprint(finding: Finding) -> str:
    text = "\n".join((finding.rule.id, finding.subject, finding.verdict, finding.place.path))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def _location(path: str, line: int) -> dict[str, Any]:
    return {
        "artifactLocation": {"uri": quote(path.replace("\\", "/"), safe="/"), "uriBaseId": ROOT},
        "region": {"startLine": max(1, line)},
    }


def _suppression(waiver: Waiver) -> dict[str, Any]:
    return {
        "kind": "external",
        "status": "accepted",
        "justification": waiver.reason,
        "location": {"physicalLocation": _location(waiver.where, waiver.line)},
        "properties": {"approver": waiver.approver, "expires": waiver.expires.isoformat()},
    }

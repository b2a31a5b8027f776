"""The structure of SARIF 2.1.0 (OASIS standard), as far as a tool like this writes it: names, types, and "shall"s.

check_log(log) raises AssertionError naming the place. A property that is not listed here fails: what is written has
to be in the standard, and looked up there.
"""

from __future__ import annotations

import re
from typing import Any

KINDS = {"notApplicable", "pass", "fail", "review", "open", "informational"}
LEVELS = {"none", "note", "warning", "error"}
TEXT, NUMBER, FLAG, BAG, ANY = "text", "number", "flag", "bag", "any"
# object: property -> what it is. `!` in front: required. A list in brackets; `{}`: a mapping of names to it.
OBJECTS: dict[str, dict[str, str]] = {
    "log": {"$schema": TEXT, "!version": TEXT, "!runs": "[run]", "properties": BAG},
    "run": {
        "!tool": "tool", "results": "[result]", "columnKind": TEXT, "originalUriBaseIds": "{artifactLocation}",
        "properties": BAG,
    },
    "tool": {"!driver": "component", "extensions": "[component]", "properties": BAG},
    "component": {
        "!name": TEXT, "version": TEXT, "semanticVersion": TEXT, "informationUri": TEXT, "fullDescription": "multiText",
        "shortDescription": "multiText", "rules": "[descriptor]", "properties": BAG,
    },
    "descriptor": {
        "!id": TEXT, "name": TEXT, "shortDescription": "multiText", "fullDescription": "multiText", "help": "multiText",
        "helpUri": TEXT, "defaultConfiguration": "configuration", "properties": BAG,
    },
    "configuration": {"level": TEXT, "enabled": FLAG, "rank": NUMBER},
    "multiText": {"!text": TEXT, "markdown": TEXT},
    "message": {"text": TEXT, "markdown": TEXT, "id": TEXT},
    "result": {
        "ruleId": TEXT, "ruleIndex": NUMBER, "kind": TEXT, "level": TEXT, "!message": "message",
        "locations": "[location]", "partialFingerprints": "{text}", "suppressions": "[suppression]",
        "properties": BAG,
    },
    "location": {"physicalLocation": "physicalLocation", "logicalLocations": "[logicalLocation]", "properties": BAG},
    "physicalLocation": {"artifactLocation": "artifactLocation", "region": "region"},
    "artifactLocation": {"uri": TEXT, "uriBaseId": TEXT, "description": "message", "index": NUMBER},
    "region": {"startLine": NUMBER, "startColumn": NUMBER, "endLine": NUMBER},
    "logicalLocation": {"name": TEXT, "fullyQualifiedName": TEXT, "kind": TEXT},
    "suppression": {"!kind": TEXT, "status": TEXT, "justification": TEXT, "location": "location", "properties": BAG},
}  # fmt: skip
_URI = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/%?#-]+")


def check_log(log: Any) -> None:
    """Check a whole log."""
    _check("log", log, "log")
    assert log["version"] == "2.1.0", "3.13.2: version is the string 2.1.0"
    for number, run in enumerate(log["runs"]):
        _check_run(run, f"runs[{number}]")


def _check(kind: str, value: Any, at: str) -> None:
    if kind.startswith("["):
        assert isinstance(value, list), f"{at} is no array"
        for number, item in enumerate(value):
            _check(kind[1:-1], item, f"{at}[{number}]")
    elif kind.startswith("{"):
        assert isinstance(value, dict), f"{at} is no object"
        for name, item in value.items():
            _check(kind[1:-1], item, f"{at}.{name}")
    elif kind == TEXT:
        assert isinstance(value, str), f"{at} is no string"
    elif kind == NUMBER:
        assert isinstance(value, int) and not isinstance(value, bool), f"{at} is no integer"
    elif kind == FLAG:
        assert isinstance(value, bool), f"{at} is no boolean"
    elif kind == BAG:
        _check_bag(value, at)
    else:
        known = {name.lstrip("!"): inner for name, inner in OBJECTS[kind].items()}
        assert isinstance(value, dict) and value, f"{at} is no object, or empty"
        for name in OBJECTS[kind]:
            assert not name.startswith("!") or name[1:] in value, f"{at}.{name[1:]} is missing"
        for name, item in value.items():
            assert name in known, f"{at}.{name} is not in the standard (object {kind})"
            _check(known[name], item, f"{at}.{name}")


def _check_bag(value: Any, at: str) -> None:
    assert isinstance(value, dict), f"{at} is no object"
    tags = value.get("tags", [])
    assert isinstance(tags, list) and len(set(tags)) == len(tags), f"{at}.tags (3.8.2) is no array of unique strings"
    assert all(isinstance(tag, str) for tag in tags)


def _check_run(run: dict[str, Any], at: str) -> None:
    assert run.get("columnKind") in (None, "utf16CodeUnits", "unicodeCodePoints")
    rules = run["tool"]["driver"].get("rules", [])
    ids = [rule["id"] for rule in rules]
    assert len(set(ids)) == len(ids), "3.49.3: ids of rules are unique here"
    for rule in rules:
        assert rule["defaultConfiguration"]["level"] in LEVELS
        assert _URI.fullmatch(rule["helpUri"]) and ":" in rule["helpUri"], "3.49.12: an absolute URI"
    for number, result in enumerate(run["results"]):
        _check_result(run, result, ids, f"{at}.results[{number}]")


def _check_result(run: dict[str, Any], result: dict[str, Any], ids: list[str], at: str) -> None:
    assert result["kind"] in KINDS and result["level"] in LEVELS, at
    # 3.27.10: if kind has any value other than "fail", level shall be "none".
    assert result["kind"] == "fail" or result["level"] == "none", at
    assert ids[result["ruleIndex"]] == result["ruleId"], f"{at}: 3.27.6"
    assert result["message"].get("text") or result["message"].get("id"), f"{at}: 3.11.5"
    for name in result.get("partialFingerprints", {}):
        assert re.fullmatch(r"[^/]+(/v[0-9]+)?", name), f"{at}: 3.5.4.2"
    places = [
        *result["locations"],
        *(item["location"] for item in result.get("suppressions", []) if "location" in item),
    ]
    for place in places:
        physical = place["physicalLocation"]
        uri = physical["artifactLocation"]["uri"]
        assert _URI.fullmatch(uri), f"{at}: {uri!r} is no URI reference (RFC 3986)"
        # 3.4.4: with uriBaseId, uri is a relative reference, and it does not climb out.
        assert not uri.startswith("/") and ":" not in uri and ".." not in uri.split("/"), f"{at}: {uri}"
        assert physical["artifactLocation"]["uriBaseId"] in run["originalUriBaseIds"], at
        assert physical["region"]["startLine"] >= 1, f"{at}: 3.30.5"
    for suppression in result.get("suppressions", []):
        assert suppression["kind"] in ("inSource", "external"), f"{at}: 3.35.2"
        assert suppression["status"] in ("accepted", "underReview", "rejected"), f"{at}: 3.35.3"

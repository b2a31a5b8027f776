"""Rule files, governance and approvals: what is refused, with file, line, field, value and fix."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.policy_repo import GOVERNANCE

from ansible_collections.edgeai.fleet.plugins.module_utils.policy.checks import CATALOGUE, CHECKS
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.errors import PolicyError
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.governance import read_approvals, read_governance
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.inputs import SHIPPED
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.requirement import Condition, holds
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.ruleset import combine, read_ruleset
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.yamlfile import load_yaml

ROOT = Path(__file__).resolve().parents[3]
RULE = {
    "id": "acme-soak",
    "title": "Releases soak",
    "description": "Every device lets a release soak.",
    "check": "require",
    "parameters": {"of": "device", "must": [{"field": "edge_policy.soak", "at_least": 300}]},
    "severity": "warning",
    "references": [{"name": "Handbook 4", "url": "https://example.org/handbook"}],
    "fix": "Set edge_policy.soak.",
}
SET = {"format": 1, "name": "acme", "version": "1.0.0", "title": "Rules of Acme", "rules": [RULE]}
WAIVER = {
    "rule": "acme-soak",
    "subject": "site:harbour",
    "reason": "trial until the cameras are replaced",
    "approver": "amina",
    "expires": "2026-12-31",
}
APPROVAL = {
    "model": "digits",
    "version": "1.0.0",
    "digest": "sha256:" + "0" * 64,
    "approver": "amina",
    "time": "2026-11-23T10:00:00Z",
}


def dump(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False)


def changed(base: dict[str, Any], path: str, value: Any) -> str:
    """Return the YAML of ``base`` with one value replaced (or removed: ...)."""
    data = copy.deepcopy(base)
    *inner, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    target: Any = data
    for part in inner:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return dump(data)


def refused(read: Callable[..., Any], text: str, *more: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        read(load_yaml(text, "the.yml"), *more)
    return str(caught.value)


def test_shipped_sets_are_whole() -> None:
    """Every point of the issue in both sets, each rule with an article of its law and a link."""
    points = set(CHECKS) - {"require", "lawful_basis", "phi_basis"}
    for name in SHIPPED:
        path = ROOT / "rulesets" / f"{name}.yml"
        ruleset = read_ruleset(load_yaml(path.read_text(encoding="utf-8"), path.name), CATALOGUE)
        assert ruleset.name == name and ruleset.notice
        assert points <= {rule.check for rule in ruleset.rules}
        law = {"gdpr": "GDPR Art. ", "hipaa": "45 CFR 164."}[name]
        for rule in ruleset.rules:
            assert rule.id.startswith(name + "-") and rule.fix and rule.description
            assert all(reference.name.startswith(law) for reference in rule.references)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "line 2: the key 'a' appears twice"),
        ("a: &x 1\nb: *x\n", "line 1: anchors and aliases"),
        ("a: !vault |\n  x\n", "line 1: the tag !vault is not allowed"),
        ("a: [1, 2\n", "is not YAML"),
        ("? [1, 2]\n: 3\n", "keys have to be plain texts"),
        ("<<: {a: 1}\n", "keys have to be plain texts"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("x: " + "[" * 400 + "]" * 400, "nested"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=r"the\.yml") as caught:
        load_yaml(text, "the.yml")
    assert message in str(caught.value)


def test_dates_stay_texts_and_lines_are_known() -> None:
    document = load_yaml("a:\n  - day: 2026-01-31\n    on: yes\n", "the.yml")
    assert document.data == {"a": [{"day": "2026-01-31", "on": True}]}
    assert (document.line("a", 0, "day"), document.line("a", 0, "on"), document.line("a", 0, "gone")) == (2, 3, 2)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 2, "field 'format' is 2: this version reads format 1"),
        ("version", 1.0, "field 'version' is 1.0: use three numbers in quotes"),
        ("name", "Acme Inc", "field 'name' is 'Acme Inc'"),
        ("title", ..., "field 'title' is missing"),
        ("extra", 1, "field 'extra' is 1: this field is not known"),
        ("rules/0/check", "sniff", "rules[0].check' is 'sniff': use one of approvals, "),
        ("rules/0/severity", "high", "rules[0].severity' is 'high': use one of error, warning, note"),
        ("rules/0/id", "Soak", "rules[0].id' is 'Soak': use words of a-z"),
        ("rules/0/references", [], "rules[0].references' is a list of 0 elements"),
        ("rules/0/references/0/url", "http://example.org", "use an address that begins with https://"),
        ("rules/0/parameters/must/0/at_least", "300", "must[0].at_least' is '300': write a number"),
        ("rules/0/parameters/must/0/equals", 3, "needs exactly one of"),
        ("rules/0/parameters/must/0/field", "a b", "use names with dots between"),
        ("rules/0/parameters/of", "planet", "use one of device, release, model, site, plan"),
        ("rules/0/parameters/colour", 1, "this field is not known; known are must, of, when"),
        ("rules/0/parameters", {"of": "device"}, "say what must hold"),
        ("rules/0/applies_to", {"tags": []}, "applies_to.tags' is a list of 0 elements"),
        ("uses", "gdpr", "field 'uses' is 'gdpr': write a list"),
    ],
)
def test_rule_files_that_are_refused(path: str, value: Any, message: str) -> None:
    text = refused(read_ruleset, changed(SET, path, value), CATALOGUE)
    assert text.startswith("the.yml, line ") and message in text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("reason", "ok", "say why"),
        ("expires", "soon", "write a day such as 2026-01-31"),
        ("expires", "2026-02-30", "write a day such as 2026-01-31"),
        ("approver", ..., "field 'waivers[0].approver' is missing"),
        ("reason", ..., "field 'waivers[0].reason' is missing"),
        ("expires", ..., "field 'waivers[0].expires' is missing"),
    ],
)
def test_waivers_that_are_refused(path: str, value: Any, message: str) -> None:
    data = {**SET, "waivers": [WAIVER]}
    assert message in refused(read_ruleset, changed(data, f"waivers/0/{path}", value), CATALOGUE)


def combined(*files: dict[str, Any]) -> Any:
    documents = [load_yaml(dump(data), f"{data['name']}.yml") for data in files]
    return combine([(read_ruleset(document, CATALOGUE), document) for document in documents], CATALOGUE)


def test_sets_that_do_not_fit_together() -> None:
    other = {**SET, "name": "beta"}
    with pytest.raises(PolicyError, match=r"'acme-soak' is also in acme\.yml"):
        combined(SET, other)
    for extra in ({"waivers": [{**WAIVER, "rule": "acme-gone"}]}, {"adjust": {"acme-gone": {"severity": "note"}}}):
        with pytest.raises(PolicyError, match="there is no such rule; rules are acme-soak"):
            combined({**SET, **extra})
    with pytest.raises(PolicyError, match=r"there are no rules in acme\.yml"):
        combined({**SET, "rules": []})
    with pytest.raises(PolicyError, match="is there twice, also on line 6"):
        combined({**SET, "rules": [RULE, copy.deepcopy(RULE)]})
    with pytest.raises(PolicyError, match="is empty"):
        combined({**SET, "adjust": {"acme-soak": {}}})


def test_adjusting_is_checked_and_stays_visible() -> None:
    rule = {**RULE, "id": "acme-age", "check": "key_age", "parameters": {"max_days": 365}}
    team = {
        **SET,
        "name": "team",
        "rules": [],
        "adjust": {"acme-age": {"parameters": {"max_days": 90}, "severity": "error"}},
    }
    (found,) = combined({**SET, "rules": [rule]}, team).rules
    assert (found.parameters["max_days"], found.severity) == (90, "error")
    assert found.adjusted == ("team.yml sets max_days 90 (was 365), severity error (was warning)",)
    team["adjust"] = {"acme-age": {"parameters": {"max_years": 1}}}
    with pytest.raises(PolicyError, match="max_years' is 1: this field is not known"):
        combined({**SET, "rules": [rule]}, team)


def test_governance_is_read() -> None:
    governance = read_governance(load_yaml(dump(GOVERNANCE), "governance.yml"))
    assert governance.sites["harbour"].tags == ("personal_data", "phi")
    assert governance.datasets["docks-2026"].basis == "legitimate_interests"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("models/digits/datasets", ["gone"], "'gone' is not described"),
        ("datasets/docks-2026/sha256", ["abc"], "datasets.docks-2026.sha256[0]' is 'abc'"),
        ("datasets/docks-2026/lawful_basis/basis", "because", "use one of consent, contract"),
        ("datasets/docks-2026/lawful_basis/reference", ..., "lawful_basis.reference' is missing"),
        ("datasets/docks-2026/personal_data", "no", "write true or false"),
        ("datasets/docks-2026/hipaa_basis", {"basis": "luck", "reference": "x"}, "use one of authorization"),
        ("models/digits/inference_inputs", {"stored": False, "retention_days": 3}, "nothing is stored"),
        ("models/digits/inference_inputs/stored", "never", "write true or false"),
        ("models/digits/golden", [{"sha256": "0" * 64}], "golden[0].kind' is missing"),
        ("models/digits/tags", ["Personal Data"], "use a text that matches"),
        ("sites/harbour/region", "EU", "field 'sites.harbour.region' is 'EU'"),
        ("sites/harbour/tags", ..., "field 'sites.harbour.tags' is missing"),
        ("sites/harbour/encryption_at_rest", {"enabled": True}, "say how"),
        ("keys/release.pub.pem", {"created": "2026-01-02", "retired": "2026-01-01"}, "before the key was created"),
        ("approvers/jonas/name", "amina diallo", "one person is one approver"),
        ("approvers/Amina", {"name": "Somebody"}, "one person is one approver"),
        ("ledger", {"retention_days": 0}, "write a whole number from 1"),
        ("format", True, "this version reads format 1"),
        ("wishes", {}, "this field is not known"),
    ],
)
def test_governance_that_is_refused(path: str, value: Any, message: str) -> None:
    text = refused(read_governance, changed(GOVERNANCE, path, value))
    assert text.startswith("the.yml, line ") and message in text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("digest", "0" * 64, "use sha256: and 64 hex digits"),
        ("time", "yesterday", "write a UTC time"),
        ("time", "2026-11-23T10:00:00+01:00", "write a UTC time"),
        ("approver", 7, "write a text"),
        ("note", "x", "this field is not known"),
    ],
)
def test_approvals_that_are_refused(path: str, value: Any, message: str) -> None:
    data = {"format": 1, "approvals": [APPROVAL]}
    assert message in refused(read_approvals, changed(data, f"approvals/0/{path}", value))


def test_what_an_approver_signs_is_fixed() -> None:
    """The statement is an interface: people sign it with other tools."""
    (approval,) = read_approvals(load_yaml(dump({"format": 1, "approvals": [APPROVAL]}), "a.yml"))
    expected = f"edgeai-approval-v1\ndigits\n1.0.0\nsha256:{'0' * 64}\n-\namina\n2026-11-23T10:00:00Z\n"
    assert approval.statement() == expected.encode()


@pytest.mark.parametrize(
    ("operator", "operand", "good", "bad"),
    [
        ("equals", True, True, 1),
        ("equals", 1, 1, True),
        ("one_of", ["a", "b"], "a", "c"),
        ("none_of", ["a"], "b", "a"),
        ("at_least", 300, 300, 299),
        ("at_least", 300, 301.5, "301"),
        ("at_most", 1, 0, 2),
        ("at_most", 1, 1, False),
        ("matches", "[a-z]+", "abc", "abc1"),
        ("matches", "1", "1", 1),
    ],
)
def test_conditions(operator: str, operand: Any, good: Any, bad: Any) -> None:
    condition = Condition("a.b", operator, operand)
    assert holds(condition, {"a": {"b": good}}) is True
    assert holds(condition, {"a": {"b": bad}}) is (None if bad is None else False)
    assert holds(condition, {"a": {}}) is None and holds(condition, {"a": {"b": None}}) is None
    every = Condition("a.*.b", operator, operand)
    assert holds(every, {"a": [{"b": good}, {"b": good}]}) is True
    assert holds(every, {"a": [{"b": good}, {"b": bad}]}) is False
    assert holds(every, {"a": []}) is None


def test_present_and_absent() -> None:
    for data, there in (({"a": {"b": 0}}, True), ({"a": {"b": None}}, False), ({}, False), ({"a": "text"}, False)):
        assert holds(Condition("a.b", "present", True), data) is there
        assert holds(Condition("a.b", "present", False), data) is not there

"""Findings from rules: applicability, waivers, folding, what blocks; and the reports made of them."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
from typing import Any

import pytest
import yaml
from support.policy_repo import GOVERNANCE
from support.sarif import check_log

from ansible_collections.edgeai.fleet.plugins.module_utils.policy.checks import CATALOGUE
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.evaluate import Evaluation, evaluate
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.facts import DeviceFacts, Fleet, Place
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.governance import read_governance
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.markdown import text, to_markdown, verdict_line
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.ruleset import combine, read_ruleset
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.sarif import NOTICE, to_sarif
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.yamlfile import load_yaml

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.timezone.utc)
RULE = {
    "id": "acme-rest",
    "title": "Disks are encrypted",
    "description": "Sites with persons encrypt.",
    "check": "encryption_at_rest",
    "applies_to": {"tags": ["personal_data"]},
    "severity": "error",
    "references": [{"name": "Handbook 4", "url": "https://example.org/handbook#four"}],
    "fix": "Encrypt.",
}
WAIVER = {
    "rule": "acme-rest",
    "subject": "site:harbour",
    "reason": "the disks are replaced in December",
    "approver": "amina",
    "expires": "2026-11-23",
}


def device(name: str, site: str | None = "harbour", at_rest: bool | None = None) -> DeviceFacts:
    return DeviceFacts(name, site, ("digits",), {}, {}, Place("inventories/hosts.yml", 7), at_rest)


def evaluated(
    *devices: DeviceFacts, rule: Any = None, waivers: Any = (), governance: Any = None, now: Any = NOW
) -> Evaluation:
    data = {"format": 1, "name": "acme", "version": "1.0.0", "title": "Rules", "notice": "A notice.",
            "rules": [{**RULE, **(rule or {})}], "waivers": copy.deepcopy(list(waivers))}  # fmt: skip
    document = load_yaml(yaml.safe_dump(copy.deepcopy(data), sort_keys=False), "rules/acme.yml")
    declared = load_yaml(yaml.safe_dump(governance or GOVERNANCE, sort_keys=False), "governance.yml")
    rules = combine([(read_ruleset(document, CATALOGUE), document)], CATALOGUE)
    return evaluate(rules, Fleet(now=now, governance=read_governance(declared), devices=devices))


def told(evaluation: Evaluation) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(finding.verdict, finding.subject, finding.hosts) for finding in evaluation.findings]


def test_devices_of_a_site_are_one_finding() -> None:
    found = evaluated(device("h1"), device("h2"), device("h3", at_rest=False), device("q1", "quarry"))
    assert told(found) == [
        ("fail", "site:harbour", ("h3",)),
        ("pass", "site:harbour", ("h1", "h2")),
        ("not_applicable", "site:quarry", ("q1",)),
    ]
    assert [finding.rule.id for finding in found.blocking("error")] == ["acme-rest"]


def test_not_to_know_is_not_to_be_outside() -> None:
    """A site nobody declared, or a device without one, may be tagged: that is no data, and blocks."""
    found = evaluated(device("m1", "moon"), device("x1", None), device("q1", "quarry"))
    assert told(found) == [
        ("no_data", "site:moon", ("m1",)),
        ("no_data", "site:(none)", ("x1",)),
        ("not_applicable", "site:quarry", ("q1",)),
    ]
    assert len(found.blocking("error")) == 2


def test_nothing_to_look_at_is_no_data() -> None:
    for found in (evaluated(), evaluated(device("q1", "quarry"), rule={"applies_to": {"sites": ["harb*"]}})):
        assert [verdict for verdict, _subject, _hosts in told(found)] == ["no_data"]
        assert found.blocking("error")


def test_names_that_a_rule_is_not_about_are_left_out() -> None:
    found = evaluated(
        device("h1"), device("q1", "quarry"), rule={"applies_to": {"sites": ["harb*"], "models": ["dig*"]}}
    )
    assert told(found) == [("pass", "site:harbour", ("h1",))]


@pytest.mark.parametrize(
    ("severity", "fail_on", "blocks"),
    [("error", "error", True), ("warning", "error", False), ("warning", "warning", True), ("warning", "note", True),
     ("note", "warning", False), ("note", "note", True), ("error", "never", False)],
)  # fmt: skip
def test_what_blocks(severity: str, fail_on: str, blocks: bool) -> None:
    found = evaluated(device("h1", at_rest=False), rule={"severity": severity})
    assert bool(found.blocking(fail_on)) is blocks
    assert to_markdown(found, fail_on).startswith(f"# Policy check: {'NOT PASSED' if blocks else 'passed'}\n")


def test_a_waived_finding_stays_visible() -> None:
    found = evaluated(device("h1", at_rest=False), device("h2"), waivers=[WAIVER])
    assert found.blocking("error") == [] and found.counts()["waived"] == 1 and found.counts()["fail"] == 0
    report = to_markdown(found, "error")
    assert "## Waived (1)" in report and "the disks are replaced in December | amina | 2026-11-23" in report
    (result, *_rest) = to_sarif(found, "0.1.0", "error")["runs"][0]["results"]
    assert (result["kind"], result["level"]) == ("fail", "error")
    (suppression,) = result["suppressions"]
    assert suppression["justification"] == WAIVER["reason"]
    assert suppression["properties"] == {"approver": "amina", "expires": "2026-11-23"}


def test_a_waiver_for_one_device() -> None:
    waiver = {**WAIVER, "subject": "device:h1"}
    found = evaluated(device("h1", at_rest=False), device("h2", at_rest=False), waivers=[waiver])
    assert [(finding.hosts, finding.waiver is not None) for finding in found.findings] == [
        (("h1",), True),
        (("h2",), False),
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"expires": "2026-11-22"}, "its waiver by amina expired on 2026-11-22"),
        ({"approver": "eve"}, "eve is not among the approvers in governance.yml"),
        ({"expires": "2028-01-01"}, "it is for more than 366 days"),
        ({"subject": "site:quarry"}, ""),
    ],
)
def test_a_waiver_that_does_not_count(changes: dict[str, Any], why: str) -> None:
    found = evaluated(device("h1", at_rest=False), waivers=[{**WAIVER, **changes}])
    (finding,) = found.blocking("error")
    assert why in finding.text
    ((_waiver, reason),) = found.idle_waivers
    assert why in reason if why else reason == "it covers nothing: remove it"
    assert "## Waivers without effect (1)" in to_markdown(found, "error")


def test_a_waiver_expires_by_the_day_it_is_judged_at() -> None:
    later = NOW + datetime.timedelta(days=1)
    assert not evaluated(device("h1", at_rest=False), waivers=[WAIVER]).blocking("error")
    assert evaluated(device("h1", at_rest=False), waivers=[WAIVER], now=later).blocking("error")


def reported() -> Evaluation:
    """Every kind of finding at once: failed, waived, no data, passed, not applicable, an idle waiver."""
    waivers = [{**WAIVER, "subject": "device:h1"}, {**WAIVER, "subject": "site:nowhere"}]
    devices = (
        device("h1", at_rest=False),
        device("h2", at_rest=False),
        device("h3"),
        device("q1", "quarry"),
        device("m1", "moon"),
    )
    return evaluated(*devices, waivers=waivers)


def test_sarif_holds_to_the_standard() -> None:
    log = json.loads(json.dumps(to_sarif(reported(), "0.1.0", "error"), ensure_ascii=False))
    check_log(log)
    (run,) = log["runs"]
    kinds = [(result["kind"], result["level"], "suppressions" in result) for result in run["results"]]
    assert sorted(kinds) == [
        ("fail", "error", False),
        ("fail", "error", False),
        ("fail", "error", True),
        ("notApplicable", "none", False),
        ("pass", "none", False),
    ]
    assert run["properties"]["passed"] is False and NOTICE in run["properties"]["notices"]
    assert NOTICE in run["tool"]["driver"]["rules"][0]["help"]["text"]
    assert run["results"][0]["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "inventories/hosts.yml", "uriBaseId": "FLEETREPOSITORY"},
        "region": {"startLine": 7},
    }


@pytest.mark.parametrize(
    "spoil",
    [
        lambda log: log.update(version="2.0.0"),
        lambda log: log["runs"][0]["results"][0].update(level="critical"),
        lambda log: log["runs"][0]["results"][0].update(ruleIndex=1),
        lambda log: log["runs"][0]["results"][-1].update(level="error"),
        lambda log: log["runs"][0]["results"][0].update(severity="error"),
        lambda log: log["runs"][0]["results"][0].pop("message"),
        lambda log: log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"].update(startLine=0),
        lambda log: log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"].update(
            uri="/a b"
        ),
        lambda log: log["runs"][0]["tool"].pop("driver"),
        lambda log: log["runs"][0].pop("originalUriBaseIds"),
    ],
)
def test_the_check_of_sarif_can_fail(spoil: Any) -> None:
    log = to_sarif(reported(), "0.1.0", "error")
    check_log(log)
    spoil(log)
    with pytest.raises((AssertionError, KeyError, IndexError)):
        check_log(log)


def test_paths_become_uris() -> None:
    found = evaluated(device("h1", at_rest=False))
    odd = dataclasses.replace(found.findings[0], place=Place("sites/dépôt 7/hosts#1.yml", 0))
    log = to_sarif(dataclasses.replace(found, findings=(odd,)), "0.1.0", "error")
    check_log(log)
    where = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert (
        where["artifactLocation"]["uri"] == "sites/d%C3%A9p%C3%B4t%207/hosts%231.yml"
        and where["region"]["startLine"] == 1
    )


def test_the_fingerprint_of_a_finding_does_not_change_with_its_numbers() -> None:
    found = evaluated(device("h1", at_rest=False)).findings[0]
    logs = [
        to_sarif(dataclasses.replace(reported(), findings=(item,)), "0.1.0", "error")
        for item in (
            found,
            dataclasses.replace(found, message="another day"),
            dataclasses.replace(found, subject="site:x"),
        )
    ]
    prints = [log["runs"][0]["results"][0]["partialFingerprints"]["ruleAndSubject/v1"] for log in logs]
    assert prints[0] == prints[1] != prints[2]


def test_markdown_says_everything() -> None:
    found = reported()
    report = to_markdown(found, "error")
    assert verdict_line(found, "error") == "2 blocking, 0 open below error, 1 waived, 1 passed, 1 do not apply"
    heads = ("Open (2)", "Waived (1)", "Waivers without effect (1)", "Passed (1)", "Does not apply (1)")
    link = "[Handbook 4](https://example.org/handbook#four)"
    for words in ("# Policy check: NOT PASSED", *(f"## {head}" for head in heads), "> A notice.", link, NOTICE):
        assert words in report
    assert to_markdown(reported(), "error") == report


def test_nothing_in_a_name_acts_in_markdown() -> None:
    assert text("a|b\n<img src=x> `x` [y](z) & *c*") == r"a\|b \<img src=x\> \`x\` \[y\](z) &amp; \*c\*"
    rows = [
        line for line in to_markdown(evaluated(device("h|1", at_rest=False)), "error").splitlines() if "h\\|1" in line
    ]
    assert len(rows) == 1

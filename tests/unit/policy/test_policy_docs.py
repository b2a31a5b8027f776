"""docs/policy.md says what the code does: its examples are read by the readers, its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.edgeai.fleet.plugins.module_utils.policy.checks import CATALOGUE, CHECKS
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.facts import VERDICTS
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.governance import read_approvals, read_governance
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.inputs import SHIPPED
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.requirement import OPERATORS
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.ruleset import combine, read_ruleset
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.yamlfile import load_yaml

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
RULES, GOVERNANCE, APPROVALS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the first table behind a text of the page."""
    table = re.search(r"\n\|[^\n]*\|\n\| --- [^\n]*\n((?:\|[^\n]*\n)+)", PAGE[PAGE.index(heading) :])
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group(1).splitlines()]


def test_examples_are_read() -> None:
    team = load_yaml(RULES, "rules/acme.yml")
    gdpr = load_yaml((ROOT / "rulesets/gdpr.yml").read_text(encoding="utf-8"), "gdpr.yml")
    rules = combine([(read_ruleset(document, CATALOGUE), document) for document in (team, gdpr)], CATALOGUE)
    governance = read_governance(load_yaml(GOVERNANCE, "governance.yml"))
    (approval,) = read_approvals(load_yaml(APPROVALS, "approvals.yml"))
    assert {waiver.approver for waiver in rules.waivers} | {approval.approver} <= set(governance.approvers)


def test_the_lines_to_sign_are_those_of_an_approval() -> None:
    (approval,) = read_approvals(load_yaml(APPROVALS, "approvals.yml"))
    command = re.search(r"printf '%s\\n' (.*?) \|", PAGE)
    assert command
    shown = command.group(1).replace("sha256:0f34...", approval.digest).split()
    assert "\n".join(shown) + "\n" == approval.statement().decode()


def test_checks_and_parameters() -> None:
    found = {
        row[0].strip("`"): (row[1], set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row[2]))))
        for row in rows("## Rules")
    }
    assert set(found) == set(CHECKS)
    for name, check in CHECKS.items():
        kind, parameters = found[name]
        assert kind == (check.kind or "any") and parameters == set(check.parameters), name
        for parameter, entry in check.parameters.items():
            if isinstance(entry.default, (int, str)):
                default = str(entry.default).lower() if isinstance(entry.default, bool) else entry.default
                row = next(row for row in rows("## Rules") if row[0] == f"`{name}`")
                assert f"`{parameter}` (`{default}`)" in row[2], (name, parameter)
    assert all(f"`{operator}`" in PAGE for operator in OPERATORS)


def test_verdicts() -> None:
    assert {row[0].strip("`") for row in rows("## Verdicts")} == set(VERDICTS)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_rules_and_what_they_cite(name: str) -> None:
    column = 1 if name == "gdpr" else 3
    shown = {row[column].strip("`"): row[column + 1] for row in rows("## Shipped sets")}
    document = load_yaml((ROOT / f"rulesets/{name}.yml").read_text(encoding="utf-8"), name)
    cited = {
        rule.id: ", ".join(item.name for item in rule.references) for rule in read_ruleset(document, CATALOGUE).rules
    }
    assert shown == cited


def test_variables_of_the_playbook() -> None:
    playbook = (ROOT / "playbooks/policy.yml").read_text(encoding="utf-8")
    documented = {name for row in rows("## Run it") for name in re.findall(r"`(edge_policy_\w+)`", row[0])}
    used = set(re.findall(r"edge_policy_\w+", playbook)) - {"edge_policy_here", "edge_policy_checked"}
    assert documented == used
    assert yaml.safe_load(playbook)

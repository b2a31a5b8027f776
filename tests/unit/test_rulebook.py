# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The rulebook names alerts, playbooks and variables that exist, and passes no text of an event on unchecked.

It is run for real, with ansible-rulebook and Java, by ``make test-eda``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "extensions" / "eda" / "rulebooks" / "fleet.yml"
(RULESET,) = yaml.safe_load(FILE.read_text(encoding="utf-8"))
RULES = {rule["name"]: rule for rule in RULESET["rules"]}


def calls(rule: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The playbook of a rule, and what it is given."""
    action = rule["action"]["run_playbook"]
    return action["name"], action["extra_vars"]


def playbook_text(name: str) -> str:
    """A playbook with those that it imports."""
    text = (ROOT / "playbooks" / f"{name}.yml").read_text(encoding="utf-8")
    return text + "".join(playbook_text(other) for other in re.findall(r"import_playbook: edgeai\.fleet\.(\w+)", text))


@pytest.mark.parametrize("name", RULES)
def test_rules_start_playbooks_that_know_the_variables(name: str) -> None:
    playbook, variables = calls(RULES[name])
    text = playbook_text(playbook.removeprefix("edgeai.fleet."))
    for variable in variables:
        assert re.search(rf"\b{variable}\b", text), f"{playbook} knows no {variable}"


def test_playbooks_that_are_started_stand_alone() -> None:
    """ansible-rulebook copies the one file: what lies beside it in the collection is not there."""
    for rule in RULES.values():
        text = (ROOT / "playbooks" / f"{calls(rule)[0].removeprefix('edgeai.fleet.')}.yml").read_text(encoding="utf-8")
        assert not re.search(r"(import_playbook|_tasks|vars_files):\s*(?!edgeai\.fleet\.)\S", text)


def test_alerts_are_those_of_the_monitoring_role() -> None:
    rules = (ROOT / "roles" / "monitoring" / "templates" / "rules.yml.j2").read_text(encoding="utf-8")
    named = set(re.findall(r"Edgeai\w+", FILE.read_text(encoding="utf-8")))
    assert named and named <= set(re.findall(r"alert: (\w+)", rules))


@pytest.mark.parametrize("name", RULES)
def test_text_of_an_event_reaches_a_playbook_only_as_a_plain_name(name: str) -> None:
    """Extra variables are templates to Ansible: a label with braces in it would be run on the controller."""
    condition = str(RULES[name]["condition"])
    for value in calls(RULES[name])[1].values():
        for used in re.findall(r"\{\{\s*([\w.]+)\s*\}\}", str(value)):
            assert f'{used} is match("^[A-Za-z0-9][A-Za-z0-9._-]*$")' in condition
    assert "{{" not in re.sub(r"\{\{\s*[\w.]+\s*\}\}", "", str(calls(RULES[name])[1]))


def test_every_rule_is_throttled_and_the_door_has_a_lock() -> None:
    assert all("once_within" in rule["throttle"] for rule in RULES.values())
    (source,) = RULESET["sources"]
    webhook = source["eda.builtin.webhook"]
    assert "default" not in webhook["token"], "no token, no start"
    assert "127.0.0.1" in webhook["host"]

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""AWX as code, with the modules of awx.awx, against a recording server that answers like AWX's API."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.awx_api import ENCRYPTED, Awx
from support.bundle import collections
from support.fleet import ROOT

NODES = ("plan", "rollout", "confirm", "rollback")
SAYINGS = ("pause", "resume", "abort", "approve", "veto")
TOKEN = "token-of-a-person"
KEY = "-----BEGIN PRIVATE KEY-----\nsecret-of-the-ledger\n-----END PRIVATE KEY-----\n"
SETTINGS: dict[str, Any] = {
    "awx_project_url": "https://git.example.com/fleet.git",
    "awx_image": "registry.example.com/fleet-ee:1",
    "awx_credentials": ["device access"],
    "awx_models": ["camera", "lidar"],
    "awx_notifications": [
        {
            "name": "operators",
            "type": "webhook",
            "configuration": {"url": "https://chat.example.com/hook", "http_method": "POST", "headers": {}},
        }
    ],
    "awx_schedules": [
        {
            "environment": "production",
            "name": "Tuesday night",
            "rrule": "DTSTART;TZID=Europe/Berlin:20261201T220000 RRULE:FREQ=WEEKLY;BYDAY=TU;INTERVAL=1",
        }
    ],
}


class Setup:
    """Runs of the playbook against one server."""

    def __init__(self, base: Path) -> None:
        playbooks = [f"awx/{path.name}" for path in (ROOT / "templates" / "awx").glob("*.yml")]
        self.awx = Awx(playbooks, TOKEN)
        self.awx.create("organizations", {"name": "Default"})
        kind = self.awx.create("credential_types", {"name": "Machine", "kind": "ssh"})
        self.awx.create("credentials", {"name": "device access", "credential_type": kind["id"]})
        (base / "ledger.pem").write_text(KEY, encoding="utf-8")
        (base / "fleet").mkdir()
        self.settings = {**SETTINGS, "awx_ledger_key": str(base / "ledger.pem"), "awx_repo": str(base / "fleet")}
        self.base = base
        checkout = ROOT / ".ansible" / "collections"
        self.environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": f"{checkout}:{collections()}",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "HOME": str(base),
            "CONTROLLER_HOST": self.awx.url,
            "CONTROLLER_OAUTH_TOKEN": TOKEN,
        }

    def run(self, playbook: str = "edgeai.fleet.awx", **settings: Any) -> str:
        """Run a playbook to a good end and return its output, in which no secret may be."""
        variables = self.base / "awx.yml"
        variables.write_text(yaml.safe_dump({**self.settings, **settings}), encoding="utf-8")
        command = [str(Path(sys.executable).parent / "ansible-playbook"), playbook, "-e", f"@{variables}"]
        done = subprocess.run(
            command, env=self.environment, cwd=self.base, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        assert "secret-of-the-ledger" not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """A server on which the playbook ran once."""
    made = Setup(tmp_path_factory.mktemp("awx"))
    try:
        made.run()
        yield made
    finally:
        made.awx.close()


@pytest.fixture
def awx(setup: Setup) -> Awx:
    return setup.awx


def changed(output: str) -> int:
    return int(re.findall(r"changed=(\d+)", output)[-1])


def test_project_and_inventory_follow_git(awx: Awx) -> None:
    project = awx.named("projects")["edge fleet: repository"]
    assert (project["scm_url"], project["scm_branch"]) == ("https://git.example.com/fleet.git", "main")
    assert project["scm_update_on_launch"] and not project["allow_override"]
    image = awx.named("execution_environments")["edgeai.fleet"]
    assert project["default_environment"] == image["id"] and image["image"] == "registry.example.com/fleet-ee:1"
    source = awx.named("inventory_sources")["production: repository"]
    assert source["source_path"] == "inventories/production" and source["source_project"] == project["id"]
    assert source["update_on_launch"] and source["overwrite"] and source["overwrite_vars"]
    assert source["inventory"] == awx.named("inventories")["production"]["id"]


def test_the_ledgers_key_reaches_jobs_as_a_file_only(awx: Awx) -> None:
    kind = awx.named("credential_types")["edgeai.fleet ledger key"]
    assert kind["inputs"]["fields"][0]["secret"] is True and kind["inputs"]["required"] == ["ledger_key"]
    assert set(kind["injectors"]) == {"file", "extra_vars"}, "no environment variables"
    assert kind["injectors"]["file"] == {"template.ledger_key": "{{ ledger_key }}"}
    assert kind["injectors"]["extra_vars"] == {"edge_ledger_key": "{{ tower.filename.ledger_key }}"}
    credential = awx.named("credentials")["edge fleet: ledger key"]
    assert credential["inputs"] == {"ledger_key": ENCRYPTED} and credential["credential_type"] == kind["id"]
    assert awx.secrets[credential["id"]]["ledger_key"].strip() == KEY.strip()


def test_job_templates(awx: Awx) -> None:
    found = awx.named("job_templates")
    assert set(found) == {f"production: {name}" for name in (*NODES, *SAYINGS)}
    for name, template in found.items():
        assert template["playbook"] == f"awx/{name.split(': ')[1]}.yml"
        assert awx.linked("job_templates", template, "credentials") == ["device access", "edge fleet: ledger key"]
        assert template["job_type"] == ("check" if name == "production: plan" else "run")
        assert not template["allow_simultaneous"] and not template["ask_variables_on_launch"]
        variables = json.loads(template["extra_vars"])
        assert variables["edge_environment"] == "production"
        assert variables["edge_ledger"] == "/srv/fleet/ledger/production", "what outlives the container"
        assert template["inventory"] == awx.named("inventories")["production"]["id"]
    assert found["production: plan"]["diff_mode"]
    assert {name for name, template in found.items() if template["ask_limit_on_launch"]} == {
        "production: plan", "production: rollout", "production: veto",
    }  # fmt: skip


@pytest.mark.parametrize("name", SAYINGS)
def test_what_people_say_is_asked_for_and_bears_their_name(awx: Awx, name: str) -> None:
    template = awx.named("job_templates")[f"production: {name}"]
    asked = {question["variable"]: question for question in awx.surveys["job_templates", template["id"]]["spec"]}
    assert template["survey_enabled"] is True and "edge_by" not in asked
    assert ("edge_model" in asked) == (name != "veto")
    assert asked["edge_plan_hash" if name == "approve" else "edge_reason"]["required"] or name == "resume"
    playbook = (ROOT / "playbooks" / f"{name}.yml").read_text(encoding="utf-8")
    assert all(f"{{{{ {variable}" in playbook for variable in asked), asked
    assert "{{ awx_user_name }}" in (ROOT / "templates" / "awx" / f"{name}.yml").read_text(encoding="utf-8")


def test_the_rollback_asks_what_and_why(awx: Awx) -> None:
    template = awx.named("job_templates")["production: rollback"]
    asked = {question["variable"]: question for question in awx.surveys["job_templates", template["id"]]["spec"]}
    assert template["survey_enabled"] is True
    assert asked["edge_rollback_scope"]["choices"] == ["unsettled", "all"] and asked["edge_rollback_reason"]["required"]
    playbook = (ROOT / "playbooks" / "rollback.yml").read_text(encoding="utf-8")
    assert all(name in playbook for name in asked)


def graph(awx: Awx) -> dict[str, dict[str, Any]]:
    """The workflow: identifier -> what it runs, what follows."""
    kind = "workflow_job_template_nodes"
    nodes = {}
    for node in awx.store[kind].values():
        template = awx.find("unified_job_templates", node["unified_job_template"])
        nodes[node["identifier"]] = {
            "runs": template["name"],
            "type": template["type"],
            "timeout": template.get("timeout"),
            "limit": node.get("limit"),
            "data": node.get("extra_data"),
            **{way: awx.linked(kind, node, f"{way}_nodes") for way in ("success", "failure", "always")},
        }
    return nodes


def test_the_workflow_puts_an_approval_between_each_plan_and_its_rollout(awx: Awx) -> None:
    nodes = graph(awx)
    follows = {name: node["success"] for name, node in nodes.items()}
    assert follows == {
        "plan": ["approve-canary"], "approve-canary": ["canary"], "canary": ["plan-rest"],
        "plan-rest": ["approve-waves"], "approve-waves": ["waves"], "waves": ["confirm"],
        "rollback": [], "rollback-canary": [], "confirm": [],
    }  # fmt: skip
    for name in ("approve-canary", "approve-waves"):
        assert nodes[name]["type"] == "workflow_approval_template" and nodes[name]["timeout"] == 86400
    assert nodes["plan"]["limit"] == nodes["canary"]["limit"] == "canary", "the hash is that of the limited plan"
    assert nodes["plan-rest"]["limit"] == nodes["waves"]["limit"]
    started_by_itself = set(nodes) - {
        other for n in nodes.values() for way in ("success", "failure", "always") for other in n[way]
    }
    assert started_by_itself == {"plan"}


def test_a_failure_is_taken_back_and_never_counts_as_success(awx: Awx) -> None:
    nodes = graph(awx)
    failure = {name: node["failure"] for name, node in nodes.items() if node["failure"]}
    assert failure == {
        "canary": ["rollback"], "plan-rest": ["rollback"], "waves": ["rollback"], "approve-waves": ["rollback-canary"],
    }  # fmt: skip
    assert nodes["rollback"]["data"]["edge_rollback_scope"] == "unsettled"
    assert nodes["rollback-canary"]["data"]["edge_rollback_scope"] == "all"
    for name in ("rollback", "rollback-canary"):
        assert nodes[name]["runs"] == "production: rollback" and nodes[name]["always"] == ["confirm"]
    assert not nodes["confirm"]["failure"], "the last node's failure is the workflow's"


def test_people_are_told_and_windows_are_kept(awx: Awx) -> None:
    workflow = awx.named("workflow_job_templates")["production: release"]
    for event in ("approvals", "error", "success"):
        name = f"notification_templates_{event}"
        assert awx.linked("workflow_job_templates", workflow, name) == ["operators"]
    assert awx.named("notification_templates")["operators"]["notification_type"] == "webhook"
    schedule = awx.named("schedules")["production: Tuesday night"]
    assert schedule["unified_job_template"] == workflow["id"] and schedule["enabled"]
    (question,) = awx.surveys["workflow_job_templates", workflow["id"]]["spec"]
    assert question["variable"] == "edge_model" and question["choices"] == ["camera", "lidar"]


def test_creating_again_changes_nothing(setup: Setup) -> None:
    before = setup.awx.objects()
    setup.awx.writes.clear()
    assert changed(setup.run()) == 0
    assert setup.awx.objects() == before
    created = [line for line in setup.awx.writes if line.startswith(("POST", "DELETE"))]
    assert created == []


def test_an_approval_that_is_no_longer_asked_for_goes(setup: Setup) -> None:
    only = [{"ansible.builtin.include_tasks": str(ROOT / "playbooks" / "tasks" / "awx_workflow.yml")}]
    play = {"hosts": "localhost", "gather_facts": False, "vars": {"awx_environment": "production"}, "tasks": only}
    playbooks = setup.base / "playbooks"
    playbooks.mkdir()
    (setup.base / "templates").symlink_to(ROOT / "templates")
    (playbooks / "only.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    setup.run(playbook=str(playbooks / "only.yml"), awx_approve=["waves"])
    nodes = graph(setup.awx)
    assert "approve-canary" not in nodes and nodes["plan"]["success"] == ["canary"]
    assert nodes["plan-rest"]["success"] == ["approve-waves"]


def test_the_repository_gets_the_playbooks_that_the_templates_name(setup: Setup) -> None:
    written = setup.base / "fleet" / "awx"
    assert sorted(f"awx/{path.name}" for path in written.iterdir()) == sorted(setup.awx.playbooks)
    named = {template["playbook"] for template in setup.awx.store["job_templates"].values()}
    assert named == set(setup.awx.playbooks)

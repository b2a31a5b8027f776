"""Plans, what is remembered of them, the page they are reviewed on, the schema check, a job's secrets, and a forge."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module
from support.pipelines import Api

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import planpage, schema
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Device, Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy


def plan(count: int = 4, **options: Any) -> dict[str, Any]:
    """A real plan over some devices; one of them is away."""
    devices = [Device(f"d{number}", stratum="cpu/ort/x86_64", **options) for number in range(count)]
    devices.append(Device("away", reachable=False, reason="no route | <b>to</b> host"))
    return make_plan(devices, Release("camera", "1.4.0", "sha256:" + "a" * 64), Policy(), "r-1")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    path = tmp_path / "repo"
    for name, text in {"inventories/production/hosts.yml": "a", "policies/p.yml": "b", "ansible.cfg": "c"}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def run(repo: Path, state: str, check: bool = False, environment: str = "production", **options: Any) -> dict[str, Any]:
    inputs = ["inventories/production", "policies", "ansible.cfg", "not-there.txt"]
    arguments = {"repo": repo, "environment": environment, "inputs": inputs, "record": repo / ".state", "state": state}
    return run_module("repo_plan", {**arguments, **options}, check=check)


def test_what_was_written_is_what_is_approved(repo: Path) -> None:
    made = plan()
    about = {"plans": [made], "dest": repo / "build", "sites": {"d0": "harbour"}, "commit": "c0ffee"}
    predicted = run(repo, "written", check=True, **about)
    assert predicted["changed"] and not (repo / "build").exists() and not (repo / ".state").exists()
    done = run(repo, "written", **about)
    assert done["plan_hashes"] == {"camera": made["plan_hash"]} and not run(repo, "written", **about)["changed"]
    assert json.loads((repo / "build/plan-production.json").read_text())["plans"] == [made]
    assert run(repo, "approved")["plan_hashes"] == {"camera": made["plan_hash"]}


@pytest.mark.parametrize(
    "change", ["inventories/production/hosts.yml", "policies/p.yml", "inventories/production/new.yml"]
)
def test_a_changed_file_is_named(repo: Path, change: str) -> None:
    assert "no plan was ever recorded" in run(repo, "approved")["msg"]
    run(repo, "written", plans=[plan()], commit="c0ffee")
    (repo / change).write_text("changed")
    failed = run(repo, "approved")
    assert failed["failed"] and change in failed["msg"] and "c0ffee" in failed["msg"]
    assert "production" not in run(repo, "approved", environment="staging").get("plan_hashes", {})


def test_a_plan_for_one_environment_is_none_for_another(repo: Path) -> None:
    run(repo, "written", plans=[plan()])
    assert run(repo, "approved", environment="staging")["failed"]


def test_the_page_says_hash_radius_and_who_is_left_out() -> None:
    made = plan(8, redundancy_group=None)
    devices = {f"d{number}": {"site": "harbour", "from": {"camera": "1.3.0"}} for number in range(8)}
    page = planpage.page("production", [made], devices, "f" * 64)
    assert page.startswith(planpage.marker("production")) and made["plan_hash"] in page
    assert "**8 of 9 devices (89 %)" in page and "1 site (harbour)" in page and "1.3.0 on 8" in page
    assert "away: no route \\| &lt;b>to&lt;/b> host" in page, "text of a device is no markup"
    for wave in made["waves"]:
        assert f"| {wave['number']} | {wave['kind']} |" in page
    assert "wants no model" in planpage.page("production", [], {}, "f" * 64)


def test_a_page_of_a_large_fleet_stays_readable() -> None:
    page = planpage.page("production", [plan(5000)], {}, "f" * 64)
    assert len(page) < 20_000


HOST = {"edge_models": {"camera": {"release": "1.0.0"}}, "edge_policy": {"soak": 10}}


def test_every_problem_of_an_inventory_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "releases/camera").mkdir(parents=True)
    (tmp_path / "releases/camera/1.0.0.yml").write_text("model: camera\n")
    (tmp_path / "releases/camera/model.onnx").write_bytes(b"x")
    desired = {
        "a": {"camera": {"release": "1.0.0"}},
        "b": {"camera": {"release": 1.0}},
        "c": {"lidar": {"release": "2.0.0"}},
    }
    found = run_module(
        "repo_check",
        {
            "desired": desired,
            "policies": {},
            "specs": tmp_path / "releases",
            "releases": tmp_path / "built",
            "models": [],
        },
    )
    text = "\n".join(found["problems"])
    assert found["failed"] and "host b: edge_models.camera.release" in text and "never artifacts" in text
    assert "1.0.0.yml" in text and str(tmp_path / "built/lidar/2.0.0") in text


def test_the_schema_check_knows_policy_models_and_refusals() -> None:
    assert schema.check_inventory({"a": HOST}) == ([("camera", "1.0.0")], [])
    for broken in ({"soak": "long"}, {"colour": 1}):
        assert "edge_policy" in schema.check_inventory({"a": {**HOST, "edge_policy": broken}})[1][0]
        assert "edge_policy" in schema.check_inventory({"a": {"edge_models": {}, "edge_policy": broken}})[1][0]
    wanted = [("camera", "1.0.0"), ("lidar", "2.0.0")]
    assert schema.unlisted(wanted[:1], []) == [] and schema.unlisted(wanted, ["camera", "lidar"]) == []
    assert "lidar" in schema.unlisted(wanted, ["camera"])[0] and "camera,lidar" in schema.unlisted(wanted, [])[0]
    refused = [{"model": "camera", "version": "1.0.0", "stratum": "gpu", "reason": "slow"}]
    assert any("refused by gpu" in line for line in schema.notes(wanted, {("camera", "1.0.0"): "x"}, refused, []))


def secrets(path: Path, check: bool = False, env: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    wanted = {"ledger.pem": "EDGEAI_LEDGER_KEY", "ssh": "EDGEAI_SSH_KEY"}
    return run_module("ci_secrets", {"path": path, "secrets": wanted, **options}, check=check, env=env)


def test_secrets_are_for_this_user_alone_and_go_away(tmp_path: Path) -> None:
    path, kept = tmp_path / "job", tmp_path / "file"
    kept.write_text("from a file\r\n")
    env = {"EDGEAI_LEDGER_KEY": "-----BEGIN-----\nkey\n-----END-----", "EDGEAI_SSH_KEY": str(kept)}
    assert secrets(path, check=True, env=env)["changed"] and not path.exists()
    done = secrets(path, env=env)
    assert done["written"] == ["ledger.pem", "ssh"] and "key" not in json.dumps(done).replace("ledger_key", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}
    assert (path / "ledger.pem").read_text().endswith("-----END-----\n") and (
        path / "ssh"
    ).read_text() == "from a file\n"
    assert not secrets(path, env=env)["changed"]
    assert secrets(path, state="absent")["changed"] and not path.exists()
    assert not secrets(path, state="absent")["changed"]


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    env = {"EDGEAI_LEDGER_KEY": "key"}
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert secrets(tmp_path / "link", env=env)["failed"] and not list((tmp_path / "real").iterdir())
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    assert "others may look in" in secrets(tmp_path / "open", env=env)["msg"]
    assert secrets(tmp_path / "real", state="absent")["failed"] and (tmp_path / "real").exists()
    missing = secrets(tmp_path / "new", required=["ledger.pem"], env={"EDGEAI_LEDGER_KEY": ""})
    assert missing["failed"] and "EDGEAI_LEDGER_KEY" in missing["msg"] and not (tmp_path / "new").exists()


@pytest.fixture
def api() -> Iterator[Api]:
    served = Api()
    yield served
    served.close()


FORGES = {
    "github": {"GITHUB_API_URL": "{}", "GITHUB_REPOSITORY": "acme/fleet", "GITHUB_REF": "refs/pull/3/merge"},
    "gitlab": {"CI_API_V4_URL": "{}/api/v4", "CI_PROJECT_ID": "7", "CI_MERGE_REQUEST_IID": "3"},
}


@pytest.mark.parametrize("kind", FORGES)
def test_a_pull_request_has_one_comment(kind: str, api: Api, tmp_path: Path) -> None:
    env = {key: value.format(api.url) for key, value in FORGES[kind].items()}
    (tmp_path / "plan.md").write_text("<!-- m -->\nfirst")
    arguments = {"state": "comment", "marker": "<!-- m -->", "body_file": tmp_path / "plan.md"}
    assert run_module("repo_forge", arguments, env=env)["skipped"], "without a token nothing is asked"
    env["EDGEAI_FORGE_TOKEN"] = "s3cret"
    assert run_module("repo_forge", arguments, env=env)["action"] == "created"
    assert run_module("repo_forge", arguments, env=env)["action"] == "unchanged"
    (tmp_path / "plan.md").write_text("<!-- m -->\nsecond")
    assert run_module("repo_forge", arguments, env=env)["action"] == "updated"
    assert [comment["body"] for comment in api.comments.values()] == ["<!-- m -->\nsecond"]
    assert api.authorized == ({"token s3cret"} if kind == "github" else {"s3cret"})


@pytest.mark.parametrize("kind", FORGES)
def test_a_proposal_is_opened_once(kind: str, api: Api) -> None:
    env = {**{key: value.format(api.url) for key, value in FORGES[kind].items()}, "EDGEAI_FORGE_TOKEN": "s3cret"}
    arguments = {
        "state": "pull_request",
        "source": "edgeai/writeback/production",
        "target": "main",
        "title": "camera refused",
    }
    assert run_module("repo_forge", arguments, env=env)["changed"]
    assert not run_module("repo_forge", arguments, env=env)["changed"] and len(api.pulls) == 1
    env["EDGEAI_FORGE_TOKEN"] = ""
    assert run_module("repo_forge", arguments, env=env)["skipped"]


def test_a_forge_that_does_not_answer_is_told_without_the_token(tmp_path: Path) -> None:
    env = {"GITHUB_API_URL": "http://127.0.0.1:9", "GITHUB_REPOSITORY": "a/b", "EDGEAI_FORGE_TOKEN": "s3cret"}
    arguments = {"state": "pull_request", "source": "x", "target": "main", "title": "t"}
    failed = run_module("repo_forge", arguments, env={**env, "NO_PROXY": "127.0.0.1"})
    assert failed["failed"] and "s3cret" not in json.dumps(failed) and os.sep in failed["msg"]

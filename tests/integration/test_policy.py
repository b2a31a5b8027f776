"""``ansible-playbook edgeai.fleet.policy`` on a real fleet repository: exit status, reports, check mode, vault."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.policy_repo import TODAY, PolicyRepo
from support.sarif import check_log

TOKEN = "correct-horse-battery"


@pytest.fixture
def repo(tmp_path: Path) -> PolicyRepo:
    return PolicyRepo(tmp_path)


def sarif(repo: PolicyRepo) -> dict[str, Any]:
    log = json.loads((repo.home / "policy.sarif").read_text(encoding="utf-8"))
    check_log(log)
    return log["runs"][0]


def output(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def day(offset: int) -> str:
    return (TODAY + datetime.timedelta(days=offset)).isoformat()


def test_check_then_write_then_nothing(repo: PolicyRepo) -> None:
    repo.write()
    foretold = repo.run("--check", "--diff")
    assert foretold.returncode == 0, output(foretold)
    assert "changed=1" in foretold.stdout and not (repo.home / "policy.md").exists()
    written = repo.run("--diff")
    assert written.returncode == 0 and "changed=1" in written.stdout
    told = [line for line in foretold.stdout.splitlines() if line.startswith(("+", "-"))]
    assert told == [line for line in written.stdout.splitlines() if line.startswith(("+", "-"))] != []
    assert "0 blocking, 0 open below error, 0 waived, 27 passed, 4 do not apply" in written.stdout
    report = (repo.home / "policy.md").read_text(encoding="utf-8")
    assert report.startswith("# Policy check: passed\n") and "It is not legal advice" in report
    run = sarif(repo)
    assert run["properties"]["passed"] is True and len(run["tool"]["driver"]["rules"]) == 22
    for text in (report, json.dumps(run)):
        assert str(repo.home) not in text
    places = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]}
    assert places == {"governance.yml", "approvals.yml", "hosts.yml"}
    again = repo.run()
    assert again.returncode == 0 and "changed=0" in again.stdout
    assert [path.name for path in repo.home.iterdir() if path.name.startswith(".policy-")] == []


def test_findings_fail_the_run_and_point_at_lines(repo: PolicyRepo) -> None:
    repo.governance["sites"]["harbour"]["region"] = "us-east"
    repo.hosts["harbour-02"]["edge_listen"] = "0.0.0.0"
    repo.approvals.pop()
    done = repo.write().run()
    assert done.returncode == 2
    assert "error fail: gdpr-device-region: site:harbour: digits is pinned to eu; the site is in us-east" in done.stdout
    assert "[harbour-02]" in done.stdout and "gdpr-two-people" in done.stdout
    results = [result for result in sarif(repo)["results"] if result["kind"] == "fail"]
    found = {result["ruleId"]: result for result in results}
    assert {"gdpr-device-region", "gdpr-encryption-in-transit", "gdpr-two-people", "hipaa-two-people"} <= set(found)
    place = found["gdpr-encryption-in-transit"]["locations"][0]["physicalLocation"]
    line = (repo.home / place["artifactLocation"]["uri"]).read_text(encoding="utf-8").splitlines()
    # Of the two devices of the site, the one that is wrong.
    number = place["region"]["startLine"]
    assert "edge_site: harbour" in line[number - 1] and "harbour-02" in line[number - 2]
    assert found["hipaa-device-region"]["level"] == "warning"


def test_only_as_severe_as_asked_for(repo: PolicyRepo) -> None:
    repo.governance["keys"]["release.pub.pem"]["created"] = day(-400)
    repo.write()
    mild = repo.run()
    assert mild.returncode == 0 and "2 open below error" in mild.stdout and "is 400 days old" in mild.stdout
    assert repo.run(edge_policy_fail_on="warning").returncode == 2
    assert repo.run(edge_policy_fail_on="never").returncode == 0


def test_a_waiver_holds_until_its_day(repo: PolicyRepo) -> None:
    repo.approvals.pop()
    repo.rules["waivers"] = [
        {"rule": rule, "subject": "release:digits@*", "reason": "Jonas is on leave, see ticket 211",
         "approver": "amina", "expires": day(7)} for rule in ("gdpr-two-people", "hipaa-two-people")
    ]  # fmt: skip
    done = repo.write().run()
    assert done.returncode == 0 and "error waived: gdpr-two-people" in done.stdout
    assert "## Waived (2)" in (repo.home / "policy.md").read_text(encoding="utf-8")
    waived = [result for result in sarif(repo)["results"] if "suppressions" in result]
    assert [item["suppressions"][0]["justification"] for item in waived] == ["Jonas is on leave, see ticket 211"] * 2
    later = repo.run(edge_policy_as_of=day(8))
    assert later.returncode == 2 and f"its waiver by amina expired on {day(7)}" in later.stdout


def vaulted(repo: PolicyRepo, text: str, *options: str) -> str:
    command = [sys.executable, "-m", "ansible", "vault", *options, "--vault-password-file", str(repo.home / "pass")]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def vault_repo(repo: PolicyRepo) -> None:
    """Encrypt governance.yml whole, and one variable that a rule of the team looks at."""
    (repo.home / "pass").write_text("secret\n", encoding="utf-8")
    repo.rules["rules"] = [
        {
            "id": "acme-mirror-token",
            "title": "Devices have a token for the mirror",
            "description": "edge_token is set, and is long enough.",
            "check": "require",
            "parameters": {"of": "device", "must": [{"field": "edge_token", "matches": ".{30,}"}]},
            "severity": "warning",
            "references": [{"name": "Handbook 7", "url": "https://example.org/handbook"}],
            "fix": "Make a longer token.",
        }
    ]
    repo.write()
    secret = vaulted(repo, TOKEN, "encrypt_string", "--stdin-name", "edge_token")
    (repo.home / "group_vars").mkdir()
    (repo.home / "group_vars/edge.yml").write_text(secret, encoding="utf-8")
    governance = repo.home / "governance.yml"
    plain = governance.read_text(encoding="utf-8")
    governance.write_text(vaulted(repo, plain, "encrypt", "--output", "-", "-"), encoding="utf-8")


def test_vault(repo: PolicyRepo) -> None:
    vault_repo(repo)
    locked = repo.run()
    assert locked.returncode == 2 and "governance.yml: cannot be read" in output(locked) and "vault" in output(locked)
    done = repo.run("--vault-password-file", str(repo.home / "pass"), "-vvv")
    assert done.returncode == 0 and "acme-mirror-token" in done.stdout and "27 passed" in done.stdout, output(done)
    for text in (
        done.stdout,
        *((repo.home / name).read_text(encoding="utf-8") for name in ("policy.md", "policy.sarif")),
    ):
        assert TOKEN not in text
    assert "does not hold: edge_token matches" in (repo.home / "policy.md").read_text(encoding="utf-8")


def test_a_variable_that_cannot_be_decrypted_is_named(repo: PolicyRepo) -> None:
    vault_repo(repo)
    (repo.home / "governance.yml").write_text(yaml.safe_dump(repo.governance), encoding="utf-8")
    done = repo.run()
    assert done.returncode == 2 and "host harbour-01: edge_token cannot be read" in output(done)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: (r.home / "governance.yml").unlink(), "governance.yml: there is no such file; write it"),
        (lambda r: (r.home / "rules/acme.yml").unlink(), "there is no rules/*.yml in the fleet repository"),
        (
            lambda r: (r.home / "governance.yml").write_text("format: 2\n"),
            "governance.yml, line 1: field 'format' is 2",
        ),
        (
            lambda r: (r.home / "approvals.yml").write_text("format: 1\n"),
            "approvals.yml, line 1: field 'approvals' is missing",
        ),
        (lambda r: (r.home / "release.pub.pem").unlink(), "release.pub.pem: "),
        (lambda r: (r.home / "rules/b.yml").write_text("a: [\n"), "rules/b.yml, line 2: is not YAML"),
    ],
)
def test_files_that_are_wrong(repo: PolicyRepo, change: Any, words: str) -> None:
    change(repo.write())
    done = repo.run(edge_policy_repository=".")
    assert done.returncode == 2 and words in output(done), output(done)
    assert not (repo.home / "policy.md").exists()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"edge_policy_rules": ["soc2"]}, "field 'rules' is 'soc2': use a shipped set (gdpr, hipaa)"),
        ({"edge_policy_rules": ["rules/none.yml"]}, "rules/none.yml: there is no such file"),
        ({"edge_policy_as_of": "tomorrow"}, "field 'as_of' is 'tomorrow': write a day"),
        ({"edge_policy_fail_on": "bad"}, "value of fail_on must be one of"),
        ({"edge_policy_plan": "none.json"}, "none.json: cannot be read"),
        ({"edge_models": {"digits": {"release": 1.0}}}, "host harbour-01: field 'edge_models.digits'"),
        ({"edge_models": {"digits": {"release": "1.0"}}}, "edge_models.digits.release"),
    ],
)
def test_arguments_that_are_wrong(repo: PolicyRepo, variables: dict[str, Any], words: str) -> None:
    done = repo.write().run(**variables)
    assert done.returncode == 2 and words in output(done), output(done)


def test_a_release_that_the_inventory_wants_and_nobody_built(repo: PolicyRepo) -> None:
    done = repo.write().run(edge_models={"digits": {"release": "9.0.0"}})
    assert (
        done.returncode == 2
        and "gdpr-provenance: release:digits@9.0.0: the release digits 9.0.0 is not there" in done.stdout
    )


def test_a_fleet_without_hosts_does_not_pass(repo: PolicyRepo) -> None:
    repo.write()
    done = repo.run(edge_hosts="localhost")
    assert done.returncode == 2 and "there is no release to look at" in done.stdout


def test_the_repository_is_found_above_the_inventory(repo: PolicyRepo) -> None:
    """As in a repository with an inventory per environment; and the disks are asked for what they are."""
    for values in repo.hosts.values():
        values.update(ansible_connection="local", ansible_python_interpreter=sys.executable)
    repo.write()
    staging = repo.home / "inventories" / "staging"
    staging.mkdir(parents=True)
    text = (repo.home / "hosts.yml").read_text(encoding="utf-8").replace("inventory_dir }}", "inventory_dir }}/../..")
    (staging / "hosts.yml").write_text(text, encoding="utf-8")
    (repo.home / "hosts.yml").unlink()
    done = repo.run(inventory="inventories/staging/hosts.yml", edge_policy_observe=True)
    assert "ok: [quarry-01]" in done.stdout.split("TASK")[1], output(done)
    run = sarif(repo)
    assert run["properties"]["counts"]["pass"] + run["properties"]["counts"]["fail"] == 27, output(done)
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]}
    assert uris == {"governance.yml", "approvals.yml", "inventories/staging/hosts.yml"}


def test_one_release_against_a_shipped_set(repo: PolicyRepo) -> None:
    """The module by itself: named release directories, one set, and a failing task."""
    repo.write()
    play = [
        {
            "hosts": "edge",
            "gather_facts": False,
            "tasks": [
                {
                    "edgeai.fleet.policy_check": {
                        "rules": ["gdpr"],
                        "release_dirs": [str(repo.release)],
                        "ledger": str(repo.home / "none"),
                        "markdown": str(repo.home / "out/policy.md"),
                    },
                    "run_once": True,
                }
            ],
        }
    ]
    (repo.home / "play.yml").write_text(yaml.safe_dump(play), encoding="utf-8")
    done = repo.run(playbook="play.yml")
    assert done.returncode == 2 and "gdpr-audit-trail" in done.stdout and "no record yet" in done.stdout, output(done)
    report = (repo.home / "out/policy.md").read_text(encoding="utf-8")
    assert "hipaa" not in report and "release:digits@1.0.0" in report

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Runs that end without a verdict: interrupted, terminated, killed, cancelled, stuck, out of hosts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
from support.waves_fleet import Fleet, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import watchdog_lock

HOSTS = {"a1": "onnxruntime", "a2": "onnxruntime", "b1": "openvino"}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Three devices, of which a1, a canary, waits in its activation. No watchdog is left behind."""
    fleet = Fleet(tmp_path, HOSTS)
    fleet.behave("a1", active="wait")
    yield fleet
    fleet.release_waiting("a1")
    alive = watchdog_lock.living(str(fleet.ledger_dir), "digits") if fleet.ledger_dir.exists() else None
    if alive:
        os.kill(alive["pid"], signal.SIGKILL)


def events(fleet: Fleet) -> list[str]:
    """The watchdog's records, in order."""
    return [record["data"]["event"] for record in fleet.records("watchdog")]


def in_the_middle(fleet: Fleet) -> subprocess.Popen[str]:
    """A run whose canary a1 is being activated, and whose canary b1 is on the new release."""
    run = fleet.start()
    wait_for(lambda: (fleet.root("a1") / "started").exists() or run.poll() is not None, "a1 starts")
    wait_for(lambda: fleet.active("b1") != "sha256:old" or run.poll() is not None, "b1 is on it")
    assert run.poll() is None, fleet.output.read_text()
    return run


def settled(fleet: Fleet, status: str = "aborted") -> None:
    """The ledger says how it ended, every device is back, and the watchdog is gone."""
    found = wait_for(lambda: fleet.records("rollout_finished"), "the rollout is closed", 90)
    assert [record["data"]["status"] for record in found] == [status]
    wait_for(lambda: watchdog_lock.living(str(fleet.ledger_dir), "digits") is None, "the watchdog ends")
    assert {host: fleet.active(host) for host in HOSTS} == dict.fromkeys(HOSTS, "sha256:old")
    report = fleet.verified()
    assert report.ok and report.unsigned_tail == 0, report.problems


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_run(fleet: Fleet, number: signal.Signals) -> None:
    run = in_the_middle(fleet)
    run.send_signal(number)
    wait_for(lambda: "controller_gone" in events(fleet), "the watchdog notices")
    # Without a parent, the task in flight goes on: nothing is taken back before it has ended.
    assert not fleet.records("rollback_started")
    fleet.release_waiting("a1")
    settled(fleet)
    assert run.wait(60) != 0
    taken_back = fleet.records("rollback_started")[0]["data"]
    assert sorted(taken_back["hosts"]) == ["a1", "b1"] and taken_back["by"] == "watchdog"
    if number == signal.SIGKILL:
        mine = [r["data"]["action"] for r in fleet.records("result") if r["host"] == "a1"]
        assert mine == ["activate", "revert"]  # its worker lived on and recorded what came of it


def test_a_kill_of_the_whole_process_group(fleet: Fleet) -> None:
    run = in_the_middle(fleet)
    os.killpg(run.pid, signal.SIGKILL)
    wait_for(lambda: "controller_gone" in events(fleet), "the watchdog notices")
    fleet.release_waiting("a1")
    settled(fleet)


def test_a_cancelled_job_of_a_runner(fleet: Fleet, tmp_path: Path) -> None:
    """ansible-runner (AWX) kills the process group, and its variables would mislead a nested run."""
    private = tmp_path / "private"
    private.mkdir()
    cancelled: list[bool] = []
    environment = {name: value for name, value in fleet.environment().items() if name != "ANSIBLE_STDOUT_CALLBACK"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    thread, runner = ansible_runner.run_async(
        private_data_dir=str(private), project_dir=str(tmp_path), playbook=str(fleet.playbook),
        cmdline=f"-i {fleet.inventory}", envvars=environment, quiet=True, settings={"suppress_env_files": True},
        cancel_callback=lambda: bool(cancelled),
    )  # fmt: skip
    wait_for((fleet.root("a1") / "started").exists, "a1 starts")
    wait_for(lambda: fleet.active("b1") != "sha256:old", "b1 is on it")
    cancelled.append(True)
    thread.join(60)
    assert runner.status == "canceled"
    fleet.release_waiting("a1")
    settled(fleet)
    assert not list((private / "artifacts").glob("*/job_events/*rollback*"))


def test_a_run_that_gives_no_sign_of_life_is_killed(fleet: Fleet) -> None:
    fleet.config["EDGEAI_FLEET_STALL"] = "8"
    run = in_the_middle(fleet)
    assert run.wait(60) == -signal.SIGKILL
    wait_for(lambda: "controller_gone" in events(fleet), "the watchdog says so")
    assert "no sign of life" in fleet.records("watchdog")[-1]["data"]["reason"]
    fleet.release_waiting("a1")
    settled(fleet)


def test_a_task_in_flight_that_never_ends_is_not_waited_for_for_ever(fleet: Fleet) -> None:
    fleet.config["EDGEAI_FLEET_IN_FLIGHT"] = "1"
    run = in_the_middle(fleet)
    run.kill()
    wait_for(lambda: fleet.records("rollout_finished"), "the rollout is closed", 90)
    assert "in_flight_deadline" in events(fleet)
    assert fleet.active("b1") == "sha256:old"


def test_a_run_that_dies_of_its_own_is_rolled_back_before_it_returns(fleet: Fleet) -> None:
    fleet.behave("a1")
    text = fleet.playbook.read_text()
    broken = "    - edgeai.fleet.rollout_gate:\n        stage: activation\n"
    fleet.playbook.write_text(text.replace(broken, "    - ansible.builtin.fail:\n        msg: a bug\n" + broken))
    done = fleet.run()
    assert done.returncode == 2
    assert "a bug" in done.stdout and "The watchdog has settled every device" in done.stdout
    assert fleet.records("rollout_finished")[0]["data"]["status"] == "aborted"
    assert sorted(record["host"] for record in fleet.records("task_failed")) == ["a1", "b1"]
    settled(fleet)


def reached_by(fleet: Fleet, host: str) -> Path:
    """Reach a device over a connection that is gone while the returned file exists."""
    away = fleet.root(host) / "away"
    fleet.host_vars(host).update(
        ansible_connection="edgeai.fleet.near", near_unreachable="{{ (edge_root ~ '/away') is exists }}"
    )
    fleet.write_inventory()
    return away


def test_unreachable_devices_are_tried_again(fleet: Fleet) -> None:
    away = reached_by(fleet, "b1")
    run = in_the_middle(fleet)
    away.touch()
    run.kill()
    fleet.release_waiting("a1")
    incomplete = wait_for(
        lambda: [r["data"] for r in fleet.records("watchdog") if r["data"]["event"] == "rollback_incomplete"],
        "one try",
        90,
    )
    assert incomplete[0]["remaining"] == ["b1"] and not fleet.records("rollout_finished")
    away.unlink()
    settled(fleet)


def test_a_device_that_stays_away_is_left_to_its_own_deadline(fleet: Fleet) -> None:
    fleet.rollback_deadline = 1
    away = reached_by(fleet, "b1")
    run = in_the_middle(fleet)
    away.touch()
    run.kill()
    fleet.release_waiting("a1")
    finished = wait_for(lambda: fleet.records("rollout_finished"), "the rollout is closed", 90)
    assert finished[0]["data"]["status"] == "aborted"
    assert fleet.records("rollback_finished")[-1]["data"]["remaining"] == ["b1"]
    assert fleet.active("a1") == "sha256:old" and fleet.active("b1") != "sha256:old"
    away.unlink()
    done = fleet.run(playbook="edgeai.fleet.rollback")  # a person, later
    assert done.returncode == 0, done.stdout
    assert fleet.active("b1") == "sha256:old" and fleet.verified().ok


def test_the_whole_tree_is_killed_and_a_person_settles_it(fleet: Fleet) -> None:
    run = in_the_middle(fleet)
    watchdog = fleet.records("watchdog")[0]["data"]["pid"]
    os.kill(watchdog, signal.SIGKILL)
    os.killpg(run.pid, signal.SIGKILL)
    fleet.let_go("a1")
    run.wait(60)
    wait_for(lambda: any(r["host"] == "a1" for r in fleet.records("result")), "the task in flight ends")
    assert not fleet.records("rollback_started") and fleet.verified().ok
    predicted = fleet.run("--check", playbook="edgeai.fleet.rollback")
    assert predicted.returncode == 0 and fleet.active("b1") != "sha256:old", predicted.stdout
    done = fleet.run("-e", "edge_rollback_reason='power cut'", playbook="edgeai.fleet.rollback")
    assert done.returncode == 0, done.stdout
    assert fleet.records("rollback_started")[0]["data"]["reason"] == "power cut"
    assert "Rollback: settled" in done.stdout and "2 reverted" in done.stdout
    settled(fleet)
    again = fleet.run(playbook="edgeai.fleet.rollback")
    assert again.returncode == 0 and len(fleet.records("rollback_started")) == 1, again.stdout


def test_a_whole_rollout_is_taken_back_by_a_person(fleet: Fleet) -> None:
    fleet.behave("a1")
    assert fleet.run().returncode == 0
    nothing = fleet.run(playbook="edgeai.fleet.rollback")
    assert nothing.returncode == 0 and fleet.active("a1") != "sha256:old", nothing.stdout
    done = fleet.run("-e", "edge_rollback_scope=all", playbook="edgeai.fleet.rollback")
    assert done.returncode == 0, done.stdout
    assert fleet.records("rollback_started")[0]["data"]["hosts"][0] == "a2"  # the newest wave first
    settled(fleet, "succeeded")


def test_a_dead_watchdog_is_replaced(fleet: Fleet) -> None:
    run = in_the_middle(fleet)
    os.kill(fleet.records("watchdog")[0]["data"]["pid"], signal.SIGKILL)
    wait_for(lambda: watchdog_lock.living(str(fleet.ledger_dir), "digits") is None, "it is dead")
    fleet.behave("a1", confirmed="wait")
    (fleet.root("a1") / "started").unlink()
    fleet.let_go("a1")
    wait_for(lambda: events(fleet) == ["armed", "lost", "armed"] or run.poll() is not None, "another one")
    wait_for(lambda: (fleet.root("a1") / "started").exists() or run.poll() is not None, "the confirmation starts")
    fleet.let_go("a1")
    assert run.wait(120) == 0, fleet.output.read_text()
    assert fleet.records("rollout_finished")[0]["data"]["status"] == "succeeded"


def test_no_second_run_while_the_first_is_taken_back(fleet: Fleet) -> None:
    fleet.behave("a1", reverted="wait", active="wait")
    run = in_the_middle(fleet)
    run.kill()
    fleet.let_go("a1")
    wait_for(lambda: fleet.records("rollback_started"), "the rollback")
    wait_for(lambda: fleet.calls("a1")[-1]["state"] == "reverted", "a1 is being taken back", 90)
    second = fleet.run()
    assert second.returncode == 3 and "is being rolled back" in " ".join(second.stdout.split())
    fleet.let_go("a1")
    settled(fleet)


def command_lines() -> str:
    """The arguments and environments of every process of this machine, as far as they can be read."""
    text = b""
    for name in ("cmdline", "environ"):
        for path in Path("/proc").glob(f"[0-9]*/{name}"):
            try:
                text += path.read_bytes() + b"\n"
            except OSError:
                continue
    return text.replace(b"\0", b" ").decode("utf-8", "replace")


def test_secrets_reach_the_rollback_and_nobody_else(fleet: Fleet) -> None:
    """Vaulted variables decrypt in the watchdog's run, typed ones are known there; no argument list shows them."""
    from ansible.parsing.vault import VaultLib, VaultSecret

    vault = VaultLib([("site", VaultSecret(b"vault-pass-4711"))])
    vaulted = vault.encrypt("devices", vault_id="site").decode()
    variables = fleet.base / "group_vars"
    variables.mkdir()
    (variables / "edge.yml").write_text("middle: !vault |\n" + "".join(f"  {line}\n" for line in vaulted.splitlines()))
    for host in HOSTS:
        fleet.host_vars(host)["edge_root"] = str(fleet.base) + "/{{ middle }}/" + host + "{{ suffix }}"
    fleet.write_inventory()
    fleet.behave("a1", reverted="wait")
    files: dict[str, Any] = {"vault": "vault-pass-4711", "become": "become-pass-4711"}
    for name, content in files.items():
        (fleet.base / name).write_text(content)
        (fleet.base / name).chmod(0o600)
    text = fleet.playbook.read_text()
    stop = "    - edgeai.fleet.rollout_gate:\n        stage: activation\n"
    fleet.playbook.write_text(text.replace(stop, "    - ansible.builtin.fail:\n        msg: a bug\n" + stop))
    (fleet.base / "extra.yml").write_text("suffix: ''\ntyped: word-4711\n")
    run = fleet.start("--vault-id", f"site@{fleet.base}/vault", "--become-password-file", f"{fleet.base}/become",
                      "-e", "@extra.yml")  # fmt: skip
    wait_for(lambda: (fleet.root("a1") / "started").exists() or run.poll() is not None, "the rollback waits", 90)
    assert run.poll() is None, fleet.output.read_text()
    shown = command_lines()
    assert "edgeai.fleet.rollback" in shown
    for secret in ("vault-pass-4711", "become-pass-4711", "word-4711"):
        assert secret not in shown
    fleet.let_go("a1")
    assert run.wait(90) == 2
    settled(fleet)
    assert "4711" not in Path(fleet.ledger_dir, "ledger.jsonl").read_text()
    log = Path(fleet.ledger_dir, "watchdog-digits.log")
    assert log.stat().st_mode & 0o777 == 0o600 and "4711" not in log.read_text()

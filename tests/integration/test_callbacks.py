# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The callbacks and the action plugin in real ansible-playbook runs over a small fleet."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.waves_fleet import Fleet, hosts_of, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import watchdog_lock

TWO_STRATA = {"a1": "onnxruntime", "a2": "onnxruntime", "a3": "onnxruntime", "b1": "openvino", "b2": "openvino"}
ONE = {"a1": "onnxruntime"}
RUNTIMES = {"a": "onnxruntime", "b": "openvino"}
THREE_WAVES = {"canary": {"per_stratum": 1}, "growth": [0.5, 1.0], "halt": "stratum"}


def play(tmp_path: Path, **arguments: Any) -> Path:
    """A playbook of one model_release task, outside a rollout."""
    task = {
        "edge_root": "{{ edge_root }}", "model": "digits", "version": "1.1.0", "stratum": "cpu-int8/onnxruntime/x86_64",
        **arguments,
    }  # fmt: skip
    path = tmp_path / "single.yml"
    path.write_text(
        json.dumps([{"hosts": "edge", "gather_facts": False, "tasks": [{"edgeai.fleet.model_release": task}]}])
    )
    return path


def test_a_good_rollout_is_recorded_whole(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, TWO_STRATA)
    done = fleet.run()
    assert done.returncode == 0, done.stdout
    types = [record["type"] for record in fleet.records()]
    assert types[:3] == ["rollout_started", "watchdog", "wave_started"]
    assert types[-2:] == ["rollout_finished", "checkpoint"]
    canary, rest = [record["data"]["hosts"] for record in fleet.records("wave_started")]
    assert sorted(host[0] for host in canary) == ["a", "b"] and sorted(canary + rest) == sorted(TWO_STRATA)
    for host in TWO_STRATA:
        mine = [(r["type"], r["data"]["action"]) for r in fleet.records("intent", "result") if r["host"] == host]
        assert mine == [("intent", "activate"), ("result", "activate"), ("intent", "confirm"), ("result", "confirm")]
    first = fleet.records("result")[0]["data"]
    assert first["result"] == "activated" and first["golden_before"] == "aa" and first["gates"][0]["verdict"] == "pass"
    report = fleet.verified()
    assert report.ok and report.unsigned_tail == 0, report.problems
    assert watchdog_lock.living(str(fleet.ledger_dir), "digits") is None
    assert "5 confirmed" in done.stdout and "digits 1.1.0: succeeded" in done.stdout

    again = fleet.run()
    assert again.returncode == 0, again.stdout
    assert "nothing to do" in again.stdout and "changed=0" in again.stdout
    assert len(fleet.records("watchdog")) == 1  # no waves, no watchdog


def test_a_failing_stratum_is_shown_with_its_reason(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, TWO_STRATA)
    fleet.behave("b1", active="fail")
    fleet.config["NO_COLOR"] = "1"
    done = fleet.run()
    assert "b1 reverted · gate golden fail in phase candidate: 0.5 (limit 0.96) too low" in done.stdout
    assert "verdict fail on cpu-int8/openvino/x86_64 after activation" in done.stdout
    assert "quarantined: digits 1.1.0 on cpu-int8/openvino/x86_64" in done.stdout
    assert "\x1b[" not in done.stdout
    failed = [record["data"] for record in fleet.records("result") if record["host"] == "b1"]
    assert [(data["action"], data["failed"], data["reverted"]) for data in failed] == [("activate", True, True)]
    assert not fleet.records("task_failed")  # the action plugin recorded it with all its evidence
    assert fleet.records("quarantine")[0]["data"]["stratum"] == "cpu-int8/openvino/x86_64"
    assert "no_data" not in done.stdout  # a stratum that was halted before is judged no further

    again = fleet.run("--check")
    assert "nothing to do" in again.stdout and "quarantined for cpu-int8/openvino/x86_64" in again.stdout
    assert "Wave" not in again.stdout and "to go" not in again.stdout


def test_what_a_later_wave_condemns_goes_back_before_the_next_wave(tmp_path: Path) -> None:
    """A stratum fails in its second wave while another one goes on: its canary does not wait for the others."""
    hosts = {f"{name}{number}": runtime for name, runtime in RUNTIMES.items() for number in range(4)}
    fleet = Fleet(tmp_path, hosts, THREE_WAVES)
    for number in range(4):
        fleet.behave(f"a{number}", active="wait")
    run = fleet.start(playbook="edgeai.fleet.rollout")
    wait_for(lambda: fleet.records("wave_started") or run.poll() is not None, "the first wave")
    wave_of = fleet.records("rollout_started")[0]["data"]["plan"]["wave_of"]
    canary = next(host for host in ("a0", "a1", "a2", "a3") if wave_of[host] == 1)
    for number in range(4):
        fleet.behave(f"a{number}", active="wait" if f"a{number}" == canary else "fail")
    wait_for(lambda: (fleet.root(canary) / "started").exists() or run.poll() is not None, "the canary starts")
    fleet.let_go(canary)
    assert run.wait(120) == 2, fleet.output.read_text()
    told = [
        (record["type"], record["host"], record["data"]["action"])
        for record in fleet.records()
        if record["type"] in ("intent", "result")
    ]
    back = told.index(("result", canary, "revert"))
    assert told.count(("result", canary, "revert")) == 1 and fleet.active(canary) == "sha256:old"
    last = [told.index(("intent", host, "activate")) for host, wave in wave_of.items() if wave == 3 and host[0] == "b"]
    assert last and all(back < index for index in last), told
    assert all(fleet.active(f"b{number}") != "sha256:old" for number in range(4))
    shown = fleet.output.read_text()
    assert "4 confirmed" in shown and "2 reverted" in shown and "2 held" in shown, shown
    assert shown.index("1 reverted", shown.index("Rollback")) < shown.index("Wave 3 starts"), shown
    assert fleet.verified().ok


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    done = fleet.run("--check")
    assert done.returncode == 0, done.stdout
    assert not fleet.ledger_dir.exists()
    assert [call["check"] for call in fleet.calls("a1")] and all(call["check"] for call in fleet.calls("a1"))


def test_without_the_callback_nothing_is_activated(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    fleet.config["ANSIBLE_CALLBACKS_ENABLED"] = "ansible.builtin.tree"
    done = fleet.run()
    assert "no watchdog stands behind rollout" in done.stdout
    assert fleet.calls("a1") == [] and not fleet.records("intent")
    assert not fleet.records("quarantine")  # it says nothing about the release


def test_a_run_without_a_watchdog_can_be_asked_for(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    fleet.config["EDGEAI_FLEET_WATCHDOG"] = "false"
    text = fleet.playbook.read_text()
    fleet.playbook.write_text(text.replace("timeout: 60", "timeout: 60\n        watchdog: false"))
    done = fleet.run()
    assert done.returncode == 0, done.stdout
    assert [record["data"]["event"] for record in fleet.records("watchdog")] == ["switched_off"]


def test_a_run_whose_watchdog_cannot_start_ends_before_the_first_device(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    fleet.ledger_dir.mkdir()
    with open(watchdog_lock.lock_path(str(fleet.ledger_dir), "digits"), "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = fleet.run()
    assert done.returncode == 3, done.stdout
    assert "nothing is rolled out" in done.stdout and "is still at work" in " ".join(done.stdout.split())
    assert fleet.calls("a1") == []
    assert fleet.records("watchdog")[0]["data"]["event"] == "not_armed"


def test_an_intent_that_cannot_be_written_leaves_the_device_untouched(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    playbook = play(tmp_path, ledger=str(in_the_way / "ledger"), source={"type": "file", "path": "/x"})
    done = fleet.run(playbook=str(playbook))
    assert done.returncode == 2
    assert str(in_the_way / "ledger" / "ledger.jsonl") in done.stdout
    assert fleet.calls("a1") == []


def test_outside_a_rollout(tmp_path: Path) -> None:
    """edge_ledger is used, ledger=none is honoured, and neither is refused."""
    fleet = Fleet(tmp_path, ONE)
    done = fleet.run(playbook=str(play(tmp_path)))
    assert done.returncode == 0, done.stdout
    assert [record["type"] for record in fleet.records()] == ["intent", "result"]
    done = fleet.run(playbook=str(play(tmp_path, ledger="none", state="confirmed")))
    assert done.returncode == 0 and len(fleet.records()) == 2
    del fleet.inventory_data["all"]["vars"]["edge_ledger"]
    fleet.write_inventory()
    done = fleet.run(playbook=str(play(tmp_path, state="confirmed")))
    assert done.returncode == 2 and "there is no ledger to record it in" in done.stdout
    assert len(fleet.calls("a1")) == 2


def test_a_local_device_reads_the_release_where_it_is(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    fleet.run(playbook=str(play(tmp_path)))
    assert fleet.calls("a1")[0]["source"]["type"] == "file"
    assert fleet.calls("a1")[0]["source"]["path"] == str(fleet.release)


def near(fleet: Fleet, host: str) -> Path:
    """Reach a device by a connection that is not local; returns the list of files that were put over it."""
    puts = fleet.base / "puts"
    fleet.host_vars(host).update(
        ansible_connection="edgeai.fleet.near",
        near_puts=str(puts),
        near_unreachable="{{ (edge_root ~ '/away') is exists }}",
    )
    fleet.write_inventory()
    return puts


def sent(puts: Path, fleet: Fleet) -> list[str]:
    """Files of the release that were put (Ansible puts its modules the same way)."""
    return [path for path in puts.read_text().split() if path.startswith(str(fleet.release))]


def test_only_missing_blobs_travel(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    puts = near(fleet, "a1")
    manifest = json.loads((fleet.release / "release.json").read_text())
    blobs = fleet.root("a1") / "blobs"
    blobs.mkdir()
    (blobs / manifest["golden"]["sha256"]).write_bytes((fleet.release / "golden/golden.npz").read_bytes())
    done = fleet.run(playbook=str(play(tmp_path)))
    assert done.returncode == 0, done.stdout
    assert sent(puts, fleet) == [str(fleet.release / manifest["variants"][0]["entry"])]
    assert [call["source"].get("plan", None) for call in fleet.calls("a1")] == [True, None]
    assert list((fleet.root("a1") / "inbox").iterdir()) == []
    assert fleet.records("result")[0]["data"]["transfer"]["bytes"] == manifest["variants"][0]["files"][0]["size"]

    done = fleet.run(playbook=str(play(tmp_path)))  # everything is there: one call, nothing travels
    assert done.returncode == 0 and len(fleet.calls("a1")) == 3 and len(sent(puts, fleet)) == 1


def test_a_release_changed_after_planning_is_not_sent(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    near(fleet, "a1")
    done = fleet.run(playbook=str(play(tmp_path, digest="sha256:" + "0" * 64)))
    assert done.returncode == 2 and "was changed after it was planned" in " ".join(done.stdout.split())
    assert fleet.calls("a1") == []
    assert fleet.records("result")[0]["data"]["touched"] is False


def test_an_unreachable_device_is_recorded(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {"a1": "onnxruntime", "a2": "onnxruntime"})
    near(fleet, "a2")
    text = fleet.playbook.read_text()
    away = "    - &release\n"
    assert away in text
    fleet.playbook.write_text(
        text.replace(away, "    - ansible.builtin.copy:\n        content: ''\n        dest: \"{{ edge_root }}/away\"\n"
                           "      when: inventory_hostname == 'a2'\n" + away)
    )  # fmt: skip
    done = fleet.run()
    assert "1 away" in done.stdout, done.stdout
    lost = [record["data"] for record in fleet.records("result") if record["host"] == "a2"]
    assert lost and lost[0]["unreachable"] is True and lost[0]["msg"] == "nobody there"
    assert hosts_of(fleet.records("unreachable")) == ["a2"]


def test_a_lifted_quarantine_is_lifted_on_the_device(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    fleet.behave("a1", active="quarantined")
    digest = "sha256:" + "1" * 64
    done = fleet.run(playbook=str(play(tmp_path, digest=digest)))
    assert done.returncode == 2 and len(fleet.calls("a1")) == 1
    stratum = "cpu-int8/onnxruntime/x86_64"
    lift = tmp_path / "lift.yml"
    common = {"ledger": "{{ edge_ledger }}", "reason": "test", "digest": digest, "stratum": stratum}
    states = [{"edgeai.fleet.quarantine": {**common, "state": state}} for state in ("quarantined", "lifted")]
    lift.write_text(json.dumps([{"hosts": "edge", "gather_facts": False, "tasks": states}]))
    assert fleet.run(playbook=str(lift)).returncode == 0
    done = fleet.run(playbook=str(play(tmp_path, digest=digest)))
    assert done.returncode == 0, done.stdout
    assert [call["lift"] for call in fleet.calls("a1")] == [None, None, True]


def test_no_log_keeps_messages_out_of_the_ledger(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ONE)
    fleet.behave("a1", active="error")
    playbook = play(tmp_path)
    content = json.loads(playbook.read_text())
    content[0]["tasks"][0]["no_log"] = True
    playbook.write_text(json.dumps(content))
    done = fleet.run(playbook=str(playbook))
    assert done.returncode == 2 and "something broke" not in done.stdout
    assert "something broke" not in Path(fleet.ledger_dir, "ledger.jsonl").read_text()


def on_a_terminal(fleet: Fleet, *arguments: str) -> str:
    """Run on a pseudo terminal of 80 columns; returns everything written to it."""
    leader, follower = pty.openpty()
    environment = {**fleet.environment(), "COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with subprocess.Popen(fleet.command(*arguments), env=environment, cwd=fleet.base, stdin=follower, stdout=follower,
                          stderr=follower, start_new_session=True) as run:  # fmt: skip
        os.close(follower)
        output, until = b"", time.monotonic() + 120
        while time.monotonic() < until:
            if not select.select([leader], [], [], 1)[0]:
                continue
            try:
                block = os.read(leader, 65536)
            except OSError:  # the last writer is gone
                break
            if not block:
                break
            output += block
        os.close(leader)
        assert run.wait(30) == 0, output.decode()
    return output.decode()


def test_on_a_terminal_the_wave_is_redrawn_in_place(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, TWO_STRATA)
    output = on_a_terminal(fleet)
    assert "\x1b[3A\x1b[J" in output  # title and two strata
    assert "succeeded" in output
    screen = [line for line in replay(output) if line.strip()]
    assert sum("Wave 1/2" in line for line in screen) == 1
    assert sum("Wave 2/2" in line for line in screen) == 1
    assert len(screen) < 30


def replay(output: str) -> list[str]:
    """What a terminal shows: follows cursor-up, clear-to-end, carriage return and newline; drops colors."""
    import re

    lines, row = [""], 0
    for piece in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", output):
        if piece == "\n":
            row += 1
            while len(lines) <= row:
                lines.append("")
        elif piece.startswith("\x1b[") and piece.endswith("A"):
            row = max(0, row - int(piece[2:-1]))
        elif piece == "\x1b[J":
            lines = [*lines[:row], ""]
        elif piece != "\r" and not piece.startswith("\x1b"):
            lines[row] += piece
    return lines


@pytest.mark.parametrize("mode", ["failed", "no_log"])
def test_other_playbooks_show_their_errors_in_full(tmp_path: Path, mode: str) -> None:
    fleet = Fleet(tmp_path, {"a1": "onnxruntime", "a2": "onnxruntime"})
    command = "echo first line; echo the real reason >&2; exit 7"
    tasks: list[dict[str, Any]] = [
        {"name": "Fine", "ansible.builtin.command": "true"},
        {"name": "Note", "ansible.builtin.debug": {"msg": "a word to people"}},
        {"name": "Breaks", "ansible.builtin.shell": command, "no_log": mode == "no_log"},
    ]
    path = tmp_path / "other.yml"
    path.write_text(json.dumps([{"hosts": "edge", "gather_facts": False, "tasks": tasks}]))
    done = fleet.run(playbook=str(path))
    assert done.returncode == 2
    assert "Fine  changed=2" in done.stdout and "a word to people" in done.stdout
    if mode == "no_log":
        assert "the real reason" not in done.stdout and "no_log" in done.stdout
        return
    assert done.stdout.count("stderr: the real reason") == 1  # once for both hosts
    assert "failed: [a1, a2] Breaks" in done.stdout
    assert "[a1, a2] => " in done.stdout and done.stdout.count("a word to people") == 1
    assert "rc: 7" in done.stdout and "2 hosts: ok=4 changed=2 unreachable=0 failed=2" in done.stdout

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What people say to a rollout, in real runs: pause, resume, abort, approve, veto; windows and pace."""

from __future__ import annotations

import base64
import http.server
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.waves_fleet import Fleet, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import approvers

ROLLOUT = "edgeai.fleet.rollout"
FOUR = {"a1": "onnxruntime", "a2": "onnxruntime", "a3": "onnxruntime", "a4": "onnxruntime"}
POLICY = {"canary": {"per_stratum": 1}, "growth": [0.5, 1.0]}
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def closed() -> dict[str, Any]:
    """A window that is closed now, and for days."""
    day = DAYS[(datetime.now(timezone.utc).weekday() + 3) % 7]
    return {"timezone": "UTC", "open": [{"days": [day], "from": "00:00", "to": "24:00"}]}


def said(fleet: Fleet, kind: str) -> list[dict[str, Any]]:
    """The data of all records of a type."""
    return [record["data"] for record in fleet.records(kind)]


def new(fleet: Fleet) -> set[str]:
    """The hosts that are on the new release."""
    return {host for host in FOUR if fleet.active(host) != "sha256:old"}


def command(fleet: Fleet, name: str, *arguments: str) -> str:
    """Run one of the playbooks for people; returns its output."""
    done = fleet.run(*arguments, playbook=f"edgeai.fleet.{name}")
    assert done.returncode == 0, done.stdout
    return done.stdout


class Recorder(http.server.BaseHTTPRequestHandler):
    """Stands in for a chat service: keeps what is posted to it."""

    posted: ClassVar[list[tuple[str | None, dict[str, Any]]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.posted.append((self.headers["X-Token"], body))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def chat() -> Iterator[http.server.HTTPServer]:
    Recorder.posted = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(30)


def test_windows_and_vetoes_defer_visibly_and_a_later_run_catches_up(
    tmp_path: Path, chat: http.server.HTTPServer
) -> None:
    fleet = Fleet(tmp_path, FOUR, POLICY)
    url = f"http://127.0.0.1:{chat.server_address[1]}/hidden-path"
    hook: dict[str, Any] = {"webhook": {"url": url, "headers": {"X-Token": "hidden-token"}}}
    fleet.inventory_data["all"]["vars"]["edge_notify"] = hook
    until = (datetime.now(timezone.utc) + timedelta(hours=3)).isoformat()
    fleet.host_vars("a1")["edge_window"] = closed()
    fleet.host_vars("a2")["edge_vetoes"] = [{"by": "Ana, line 3", "reason": "stocktaking", "until": until}]
    fleet.write_inventory()
    lift = ("--limit", "a2,a3", "-e", "edge_reason=done", "-e", "edge_veto_state=unvetoed")
    about = ("-e", f"edge_veto_expires={until}", "-e", "edge_reason='guests today'", "-e", "edge_by=Bo")
    command(fleet, "veto", "--limit", "a3", *about)
    done = fleet.run(playbook=ROLLOUT)
    assert done.returncode == 0, done.stdout
    assert "deferred 1: a1 · its maintenance window is closed" in done.stdout
    assert "vetoed by Ana, line 3 until" in done.stdout and "vetoed by Bo until" in done.stdout
    assert {(data["host"], data["kind"]) for data in said(fleet, "deferred")} == {
        ("a1", "window"), ("a2", "veto"), ("a3", "veto"),
    }  # fmt: skip
    assert new(fleet) == {"a4"}
    assert [body["event"] for _token, body in Recorder.posted] == ["started", "verdict", "finished"]
    assert {token for token, _body in Recorder.posted} == {"hidden-token"}
    assert Recorder.posted[-1][1]["text"].endswith("ended: succeeded") and not fleet.records("notify_failed")

    chat.shutdown()
    chat.server_close()  # from here on nobody answers
    hook["events"] = ["started", "finished"]
    hook["email"] = {"to": ["ops@example.com"], "from": "edgeai@example.com", "password": "hidden-password"}
    del fleet.host_vars("a1")["edge_window"], fleet.host_vars("a2")["edge_vetoes"]
    fleet.write_inventory()
    command(fleet, "veto", *lift)
    done = fleet.run("-vvv", playbook=ROLLOUT)
    assert done.returncode == 0 and new(fleet) == set(FOUR), done.stdout
    lost = {(data["event"], data["channel"]) for data in said(fleet, "notify_failed")}
    assert {("started", "webhook"), ("finished", "webhook"), ("finished", "email")} <= lost, lost
    assert "hidden-" not in done.stdout + Path(fleet.ledger_dir, "ledger.jsonl").read_text()
    assert fleet.verified().ok


def test_what_stops_between_two_waves_goes_on_with_the_same_plan(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, FOUR, {**POLICY, "approval": {"after": ["canary"]}})
    done = fleet.run(playbook=ROLLOUT)
    assert done.returncode == 2 and "stops before wave 2: 0 of 1 approvals to go on behind wave 1" in done.stdout
    plan = said(fleet, "rollout_started")[0]["plan"]
    assert new(fleet) == set(plan["waves"][0]["hosts"]) and said(fleet, "rollout_finished")[-1]["status"] == "stopped"

    refused = fleet.run("-e", "edge_plan_hash=sha256:0", playbook="edgeai.fleet.approve")
    assert refused.returncode == 2 and f"is {plan['plan_hash']}" in " ".join(refused.stdout.split())
    command(fleet, "pause", "-e", "edge_reason='the line moves'", "-e", "edge_by=Bo")
    command(fleet, "approve", "-e", f"edge_plan_hash={plan['plan_hash']}", "-e", "edge_by=Ana")
    done = fleet.run(playbook=ROLLOUT)
    assert done.returncode == 2 and "stops before wave 2: paused by Bo: the line moves" in done.stdout
    assert len(new(fleet)) == 1

    command(fleet, "resume")
    done = fleet.run(playbook=ROLLOUT)
    assert done.returncode == 0, done.stdout
    assert new(fleet) == set(FOUR) and "Wave 1 starts" not in done.stdout
    assert {data["plan_hash"] for data in said(fleet, "rollout_started")} == {plan["plan_hash"]}
    assert len({record["rollout"] for record in fleet.records("rollout_started")}) == 1
    activations = [record["host"] for record in fleet.records("intent") if record["data"]["action"] == "activate"]
    assert sorted(activations) == sorted(FOUR), "nobody was changed twice"
    assert fleet.verified().ok


def test_approvals_and_vetoes_are_heard_while_it_runs(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, FOUR, {**POLICY, "growth": [1.0], "approval": {"after": ["canary"], "wait": 600}})
    keys.generate_key(tmp_path / "ana.pem", tmp_path / "ana.pub.pem")
    fleet.inventory_data["all"]["vars"]["edge_approvers"] = {"Ana": str(tmp_path / "ana.pub.pem")}
    fleet.write_inventory()
    run = fleet.start(playbook=ROLLOUT)
    wait_for(lambda: fleet.records("waiting"), "it waits for the approval", 120)
    plan = said(fleet, "rollout_started")[0]["plan"]
    spared = plan["waves"][1]["hosts"][0]
    until = (datetime.now(timezone.utc) + timedelta(hours=3)).isoformat()
    command(fleet, "veto", "--limit", spared, "-e", f"edge_veto_expires={until}", "-e", "edge_reason=guests")
    message = tmp_path / "message"
    message.write_bytes(approvers.statement(plan["plan_hash"], 1, "Ana"))
    signing = ["openssl", "dgst", "-sha256", "-sign", str(tmp_path / "ana.pem"), str(message)]
    signature = base64.b64encode(subprocess.run(signing, check=True, capture_output=True).stdout).decode()
    about = ("-e", f"edge_plan_hash={plan['plan_hash']}", "-e", "edge_by=Ana", "-e", f"edge_signature={signature}")
    command(fleet, "approve", *about)
    assert run.wait(120) == 0, fleet.output.read_text()
    assert new(fleet) == set(FOUR) - {spared}
    assert [(data["host"], data["kind"], data["wave"]) for data in said(fleet, "deferred")] == [(spared, "veto", 2)]
    shown = fleet.output.read_text()
    assert "Waiting up to 600 s before wave 2: 0 of 1 approvals" in shown and f"plan {plan['plan_hash']}" in shown
    assert f"deferred 1: {spared} · vetoed by" in shown and "1 deferred" in shown, shown


def test_a_pause_waits_for_what_is_confirmed_and_outlives_the_controller(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, FOUR, POLICY)
    for host in FOUR:
        fleet.behave(host, active="wait")
    run = fleet.start(playbook=ROLLOUT)
    wait_for(lambda: any((fleet.root(host) / "started").exists() for host in FOUR), "the canary starts", 120)
    command(fleet, "pause", "-e", "edge_reason=lunch")
    canary = next(host for host in FOUR if (fleet.root(host) / "started").exists())
    fleet.let_go(canary)
    wait_for(lambda: fleet.records("waiting"), "the pause", 120)
    assert [(r["host"], r["data"]["result"]) for r in fleet.records("result")][-1] == (canary, "confirmed")

    os.killpg(run.pid, signal.SIGKILL)
    run.wait(60)
    wait_for(lambda: said(fleet, "rollout_finished"), "the watchdog", 120)
    assert said(fleet, "rollout_finished")[-1]["status"] == "stopped" and new(fleet) == {canary}

    output = command(fleet, "abort", "-e", "edge_reason='not today'", "-e", "edge_by=Ana")
    assert new(fleet) == set() and said(fleet, "rollout_finished")[-1]["status"] == "aborted", output
    assert said(fleet, "abort_requested")[0]["by"] == "Ana" and said(fleet, "paused")[0]["reason"] == "lunch"
    assert fleet.verified().ok


def test_one_device_of_a_site_at_a_time_and_an_abort_in_the_soak(tmp_path: Path) -> None:
    policy = {"canary": {"per_stratum": 3}, "soak": 600, "confirm_within": 2000, "site_concurrency": 1, "jitter": 1}
    fleet = Fleet(tmp_path, FOUR, policy)
    for host in FOUR:
        fleet.host_vars(host)["edge_site"] = "harbour"
        fleet.behave(host, active="wait")
    fleet.write_inventory()
    run = fleet.start(playbook=ROLLOUT)
    for number in (1, 2, 3):
        begun = wait_for(lambda: [h for h in FOUR if (fleet.root(h) / "started").exists() and h not in new(fleet)],
                         "the next device", 120)  # fmt: skip
        assert len(begun) == 1 and len(fleet.records("intent")) == number, "one of the site at a time"
        fleet.let_go(begun[0])
        wait_for(lambda: len(new(fleet)) == number, "it is active", 120)  # noqa: B023
    wait_for(lambda: fleet.records("verdict"), "the soak", 120)
    output = command(fleet, "abort", "-e", "edge_reason='false alarms'", "-e", "edge_by=Ana")
    assert run.wait(120) == 2, fleet.output.read_text()
    assert new(fleet) == set(), output
    shown = fleet.output.read_text()
    assert "aborted by Ana: false alarms" in shown and "digits 1.1.0: aborted" in shown, shown
    assert [data["status"] for data in said(fleet, "rollout_finished")] == ["aborted"]
    assert not fleet.records("quarantine") and fleet.verified().ok

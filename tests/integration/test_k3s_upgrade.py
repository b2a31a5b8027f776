"""The playbook k3s_upgrade, run for real; the machines are directories, K3s and systemctl are recording stand-ins.

What the real program does is shown by tests/cluster/test_upgrade.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.artifacts import make_artifacts
from support.fleet import ROOT

from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, verify

OLD, NEW = "v1.32.0+k3s1", "v1.32.2+k3s1"
DOUBLE = ROOT / "tests" / "support" / "doubles" / "k3s_world.py"
MARK = "edgeai.fleet/cordoned-for"


class World:
    """One server and some agents below a directory."""

    def __init__(self, base: Path, agents: int = 3) -> None:
        self.base = base
        self.agents = [f"edge-{number}" for number in range(1, agents + 1)]
        self.hosts = ["server-1", *self.agents]
        self._machines()
        content = {("k3s", version, "any", "k3s"): self._program(version) for version in (OLD, NEW)}
        make_artifacts(base / "artifacts", content, base / "release.pem")
        keys.generate_key(base / "ledger.pem", base / "ledger.pub.pem")
        node = {"ready": True, "version": OLD, "unschedulable": False, "annotations": {}, "heartbeat": "2026-01-01"}
        self.write(
            api=True,
            running=dict.fromkeys(self.hosts, OLD),
            active={},
            nodes={name: {"name": name, **node} for name in self.agents},
            undrainable=[],
            behaviour={},
        )

    def _program(self, version: str) -> bytes:
        return f'#!/bin/sh\nexec {sys.executable} {DOUBLE} k3s {version} "$@"\n'.encode()

    def _machines(self) -> None:
        path = self.base / "bin"
        path.mkdir()
        for name in ("systemctl", "journalctl"):
            (path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {DOUBLE} {name} "$@"\n')
            (path / name).chmod(0o755)
        (self.base / "kubeconfig").write_text("")
        for host in self.hosts:
            home = self.base / host / "k3s" / OLD
            home.mkdir(parents=True)
            (home / "k3s").write_bytes(self._program(OLD))
            (home / "k3s").chmod(0o755)
            (home.parent / "current").symlink_to(OLD)
            python = self.base / host / "python"
            python.write_text(
                f'#!/bin/sh\nWORLD={self.base} WORLD_HOST={host} PATH={path}:$PATH exec {sys.executable} "$@"\n'
            )
            python.chmod(0o755)

    def write(self, **changes: Any) -> None:
        path = self.base / "state.json"
        path.write_text(json.dumps({**(self.state() if path.exists() else {}), **changes}))

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.base / "state.json").read_text()))

    def inventory(self, **variables: Any) -> Path:
        given = {
            "ansible_connection": "local",
            "k3s_version": NEW,
            "k3s_server_agent": False,
            "k3s_upgrade_kubeconfig": str(self.base / "kubeconfig"),
            "k3s_upgrade_quorum_retries": 1,
            "k3s_upgrade_quorum_delay": 0,
            "edge_artifacts": str(self.base / "artifacts"),
            "edge_trust_keys": [str(self.base / "release.pub.pem")],
            "edge_root": str(self.base / "none"),
            "edge_policy": {"canary": {"per_stratum": 1}, "growth": [1.0]},
        }
        for role in ("server", "agent"):
            given[f"k3s_{role}_home"] = f"{self.base}/{{{{ inventory_hostname }}}}/k3s"
            given[f"k3s_{role}_data_dir"] = f"{self.base}/{{{{ inventory_hostname }}}}/data"
            given[f"k3s_{role}_ready_timeout"] = 3
            given[f"k3s_{role}_start_timeout"] = 5
        given.update(variables)
        groups = {"k3s_servers": ["server-1"], "k3s_agents": self.agents}
        children = {name: {"hosts": {host: self._of(host) for host in hosts}} for name, hosts in groups.items()}
        for host in self.agents:  # the servers are none of the rollouts' devices
            about = {"edge_ledger": str(self.base / "ledger"), "edge_ledger_key": str(self.base / "ledger.pem")}
            children["k3s_agents"]["hosts"][host] |= about
        path = self.base / "hosts.yml"
        path.write_text(json.dumps({"all": {"vars": given, "children": children}}))
        return path

    def _of(self, host: str) -> dict[str, str]:
        return {"ansible_python_interpreter": f"{self.base}/{host}/python"}  # also where a task is delegated to

    def play(self, *arguments: str, expect: int = 0, **variables: Any) -> str:
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "edgeai.fleet.k3s_upgrade"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        environment |= {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"}
        done = subprocess.run(
            [*command, "-i", str(self.inventory(**variables)), *arguments],
            env=environment,
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == expect, done.stdout[-12000:]
        return done.stdout

    def log(self) -> list[str]:
        path = self.base / "log"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def links(self) -> dict[str, str]:
        return {host: os.readlink(self.base / host / "k3s" / "current") for host in self.hosts}

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in Ledger(str(self.base / "ledger")).records() if record["type"] == kind]

    def status(self) -> str:
        return str(self.records("rollout_finished")[-1]["data"]["status"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.thorough
def test_good_and_again(world: World) -> None:
    nodes = world.state()["nodes"]
    nodes["edge-2"]["unschedulable"] = True  # somebody's own cordon
    world.write(nodes=nodes)
    said = world.play("--check", "--diff")
    assert "3 devices in" in said and set(world.links().values()) == {OLD} and not world.log()
    assert not (world.base / "ledger").exists()

    world.play()
    assert set(world.links().values()) == {NEW}
    log = world.log()
    assert log[0] == f"server-1 restart {NEW} good"
    canary = next(line.split()[2] for line in log if " drain " in line)
    first = [line for line in log[1:] if canary in line and not line.startswith(canary)]
    expected = [f"server-1 drain {canary}"]
    if canary != "edge-2":
        expected = [f"server-1 cordon {canary}", *expected, f"server-1 uncordon {canary}"]
    assert first == expected
    others = [line for line in log if line.startswith("edge-") and not line.startswith(canary)]
    assert log.index(f"{canary} restart {NEW} good") < min(log.index(line) for line in others)
    state = world.state()["nodes"]
    assert {name: node["unschedulable"] for name, node in state.items()} == {
        "edge-1": False, "edge-2": True, "edge-3": False}  # fmt: skip
    assert all(MARK not in node["annotations"] for node in state.values())
    assert world.status() == "succeeded"
    for host in world.hosts:  # the intent is older than what came of it
        told = [r["type"] for r in Ledger(str(world.base / "ledger")).records()
                if r["host"] == host and r["type"] in ("intent", "result")]  # fmt: skip
        assert told[0] == "intent" and told[-1] == "result"
    assert verify(str(world.base / "ledger"), (world.base / "ledger.pub.pem").read_bytes()).ok

    size = (world.base / "ledger" / "ledger.jsonl").stat().st_size
    again = world.play()
    assert "nothing to do" in again and not world.log()
    assert (world.base / "ledger" / "ledger.jsonl").stat().st_size == size
    assert "changed=0" in again.rpartition("PLAY RECAP")[2] and "changed=1" not in again


def test_a_broken_program_comes_back_and_nothing_else_starts(world: World) -> None:
    world.write(behaviour={NEW: "broken", f"server-1 {NEW}": "good"})
    said = world.play(expect=2)
    links = world.links()
    assert links == {"server-1": NEW, **dict.fromkeys(world.agents, OLD)}
    log = world.log()
    restarts = [line for line in log if line.startswith("edge-")]
    canary = restarts[0].split()[0]
    assert restarts == [f"{canary} restart {NEW} broken", f"{canary} restart {OLD} good"]
    assert log[-1] == f"server-1 uncordon {canary}" and "Never started: " in said
    result = world.records("result")[-1]["data"]
    assert (result["result"], result["proven"], result["cause"]) == ("reverted", True, "configuration")
    assert world.status() == "halted"
    assert sorted(record["host"] for record in world.records("deferred")) == sorted(set(world.agents) - {canary})

    world.write(behaviour={})  # the program was mended: the rerun goes on, and leaves the server alone
    world.play()
    assert set(world.links().values()) == {NEW} and not any("server-1 restart" in line for line in world.log())
    assert not world.records("rollout_finished")[-1]["data"]["unsettled"]


@pytest.mark.thorough
def test_never_ready(world: World) -> None:
    world.write(behaviour={NEW: "never_ready", f"server-1 {NEW}": "good"})
    world.play(expect=2)
    assert {link for host, link in world.links().items() if host != "server-1"} == {OLD}
    assert world.records("result")[-1]["data"]["proven"] is True
    assert [node["ready"] for node in world.state()["nodes"].values()] == [True] * 3


@pytest.mark.thorough
def test_api_server_away_in_the_middle(world: World) -> None:
    world.write(behaviour={NEW: "api_away", f"server-1 {NEW}": "good"})
    said = world.play(expect=2)
    restarts = [line for line in world.log() if line.startswith("edge-")]
    canary = restarts[0].split()[0]
    assert [line.split()[0] for line in restarts] == [canary, canary] and world.links()[canary] == OLD
    result = world.records("result")[-1]["data"]
    assert (result["result"], result["code"], result["proven"]) == ("reverted", "server", False)
    assert "In between" in said and canary in said
    assert world.records("cordon_left")[-1]["host"] == canary
    assert world.state()["nodes"][canary]["annotations"]

    # It answers again: the device that nobody saw ready comes first, the cordon goes, the rest follows.
    world.write(api=True, behaviour={})
    world.play()
    log = world.log()
    assert next(line for line in log if line.startswith("edge-")) == f"{canary} restart {NEW} good"
    assert set(world.links().values()) == {NEW} and not world.records("rollout_finished")[-1]["data"]["unsettled"]
    assert not any(node["unschedulable"] or node["annotations"] for node in world.state()["nodes"].values())


@pytest.mark.thorough
def test_a_server_that_fails_goes_back_and_no_agent_starts(world: World) -> None:
    world.write(behaviour={NEW: "broken"})
    world.play(expect=2)
    assert world.log() == [f"server-1 restart {NEW} broken", f"server-1 restart {OLD} good"]
    assert set(world.links().values()) == {OLD} and world.status() == "halted"


@pytest.mark.thorough
def test_a_device_that_was_left_in_between_is_put_right_first(world: World) -> None:
    """As a controller that died behind the switch leaves it: link and intent are there, and no outcome."""
    for host in ("server-1", "edge-3"):
        (world.base / host / "k3s" / NEW).mkdir()
        program = world.base / host / "k3s" / NEW / "k3s"
        program.write_bytes(world._program(NEW))
        program.chmod(0o755)
    (world.base / "edge-3" / "k3s" / "current").unlink()
    (world.base / "edge-3" / "k3s" / "current").symlink_to(NEW)
    Ledger(str(world.base / "ledger")).append(
        "intent", {"action": "upgrade", "from": OLD, "to": NEW}, "k3s-before", "edge-3")  # fmt: skip
    world.write(behaviour={f"edge-3 {NEW}": "broken"})
    world.play(expect=2)
    assert world.links()["edge-3"] == OLD
    assert [line for line in world.log() if line.startswith("edge-")] == [
        f"edge-3 restart {NEW} broken", f"edge-3 restart {OLD} good"]  # fmt: skip


@pytest.mark.thorough
def test_refused_before_anything_is_touched(world: World) -> None:
    said = world.play("-e", "k3s_upgrade_plan_hash=sha256:00", expect=2)
    assert "approved was sha256:00" in said
    world.play(expect=2, edge_trust_keys=[])
    assert not world.log() and set(world.links().values()) == {OLD}
    # A disruption budget that allows nothing: the device is not touched, its cordon is taken back.
    world.write(undrainable=world.agents)
    world.play(expect=2)
    log = world.log()
    assert not any(line.startswith("edge-") for line in log)
    assert not any(node["unschedulable"] for node in world.state()["nodes"].values())
    assert world.records("result")[-1]["data"]["code"] == "busy"

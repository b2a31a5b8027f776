"""What a device does by itself, on a real machine: deadlines over power cuts, damage at boot, crash loops, a full disk.

Releases are put into the store by the device's own engine (see stock.py), so that nothing here depends on a rollout.
"""

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
from support.fleet import ROOT
from support.releases import write_trust
from support.servers import MODEL, wait_for

from .stock import PYTHON, Stock
from .stock import ROOT as STORE

NAME = "lab-02"
ROLES = ("device", "inference_runtime", "device_agent", "model_server")
AGENT, CHECK, SERVER = "edgeai-agent.service", "edgeai-check.service", "edgeai-server.service"
DROP_INS = "/run/systemd/system"


class Machine:
    """The device under test, and plays against it."""

    def __init__(self, lab: Any, wheelhouse: Path, base: Path) -> None:
        self.device = lab.device(NAME)
        self.inventory = lab.inventory
        self.base = base
        trust = write_trust(base / "trust")
        self.variables = {
            "edge_trust_keys": [str(path) for path in (trust / "keys").iterdir()],
            "edge_wheelhouse": str(wheelhouse),
            "inference_runtime_trust_keys": [str(wheelhouse.parent / "keys" / "release.pub.pem")],
        }
        self.stock = Stock(self.device, base / "releases")

    def play(self, roles: tuple[str, ...], *arguments: str, **variables: Any) -> tuple[int, str]:
        """Apply roles in order; returns (changes, what was printed)."""
        tasks = [{"ansible.builtin.include_role": {"name": f"edgeai.fleet.{role}"}} for role in roles]
        (self.base / "play.yml").write_text(json.dumps([{"hosts": NAME, "gather_facts": False, "tasks": tasks}]))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.inventory)]
        command += [str(self.base / "play.yml"), "-e", json.dumps({**self.variables, **variables}), *arguments]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        environment["ANSIBLE_STDOUT_CALLBACK"] = "ansible.builtin.default"
        done = subprocess.run(
            command,
            env=environment,
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return int(re.findall(r"changed=(\d+)", done.stdout)[-1]), done.stdout

    def out(self, *command: str) -> str:
        """What a command says on the device, as root, not over the network; nothing when it fails."""
        return str(self.device.exec(list(command), check=False).stdout).strip()

    def unit(self, unit: str, *names: str) -> list[str]:
        return [self.out("systemctl", "show", "--value", "-p", name, unit) for name in names]

    def active(self) -> str:
        state = json.loads(self.out("cat", f"{STORE}/models/{MODEL}/state.json"))
        return str((state["active"] or {}).get("version"))

    def serves(self, factor: float, seconds: float = 60.0) -> None:
        wait_for(lambda: self.stock.answer() == factor, seconds, f"{NAME} answers {factor}")

    def uptime(self) -> float:
        """Seconds since the boot of the kernel, which is the host's: a power cut does not set it back here."""
        return float(self.out("cat", "/proc/uptime").split()[0])

    def drop_in(self, unit: str, text: str) -> None:
        """Change a unit until the next boot."""
        script = f"mkdir -p {DROP_INS}/{unit}.d && cat >{DROP_INS}/{unit}.d/test.conf && systemctl daemon-reload"
        self.device.exec(["sh", "-c", script], input=text)

    def undo(self, unit: str) -> None:
        self.device.exec(["sh", "-c", f"rm -rf {DROP_INS}/{unit}.d && systemctl daemon-reload"])

    def empty(self) -> None:
        """An empty store, and everything running."""
        self.device.drain()
        self.out("systemctl", "stop", SERVER, AGENT)
        script = f"cd {STORE} && rm -rf blobs releases models journal.jsonl* engine/check.json log/fill*"
        self.device.exec(["sh", "-c", script])
        self.device.exec(["systemctl", "start", AGENT, SERVER])


@pytest.fixture(scope="module")
def provisioned(lab: Any, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(lab, wheelhouse, tmp_path_factory.mktemp("agent"))
    made.play(ROLES)
    yield made
    made.device.power_on()
    made.device.drain()
    gone = {f"{role}_state": "absent" for role in ROLES}
    made.play(tuple(reversed(ROLES)), **gone)


@pytest.fixture
def machine(provisioned: Machine, tmp_path: Path) -> Machine:
    """1.0.0 (y = 2 x) is confirmed and served."""
    provisioned.empty()
    provisioned.stock = stock = Stock(provisioned.device, tmp_path / "releases")
    stock.stage("1.0.0", 2.0)
    stock.activate("1.0.0")
    assert stock.load() == "None"
    provisioned.serves(2.0, 5.0)
    return provisioned


def test_its_units_run_confined_and_a_second_run_changes_nothing(machine: Machine) -> None:
    assert machine.unit(AGENT, "ActiveState", "UnitFileState") == ["active", "enabled"]
    assert machine.unit(CHECK, "UnitFileState", "Before")[0] == "enabled"
    assert SERVER in machine.unit(CHECK, "Before")[0]
    for arguments in ((), ("--check",)):
        assert machine.play(ROLES, *arguments)[0] == 0
    for unit in (AGENT, CHECK):
        told = machine.out("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
        assert float(re.findall(r"\d+\.\d+", told)[0]) <= 1.5, told
    pid = machine.unit(AGENT, "MainPID")[0]
    status = dict(line.split(":\t") for line in machine.out("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == 1 << 1  # CAP_DAC_OVERRIDE
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    links = machine.out("nsenter", "-t", pid, "-n", "ip", "-o", "link").splitlines()
    assert [line.split(":")[1].strip() for line in links] == ["lo"]  # and that is one of its own


def test_it_is_removed_and_predicted_on_a_fresh_machine(machine: Machine) -> None:
    machine.play(("device_agent",), device_agent_state="absent")
    left = machine.out("sh", "-c", "ls /etc/systemd/system/edgeai-[ac]* /usr/local/bin/edgeai-device")
    assert left == "" and machine.unit(AGENT, "LoadState") == ["not-found"]
    assert machine.active() == "1.0.0"  # the store stays
    predicted, _output = machine.play(("device_agent",), "--check", "--diff")
    assert machine.unit(AGENT, "LoadState") == ["not-found"]
    assert machine.play(("device_agent",))[0] == predicted > 0
    assert machine.unit(AGENT, "ActiveState") == ["active"]


def test_a_new_program_restarts_it_and_an_interrupted_run_is_made_good(machine: Machine) -> None:
    before = machine.unit(AGENT, "MainPID")
    machine.device.exec(["sh", "-c", f"cd {STORE}/lib && cp edgeai-device.pyz x && echo >>x && mv x edgeai-device.pyz"])
    machine.device.exec(["systemctl", "restart", AGENT])  # it runs another program than the collection's
    assert machine.play(("device_agent",))[0] == 2  # the program, and the agent
    after = machine.unit(AGENT, "MainPID")
    assert before != after and machine.play(("device_agent",))[0] == 0
    told = json.loads(machine.out("cat", f"{STORE}/engine/agent.json"))
    machine.device.exec(["sh", "-c", f"sed -i s/sha256:./sha256:x/ {STORE}/engine/agent.json"])
    assert machine.play(("device_agent",))[0] == 1  # an agent of an earlier run, whose restart never came
    assert json.loads(machine.out("cat", f"{STORE}/engine/agent.json"))["bundle"] == told["bundle"]


def test_what_nobody_confirms_goes_back_and_the_server_follows(machine: Machine) -> None:
    machine.stock.stage("1.1.0", 3.0)
    machine.stock.activate("1.1.0", seconds=8, confirm=False)
    assert machine.stock.load() == "None"
    machine.serves(3.0, 5.0)
    told = machine.stock.command("status").stdout
    assert "1.1.0 onnxruntime/fp32, unconfirmed: goes back to 1.0.0 in" in told
    machine.serves(2.0)
    assert machine.active() == "1.0.0"
    wait_for(lambda: "followed model=tiny" in machine.stock.journal(AGENT), 10.0)
    assert "expired model=tiny active=1.0.0" in machine.stock.journal(AGENT)


@pytest.mark.parametrize("clock", ["now", "1970-01-01"])
def test_the_deadline_is_kept_over_a_power_cut_whatever_the_clock_says(machine: Machine, clock: str) -> None:
    if clock != "now":
        machine.device.set_clock(clock, restart=False)
    try:
        machine.stock.stage("1.1.0", 3.0)
        machine.stock.activate("1.1.0", seconds=machine.uptime() + 45, confirm=False)
        assert machine.stock.load() == "None"
        machine.device.power_cut()
        machine.device.power_on()
        machine.serves(3.0, 30.0)  # a power cut alone does not take it back
        assert 0 < machine.stock.status()["models"][MODEL]["unconfirmed"]["remaining_s"] <= 45
        machine.serves(2.0, 90.0)
        assert machine.active() == "1.0.0"
    finally:
        if clock != "now":
            machine.device.set_clock("now")


def test_a_deadline_that_passes_without_power_is_kept_before_the_server_starts(machine: Machine) -> None:
    machine.stock.stage("1.1.0", 3.0)
    machine.stock.activate("1.1.0", seconds=5, confirm=False)
    machine.device.power_cut()
    machine.device.power_on()
    machine.serves(2.0)
    assert machine.active() == "1.0.0"
    assert "swap" in machine.stock.journal(SERVER) and '"version": "1.1.0"' not in machine.stock.journal(SERVER)


def test_a_file_damaged_without_power_is_found_at_boot_and_left_for_what_is_whole(machine: Machine) -> None:
    machine.stock.stage("1.1.0", 3.0)
    machine.stock.activate("1.1.0")
    assert machine.stock.load() == "None"
    machine.stock.damage("1.1.0")
    machine.device.power_cut()
    machine.device.power_on()
    machine.serves(2.0)
    assert machine.active() == "1.0.0"
    assert "fell_back model=tiny left=1.1.0 active=1.0.0" in machine.stock.journal(CHECK)
    assert "tiny: left 1.1.0 for 1.0.0" in machine.stock.command("status").stdout
    assert machine.stock.command("verify").returncode == 0


def test_when_nothing_is_whole_the_server_starts_serves_nothing_and_the_journal_says_what_to_do(
    machine: Machine,
) -> None:
    machine.stock.damage("1.0.0")
    machine.device.power_cut()
    machine.device.power_on()
    machine.device.wait_unit(SERVER)
    assert machine.stock.answer() is None
    critical = machine.out("journalctl", "--boot", "--output=cat", "-p", "2", "-u", CHECK)
    assert "nothing_whole model=tiny" in critical and "edgeai.fleet.rollout" in critical
    assert machine.stock.command("check").returncode == 1
    machine.play(("device_agent",))  # and it can be provisioned all the same
    machine.stock.base = machine.stock.base / "again"
    machine.stock.stage("1.1.0", 3.0)  # what a rollout does
    machine.stock.activate("1.1.0")
    assert machine.stock.load() == "None"
    machine.serves(3.0)


def test_a_release_that_the_server_crashes_with_is_left(machine: Machine) -> None:
    start = machine.unit(SERVER, "ExecStart")[0].split("argv[]=")[1].split(" ; ")[0]
    current = f"$(readlink {STORE}/models/{MODEL}/current)"
    crash = f"/bin/sh -c 'case \"{current}\" in *1.1.0*) kill -SEGV $$$$;; esac; exec {start}'"
    machine.drop_in(SERVER, f"[Service]\nExecStart=\nExecStart={crash}\n")
    try:
        machine.device.exec(["systemctl", "restart", SERVER])
        machine.serves(2.0)
        machine.stock.stage("1.1.0", 3.0)
        machine.stock.activate("1.1.0", confirm=False)
        machine.device.exec(["systemctl", "kill", "-s", "SEGV", SERVER])
        wait_for(lambda: machine.active() == "1.0.0", 120.0, "the agent leaves 1.1.0")
        machine.serves(2.0)
    finally:
        machine.undo(SERVER)
    history = machine.stock.command("history").stdout
    assert "1.1.0: the model server crashed again and again with this release (systemd says: signal)" in history
    assert "reverted model=tiny" in machine.stock.journal(AGENT)


def test_a_full_disk_stops_neither_the_agent_nor_the_way_back(machine: Machine) -> None:
    machine.stock.stage("1.1.0", 3.0)
    machine.stock.activate("1.1.0", seconds=12, confirm=False)
    assert machine.stock.load() == "None"
    machine.device.fill(1)
    fill = "i=0; while [ $i -lt 3000 ] && dd if=/dev/zero of=log/fill$i bs=4096 count=1; do i=$((i+1)); done"
    machine.out("sh", "-c", f"cd {STORE}; {fill}")
    assert machine.active() == "1.1.0", "filling took too long"
    machine.serves(2.0)
    assert machine.active() == "1.0.0"
    machine.device.power_cut()
    machine.device.power_on()
    machine.serves(2.0)
    machine.device.exec(["sh", "-c", f"rm -f {STORE}/log/fill*"])
    machine.device.drain()
    reserve = ("stat", "-c", "%s", f"{STORE}/engine/ballast")
    wait_for(lambda: machine.out(*reserve) == "262144", 90.0, "the reserve is made again")


def test_without_its_runtime_a_device_still_keeps_deadlines_and_compares_hashes(machine: Machine) -> None:
    machine.stock.stage("1.1.0", 3.0)
    link = str(Path(PYTHON).parents[1])
    target = machine.out("readlink", link)
    machine.device.exec(["rm", link])
    try:
        told = machine.stock.command("check")
        assert told.returncode == 0 and "its hashes are right" in told.stdout
        machine.stock.activate("1.1.0", seconds=4, confirm=False)
        wait_for(lambda: machine.active() == "1.0.0", 20.0)
    finally:
        machine.device.exec(["ln", "-sfn", target, link])


def test_an_agent_that_hangs_is_started_anew(machine: Machine) -> None:
    machine.drop_in(AGENT, "[Service]\nWatchdogSec=3\n")
    try:
        machine.device.exec(["systemctl", "restart", AGENT])
        pid = machine.unit(AGENT, "MainPID")[0]
        machine.device.exec(["kill", "-STOP", pid])
        wait_for(lambda: machine.unit(AGENT, "MainPID")[0] not in (pid, "0"), 60.0)
    finally:
        machine.undo(AGENT)
    assert machine.unit(AGENT, "NRestarts") == ["1"]


def test_a_person_with_a_terminal(machine: Machine) -> None:
    machine.stock.stage("1.1.0", 3.0)
    machine.stock.activate("1.1.0")
    assert machine.stock.load() == "None"
    told = machine.stock.command("status", user="admin")
    assert told.returncode == 0 and "1.1.0 onnxruntime/fp32" in told.stdout and "sudo edgeai-device" in told.stdout
    refused = machine.stock.command("revert", user="admin")
    assert refused.returncode == 3 and "run the command with sudo" in refused.stderr
    assert machine.stock.command("verify", user="admin").stdout == f"{MODEL}: ok\n"
    done = machine.stock.command("revert", "--reason", "the belt runs backwards")
    assert (done.returncode, done.stdout) == (0, "went back to 1.0.0\n")
    machine.serves(2.0, 5.0)
    assert "revert     tiny 1.1.0: the belt runs backwards" in machine.stock.command("history").stdout

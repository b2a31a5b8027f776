"""The role device on a machine of the lab, over ssh as a user with sudo: everything it makes, and its removal."""

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

NAME = "lab-01"
PEM = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"
UNIT = """[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c '{command}'
[Install]
WantedBy=multi-user.target
"""
STAYS = "systemd-notify --ready; exec sleep infinity"


class Machine:
    """One machine of the lab, and plays against it."""

    def __init__(self, lab: Any, base: Path) -> None:
        self.device = lab.device(NAME)
        self.lab = lab
        self.base = base
        for name in ("old", "new"):
            (base / f"{name}.pem").write_text(PEM.format(name))

    def play(self, role: str, *arguments: str, expect: int = 0, **variables: Any) -> str:
        """Run a role (its entry point after a colon); return what it printed."""
        name, _mark, entry = role.partition(":")
        include = {"name": f"edgeai.fleet.{name}", "tasks_from": entry or "main"}
        tasks = [{"ansible.builtin.include_role": include}]
        (self.base / "play.yml").write_text(json.dumps([{"hosts": NAME, "gather_facts": False, "tasks": tasks}]))
        given = {"edge_trust_keys": [str(self.base / "old.pem")], **variables}
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.lab.inventory)]
        command += [str(self.base / "play.yml"), "-e", json.dumps(given), *arguments]
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
        assert done.returncode == expect, done.stdout
        return done.stdout

    def out(self, *command: str) -> str:
        """What a command says on the machine, as root, not over the network; nothing when it fails."""
        return self.device.exec(list(command), check=False).stdout.strip()

    def clean(self) -> None:
        """Take away what a test left, with the roles themselves."""
        if self.traces():
            self.play("_common:unit_absent", _common_unit="edgeai-test.service")
            self.play("device", device_state="absent")
        assert self.traces() == ""

    def keys(self) -> set[str]:
        return {
            line for line in self.out("sh", "-c", "cat /var/lib/edgeai/trust/keys/*").split("\n") if "-" not in line
        }

    def traces(self) -> str:
        """Everything that the role or a unit of these tests leaves on the machine."""
        found = self.out("sh", "-c", "ls -A /var/lib/edgeai; getent passwd edgeai; getent group edgeai")
        return found + self.out(
            "sh", "-c", "ls /etc/systemd/system/edgeai-test* /etc/systemd/timesyncd.conf.d/* 2>/dev/null"
        )


def changes(output: str) -> int:
    return int(re.findall(r"changed=(\d+)", output)[-1])


@pytest.fixture
def machine(lab: Any, tmp_path: Path) -> Iterator[Machine]:
    """A machine on which nothing is, before and after."""
    made = Machine(lab, tmp_path)
    made.clean()
    try:
        yield made
    finally:
        made.device.drain()
        made.clean()


def test_a_bare_machine_becomes_a_device(machine: Machine) -> None:
    predicted = machine.play("device", "--check", "--diff")
    assert machine.traces() == ""
    done = machine.play("device")
    assert changes(done) == changes(predicted) == 3
    assert changes(machine.play("device")) == changes(machine.play("device", "--check")) == 0

    modes = machine.out(
        "sh", "-c", "cd /var/lib/edgeai && stat -c '%n %U:%G %a' . trust trust/keys lib run log device.json"
    )
    assert modes.split("\n") == [
        ". root:root 755",
        "trust root:root 755",
        "trust/keys root:root 755",
        "lib root:root 755",
        "run edgeai:edgeai 700",
        "log edgeai:edgeai 750",
        "device.json root:root 644",
    ]
    account = machine.out("getent", "passwd", "edgeai").split(":")
    assert int(account[2]) < 1000 and account[5:] == ["/nonexistent", "/usr/sbin/nologin"]
    assert machine.out("getent", "shadow", "edgeai").split(":")[1][:1] in ("!", "*")
    settings = json.loads(machine.out("cat", "/var/lib/edgeai/device.json"))
    assert settings["device_id"] == NAME and settings["service_user"] == "edgeai"
    # What the service user can do: read the store, write into its own two directories, nothing else.
    script = (
        "cd /var/lib/edgeai; cat device.json >/dev/null && echo read;"
        " for d in . trust/keys lib run log; do touch $d/x 2>/dev/null && echo $d && rm $d/x; done"
    )
    assert machine.out("setpriv", "--reuid=edgeai", "--regid=edgeai", "--clear-groups", "sh", "-c", script).split() == [
        "read",
        "run",
        "log",
    ]


def test_keys_rotate_without_a_moment_of_no_key(machine: Machine) -> None:
    old, new = str(machine.base / "old.pem"), str(machine.base / "new.pem")
    machine.play("device")
    machine.play("device", edge_trust_keys=[old, new])
    assert machine.keys() == {"old", "new"}
    assert changes(machine.play("device", edge_trust_keys=[new])) == 1
    assert machine.keys() == {"new"}


def test_preflight_names_a_full_disk_and_a_wrong_clock_and_more_at_once(machine: Machine) -> None:
    machine.device.fill(leave_mib=5)
    machine.device.set_clock("1970-01-01")
    try:
        for arguments in ([], ["--check"]):
            output = machine.play("device", *arguments, expect=2, edge_port=22)
            assert f"{NAME} cannot become a device" in output and machine.traces() == ""
            assert re.search(r"- disk: found \d MiB free at /var/lib/edgeai", output)
            assert re.search(r"- clock: found 1970-01-01T00:\d\d:\d\dZ \(\d\d years behind\).*no battery", output)
            assert re.search(r"- port: found sshd \(pid \d+\) listens on .* port 22", output)
        machine.device.drain()
        output = machine.play("device", device_allow_wrong_clock=True)
        assert "clock: found 1970" in output and machine.keys() == {"old"}
    finally:
        machine.device.set_clock("now")


def test_time_servers_for_a_machine_without_a_clock_of_its_own(machine: Machine) -> None:
    output = machine.play("device", expect=2, device_ntp_servers=["192.0.2.1"])
    assert "- time_sync: found a container (podman)" in output and machine.traces() == ""


def test_two_names_for_one_machine_are_noticed(machine: Machine) -> None:
    machine.play("device")
    assert f"this machine is device {NAME}" in machine.play("device", expect=2, device_id="lab-99")


def test_a_foreign_account_is_used_but_never_changed_or_removed(machine: Machine) -> None:
    machine.device.exec(
        ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", "--comment", "site", "edgeai"]
    )
    try:
        before = machine.out("getent", "passwd", "edgeai")
        machine.play("device")
        machine.play("device", device_state="absent")
        assert machine.out("getent", "passwd", "edgeai") == before and "device.json" not in machine.traces()
        assert "somebody's account" in machine.play("device", expect=2, edge_user="admin")
    finally:
        machine.device.exec(["userdel", "edgeai"])


@pytest.fixture
def unit(machine: Machine) -> dict[str, str]:
    """Variables of a unit that a test starts by the role _common."""
    template = machine.base / "unit.j2"
    template.write_text(UNIT.format(command="{{ unit_command }}"))
    return {"_common_unit": "edgeai-test.service", "_common_unit_template": str(template), "unit_command": STAYS}


def test_a_unit_is_proved_to_run_and_removed(machine: Machine, unit: dict[str, str]) -> None:
    assert changes(machine.play("_common:unit", "--check", **unit)) == 1 and "edgeai-test" not in machine.traces()
    assert changes(machine.play("_common:unit", **unit)) == 1
    assert machine.out("systemctl", "is-active", "edgeai-test.service") == "active"
    assert machine.out("systemctl", "is-enabled", "edgeai-test.service") == "enabled"
    first = machine.out("systemctl", "show", "--property=MainPID", "edgeai-test.service")
    assert (
        changes(machine.play("_common:unit", **unit)) == changes(machine.play("_common:unit", "--check", **unit)) == 0
    )
    assert machine.out("systemctl", "show", "--property=MainPID", "edgeai-test.service") == first

    machine.play("_common:unit", **{**unit, "unit_command": "sleep 0; " + STAYS})
    assert machine.out("systemctl", "show", "--property=MainPID", "edgeai-test.service") != first
    assert changes(machine.play("_common:unit_absent", "--check", **unit)) == 1
    assert changes(machine.play("_common:unit_absent", **unit)) == 1
    assert machine.out("systemctl", "show", "--property=LoadState", "edgeai-test.service") == "LoadState=not-found"
    assert changes(machine.play("_common:unit_absent", **unit)) == 0


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        ("echo OSError: [Errno 98] Address already in use; exit 1", "port_in_use"),
        ("exit 3", "exit"),
        ("kill -s SEGV $$$$", "crash"),
    ],
)
def test_a_unit_that_does_not_run_says_why(machine: Machine, unit: dict[str, str], command: str, cause: str) -> None:
    output = machine.play("_common:unit", expect=2, **{**unit, "unit_command": command})
    assert f"edgeai-test.service does not run: {cause} (" in output and "in the journal:" in output
    # Mended, it starts, although it failed before.
    machine.play("_common:unit", **unit)
    assert machine.out("systemctl", "is-active", "edgeai-test.service") == "active"


def test_a_unit_that_systemd_refuses_is_not_written(machine: Machine, unit: dict[str, str]) -> None:
    Path(unit["_common_unit_template"]).write_text(UNIT.format(command="true") + "[Service]\nRestartSec=maybe\n")
    assert "line 8: Failed to parse" in machine.play("_common:unit", expect=2, **unit)
    assert "edgeai-test" not in machine.traces()

"""The role device on this machine, in a directory of its own and with an account that is there already.

Making accounts, services and clocks belongs on a machine of the lab: tests/lab/test_device_role.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.fleet import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the role gives files away, which needs root")

# This machine need not be a supported device: the checks of its system may only warn.
ACCEPT = ["system", "systemd", "python_venv", "kernel_features", "disk", "memory", "service_user"]
PEM = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"


class Machine:
    """The role against this machine."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "edge"
        for name in ("old", "new"):
            (base / f"{name}.pem").write_text(PEM.format(name))
        (base / "play.yml").write_text(
            "- hosts: all\n  gather_facts: false\n  roles: [edgeai.fleet.device]\n", encoding="utf-8"
        )
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "edge_root": str(self.root),
            "edge_runtime_home": str(base / "runtimes"),
            "edge_user": "nobody",
            "edge_group": "nogroup",
            "edge_port": 18231,
            "edge_trust_keys": [str(base / "old.pem")],
            "device_accept": ACCEPT,
            "device_max_load_per_cpu": 1000,
        }
        (base / "hosts.json").write_text(json.dumps({"all": {"hosts": {"edge-01": variables}}}), encoding="utf-8")

    def run(self, *arguments: str, expect: int = 0, **variables: Any) -> str:
        """Run the role; return what it printed."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.base / "hosts.json")]
        command += [str(self.base / "play.yml"), "-e", json.dumps(variables), *arguments]
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

    def keys(self) -> set[str]:
        return {path.read_text() for path in (self.root / "trust" / "keys").iterdir()}


def changes(output: str) -> int:
    return int(re.findall(r"changed=(\d+)", output)[-1])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    tmp_path.chmod(0o755)
    return Machine(tmp_path)


@pytest.mark.slow
def test_a_device_comes_changes_its_keys_and_goes(machine: Machine) -> None:
    predicted = machine.run("--check", "--diff")
    assert changes(predicted) == 1 and not machine.root.exists()
    assert '+  "device_id": "edge-01"' in predicted and "+0700 nobody:nogroup" in predicted
    assert changes(machine.run()) == 1
    assert changes(machine.run()) == changes(machine.run("--check")) == 0

    old, new = str(machine.base / "old.pem"), str(machine.base / "new.pem")
    machine.run(edge_trust_keys=[old, new])
    assert machine.keys() == {PEM.format("old"), PEM.format("new")}
    output = machine.run("--diff", edge_trust_keys=[new])
    assert machine.keys() == {PEM.format("new")} and "-old" in output

    gone = {"device_state": "absent"}
    assert changes(machine.run("--check", **gone)) == 1 and machine.root.exists()
    assert changes(machine.run(**gone)) == 1 and not machine.root.exists()
    assert changes(machine.run(**gone)) == 0


def test_preflight_names_everything_at_once_and_changes_nothing(machine: Machine) -> None:
    for arguments in ([], ["--check"]):
        output = machine.run(
            *arguments,
            expect=2,
            device_accept=["systemd", "system", "python_venv", "kernel_features"],
            device_min_disk_mib=99999999,
            device_min_memory_mib=99999999,
            edge_listen="192.0.2.1",
            edge_user="root",
        )
        assert "edge-01 cannot become a device: 4 problems" in output
        for name in ("disk", "memory", "address", "service_user"):
            assert f"- {name}: found " in output
        assert not machine.root.exists()


def test_a_machine_that_is_another_device_is_refused_until_it_may_be_renamed(machine: Machine) -> None:
    machine.run()
    assert "this machine is device edge-01" in machine.run(expect=2, device_id="edge-02")
    machine.run(device_id="edge-02", device_rename=True)
    assert json.loads((machine.root / "device.json").read_text())["device_id"] == "edge-02"


def test_what_is_no_devices_directory_is_neither_set_up_nor_removed(machine: Machine) -> None:
    machine.root.mkdir()
    (machine.root / "photos").mkdir()
    for variables in ({}, {"device_state": "absent"}, {"device_state": "absent", "edge_root": "/"}):
        output = machine.run(expect=2, **variables)
        assert "photos" in output or "/var/lib/edgeai" in output
    assert [path.name for path in machine.root.iterdir()] == ["photos"]

"""A fleet on the lab's machines: provisioned over ssh, served under systemd, updated without any package index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.fleet import MODEL, ROOT, Fleet
from support.sysfs import materialise

EDGE_ROOT = "/var/lib/edgeai"
RUNTIMES = "/opt/edgeai/runtimes"
PORT = 9001


def make_wheelhouse(lab: Any) -> Path:
    """Make keys and a signed wheelhouse for a lab's devices, as molecule's scenarios have them, and return it."""
    command = ["ansible-playbook", "molecule/lab/prepare.yml", "-i", str(lab.inventory), "-i", "inventories/lab"]
    environment = {**os.environ, "MOLECULE_PROJECT_DIRECTORY": str(ROOT), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return ROOT / "build" / "lab" / "fleet" / "wheelhouse"


class LabFleet(Fleet):
    """Devices of a running lab; ``home`` holds keys, releases and the ledger; ``wheelhouse`` serves all such fleets."""

    #: Where a recorded /proc and /sys lies on a device that stands for another machine.
    SYSROOT = "/opt/lab/sysroot"

    def __init__(
        self,
        home: Path,
        lab: Any,
        wheelhouse: Path,
        hosts: Mapping[str, Mapping[str, Any]],
        policy: Mapping[str, Any] | None = None,
    ) -> None:
        self.lab = lab
        self.wheelhouse = wheelhouse
        super().__init__(home, hosts, policy)

    def prepare(self) -> None:
        """Nothing: devices are machines of their own."""

    def platform(self) -> dict[str, Any]:
        """Return the inventory variables that every device of the lab shares."""
        return {
            "ansible_python_interpreter": "{{ edge_python }}",
            "edge_root": EDGE_ROOT,
            "edge_runtime_home": RUNTIMES,
            "edge_python": f"{RUNTIMES}/current/bin/python",
            "edge_listen": "0.0.0.0",
            "edge_port": PORT,
            "edge_wheelhouse": str(self.wheelhouse),
            "inference_runtime_trust_keys": [str(self.wheelhouse.parent / "keys" / "release.pub.pem")],
        }

    def inventories(self) -> list[Path]:
        """The lab's inventory knows how to reach its devices, the fleet's what they are for."""
        return [Path(self.lab.inventory), self.inventory]

    def run_on(self, host: str, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command on a device as root, past its network."""
        return self.lab.device(host).exec(list(command), timeout=timeout, check=False)

    def read(self, host: str, path: str) -> str:
        """Read a file of a device; empty when it is not there."""
        done = self.run_on(host, "cat", path)
        return done.stdout if done.returncode == 0 else ""

    def state(self, host: str) -> dict[str, Any]:
        """Read a device's state.json."""
        return dict(json.loads(self.read(host, f"{EDGE_ROOT}/models/{MODEL}/state.json")))

    def journal(self, host: str) -> list[dict[str, Any]]:
        """Read what a device's store wrote into its journal; a line that is being written is left out."""
        lines = self.read(host, f"{EDGE_ROOT}/journal.jsonl").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def ready(self, host: str) -> dict[str, Any] | None:
        """Ask a device's server, on the device itself, what it serves: also when its network is cut."""
        code = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=9).read().decode())"
        url = f"http://127.0.0.1:{PORT}/v2/models/{MODEL}/ready"
        done = self.run_on(host, "python3", "-c", code, url)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else None

    def serving(self) -> dict[str, str | None]:
        """Return what every device serves: ``{host: version or None}``."""
        return {host: (self.ready(host) or {}).get("version") for host in self.hosts}

    def verified(self, host: str) -> bool:
        """Whether every file of what is active is what was signed, asked of the device itself."""
        return self.run_on(host, "edgeai-device", "verify", timeout=120).returncode == 0

    def receiving(self, host: str) -> bool:
        """Whether a file is on its way to a device over ssh."""
        return self.run_on(host, "pgrep", "-f", "sftp-server").returncode == 0

    def pretend(self, host: str, machine: str) -> None:
        """Put the /proc and /sys of a recorded machine (tests/sysfs) onto a device; ``edge_sysroot`` makes it count."""
        with tempfile.TemporaryDirectory() as directory:
            materialise(machine, Path(directory) / "tree")
            archive = shutil.make_archive(str(Path(directory) / machine), "tar", Path(directory) / "tree")
            arguments = f"src={archive} dest={self.SYSROOT}"
            for module, text in (("file", f"path={self.SYSROOT} state=directory mode=0755"), ("unarchive", arguments)):
                command = [
                    "ansible",
                    host,
                    f"--inventory={self.lab.inventory}",
                    "-m",
                    f"ansible.builtin.{module}",
                    "-a",
                    text,
                ]
                done = subprocess.run(
                    [str(Path(sys.executable).parent / command[0]), *command[1:]],
                    env=self.environment(),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stdout + done.stderr

    def destroy(self) -> None:
        """Take the devices out of service; the lab itself goes on."""
        done = self.playbook("provision", "-e", "edge_state=absent")
        assert done.rc == 0, done
        for name in ("releases", "ledger"):
            shutil.rmtree(self.home / name, ignore_errors=True)

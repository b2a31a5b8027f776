"""The agent as a real process beside a real model server, without systemd: what systemd would be told, and upgrades."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers import MODEL, Device, free_port, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.device import bundle, control

SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/bin")


class Agent:
    """``edgeai-device agent`` for a device, with a service manager's socket."""

    def __init__(self, device: Device, python: str | None = None) -> None:
        self.device = device
        self.python = python or device.python
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = device.base / "notify"
        self.address.unlink(missing_ok=True)
        self.socket.bind(str(self.address))
        self.socket.settimeout(30)
        self.log = device.base / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.address), "WATCHDOG_USEC": "60000000"}
        command = [self.python, "-I", str(self.device.program), "agent", "--root", str(self.device.root)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=output)
        while "READY=1" not in self.told():
            pass

    def told(self) -> str:
        """The next message to the service manager."""
        return self.socket.recv(4096).decode()

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def events(self) -> list[str]:
        return [line.split(">", 1)[1].split()[0] for line in self.log.read_text().splitlines() if line.startswith("<")]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.socket.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device that serves 1.0.0 (y = 2 x); its server is nobody's child."""
    made = Device(tmp_path, port=free_port())
    made.activate(made.stage("1.0.0", 2.0))
    try:
        made.start()
        yield made
    finally:
        made.stop(signal.SIGKILL)


@pytest.fixture
def agent(device: Device) -> Iterator[Agent]:
    made = Agent(device, SYSTEM_PYTHON)  # it needs nothing but the standard library
    made.start()
    yield made
    made.close()


def factor(device: Device) -> float | None:
    """Return what the served model multiplies by, None when nothing answers."""
    try:
        reply = device.infer()
        return float(reply.json()["outputs"][0]["data"][0]) if reply.status == 200 else None
    except (OSError, KeyError, ValueError):
        return None


def unconfirmed(device: Device, version: str = "1.1.0", seconds: float = 3.0) -> None:
    device.activate(device.stage(version, 3.0), seconds=seconds, confirm=False)
    device.manage("load")
    assert factor(device) == 3.0


def active(device: Device) -> str:
    ref = device.store.read(MODEL).active
    assert ref is not None
    return ref.version


def test_it_reverts_what_nobody_confirms_and_has_the_server_follow(agent: Agent) -> None:
    device = agent.device
    start = device.info()["start_id"]
    unconfirmed(device)
    wait_for(lambda: factor(device) == 2.0)
    assert active(device) == "1.0.0" and device.info()["start_id"] == start
    wait_for(lambda: agent.events()[-2:] == ["expired", "followed"])


def test_it_tells_the_service_manager_that_it_works_and_what_it_waits_for(agent: Agent) -> None:
    unconfirmed(agent.device, seconds=600.0)
    wait_for(lambda: f"waiting for the confirmation of {MODEL} 1.1.0" in agent.told(), what="status")
    wait_for(lambda: agent.told() == "WATCHDOG=1", what="watchdog")
    assert agent.kill(signal.SIGTERM) == 0
    messages: list[str] = []
    wait_for(lambda: messages.append(agent.told()) or "STOPPING=1" in messages[-1], what="end")  # type: ignore[func-returns-value]


def test_its_program_may_be_replaced_while_a_release_waits(agent: Agent, tmp_path: Path) -> None:
    """An upgrade in the middle of an activation: the old agent goes on, the new one takes over; nothing is lost."""
    device = agent.device
    unconfirmed(device, seconds=4.0)
    sources = dict(bundle.own_sources())
    sources["edgeai_fleet/device/about.py"] = b"# a newer program\n" * 3000 + sources["edgeai_fleet/device/about.py"]
    bundle.install(str(device.program), bundle.build(sources))  # every offset in the archive differs now
    wait_for(lambda: factor(device) == 2.0)
    assert active(device) == "1.0.0"
    unconfirmed(device, "1.2.0", seconds=6.0)
    before = control.read_note(str(device.root), "engine", "agent.json")["bundle"]
    assert agent.kill(signal.SIGTERM) == 0
    agent.start()
    assert control.read_note(str(device.root), "engine", "agent.json")["bundle"] != before
    assert active(device) == "1.2.0"  # the deadline is kept, not shortened
    wait_for(lambda: factor(device) == 2.0)
    assert "tick_failed" not in agent.events() and "Traceback" not in agent.log.read_text()


def test_what_it_was_killed_in_the_middle_of_is_made_good_by_the_next(agent: Agent) -> None:
    """The link went back and the agent died before it told the server."""
    device = agent.device
    unconfirmed(device, seconds=600.0)
    agent.kill()
    waiting = device.store.read(MODEL).unconfirmed
    assert waiting is not None
    device.store.revert(MODEL, waiting.digest, "and then it was killed")
    assert factor(device) == 3.0
    agent.start()
    wait_for(lambda: factor(device) == 2.0)
    assert "differs" in agent.events()


def test_there_is_one_agent_and_no_supervisor_beside_it(agent: Agent) -> None:
    device = agent.device
    root = str(device.root)
    assert control.agent_pid(root) == (agent.process.pid if agent.process else None)
    second = device.cli("agent")
    assert (second.returncode, "another agent runs" in second.stderr) == (4, True)
    refused = device.cli("supervise")
    assert (refused.returncode, "already watches" in refused.stderr) == (4, True)
    agent.kill()
    assert control.agent_pid(root) is None  # its note is left behind, the kernel knows better


def test_status_tells_what_is_going_to_happen(agent: Agent) -> None:
    device = agent.device
    unconfirmed(device, seconds=600.0)
    told = device.cli("status")
    assert told.returncode == 0 and "agent       running, pid" in told.stdout
    assert "1.1.0 onnxruntime/fp32, unconfirmed: goes back to 1.0.0 in" in told.stdout
    body = json.loads(device.cli("status", "--json").stdout)
    assert 0 < body["models"][MODEL]["unconfirmed"]["remaining_s"] <= 600
    done = device.cli("revert")  # the only model need not be named
    assert (done.returncode, done.stdout) == (0, "went back to 1.0.0\n")
    assert factor(device) == 2.0


def blob(device: Device, version: str) -> Path:
    return (device.root / "releases" / MODEL / version / "variants/onnxruntime/fp32/model.onnx").resolve()


def test_the_check_goes_back_from_a_damaged_file_and_the_server_follows(device: Device) -> None:
    device.activate(device.stage("1.1.0", 3.0))
    device.manage("load")
    path = blob(device, "1.1.0")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[::-1])
    done = device.cli("check")
    assert done.returncode == 0 and f"{MODEL}: went back from 1.1.0 to 1.0.0, which is whole" in done.stdout
    assert factor(device) == 2.0
    assert f"{MODEL}: 1.0.0 is whole" in device.cli("check").stdout


def test_the_check_takes_an_unsigned_release_for_damaged_and_says_what_to_do_when_nothing_is_left(
    device: Device,
) -> None:
    for key in (device.root / "trust" / "keys").iterdir():
        key.unlink()
    done = device.cli("check")
    assert done.returncode == 1
    assert "nothing whole is here" in done.stdout and "edgeai.fleet.rollout" in done.stdout
    assert active(device) == "1.0.0"


def test_the_check_without_the_runtime_compares_hashes_with_the_systems_interpreter(device: Device) -> None:
    settings = json.loads((device.root / "device.json").read_text())
    gone = dict(settings, python="/opt/edgeai/runtimes/current/bin/python-that-is-gone")
    (device.root / "device.json").write_text(json.dumps(gone))
    command: list[Any] = [SYSTEM_PYTHON, "-I", device.program, "check", "--root", device.root, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)[0]
    assert told["result"] == "not checked" and "hashes are right" in told["words"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_person_without_rights_is_answered_or_told_to_use_sudo(device: Device) -> None:
    device.root.chmod(0o755)
    for folder in (device.base, *device.base.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command: list[Any] = [SYSTEM_PYTHON, "-I", device.program, *arguments, "--root", device.root]
        return subprocess.run(command, capture_output=True, text=True, check=False, user="nobody", group="nogroup")

    told = ask("status")
    assert told.returncode == 0, told
    assert "running at http://" in told.stdout and "1.0.0 onnxruntime/fp32" in told.stdout
    assert "sudo edgeai-device status" in told.stdout
    assert "activated" in ask("history").stdout
    assert ask("verify").stdout == f"{MODEL}: ok\n"
    for arguments in (("revert",), ("check",)):
        refused = ask(*arguments)
        assert refused.returncode == 3 and "run the command with sudo" in refused.stderr, refused
    (device.root / "models").chmod(0o700)
    hidden = ask("status")
    assert hidden.returncode == 3 and "sudo" in hidden.stderr and "Traceback" not in hidden.stderr

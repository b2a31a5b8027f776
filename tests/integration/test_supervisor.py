"""The supervisor as a real process: it keeps the server running, and goes back by itself when nobody confirms."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers import MODEL, Device, onnx_model, tensors, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.device import bundle, control
from ansible_collections.edgeai.fleet.plugins.module_utils.device.process import command_line

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device that serves 1.0.0 (y = 2 x) under its supervisor in the background."""
    made = Device(tmp_path)
    made.activate(made.stage("1.0.0", 2.0))
    try:
        supervise(made)
        yield made
    finally:
        made.cli("stop")


def supervise(device: Device) -> None:
    done = device.cli("supervise", "--daemon")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: factor(device) is not None, what="answers")


def factor(device: Device) -> float | None:
    """Return what the served model multiplies by, None when nothing answers."""
    with contextlib.suppress(OSError, KeyError, ValueError, TypeError):
        reply = device.infer()
        if reply.status == 200:
            return float(reply.json()["outputs"][0]["data"][0])
    return None


def events(device: Device) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (device.root / "log" / "supervisor.log").read_text().splitlines()]


def supervisor(device: Device) -> int:
    pid = control.supervisor_pid(str(device.root))
    assert pid is not None
    return pid


def test_it_is_in_a_session_of_its_own_and_holds_nothing_of_its_caller(device: Device) -> None:
    pid = supervisor(device)
    assert os.getsid(pid) != os.getsid(0)
    assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")
    files = {os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
    outside = {f for f in files if f.startswith("/") and not f.startswith((str(device.root), "/dev/null"))}
    assert outside == set()


def test_a_server_that_is_killed_comes_back(device: Device) -> None:
    first = device.info()
    os.kill(first["pid"], signal.SIGKILL)
    wait_for(lambda: factor(device) == 2.0 and device.info()["start_id"] != first["start_id"])
    assert [e["status"] for e in events(device) if e["event"] == "server_ended"] == [-9]


def test_a_release_nobody_confirms_goes_back_without_a_controller(device: Device) -> None:
    start = device.info()["start_id"]
    ref = device.stage("1.1.0", 3.0)
    device.activate(ref, seconds=2.0, confirm=False)
    device.manage("load")
    assert factor(device) == 3.0
    wait_for(lambda: factor(device) == 2.0)
    state = device.store.read(MODEL)
    assert state.active is not None
    assert (state.active.version, state.unconfirmed) == ("1.0.0", None)
    assert device.info()["start_id"] == start  # by a swap, not by a restart


def test_a_deadline_that_passes_while_everything_is_down_is_kept_at_the_next_start(device: Device) -> None:
    ref = device.stage("1.1.0", 3.0)
    device.activate(ref, seconds=1.0, confirm=False)
    os.kill(supervisor(device), signal.SIGKILL)
    os.kill(device.info()["pid"], signal.SIGKILL)
    wait_for(device.store.due, what="deadline")
    supervise(device)
    wait_for(lambda: factor(device) == 2.0)


def test_killed_together_they_serve_again_after_a_start(device: Device) -> None:
    ref = device.stage("1.1.0", 3.0)
    device.activate(ref)
    old = device.info()["pid"]
    os.kill(supervisor(device), signal.SIGKILL)
    os.kill(old, signal.SIGKILL)
    supervise(device)
    wait_for(lambda: factor(device) == 3.0)
    assert device.info()["pid"] != old


def test_a_server_outlives_its_supervisor_and_is_taken_over(device: Device) -> None:
    server = device.info()
    os.kill(supervisor(device), signal.SIGKILL)
    assert factor(device) == 2.0
    supervise(device)
    wait_for(lambda: any(e["event"] == "server_adopted" for e in events(device)))
    assert device.info() == server
    os.kill(server["pid"], signal.SIGKILL)  # and watched, although it is no child
    wait_for(lambda: factor(device) == 2.0 and device.info()["pid"] != server["pid"])


def test_a_release_that_crashes_the_server_again_and_again_is_left(device: Device, tmp_path: Path) -> None:
    """The interpreter stands in for a runtime that crashes: it kills itself whenever 1.1.0 is what `current` names."""
    python = tmp_path / "python"
    real = device.python
    current = device.root / "models" / MODEL / "current"
    python.write_text(
        f"""#!/bin/sh
case "$(readlink {current})" in *1.1.0*) case " $* " in *" serve "*) kill -SEGV $$;; esac;; esac
exec {real} "$@"
"""
    )
    python.chmod(0o755)
    settings = json.loads((device.root / "device.json").read_text())
    (device.root / "device.json").write_text(json.dumps(dict(settings, python=str(python))))
    device.activate(device.stage("1.1.0", 3.0), confirm=False)
    os.kill(device.info()["pid"], signal.SIGKILL)
    wait_for(lambda: any(e["event"] == "reverted" for e in events(device)), 60.0)
    wait_for(lambda: factor(device) == 2.0, 60.0)
    reverted = next(e for e in events(device) if e["event"] == "reverted")
    assert reverted["left"] == "1.1.0"
    assert "crashed" in reverted["reason"]


def test_stopping_it_stops_the_server_and_a_second_one_does_not_start(device: Device) -> None:
    second = device.cli("supervise", "--daemon")
    assert second.returncode == 4
    assert "already runs" in second.stderr
    assert device.cli("supervise").returncode == 4
    server = device.info()["pid"]
    done = device.cli("stop", "--json")
    assert json.loads(done.stdout) == {"stopped": True}
    assert command_line(server) == []
    assert control.supervisor_pid(str(device.root)) is None
    assert device.cli("stop").stdout == "was not running\n"


def test_a_device_that_was_not_provisioned_says_so(tmp_path: Path) -> None:
    device = Device(tmp_path)
    (device.root / "device.json").unlink()
    done = device.cli("supervise", "--daemon")
    assert done.returncode == 3
    assert "provision this device first" in done.stderr


def test_a_person_on_the_device_sees_and_changes_what_is_served(device: Device) -> None:
    device.activate(device.stage("1.1.0", 3.0))
    device.manage("load")
    status = json.loads(device.cli("status", "--json").stdout)
    assert status["ready"] is True
    assert status["models"][MODEL]["active"]["version"] == "1.1.0"
    assert status["models"][MODEL]["served"]["version"] == "1.1.0"
    done = device.cli("revert", "--model", MODEL)
    assert (done.returncode, done.stdout) == (0, "went back to 1.0.0\n")
    assert factor(device) == 2.0
    assert "1.0.0 onnxruntime/fp32" in device.cli("status").stdout
    operations = [r["op"] for r in json.loads(device.cli("history", "--json").stdout)]
    assert operations[-2:] == ["revert", "reverted"]
    assert device.cli("verify").returncode == 0
    blob = (device.root / "releases" / MODEL / "1.0.0" / "variants" / "onnxruntime" / "fp32" / "model.onnx").resolve()
    blob.chmod(0o644)
    blob.write_bytes(onnx_model(9.0))
    damaged = device.cli("verify", "--model", MODEL)
    assert damaged.returncode == 1
    assert blob.name in damaged.stdout


def module(name: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run a module of the collection through Ansible, in the system's interpreter's stead."""
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local"]
    command += [
        "-m",
        f"edgeai.fleet.{name}",
        "-a",
        json.dumps(arguments),
        "-e",
        f"ansible_python_interpreter={sys.executable}",
    ]
    env = dict(os.environ, ANSIBLE_LOAD_CALLBACK_PLUGINS="1", ANSIBLE_STDOUT_CALLBACK="ansible.builtin.oneline")
    done = subprocess.run(
        command + (["--check"] if check else []), capture_output=True, text=True, env=env, check=False
    )
    return dict(json.loads(done.stdout[done.stdout.index("=>") + 2 :]))


def test_the_modules_install_start_upgrade_and_stop(tmp_path: Path) -> None:
    device = Device(tmp_path)
    root, program = str(device.root), str(device.program)
    device.activate(device.stage("1.0.0", payload=onnx_model(2.0), edit=tensors()))
    wanted = bundle.build(bundle.own_sources())
    try:
        assert module("device_bundle", dest=program)["changed"] is False
        bundle.install(program, wanted + b"an older program")
        assert module("device_bundle", check=True, dest=program)["changed"] is True
        assert not bundle.same_file(program, wanted)
        assert module("device_bundle", dest=program)["changed"] is True
        assert bundle.same_file(program, wanted)  # what travelled in the module is what is in the checkout
        assert module("device_supervisor", check=True, edge_root=root)["changed"] is True
        assert control.supervisor_pid(root) is None
        first = module("device_supervisor", edge_root=root)
        assert first["changed"] is True
        assert first["pid"] == supervisor(device)
        again = module("device_supervisor", edge_root=root)
        assert (again["changed"], again["pid"], again["start_id"]) == (False, first["pid"], first["start_id"])
        wait_for(lambda: factor(device) == 2.0)
        bundle.install(program, wanted + b"\n")  # another digest: an upgrade
        upgraded = module("device_supervisor", edge_root=root)
        assert upgraded["changed"] is True
        assert upgraded["start_id"] != first["start_id"]
        stopped = module("device_supervisor", edge_root=root, state="stopped")
        assert (stopped["changed"], stopped["pid"]) == (True, None)
        assert module("device_supervisor", edge_root=root, state="stopped")["changed"] is False
    finally:
        control.stop(root)

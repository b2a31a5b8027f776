# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a person, or a module, on the device asks of its supervisor, server and store."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from typing import Any

from . import local_api
from .clock import read_clock, remaining
from .errors import DeviceError
from .process import command_line
from .store import Store

_POLL_S = 0.05


def read_run_file(edge_root: str, name: str) -> dict[str, Any]:
    """Return ``run/<name>`` as a JSON object, {} when there is none."""
    try:
        with open(os.path.join(edge_root, "run", name), "rb") as handle:
            body = json.loads(handle.read(1 << 16))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _is_locked(path: str) -> bool:
    """Say whether some process holds the lock on ``path``; the kernel knows, whatever a pid file says."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def supervisor_pid(edge_root: str) -> int | None:
    """Return the pid of the device's running supervisor, None when none runs."""
    path = os.path.join(edge_root, "run", "supervisor.pid")
    if not _is_locked(path):
        return None
    with open(path, encoding="ascii") as handle:
        text = handle.read(32).strip()
    return int(text) if text.isdigit() else None


def server_running(edge_root: str) -> bool:
    """Say whether a model server of this device runs."""
    return _is_locked(os.path.join(edge_root, "run", "server.lock"))


def _wait(check: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S)
    return True


def _signal(pid: Any, word: str, number: int) -> None:
    """Signal ``pid`` if it is one of this program's processes (a number may have been given to another since)."""
    if isinstance(pid, int) and pid > 1 and word in command_line(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stop(edge_root: str, timeout: float = 30.0) -> bool:
    """Stop supervisor and server, by TERM and near the end of ``timeout`` (s) by KILL; returns whether anything ran.

    Raises DeviceError (deadline) when something still runs then.
    """
    root = os.path.abspath(edge_root)
    pid = supervisor_pid(root)
    ran = pid is not None or server_running(root)
    _signal(pid, "supervise", signal.SIGTERM)
    if not _wait(lambda: supervisor_pid(root) is None, timeout * 0.7):
        _signal(pid, "supervise", signal.SIGKILL)
        _wait(lambda: supervisor_pid(root) is None, timeout * 0.1)
    server = read_run_file(root, "server.json").get("pid")
    if server_running(root):  # its supervisor was killed
        _signal(server, "serve", signal.SIGTERM)
        if not _wait(lambda: not server_running(root), timeout * 0.1):
            _signal(server, "serve", signal.SIGKILL)
    if not _wait(lambda: supervisor_pid(root) is None and not server_running(root), timeout * 0.1):
        raise DeviceError("deadline", f"{root}: supervisor or server still runs after {timeout:g} s")
    return ran


def start(edge_root: str, python: str, program: str, timeout: float) -> None:
    """Start ``program``'s supervisor in the background with interpreter ``python``. Raises DeviceError."""
    command = [python, "-I", program, "supervise", "--root", os.path.abspath(edge_root), "--daemon"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except OSError as exc:
        raise DeviceError("bad_input", f"{python} cannot be run: {exc}") from exc
    except subprocess.TimeoutExpired as exc:
        raise DeviceError("deadline", f"{program} did not start within {timeout:g} s") from exc
    if done.returncode:
        text = done.stderr.decode("utf-8", "replace").strip()[-1000:]
        raise DeviceError("busy" if done.returncode == 4 else "server", f"{program}: {text}")


def wait_live(edge_root: str, timeout: float) -> dict[str, Any]:
    """Wait for the server to answer; return run/server.json. Raises DeviceError (deadline) with its last log lines."""

    def live() -> bool:
        return bool(read_run_file(edge_root, "server.json")) and local_api.is_live(edge_root, 2.0)

    if not _wait(live, timeout):
        text = last_words(os.path.join(edge_root, "log", "server.log"))
        raise DeviceError("deadline", f"the model server is not live after {timeout:g} s; log/server.log ends: {text}")
    return read_run_file(edge_root, "server.json")


def last_words(path: str, size: int = 600) -> str:
    """Return the end of a log file."""
    try:
        with open(path, "rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - size))
            return handle.read(size).decode("utf-8", "replace").strip()
    except OSError:
        return "(nothing)"


def status(edge_root: str) -> dict[str, Any]:
    """Return who runs and what is active and served, for a person or a program on the device."""
    root = os.path.abspath(edge_root)
    pid = supervisor_pid(root)
    supervisor = dict(read_run_file(root, "supervisor.json"), pid=pid) if pid else None
    server = read_run_file(root, "server.json") if server_running(root) else None
    ready = False
    if server:
        with contextlib.suppress(DeviceError):
            ready = local_api.ask(root, "GET", "/v2/health/ready", 5.0)[0] == 200
    store = Store(root)
    models = {model: _model_status(store, model, bool(server)) for model in store.models()}
    return {"supervisor": supervisor, "server": server, "ready": ready, "models": models}


def _model_status(store: Store, model: str, ask_server: bool) -> dict[str, Any]:
    state = store.read(model)
    body: dict[str, Any] = {"active": state.active.to_dict() if state.active else None}
    body["previous"] = state.previous.to_dict() if state.previous else None
    waiting = state.unconfirmed
    body["unconfirmed"] = None
    if waiting is not None:
        body["unconfirmed"] = dict(waiting.to_dict(), remaining_s=round(remaining(waiting.deadline, read_clock())))
    body["quarantine"] = [entry.to_dict() for entry in state.quarantine]
    if ask_server:
        with contextlib.suppress(DeviceError):
            body["served"] = local_api.ask(store.root, "GET", f"/v2/models/{model}/ready", 5.0)[1]
    return body


def verify(edge_root: str, model: str | None) -> dict[str, list[str]]:
    """Hash every file of the active releases from the disk; returns model -> what is wrong with it."""
    store = Store(edge_root)
    known = store.models()
    if model is not None and model not in known:
        raise DeviceError(
            "bad_input", "model {} is not on this device; it has {}".format(model, ", ".join(known) or "none")
        )
    return {name: store.verify(name) for name in known if model in (None, name)}


def revert(edge_root: str, model: str, reason: str) -> dict[str, Any]:
    """Leave the active release of ``model`` for the previous one and have the server follow. Raises DeviceError."""
    store = Store(edge_root)
    verify_known = store.models()
    if model not in verify_known:
        raise DeviceError("bad_input", f"model {model} is not on this device")
    active = store.read(model).active
    state, changed = store.revert(model, active.digest if active else None, reason)
    body: dict[str, Any] = {"changed": changed, "active": state.active.to_dict() if state.active else None}
    if changed and server_running(store.root):
        try:
            body["server_error"] = local_api.load(store.root, model, state.active is not None, 900.0)
        except DeviceError as exc:
            body["server_error"] = exc.message
    return body


def history(edge_root: str, model: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the last ``limit`` records of the journal, oldest first."""
    records = [r for r in Store(edge_root).journal.load().records if model in (None, r.model)]
    return [
        {
            "seq": record.seq,
            "time": record.time,
            "op": record.op,
            "model": record.model,
            "active": (record.state or {}).get("active"),
            "note": record.note,
        }
        for record in records[-limit:]
    ]

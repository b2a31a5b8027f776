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
from .errors import DeviceError
from .process import command_line
from .states import ENGINE
from .store import Store

_POLL_S = 0.05


def read_note(edge_root: str, folder: str, name: str) -> dict[str, Any]:
    """Return the small JSON object in a file, {} when there is none that can be read."""
    try:
        # run/ is the server's: what lies there need not be a file, and must not hold this process up.
        fd = os.open(os.path.join(edge_root, folder, name), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as handle:
            body = json.loads(handle.read(1 << 16) or b"")
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def read_run_file(edge_root: str, name: str) -> dict[str, Any]:
    """Return ``run/<name>`` as a JSON object, {} when there is none."""
    return read_note(edge_root, "run", name)


def _is_locked(path: str) -> bool:
    """Say whether some process holds the lock on ``path``; the kernel knows, whatever a pid file says."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not see each other
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


def agent_pid(edge_root: str) -> int | None:
    """Return the pid of the device's running agent (the watch of a device under systemd), None when none runs."""
    if not _is_locked(os.path.join(edge_root, ENGINE, "agent.lock")):
        return None
    pid = read_note(edge_root, ENGINE, "agent.json").get("pid")
    return pid if isinstance(pid, int) else 0


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

    Raises DeviceError: deadline when something still runs then, busy for a server in a pod.
    """
    root = os.path.abspath(edge_root)
    pod = read_run_file(root, "server.json").get("pod")
    if pod and server_running(root):
        raise DeviceError(
            "busy", f"{root}: the model server runs in pod {pod}: only its cluster can stop it (kubectl delete pod)"
        )
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


def may_read(edge_root: str) -> str:
    """Return the absolute path of a device's directory. Raises DeviceError when this user finds none there."""
    root = os.path.abspath(edge_root)
    if not os.path.isdir(root):
        raise DeviceError("bad_input", f"{root}: there is no device here; name its directory with --root")
    for path in (root, os.path.join(root, "models"), os.path.join(root, "journal.jsonl")):
        if os.path.exists(path) and not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
            raise DeviceError("bad_input", f"{path}: may not be read by this user; run the command with sudo")
    return root


def may_change(edge_root: str) -> str:
    """`may_read`, and this user may change the store, too. Raises DeviceError."""
    root = may_read(edge_root)
    if not os.access(root, os.W_OK):
        raise DeviceError("bad_input", f"{root}: may not be changed by this user; run the command with sudo")
    return root


def verify(edge_root: str, model: str | None) -> dict[str, list[str]]:
    """Hash every file of the active releases from the disk; returns model -> what is wrong with it."""
    store = Store(may_read(edge_root))
    known = store.models()
    if model is not None and model not in known:
        raise DeviceError(
            "bad_input", "model {} is not on this device; it has {}".format(model, ", ".join(known) or "none")
        )
    return {name: store.verify(name) for name in known if model in (None, name)}


def revert(edge_root: str, model: str | None, reason: str) -> dict[str, Any]:
    """Leave the active release of ``model`` (None: the only one) for the previous one and have the server follow.

    Raises DeviceError.
    """
    store = Store(may_change(edge_root))
    known = store.models()
    if model is None and len(known) == 1:
        model = known[0]
    if model is None or model not in known:
        raise DeviceError(
            "bad_input",
            "name one of the models with --model: this device has {}".format(", ".join(known) or "none")
            + (f", not {model}" if model else ""),
        )
    active = store.read(model).active
    state, changed = store.revert(model, active.digest if active else None, reason)
    body: dict[str, Any] = {
        "model": model,
        "changed": changed,
        "active": state.active.to_dict() if state.active else None,
    }
    if changed:
        body["server_error"] = follow(store.root, model, state.active is not None)
    return body


def follow(edge_root: str, model: str, active: bool) -> str | None:
    """Have a running server serve what the link names; what went wrong, None when nothing did or no server runs."""
    if not server_running(edge_root):
        return None
    try:
        return local_api.load(edge_root, model, active, 900.0)
    except DeviceError as exc:
        return exc.message


def history(edge_root: str, model: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the last ``limit`` records of the journal, oldest first."""
    records = [r for r in Store(may_read(edge_root)).journal.load().records if model in (None, r.model)]
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

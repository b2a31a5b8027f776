# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The supervisor as a service with a wanted state, for provisioning: started, stopped or restarted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from . import control
from .about import file_digest
from .errors import DeviceError
from .settings import load_settings

STATES = ("started", "stopped", "restarted")


@dataclass(frozen=True)
class Running:
    """What runs now: pids (None: not running), and the programs and interpreters they were started from."""

    supervisor: int | None
    server: bool
    programs: tuple[tuple[str | None, str | None], ...]


def observe(edge_root: str) -> Running:
    """Look at the device's processes."""
    pid = control.supervisor_pid(edge_root)
    server = control.server_running(edge_root)
    infos = []
    if pid is not None:
        infos.append(control.read_run_file(edge_root, "supervisor.json"))
    if server:
        infos.append(control.read_run_file(edge_root, "server.json"))
    # A server that has just begun to start has no server.json yet: it cannot be told apart from the wanted one.
    return Running(pid, server, tuple((info.get("bundle"), info.get("python")) for info in infos if info))


def needed(state: str, now: Running, bundle: str | None, supervisor_python: str, server_python: str) -> tuple[str, str]:
    """Return (action, reason): ``stop``, ``start``, ``restart`` or ``none``. Pure."""
    if state == "stopped":
        if now.supervisor is None and not now.server:
            return "none", "nothing runs"
        return "stop", "it runs"
    if now.supervisor is None:
        return "start", "the supervisor does not run"
    if state == "restarted":
        return "restart", "asked for"
    wanted = (supervisor_python, server_python)
    for (found, python), expected in zip(now.programs, wanted):
        if found != bundle:
            return "restart", f"it runs program {found}, installed is {bundle}"
        if python is not None and os.path.abspath(python) != os.path.abspath(expected):
            return "restart", f"it runs in {python}, wanted is {expected}"
    return "none", "it runs the installed program"


def ensure(
    edge_root: str, state: str, python: str | None, program: str | None, timeout: float, check: bool
) -> dict[str, Any]:
    """Bring the supervisor into ``state``; returns changed, reason, pid, start_id, url (of what runs at the end).

    ``python`` runs the supervisor (default: device.json's). ``check`` only says what would be done. For started and
    restarted it waits until the model server answers, at most ``timeout`` seconds. Raises DeviceError.
    """
    root = os.path.abspath(edge_root)
    program = program or os.path.join(root, "lib", "edgeai-device.pyz")
    if state == "stopped":
        action, reason = needed(state, observe(root), None, "", "")
        if action == "stop" and not check:
            control.stop(root, timeout)
        return {"changed": action != "none", "reason": reason, "pid": None, "start_id": None, "url": None}
    if check and not os.path.exists(os.path.join(root, "device.json")):
        # A check run of provisioning: what would write the settings was only predicted, too.
        return {"changed": True, "reason": "it would be set up first", "pid": None, "start_id": None, "url": None}
    server_python = load_settings(root).python
    python = python or server_python
    bundle = file_digest(program)
    if bundle is None and not check:
        raise DeviceError("bad_input", f"{program} cannot be read: install it with the module device_bundle first")
    action, reason = needed(state, observe(root), bundle, python, server_python)
    if not check:
        _carry_out(root, action, python, program, timeout)
    return dict({"changed": action != "none", "reason": reason}, **_result(root, check, timeout))


def _carry_out(root: str, action: str, python: str, program: str, timeout: float) -> None:
    if action == "restart":
        control.stop(root, timeout)
    if action in ("start", "restart"):
        control.start(root, python, program, timeout)


def _result(root: str, check: bool, timeout: float) -> dict[str, Any]:
    if check:
        info = control.read_run_file(root, "server.json") if control.server_running(root) else {}
    else:
        info = control.wait_live(root, timeout)
    return {"pid": control.supervisor_pid(root), "start_id": info.get("start_id"), "url": info.get("url")}

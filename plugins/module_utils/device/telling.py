# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a person on the device is told: who runs, what is active and what is served, as data and as lines."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from . import control, local_api, server_unit
from .bootcheck import NOTE as CHECK_NOTE
from .clock import read_clock, remaining
from .errors import DeviceError
from .serving import OipServer
from .settings import Settings, read_settings
from .states import ENGINE
from .store import Store

_ASK_S = 5.0


def status(edge_root: str) -> dict[str, Any]:
    """Return who runs and what is active and served. Somebody without rights (``limited``) asks the public address.

    Raises DeviceError when there is no device, or this user may not even look.
    """
    root = control.may_read(edge_root)
    settings = None
    with contextlib.suppress(DeviceError):
        settings = read_settings(root)
    limited = os.path.isdir(os.path.join(root, "run")) and not os.access(os.path.join(root, "run"), os.R_OK | os.X_OK)
    body: dict[str, Any] = {"device": settings.device_id if settings else None, "limited": limited}
    agent = control.agent_pid(root)
    body["agent"] = None if agent is None else dict(control.read_note(root, ENGINE, "agent.json"), pid=agent or None)
    supervisor = control.supervisor_pid(root)
    body["supervisor"] = dict(control.read_run_file(root, "supervisor.json"), pid=supervisor) if supervisor else None
    body["unit"] = _unit(root)
    body["check"] = control.read_note(root, ENGINE, CHECK_NOTE) or None
    store = Store(root)
    models = {model: _model(store, model) for model in store.models()}
    server, ready = _ask_public(root, settings, models) if limited else _ask(root, models)
    return dict(body, server=server, ready=ready, models=models)


def _unit(root: str) -> dict[str, Any] | None:
    """What systemd says about the model server, where an agent watches over it."""
    if not (server_unit.managed() and os.path.exists(os.path.join(root, ENGINE, "agent.lock"))):
        return None
    with contextlib.suppress(DeviceError):
        show = server_unit.show()
        if show is not None:
            return {"state": show["ActiveState"], "result": show["Result"], "restarts": show["NRestarts"]}
    return None


def _model(store: Store, model: str) -> dict[str, Any]:
    state = store.read(model)
    body: dict[str, Any] = {"active": state.active.to_dict() if state.active else None}
    body["previous"] = state.previous.to_dict() if state.previous else None
    waiting = state.unconfirmed
    body["unconfirmed"] = None
    if waiting is not None:
        body["unconfirmed"] = dict(waiting.to_dict(), remaining_s=round(remaining(waiting.deadline, read_clock())))
    body["quarantine"] = [entry.to_dict() for entry in state.quarantine]
    return body


def _ask(root: str, models: dict[str, dict[str, Any]]) -> tuple[dict[str, Any] | None, bool]:
    """Ask over the management socket; adds ``served`` to the models. Returns (server, whether all are ready)."""
    if not control.server_running(root):
        return None, False
    ready = False
    with contextlib.suppress(DeviceError):
        ready = local_api.ask(root, "GET", "/v2/health/ready", _ASK_S)[0] == 200
        for model, body in models.items():
            body["served"] = local_api.ask(root, "GET", f"/v2/models/{model}/ready", _ASK_S)[1]
    return control.read_run_file(root, "server.json"), ready


def _ask_public(
    root: str, settings: Settings | None, models: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any] | None, bool]:
    """The same at the public address, for somebody who may not use the socket."""
    if settings is None or settings.server is None:
        return None, False
    try:
        server = OipServer(root, settings.server, _ASK_S)
        for model, body in models.items():
            body["served"] = dict(server.ready(model) or {"ready": False, "error": "the server has not loaded it"})
    except DeviceError:
        return None, False
    ready = bool(models) and all(body["served"].get("ready") is True for body in models.values())
    return {"url": settings.server.url, "pid": None}, ready


# -- lines -----------------------------------------------------------------------------------------------------------


def status_lines(body: dict[str, Any]) -> list[str]:
    """`status` for people. Pure."""
    rows = [("device", body["device"] or "not provisioned")]
    if body["supervisor"]:
        rows.append(("supervisor", f"running, pid {body['supervisor']['pid']}"))
    else:
        agent = body["agent"]
        told = "running" + (f", pid {agent['pid']}" if agent["pid"] else "") if agent else "not running"
        rows.append(("agent", told if agent else f"{told}: no deadline is kept"))
    rows.append(("server", _server_words(body)))
    rows.append(("ready", "yes" if body["ready"] else "no"))
    if body["check"]:
        rows.append(("boot check", _check_words(body["check"])))
    rows += [(name, _model_words(model)) for name, model in sorted(body["models"].items())]
    lines = [f"{name:11} {text}" for name, text in rows]
    if not body["models"]:
        lines.append("no model was ever brought to this device")
    if body["limited"]:
        lines.append("(more is told to root: sudo edgeai-device status)")
    return lines


def _server_words(body: dict[str, Any]) -> str:
    server, unit = body["server"], body["unit"]
    if server:
        text = "running" + (f", pid {server['pid']}" if server.get("pid") else "")
        text += f" in pod {server['pod']}" if server.get("pod") else ""
        text += f" at {server['url']}" if server.get("url") else ", starting"
    else:
        text = "no answer" if body["limited"] else "not running"
    if unit and (unit["state"] != "active" or unit["restarts"] not in ("", "0")):
        text += f" (systemd: {unit['state']}, last result {unit['result']}, {unit['restarts'] or 0} restarts)"
    return text


def _check_words(check: dict[str, Any]) -> str:
    bad = [model["model"] for model in check.get("models", []) if model.get("result") == "damaged"]
    left = [model for model in check.get("models", []) if model.get("left")]
    words = [f"{name}: nothing whole is here" for name in bad]
    words += ["{}: left {} for {}".format(m["model"], m["left"], m["active"]) for m in left]
    return "{}, {}".format(check.get("time"), "; ".join(words) or "all whole")


def _model_words(model: dict[str, Any]) -> str:
    active = model["active"]
    text = "{} {}".format(active["version"], active["variant"]) if active else "nothing active"
    served = model.get("served") or {}
    if active and served.get("ready") is not True:
        text += ", not served: {}".format(served.get("error", "no answer"))
    elif served.get("ready") is True and (not active or served.get("digest") != active["digest"]):
        text += ", but {} is served".format(served.get("version"))
    if model["unconfirmed"]:
        back = model["previous"]["version"] if model["previous"] else "nothing"
        text += f", unconfirmed: goes back to {back} in {max(0, model['unconfirmed']['remaining_s'])} s"
    return text


def check_lines(outcome: list[dict[str, Any]]) -> list[str]:
    """What the boot check found, for people. Pure."""
    lines = []
    for told in outcome:
        name, active = told["model"], told["active"]
        if told["left"]:
            lines.append(f"{name}: went back from {told['left']} to {active}, which is whole; {told['words']}")
        elif told["result"] == "whole":
            lines.append(f"{name}: {active} is whole" if active else f"{name}: {told['words']}")
        elif told["result"] == "damaged":
            lines.append(f"{name}: nothing whole is here; {told['words']}")
            lines.append(f"  {told['do']}")
        else:
            lines.append(f"{name}: {active} was not checked; {told['words']}")
    return lines or ["no model was ever brought to this device"]


def history_lines(records: list[dict[str, Any]]) -> list[str]:
    """Records of the journal for people, each with its reason where one was noted. Pure."""
    lines = []
    for record in records:
        note = record["note"] or {}
        # A transition has two records; the reason is told with the first, which decides it.
        because = (record["op"] != "reverted" and note.get("reason")) or "; ".join(note.get("repairs") or [])
        active = (record["active"] or {}).get("version", "-")
        lines.append(
            f"{record['time']} {record['op']:10} {record['model']} {active}" + (f": {because}" if because else "")
        )
    return lines

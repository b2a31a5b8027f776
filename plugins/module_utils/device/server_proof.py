# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Prove that the model server answers where its users find it; when it does not, name the reason."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, NamedTuple

from . import unit_run, units
from .client import Client
from .control import read_run_file
from .errors import DeviceError
from .oip import ServerError
from .settings import ServerSettings, load_settings
from .tls import local_tls
from .units import Cause

_POLL_S = 0.1
_CALL_S = 5.0


class Proof(NamedTuple):
    """The outcome: ``cause`` is None when the server answers."""

    url: str
    start_id: str | None
    seconds: float
    cause: Cause | None
    error: str
    journal: list[str]


def prove_live(edge_root: str, unit: str, timeout: float) -> Proof:
    """Ask the server over its configured listener until it is live, at most ``timeout`` seconds.

    With TLS the certificate that it shows must be the one that device.json names. Raises DeviceError for a device.json
    that is wrong.
    """
    root = os.path.abspath(edge_root)
    server = load_settings(root).needed_server()
    began = time.monotonic()
    error: DeviceError | None = _ask(root, server)
    while error is not None and time.monotonic() - began < timeout:
        time.sleep(_POLL_S)
        error = _ask(root, server)
    seconds = time.monotonic() - began
    if error is None:
        start_id = read_run_file(root, "server.json").get("start_id")
        return Proof(server.local_url, start_id, seconds, None, "", [])
    show: dict[str, str] = {}
    journal: list[str] = []
    with contextlib.suppress(DeviceError):  # no systemd here: the server's own answer has to do
        show, journal = unit_run.observe(unit)
    cause = why_silent(error, show, journal)
    return Proof(server.local_url, None, seconds, cause, error.message, journal)


def _ask(root: str, server: ServerSettings) -> DeviceError | None:
    try:
        with Client(server.local_url, timeout=_CALL_S, tls=local_tls(root, server)) as client:
            return None if client.live() else ServerError(f"{server.local_url}: it says that it is not live")
    except DeviceError as error:
        return error


def why_silent(error: DeviceError, show: dict[str, str], journal: list[str]) -> Cause:
    """Name the reason why a server does not answer. Pure; ``show`` is the unit's state, empty when it is not known."""
    if show and not units.is_fine(show):
        return units.classify(show, journal)
    text = error.message
    if "shows certificate" in text:
        return Cause("certificate", text, "see the server's log: it says why it could not take the certificate")
    if "CERTIFICATE" in text.upper() or "SSL" in text:
        return Cause("tls", text, "see that device.json and the running server agree on TLS; restart the server")
    if "refused" in text.lower():
        return Cause("not_listening", text, "the unit runs but listens elsewhere; see server.url in device.json")
    if getattr(error, "timed_out", False):
        return Cause("no_answer", text, "the server accepts and does not answer; see its log and the device's load")
    return Cause("no_answer", text, "see the server's lines in the journal")


def as_result(proof: Proof) -> dict[str, Any]:
    """The outcome as a module's result."""
    return {"url": proof.url, "start_id": proof.start_id, "seconds": round(proof.seconds, 2)}

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What model_release_info tells: everything that planning needs to know of a device, in one round trip."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import DeviceError
from .facts import device_facts
from .settings import ServerSettings, provisioned
from .state import State
from .store import Store

GATHER = ("accelerators", "store", "server")
_CONFIG = ("device_id", "redundancy_group", "site")


def model_info(store: Store, model: str) -> dict[str, Any]:
    """One model's state as it is true now, the releases in the store, and what a recovery would repair."""
    state, repairs = store.examine(model)
    body: dict[str, Any] = state.to_dict()
    for internal in ("format", "pending", "seq"):
        del body[internal]
    body["staged"] = {version: store.tree.digest(model, version) for version in store.tree.releases(model)}
    body["remaining"] = _remaining(store, state)
    body["repairs"] = repairs
    body["serving"] = None
    return body


def _remaining(store: Store, state: State) -> float | None:
    from .clock import remaining

    if state.unconfirmed is None:
        return None
    return round(remaining(state.unconfirmed.deadline, store.read_clock()), 1)


def _ask_server(edge_root: str, where: ServerSettings, models: Mapping[str, dict[str, Any]]) -> str | None:
    """Fill in ``serving`` per model; returns what is wrong with the server, None when it answers."""
    from .serving import OipServer

    server = OipServer(edge_root, where, 10.0)
    try:
        for model, body in models.items():
            told = server.ready(model)
            names = ("version", "variant", "digest", "start_id", "boot_id")
            body["serving"] = {name: told.get(name) for name in names} if told else None
    except DeviceError as exc:
        return exc.message
    return None


def device_info(edge_root: str, model: str | None, gather: Iterable[str]) -> dict[str, Any]:
    """The device's facts, settings, models and free space; ``gather`` says which parts cost their time.

    Raises DeviceError(bad_input or damaged) for a device that is not provisioned.
    """
    settings = provisioned(edge_root)
    parts = set(gather)
    body: dict[str, Any] = {name: getattr(settings, name) for name in _CONFIG}
    body["server"] = {"url": settings.server.url} if settings.server else None
    if "accelerators" in parts:
        body.update(device_facts(edge_root))
    store = Store(edge_root)
    body["free_bytes"] = store.blobs.free_bytes()
    if parts & {"store", "server"}:
        names = store.models() if model is None else [name for name in store.models() if name == model]
        body["models"] = {name: model_info(store, name) for name in names}
    if "server" in parts and settings.server is not None:
        body["server_problem"] = _ask_server(edge_root, settings.server, body["models"])
    body["edge_root"] = os.path.abspath(edge_root)
    return body

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Have the model server serve what the store says, however long that takes and however often it has to be asked.

The server loads what ``current`` names when it starts. What is left to do is to tell it when a link moved, and to
notice when it serves something else: whoever moved the link may have been killed before it told the server.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, NamedTuple

from . import local_api
from .errors import DeviceError
from .store import Store

LOAD_TIMEOUT_S = 900.0
ASK_TIMEOUT_S = 5.0
COMPARE_EVERY_S = 30.0
RETRY_FIRST_S = 1.0
RETRY_LAST_S = 60.0
PROMPT_S = 0.5
"""How long `Follower.tick` waits for its thread: an idle server has answered by then, seconds."""


class Due(NamedTuple):
    """When (monotonic s) a model is to be loaded, and the pause after a refusal."""

    at: float
    pause: float


def differs(active: tuple[str, str] | None, status: int, body: dict[str, Any]) -> bool:
    """Say whether the answer about a model's readiness is not about ``active`` (digest, variant; None: nothing). Pure.

    A model that the server knows and could not load (503) does not differ: the server tries again by itself.
    """
    if status == 200:
        return active is None or (body.get("digest"), body.get("variant")) != active
    return status == 404 and active is not None


class Follower:
    """Asks in a thread of its own: loading a large model takes minutes, and deadlines do not wait for that."""

    def __init__(
        self,
        store: Store,
        report: Callable[..., None],
        load: Callable[..., Any] = local_api.load,
        ask: Callable[..., tuple[int, dict[str, Any]]] = local_api.ask,
    ) -> None:
        self._store = store
        self._report = report
        self._load = load
        self._ask = ask
        self._waiting: dict[str, Due] = {}
        self._compare_at = 0.0
        self._thread: threading.Thread | None = None

    def want(self, model: str) -> None:
        """Have the server load what the model's ``current`` names (unload it when there is none), as soon as may be."""
        self._waiting[model] = Due(0.0, RETRY_FIRST_S)

    def tick(self) -> None:
        """Begin what is due. Returns soon, whatever the server does."""
        if self._thread is not None and self._thread.is_alive():
            return
        now = time.monotonic()
        if now < self._compare_at and not any(due.at <= now for due in self._waiting.values()):
            return
        self._thread = threading.Thread(target=self._round, args=(now,), name="follower", daemon=True)
        self._thread.start()
        self._thread.join(PROMPT_S)

    def _round(self, now: float) -> None:
        try:
            if now >= self._compare_at:
                self._compare_at = now + COMPARE_EVERY_S
                self._compare()
            for model, due in sorted(self._waiting.items()):
                if due.at <= now:
                    self._follow(model, due)
        except (DeviceError, OSError) as exc:
            self._report("follow_failed", error=str(exc))

    def _compare(self) -> None:
        """Look for models of which the server serves something else than the store says."""
        for model in self._store.models():
            try:
                status, body = self._ask(self._store.root, "GET", f"/v2/models/{model}/ready", ASK_TIMEOUT_S)
            except DeviceError:
                return  # it does not run, and loads the right release when it starts
            active = self._store.read(model).active
            if model not in self._waiting and differs(
                (active.digest, active.variant) if active else None, status, body
            ):
                self._report("differs", model=model, served=body.get("version"), active=active and active.version)
                self.want(model)

    def _follow(self, model: str, due: Due) -> None:
        """Ask the server to serve what ``current`` names; ask again, ever more rarely, while it does not do it."""
        event = "follow_failed"
        try:
            active = self._store.read(model).active is not None
            refused = self._load(self._store.root, model, active, LOAD_TIMEOUT_S)
        except DeviceError as exc:
            refused = exc.message
            if exc.code == "unreachable":  # it starts, or is down: no fault of the release
                event = "follow_later"
        if self._waiting.get(model) is not due:
            return  # the link moved again meanwhile
        if refused is None:
            del self._waiting[model]
            self._report("followed", model=model)
            return
        self._waiting[model] = Due(time.monotonic() + due.pause, min(due.pause * 2, RETRY_LAST_S))
        self._report(event, model=model, error=refused)

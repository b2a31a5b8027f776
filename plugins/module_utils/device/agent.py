# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a device does by itself, with no controller: revert what nobody confirmed in time, and clean up.

The supervisor calls `Agent.tick` about once a second. Store first, server second: the links are right before the server
is asked, so a server that is down or starting comes up with the right release anyway.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from . import local_api
from .clock import ClockReading, read_clock
from .errors import DeviceError
from .store import Store

GC_EVERY_S = 6 * 3600.0
LOAD_TIMEOUT_S = 900.0
RETRY_FIRST_S = 1.0
RETRY_LAST_S = 60.0

Report = Callable[..., None]


class Agent:
    """The device's own watch over its store. ``report(event, **fields)`` is called for everything it does."""

    def __init__(
        self,
        edge_root: str,
        report: Report,
        clock: Callable[[], ClockReading] = read_clock,
        load: Callable[..., Any] = local_api.load,
    ) -> None:
        self._root = edge_root
        self._store = Store(edge_root)
        self._report = report
        self._clock = clock
        self._load = load
        self._to_load: set[str] = set()
        self._retry_at = 0.0
        self._pause = RETRY_FIRST_S
        self._gc_at = 0.0

    def recover(self) -> None:
        """Finish what a crash or power cut interrupted. Never raises: the device has to come up."""
        try:
            for repair in self._store.recover():
                self._report("recovered", repair=repair)
        except (DeviceError, OSError) as exc:
            self._report("recover_failed", error=str(exc))

    def tick(self) -> None:
        """Revert what is past its deadline, have the server follow, collect garbage now and then. Never raises."""
        try:
            self._expire()
            self._collect()
        except (DeviceError, OSError) as exc:
            self._report("tick_failed", error=str(exc))
        self._follow()

    def _expire(self) -> None:
        for model, state in self._store.expire(self._clock()):
            self._report("expired", model=model, active=state.active.to_dict() if state.active else None)
            self._must_load(model)

    def _must_load(self, model: str) -> None:
        self._to_load.add(model)
        self._retry_at, self._pause = 0.0, RETRY_FIRST_S

    def revert_unconfirmed(self, reason: str) -> list[str]:
        """Go back from every unconfirmed release (the server crashes with it). Returns the models that moved."""
        moved = []
        for model in self._store.models():
            try:
                waiting = self._store.read(model).unconfirmed
                if waiting is None:
                    continue
                state, changed = self._store.revert(model, waiting.digest, reason)
            except (DeviceError, OSError) as exc:
                self._report("revert_failed", model=model, error=str(exc))
                continue
            if changed:
                moved.append(model)
                active = state.active.to_dict() if state.active else None
                self._report("reverted", model=model, reason=reason, left=waiting.version, active=active)
        return moved

    def _follow(self) -> None:
        """Ask the server to serve what ``current`` names; ask again, ever more rarely, while it does not answer."""
        now = time.monotonic()
        if not self._to_load or now < self._retry_at:
            return
        for model in sorted(self._to_load):
            try:
                active = self._store.read(model).active is not None
                refused = self._load(self._root, model, active, LOAD_TIMEOUT_S)
            except DeviceError as exc:
                refused = exc.message
            if refused is None:
                self._to_load.discard(model)
                self._report("followed", model=model)
            else:
                self._report("follow_failed", model=model, error=refused)
        self._retry_at = now + self._pause
        self._pause = min(self._pause * 2, RETRY_LAST_S)

    def _collect(self) -> None:
        now = time.monotonic()
        if now < self._gc_at:
            return
        self._gc_at = now + GC_EVERY_S
        collected = self._store.gc()
        if collected.releases or collected.blobs:
            self._report("collected", releases=list(collected.releases), blobs=collected.blobs, bytes=collected.bytes)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a device does by itself, with no controller: revert what nobody confirmed in time, and clean up.

`agentd` (under systemd) or `supervisor` (without) calls `Agent.tick` about once a second. Store first, server second:
the links are right before the server is asked, so one that is down or starting comes up with the right release anyway.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from . import local_api
from .clock import ClockReading, read_clock
from .errors import DeviceError
from .follower import Follower
from .state import State, Unconfirmed
from .store import Store

GC_EVERY_S = 6 * 3600.0
RESERVE_EVERY_S = 60.0
LOCK_TIMEOUT_S = 5.0

Report = Callable[..., None]


class Agent:
    """The device's own watch over its store. ``report(event, **fields)`` is called for everything it does."""

    def __init__(
        self,
        edge_root: str,
        report: Report,
        clock: Callable[[], ClockReading] = read_clock,
        load: Callable[..., Any] = local_api.load,
        ask: Callable[..., Any] = local_api.ask,
    ) -> None:
        self._store = Store(edge_root, lock_timeout=LOCK_TIMEOUT_S)
        self._report = report
        self._clock = clock
        self._follower = Follower(self._store, report, load, ask)
        self._gc_at = self._reserve_at = 0.0

    def recover(self) -> None:
        """Finish what a crash or power cut interrupted. Never raises: the device has to come up."""
        try:
            for repair in self._store.recover():
                self._report("recovered", repair=repair)
        except (DeviceError, OSError) as exc:
            self._report("recover_failed", error=str(exc))

    def tick(self) -> None:
        """Revert what is past its deadline, have the server follow, collect garbage now and then. Never raises.

        A model whose store cannot be changed now (busy, full, damaged) keeps no other model from its deadline.
        """
        try:
            due = self._store.due(self._clock())
        except (DeviceError, OSError) as exc:
            self._report("tick_failed", error=str(exc))
            due = []
        for model in due:
            self._try("tick_failed", model, lambda model=model: self._expire(model))  # type: ignore[misc]
        self._try("tick_failed", None, self._collect)
        self._follower.tick()

    def _try(self, event: str, model: str | None, work: Callable[[], None]) -> None:
        try:
            work()
        except (DeviceError, OSError) as exc:
            self._report(event, **({"model": model} if model else {}), error=str(exc))

    def _expire(self, model: str) -> None:
        state = self._store.expire_model(model, self._clock())
        if state is not None:
            self._report("expired", model=model, active=state.active.version if state.active else None)
            self._follower.want(model)

    def waiting(self) -> dict[str, Unconfirmed]:
        """The unconfirmed release of every model that has one."""
        states = ((model, self._store.read(model)) for model in self._store.models())
        return {model: state.unconfirmed for model, state in states if state.unconfirmed is not None}

    def revert_unconfirmed(self, reason: str) -> list[str]:
        """Go back from every unconfirmed release (the server crashes with it). Returns the models that moved."""
        moved = []
        for model, waiting in self.waiting().items():
            try:
                state, changed = self._store.revert(model, waiting.digest, reason)
            except (DeviceError, OSError) as exc:
                self._report("revert_failed", model=model, error=str(exc))
                continue
            if changed:
                moved.append(model)
                self._left(model, waiting, state, reason)
        return moved

    def _left(self, model: str, waiting: Unconfirmed, state: State, reason: str) -> None:
        active = state.active.version if state.active else None
        self._report("reverted", model=model, reason=reason, left=waiting.version, active=active)
        self._follower.want(model)

    def _collect(self) -> None:
        now = time.monotonic()
        if now >= self._reserve_at:
            self._reserve_at = now + RESERVE_EVERY_S
            self._store.ensure_ballast()
        if now < self._gc_at:
            return
        self._gc_at = now + GC_EVERY_S
        collected = self._store.gc()
        if collected.releases or collected.blobs:
            self._report("collected", releases=list(collected.releases), blobs=collected.blobs, bytes=collected.bytes)

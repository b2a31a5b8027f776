# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The sign of life that systemd's watchdog waits for: given only while the event loop and the workers really answer.

The loop answers because this runs on it. The workers answer when a job given to them comes back, or any other does.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor, Future
from typing import Any, Callable

from ..device import notify
from .log import Log

#: How often to look when no watchdog asks for more, seconds: for the status text and for renewed certificates.
EVERY_S = 5.0
#: Workers may be busy with slow models for so many watchdog intervals without finishing anything.
HUNG_INTERVALS = 2.0


class Pulse:
    """Whether a pool of threads still finishes work. Used on one thread (the event loop's)."""

    def __init__(self, pool: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._progress = clock()
        self._ping: Future[int] | None = None

    def progress(self) -> None:
        """Some job came back."""
        self._progress = self._clock()

    def silent_for(self) -> float:
        """Return since when no job came back, seconds; gives the pool one to answer with. At most one waits."""
        if self._ping is None or self._ping.done():
            self.progress()
            try:
                self._ping = self._pool.submit(int)
            except RuntimeError:  # it is being shut down
                self._ping = None
        return self._clock() - self._progress


class Heartbeat:
    """Tells the service manager that this server lives and what it does."""

    def __init__(self, pulse: Pulse, status: Callable[[], str], log: Log) -> None:
        self._pulse = pulse
        self._status = status
        self._log = log
        self._interval = notify.watchdog_interval()
        self._told = ""
        self._held = False

    @property
    def period(self) -> float:
        """Seconds between two beats: four in a watchdog interval."""
        return min(EVERY_S, self._interval / 4) if self._interval else EVERY_S

    def beat(self) -> bool:
        """Give one sign of life, unless the workers hang. Returns whether it was given."""
        silent = self._pulse.silent_for()
        limit = HUNG_INTERVALS * self._interval if self._interval else float("inf")
        alive = silent < limit
        if not alive and not self._held:
            self._log.event("error", "workers_hang", seconds=round(silent, 1), limit_seconds=limit)
        self._held = not alive
        status = self._status() if alive else f"hangs: no worker finished anything for {silent:.0f} s"
        fields: dict[str, Any] = {"status": status} if status != self._told else {}
        self._told = status
        if alive and self._interval:
            notify.notify(watchdog=1, **fields)
        elif fields:
            notify.notify(**fields)
        return alive

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(self.period)

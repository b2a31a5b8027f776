# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A process that sleeps until something happens: a signal, a descriptor that becomes readable, or a time."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import Any


class Wakeup:
    """Turns TERM and INT into ``stopping`` and every signal into the end of a sleep. For the main thread, once."""

    def __init__(self) -> None:
        self.stopping = False
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_stop(self, *_: Any) -> None:
        self.stopping = True

    def sleep(self, seconds: float, descriptor: int | None = None) -> None:
        """Wait for a signal, for ``descriptor`` to become readable, or for ``seconds``."""
        waiting = select.poll()
        waiting.register(self._read, select.POLLIN)
        if descriptor is not None:
            waiting.register(descriptor, select.POLLIN)
        waiting.poll(max(0.0, seconds) * 1000.0)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 512):
                pass

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Structured log lines on stdout: one JSON object each, bounded in length and in rate.

When stdout is systemd's journal, each line carries its priority, which the journal takes off again.

The supervisor keeps the file they end in below a size, looking now and then; the bound on the rate is what makes that
enough.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, Callable, TextIO

MAX_LINE = 2000
RATE = 50.0
BURST = 400.0
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


class Log:
    """Write JSON lines to ``stream``. At most RATE lines a second on average; what is left out is counted and said."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._clock = clock
        self._tokens = BURST
        self._last = clock()
        self._suppressed = 0
        self.to_journal = is_journal(self._stream)

    def event(self, level: str, event: str, **fields: Any) -> None:
        """Write one line. A stream that cannot be written to (full disk, closed pipe) must never stop the server."""
        now = self._clock()
        self._tokens = min(BURST, self._tokens + (now - self._last) * RATE)
        self._last = now
        if self._tokens < 1.0:
            self._suppressed += 1
            return
        self._tokens -= 1.0
        if self._suppressed:
            fields["suppressed_before"] = self._suppressed
            self._suppressed = 0
        head = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": level, "event": event}
        try:
            prefix = f"<{_PRIORITIES.get(level, 6)}>" if self.to_journal else ""
            self._stream.write(prefix + _line(head, fields) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass


def is_journal(stream: TextIO) -> bool:
    """Say whether a stream is the journal's: systemd names its device and inode in JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _line(head: dict[str, Any], fields: dict[str, Any]) -> str:
    """Return the JSON text, shortening the longest texts until it fits into MAX_LINE characters."""
    text = json.dumps(dict(head, **fields), default=str)
    limit = MAX_LINE
    while len(text) > MAX_LINE and limit > 50:
        limit //= 2
        text = json.dumps(dict(head, **{k: str(v)[:limit] for k, v in fields.items()}))
    return text[:MAX_LINE]


class Handler(logging.Handler):
    """Sends what libraries log through the standard module into a Log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as a line."""
        error = repr(record.exc_info[1]) if record.exc_info else None
        self._log.event(
            record.levelname.lower(), "library", logger=record.name, message=record.getMessage(), error=error
        )

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Log files that stay below a size. No standard library logging: it is half of the supervisor's memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from typing import Any

from . import fsutil

MAX_BYTES = 4 << 20
KEEP = 2


def rotate(path: str, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> bool:
    """When ``path`` is larger than ``max_bytes``, copy it to ``path.1`` (older ones move up) and empty it.

    Copy and truncate: the processes that append to it have it open and need not be told. Returns whether it rotated.
    """
    try:
        if os.path.getsize(path) <= max_bytes:
            return False
        for number in range(keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}.{number}", f"{path}.{number + 1}")
        with contextlib.suppress(OSError):  # a full disk: losing old lines is better than filling it further
            shutil.copyfile(path, path + ".1")
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def open_append(path: str) -> int:
    """Return a descriptor that appends to ``path``, mode 0640 (created with its directory when missing)."""
    fsutil.make_dirs(os.path.dirname(path), 0o750)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


class JsonLog:
    """Appends one JSON object per event to a file. A log that cannot be written never stops anything."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, event: str, **fields: Any) -> None:
        """Write one line."""
        line = json.dumps(dict({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event}, **fields))
        with contextlib.suppress(OSError):
            fd = open_append(self.path)
            try:
                fsutil.write_all(fd, line[:4000].encode() + b"\n")
            finally:
                os.close(fd)
        rotate(self.path)


_QUOTED = set(' "=\n\r\t')
_CRITICAL, _ERROR, _WARNING, _INFO = 2, 3, 4, 6
_PRIORITIES = {
    "nothing_whole": _CRITICAL,
    "expired": _WARNING,
    "reverted": _WARNING,
    "fell_back": _ERROR,
    "differs": _WARNING,
    "recovered": _WARNING,
    "server_crashed": _WARNING,
    "server_started_again": _WARNING,
    "not_checked": _WARNING,
}


def journal_line(event: str, fields: dict[str, Any]) -> str:
    """One line for systemd's journal: the priority, then ``event name=value``, which a person reads, too. Pure."""
    priority = _PRIORITIES.get(event, _ERROR if event.endswith("_failed") else _INFO)
    parts = [event]
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        parts.append(f"{name}={text if text and not set(text) & _QUOTED else json.dumps(text)}")
    return f"<{priority}>{' '.join(parts)}"[:4000]


class JournalLog:
    """Writes one line per event to stderr, which the unit connects to the journal. Same call as `JsonLog`."""

    def __call__(self, event: str, **fields: Any) -> None:
        """Write one line; a journal that does not take it never stops anything."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(journal_line(event, fields) + "\n")
            sys.stderr.flush()


def in_journal(descriptor: int = 2) -> bool:
    """Say whether stderr goes to systemd's journal."""
    try:
        info = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"

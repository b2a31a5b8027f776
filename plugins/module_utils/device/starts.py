# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How often the model server crashed since the machine booted, kept by the server itself in the file that it locks.

systemd counts restarts; a kubelet tells its own only to its cluster. A start that finds the one before it not ended has
followed a crash, whoever started it, and a device that is cut off from its cluster knows that too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from .errors import DeviceError

_MAX_BYTES = 4096
_INNOCENT = "busy"
"""The code of an end that no release is blamed for: another server has the address."""


@dataclass(frozen=True)
class Starts:
    """``starts`` and ``crashes`` of this boot; ``open``: the last start has not ended, or ended without a word."""

    boot_id: str = ""
    starts: int = 0
    crashes: int = 0
    open: bool = False


def read_starts(note: Mapping[str, Any]) -> Starts | None:
    """What the locked file says, None when it says nothing that can be used. Pure."""
    boot, starts, crashes, opened = (note.get(name) for name in ("boot_id", "starts", "crashes", "open"))
    counts = all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in (starts, crashes))
    if not counts or not isinstance(boot, str) or not isinstance(opened, bool):
        return None
    return Starts(boot, int(starts or 0), int(crashes or 0), opened)


def begun(before: Starts | None, boot_id: str) -> Starts:
    """The record of a start. What was open in an earlier boot ended with it, which is nobody's fault. Pure."""
    if before is None or before.boot_id != boot_id:
        return Starts(boot_id, 1, 0, True)
    return Starts(boot_id, before.starts + 1, before.crashes + before.open, True)


def as_unit(starts: Starts, running: bool) -> dict[str, str]:
    """The same in the words of ``systemctl show``, for `crashwatch.judge`. Pure."""
    crashed = starts.open and not running
    return {
        "NRestarts": str(starts.crashes),
        "ActiveState": "active" if running else "activating" if crashed else "inactive",
        "SubState": "running" if running else "auto-restart" if crashed else "dead",
        "Result": "crash" if crashed or starts.crashes else "success",
        "ExecMainStatus": "",
    }


@contextmanager
def counted(lock: int, boot_id: str) -> Iterator[None]:
    """Count one run of a server in the locked file ``lock`` (a descriptor, closed at the end)."""
    try:
        now = begun(_load(lock), boot_id)
        _save(lock, now)
        try:
            yield
        except DeviceError as exc:
            if exc.code == _INNOCENT:
                _save(lock, replace(now, open=False))
            raise
        _save(lock, replace(now, open=False))
    finally:
        os.close(lock)


def _load(lock: int) -> Starts | None:
    try:
        body = json.loads(os.pread(lock, _MAX_BYTES, 0) or b"{}")
    except (OSError, ValueError):
        return None
    return read_starts(body) if isinstance(body, dict) else None


def _save(lock: int, starts: Starts) -> None:
    data = json.dumps(asdict(starts), sort_keys=True).encode() + b"\n"
    try:
        os.pwrite(lock, data, 0)
        os.ftruncate(lock, len(data))
    except OSError:  # a full disk must not keep models from being served; without a count the deadline is left
        return

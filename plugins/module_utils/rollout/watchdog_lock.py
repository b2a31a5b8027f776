# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The file that shows that a watchdog lives: locked by it from arming to its end, and no moment longer.

The kernel drops the lock with the process, so neither a stale file nor a reused process id can pass for a watchdog.
Looking costs one open and one lock attempt, whatever the size of the ledger.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from typing import Any

from .errors import RolloutError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def lock_path(directory: str, model: str) -> str:
    """One lock per ledger and model: two models may be rolled out at once, one model may not be twice."""
    if not _NAME.match(model):
        raise RolloutError(f"model is {model!r}: it must be a plain name")
    return os.path.join(directory, f"watchdog-{model}.lock")


def take(directory: str, model: str, rollout: str, patience: float = 2.0) -> int:
    """Lock as the watchdog of ``rollout`` and return the descriptor; `RolloutError` when another one lives.

    ``patience``: seconds to go on trying, because somebody who only looks holds a shared lock for an instant.
    """
    path = lock_path(directory, model)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                holder = _read(descriptor)
                os.close(descriptor)
                raise RolloutError(
                    f"{path}: the watchdog (process {holder.get('pid')}) of rollout {holder.get('rollout')} is still "
                    "at work: another run is going on, or one that ended early is being rolled back; wait for its end"
                ) from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "rollout": rollout}).encode(), 0)
    return descriptor


def living(directory: str, model: str) -> dict[str, Any] | None:
    """What the living watchdog of this model wrote (pid, rollout), None when there is none."""
    try:
        descriptor = os.open(lock_path(directory, model), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RolloutError(f"{lock_path(directory, model)} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)
    return None


def require_watchdog(directory: str, model: str, rollout: str) -> None:
    """`RolloutError` unless a watchdog of exactly this rollout lives."""
    holder = living(directory, model)
    if holder is not None and holder.get("rollout") == rollout:
        return
    found = "there is none" if holder is None else f"the one that lives is of rollout {holder.get('rollout')}"
    raise RolloutError(
        f"no watchdog stands behind rollout {rollout} ({found}), so nothing is activated: enable the callback with "
        "callbacks_enabled = edgeai.fleet.rollout in ansible.cfg, or give watchdog=false and rely on the devices' own "
        "deadlines"
    )


def _read(descriptor: int) -> dict[str, Any]:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}

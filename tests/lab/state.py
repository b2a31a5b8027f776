# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""What the lab remembers between two commands: one JSON file under a lock, replaced by rename."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import LabError


def process_start(pid: int) -> str | None:
    """When the process started, in the kernel's ticks since boot: with the pid, its identity. None: no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a whole file by rename, so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
    os.chmod(temporary, mode)
    os.replace(temporary, path)


@contextlib.contextmanager
def held(path: Path, seconds: float) -> Iterator[None]:
    """Hold a lock file, which is gone afterwards; LabError when another process holds it for ``seconds``."""
    deadline = time.monotonic() + seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = open(path, "w")  # noqa: SIM115 (it is the lock)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(path, handle.fileno()):
                break
        except BlockingIOError:
            pass
        handle.close()
        if time.monotonic() > deadline:
            raise LabError(f"{path}: another session has used the lab for {seconds:g} s")
        time.sleep(0.5)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()


def _same(path: Path, descriptor: int) -> bool:
    """Whether a path still names the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class State:
    """build/lab/state.json."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "state.json"

    def load(self) -> dict[str, Any]:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise LabError(
                f"{self.path} is damaged ({error}): remove the lab's processes and {self.home} by hand"
            ) from error

    def get(self, key: str, default: Any = None) -> Any:
        return self.load().get(key, default)

    def put(self, key: str, value: Any) -> None:
        """Set a key; None removes it."""
        with self._locked("state.lock"):
            data = self.load()
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value
            if data or self.path.exists():
                write_atomic(self.path, json.dumps(data, indent=1, sort_keys=True) + "\n")

    def device(self, name: str) -> dict[str, Any]:
        return self.get("devices", {}).get(name, {})

    def put_device(self, name: str, record: dict[str, Any] | None) -> None:
        with self._locked("state.lock"):
            data = self.load()
            devices = data.setdefault("devices", {})
            if record is None:
                devices.pop(name, None)
            else:
                devices[name] = record
            write_atomic(self.path, json.dumps(data, indent=1, sort_keys=True) + "\n")

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.home / name, "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """One "up" or "down" of this lab at a time; the second waits for the first."""
        with self._locked("lab.lock"):
            yield

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""One process that can be watched: a child of this one, or one that an earlier supervisor started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence


def command_line(pid: int) -> list[str]:
    """Return a process's arguments, [] when there is no such process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as handle:
            return [os.fsdecode(part) for part in handle.read().split(b"\0")[:-1]]
    except OSError:
        return []


def _is_zombie(pid: int) -> bool:
    """Say whether the process has ended and was not reaped. (An empty command line is no sign: exec has one, too.)"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            # the state follows the name, which is in parentheses and may hold anything
            return stream.read().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return True


class Watched:
    """A running process. ``fd`` becomes readable when it ends (None on kernels before 5.3: ask `ended` instead)."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.started = time.monotonic()
        self._child = child
        self.fd: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self.fd = os.pidfd_open(pid)

    @classmethod
    def spawn(cls, command: Sequence[str], environment: dict[str, str], output: int) -> Watched:
        """Start ``command`` with stdout and stderr into descriptor ``output``. Raises OSError."""
        child = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, close_fds=True
        )
        return cls(child.pid, child)

    @property
    def adopted(self) -> bool:
        """Whether an earlier supervisor started it."""
        return self._child is None

    def ended(self) -> bool:
        """Say whether the process is gone; reaps it when it is a child."""
        if self._child is not None:
            return self._child.poll() is not None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return True  # the number belongs to somebody else's process now
        return _is_zombie(self.pid)

    @property
    def status(self) -> int | None:
        """Its exit status (negative: the signal), None when it is not known."""
        return self._child.returncode if self._child is not None else None

    def send(self, number: int) -> None:
        """Send a signal; a process that is gone already is fine."""
        if not self.ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, grace: float) -> bool:
        """TERM, then KILL after ``grace`` seconds. Returns whether TERM was enough."""
        self.send(signal.SIGTERM)
        if self.wait(grace):
            return True
        self.send(signal.SIGKILL)
        self.wait(5.0)
        return False

    def wait(self, seconds: float) -> bool:
        """Wait for the end; returns whether it came."""
        end = time.monotonic() + seconds
        while not self.ended():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(0.02, left))
        return True

    def close(self) -> None:
        """Let go of the descriptor."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

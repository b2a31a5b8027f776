"""Kill an operation at its n-th file system call, for every n: what a power cut does, without cutting power.

for at in kill_points(run): ...   # run() is executed in a forked child that dies at call number ``at``
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

CALLS = (
    "open", "write", "pwrite", "fsync", "fdatasync", "rename", "replace", "symlink", "link", "unlink", "mkdir", "rmdir",
    "ftruncate", "fchmod", "chmod", "truncate",
)  # fmt: skip
KILLED = 99
FAILED = 98


def _dying(name: str, real: Callable[..., Any], counter: list[int], at: int, torn: bool) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        counter[0] += not torn or name in ("write", "pwrite")
        if counter[0] == at:
            if torn:
                data = bytes(args[1])
                real(args[0], data[: len(data) // 2], *args[2:])
            os._exit(KILLED)
        if name in ("fsync", "fdatasync"):
            return None  # the kernel survives in this test: what was written is there, synced or not
        return real(*args, **kwargs)

    return call


def run_killed(operation: Callable[[], Any], at: int, torn: bool = False) -> bool:
    """Fork, run ``operation``, die at file system call ``at`` (``torn``: half way through write ``at``).

    Returns whether the child was killed; False: the operation was over before. AssertionError when it failed.
    """
    pid = os.fork()
    if pid == 0:
        try:
            counter = [0]
            for name in CALLS:
                setattr(os, name, _dying(name, getattr(os, name), counter, at, torn))
            operation()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"the operation itself failed: {error!r}\n".encode())
            os._exit(FAILED)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, KILLED), f"the child ended with {status} at call {at}"
    return status == KILLED


class Trace:
    """Records the order of file system calls, to check that nothing is named before it is durable."""

    def __init__(self, monkeypatch: Any) -> None:
        self.events: list[tuple[str, str]] = []
        for name in ("write", "pwrite", "fsync", "fdatasync", "rename"):
            monkeypatch.setattr(os, name, self._recording(name, getattr(os, name)))

    def _recording(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "rename":
                self.events.append(("rename", f"{args[0]} -> {args[1]}"))
            else:
                self.events.append((name, os.readlink(f"/proc/self/fd/{args[0]}")))
            return real(*args, **kwargs)

        return call

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Go to the background so that the process survives whoever started it: a terminal, an Ansible task, an ssh session."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Callable

from .errors import CODES, DeviceError

_TIMEOUT_TEXT = "the process in the background ended before it was in charge"


def _read_all(fd: int) -> bytes:
    parts: list[bytes] = []
    while True:
        part = os.read(fd, 4096)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _isolate(output: int, keep: int) -> None:
    """Leave the session's files behind: no stdin, stdout and stderr into ``output``, nothing else inherited."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    limit = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, limit if 0 < limit < 1 << 20 else 1 << 16)
    os.umask(0o022)
    os.chdir("/")


def detach(output: int, prepare: Callable[[], None], run: Callable[[Callable[[], None]], int]) -> int:
    """Run ``prepare`` then ``run(ready)`` in a process of its own session; return 0 here once it called ``ready``.

    ``output`` is the descriptor its stdout and stderr go to. An error of ``prepare`` is raised here, as DeviceError.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first == 0:
        _child(output, writer, prepare, run)  # does not return
    os.close(writer)
    os.close(output)
    os.waitpid(first, 0)
    said = _read_all(reader).decode("utf-8", "replace")
    os.close(reader)
    if said == "ready":
        return 0
    code, _space, message = said.partition(" ")
    raise DeviceError(code if code in CODES else "server", message if code in CODES else said or _TIMEOUT_TEXT)


def _child(output: int, writer: int, prepare: Callable[[], None], run: Callable[[Callable[[], None]], int]) -> None:
    """The forked side: a session of its own, a second fork (so that no terminal can be acquired), then the work."""
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _isolate(output, writer)

        def ready() -> None:
            os.write(writer, b"ready")
            os.close(writer)

        try:
            prepare()
        except DeviceError as exc:
            os.write(writer, (f"{exc.code} {exc.message}").encode())
        else:
            status = run(ready)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)

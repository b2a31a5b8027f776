# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""File operations that survive a power cut: new content is whole or absent, and durable when it is named."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import DeviceError

TEMP_PREFIX = ".tmp-"


def fsync_dir(path: str) -> None:
    """Make the names in the directory ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(path: str, mode: int = 0o755) -> None:
    """Create ``path`` and its missing parents, each name durable before the next is used."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_dirs(parent, mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    os.chmod(path, mode)  # the umask must not decide: the model server is another user
    fsync_dir(parent)


def temp_name(path: str) -> str:
    """A fresh temporary name in the directory of ``path``; leftovers are recognised by `TEMP_PREFIX`."""
    parent, name = os.path.split(path)
    return os.path.join(parent, f"{TEMP_PREFIX}{name}-{os.getpid()}-{os.urandom(4).hex()}")


def write_all(fd: int, data: bytes) -> None:
    """Write every byte of ``data``; os.write may write fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomic(path: str, data: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``: temporary file in the same directory, fsync, rename, fsync of the directory."""
    temp = temp_name(path)
    try:
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            write_all(fd, data)
            os.fchmod(fd, mode)  # the umask must not decide
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temp, path)
    except OSError:
        unlink_quietly(temp)
        raise
    fsync_dir(os.path.dirname(path))


def link_atomic(target: str, path: str) -> None:
    """Make ``path`` a symbolic link to ``target``, replacing what was there by one rename; durable on return."""
    temp = temp_name(path)
    try:
        os.symlink(target, temp)
        os.rename(temp, path)
    except OSError:
        unlink_quietly(temp)
        raise
    fsync_dir(os.path.dirname(path))


def remove(path: str) -> None:
    """Remove the file or link ``path`` durably; absent is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    fsync_dir(os.path.dirname(path))


def unlink_quietly(path: str) -> None:
    """Remove a file that nobody depends on; failure is harmless."""
    with suppress(OSError):
        os.unlink(path)


def remove_tree(path: str) -> None:
    """Remove a directory that other processes may look at: out of sight by one rename first, then deleted."""
    if not os.path.lexists(path):
        return
    parent, name = os.path.split(path)
    doomed = path if name.startswith(TEMP_PREFIX) else temp_name(path)
    if doomed != path:
        os.rename(path, doomed)
        fsync_dir(parent)
    shutil.rmtree(doomed, ignore_errors=True)


def read_bounded(path: str, limit: int) -> bytes:
    """The content of ``path``. Raises DeviceError(damaged) when it is longer than ``limit`` bytes."""
    with open(path, "rb") as handle:
        data = handle.read(limit + 1)
    if len(data) > limit:
        raise DeviceError("damaged", f"{path}: longer than {limit} bytes")
    return data


def no_space(exc: OSError) -> bool:
    """Whether an error means that the disk, or the quota on it, is full."""
    return exc.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def flocked(path: str, shared: bool = False, timeout: float | None = 0.0, purpose: str = "") -> Iterator[None]:
    """Hold an advisory lock on ``path`` (created when missing); the kernel releases it when the process dies.

    ``timeout`` seconds bound the wait (0: one try). Raises DeviceError(busy) when it is over.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        wait_flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout or 0.0, path, purpose)
        yield
    finally:
        os.close(fd)


def wait_flock(fd: int, kind: int, timeout: float, path: str, purpose: str = "") -> None:
    """flock ``fd`` within ``timeout`` seconds or raise DeviceError(busy). Polls, because flock has no timeout."""
    end = time.monotonic() + timeout
    pause = 0.005
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return
        except (BlockingIOError, InterruptedError):
            left = end - time.monotonic()
            if left <= 0:
                raise DeviceError(
                    "busy",
                    "{}: another process holds this lock{}; waited {:.1f} s. Try again when it has finished".format(
                        path, f" ({purpose})" if purpose else "", timeout
                    ),
                ) from None
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.1)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""SHA-256 over files and releases, always streaming: memory does not grow with the file."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import BinaryIO, Union

from .errors import ReleaseError

CHUNK = 1024 * 1024
"""Bytes read at once. 1 MiB: hashlib releases the GIL and the cost of a system call is lost in the hashing."""

PathLike = Union[str, "os.PathLike[str]"]


def open_regular(path: PathLike, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading, refusing symlinks (unless ``follow``), devices, pipes and directories.

    What is checked is the opened descriptor, so nothing can be swapped between the check and the read.
    Raises ReleaseError.
    """
    # O_NONBLOCK: opening a FIFO must not hang; it has no effect on the reads of a regular file.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if not follow and os.path.islink(path):
            raise ReleaseError(f"{os.fspath(path)}: is a symbolic link; put the file itself there") from error
        raise ReleaseError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ReleaseError(f"{os.fspath(path)}: is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def hash_stream(source: BinaryIO, sink: BinaryIO | None = None, limit: int | None = None) -> tuple[int, str]:
    """Read ``source`` to its end (or one chunk past ``limit``) and return (bytes read, hex SHA-256).

    :param sink: when given, receives every byte read
    :param limit: stop as soon as more than this many bytes were read: the caller sees a size that cannot match
    """
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    total = 0
    while True:
        count = source.readinto(buffer)  # type: ignore[attr-defined]
        if not count:
            return total, digest.hexdigest()
        digest.update(view[:count])
        if sink is not None:
            sink.write(view[:count])
        total += count
        if limit is not None and total > limit:
            return total, digest.hexdigest()


def sha256_file(path: PathLike, follow: bool = False) -> str:
    """Return the bare hex SHA-256 of a regular file. Raises ReleaseError when it is missing, a link, or unreadable."""
    with open_regular(path, follow=follow) as source:
        try:
            return hash_stream(source)[1]
        except OSError as error:
            raise ReleaseError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error


def read_limited(path: PathLike, limit: int, follow: bool = False) -> bytes:
    """Return a regular file's bytes, never reading more than ``limit`` + 1 of them. Raises ReleaseError."""
    with open_regular(path, follow=follow) as source:
        chunks = []
        left = limit + 1
        while left > 0:
            try:
                chunk = source.read(left)
            except OSError as error:
                raise ReleaseError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
            if not chunk:
                break
            chunks.append(chunk)
            left -= len(chunk)
    if left <= 0:
        raise ReleaseError(f"{os.fspath(path)}: is larger than the {limit} bytes allowed")
    return b"".join(chunks)


def copy_hashed(src: PathLike, dst: PathLike) -> tuple[int, str]:
    """Copy ``src`` to the new file ``dst``, fsync it, and return (size, bare hex SHA-256) of what was read.

    ``dst`` must not exist (created exclusively, mode 0600 before umask). It is removed when the copy fails.
    Raises ReleaseError.
    """
    with open_regular(src) as source:
        try:
            descriptor = os.open(dst, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ReleaseError(f"{os.fspath(dst)}: cannot be created ({error.strerror})") from error
        try:
            # Buffered on purpose: a raw write may be short on a full disk, a buffered one raises.
            with os.fdopen(descriptor, "wb") as sink:
                result = hash_stream(source, sink)
                sink.flush()
                os.fsync(sink.fileno())
            return result
        except BaseException as error:
            os.unlink(dst)
            if isinstance(error, OSError):
                raise ReleaseError(f"{os.fspath(dst)}: cannot be written ({error.strerror})") from error
            raise


def release_digest(raw: bytes) -> str:
    """Return the release digest of the bytes of ``release.json``: ``sha256:`` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()

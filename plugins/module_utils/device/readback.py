# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The digest of a file as the disk gives it back, computed while the file is still being written.

Three threads follow the writer: one flushes what was written so far (fdatasync), one reads it back past the page cache
(O_DIRECT; where a file system has none, after posix_fadvise DONTNEED), one hashes what came back. So there is one hash
pass, most of it hidden behind the download, it is over what the medium returned and not over what the
network delivered, and it ends after the last byte reached the disk. A drive may answer from a cache of its own; that is
beyond a file system's reach.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import queue
import threading
from contextlib import suppress

from .errors import DeviceError

CHUNK = 1024 * 1024
WINDOW = 16 * CHUNK
BLOCK = 4 * CHUNK
_ALIGNED = 4096
_BUFFERS = 3


class _Disk:
    """Reads a file past the page cache. ``fd`` is the open file; it stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._direct = -1
        # Through /proc, because the file may be renamed meanwhile; a file system without O_DIRECT refuses.
        with suppress(AttributeError, OSError):
            self._direct = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)

    def close(self) -> None:
        """Release the second descriptor."""
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1

    def read(self, buffer: memoryview, offset: int, length: int) -> int:
        """Read up to ``length`` bytes into the page-aligned ``buffer``; how many came."""
        if self._direct >= 0 and offset % _ALIGNED == 0:
            with suppress(OSError):  # not here, or not with this alignment
                whole = -(-length // _ALIGNED) * _ALIGNED
                return min(length, os.preadv(self._direct, [buffer[:whole]], offset))
            self.close()
        with suppress(AttributeError, OSError):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)
        return os.preadv(self._fd, [buffer[:length]], offset)


class ReadBack:
    """Hashes the file ``fd`` from byte 0. Tell it by `advance` how much is there, and ask `finish` for the digest.

    Threads are started when a window of bytes is waiting; a small file is done by `finish` alone.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hash = hashlib.sha256()
        self._changed = threading.Condition()
        self._written = self._flushed = 0
        self._closed = self._aborted = self._flushed_all = False
        self._error: BaseException | None = None
        self._empty: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def advance(self, written: int) -> None:
        """``written`` bytes are in the file. Raises what went wrong in the background."""
        if self._error is not None:
            raise self._error
        self._written = written
        if self._threads:
            with self._changed:
                self._changed.notify_all()
        elif written >= WINDOW:
            self._start()

    def _start(self) -> None:
        for _number in range(_BUFFERS):
            self._empty.put(memoryview(mmap.mmap(-1, BLOCK)))
        works = (self._flush_all, self._read_all, self._hash_all)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def finish(self, written: int) -> str:
        """All ``written`` bytes are in the file: the bare hex digest of what the disk gives back."""
        self._written = written
        if not self._threads:
            self._small(written)
        self._end()
        if self._error is not None:
            raise self._error
        return self._hash.hexdigest()

    def abort(self) -> None:
        """Stop; nobody wants the digest."""
        self._aborted = True
        self._empty.put(None)
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _small(self, written: int) -> None:
        """The whole file in this thread."""
        os.fdatasync(self._fd)
        disk, buffer, done = _Disk(self._fd), memoryview(mmap.mmap(-1, BLOCK)), 0
        try:
            while done < written:
                count = self._read_some(disk, buffer, done, written)
                self._hash.update(buffer[:count])
                done += count
        finally:
            disk.close()

    @staticmethod
    def _read_some(disk: _Disk, buffer: memoryview, offset: int, end: int) -> int:
        count = disk.read(buffer, offset, min(BLOCK, end - offset))
        if not count:
            raise DeviceError("damaged", "the disk gave back fewer bytes than were written to it")
        return count

    def _flush_all(self) -> None:
        """First thread: wait for a window, flush it."""
        try:
            while not self._aborted:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._written - self._flushed >= WINDOW)
                    last, end = self._closed, self._written
                if self._aborted:
                    return
                os.fdatasync(self._fd)
                with self._changed:
                    # A block that is still being filled comes with the next window: direct reads are of whole blocks.
                    self._flushed = end if last else end - end % _ALIGNED
                    self._flushed_all = last
                    self._changed.notify_all()
                if last:
                    return
        except BaseException as exc:
            self._fail(exc)

    def _fail(self, error: BaseException) -> None:
        """Keep it for the writer, and let nobody wait for more."""
        with self._changed:
            self._error, self._aborted = error, True
            self._changed.notify_all()
        self._empty.put(None)

    def _read_all(self) -> None:
        """Second thread: read what was flushed, hand it over."""
        disk, done = _Disk(self._fd), 0
        try:
            while True:
                with self._changed:
                    while not (self._aborted or self._flushed_all or self._flushed > done):
                        self._changed.wait()
                    last, end = self._flushed_all, self._flushed
                while done < end:
                    buffer = self._empty.get()
                    if buffer is None or self._aborted:
                        return
                    count = self._read_some(disk, buffer, done, end)
                    done += count
                    self._full.put((buffer, count))
                if last or self._aborted:
                    return
        except BaseException as exc:
            self._fail(exc)
        finally:
            disk.close()
            self._full.put(None)

    def _hash_all(self) -> None:
        """Third thread: hash what was handed over."""
        while True:
            item = self._full.get()
            if item is None:
                return
            buffer, count = item
            self._hash.update(buffer[:count])
            self._empty.put(buffer)


def hash_from_disk(path: str) -> str:
    """The bare hex digest of an existing file, read from the disk. Raises OSError, DeviceError(damaged)."""
    digest, buffer, offset = hashlib.sha256(), memoryview(mmap.mmap(-1, BLOCK)), 0
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    disk = _Disk(fd)
    try:
        size = os.fstat(fd).st_size
        while offset < size:
            count = disk.read(buffer, offset, min(BLOCK, size - offset))
            if not count:
                return digest.hexdigest()
            digest.update(buffer[:count])
            offset += count
        return digest.hexdigest()
    finally:
        disk.close()
        os.close(fd)

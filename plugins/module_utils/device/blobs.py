# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The device's content-addressed blobs: written once, verified from the disk, named by their sha256, never changed.

A blob gets its name only when the disk has given back what the manifest lists (see ``readback``).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import fsutil
from .errors import DeviceError
from .readback import ReadBack, hash_from_disk

if TYPE_CHECKING:
    from ..release.manifest import FileEntry

BLOB_MODE = 0o444
SINK_WAIT = 5.0


class BlobSink:
    """Where a transfer writes one blob. ``offset`` is how much of it is already here; `restart` throws that away.

    Use as a context manager: leaving it normally without `commit`, or by an error, keeps the partial file for a later
    resume, except when the disk is full.
    """

    def __init__(self, blobs: Blobs, sha256: str, size: int, path: str) -> None:
        self._blobs, self.sha256, self.size, self.path = blobs, sha256, size, path
        self.part = os.path.join(blobs.partial_dir, sha256 + ".part")
        self.note_path = os.path.join(blobs.partial_dir, sha256 + ".note")
        self._fd = -1
        self._readback = ReadBack(-1)
        self.offset = 0

    def __enter__(self) -> BlobSink:
        self._fd = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fsutil.wait_flock(self._fd, fsutil.fcntl.LOCK_EX, SINK_WAIT, self.part, "the same blob is being fetched")
            self.offset = os.fstat(self._fd).st_size
            self._readback = ReadBack(self._fd)
            if self.offset > self.size:
                self.restart()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._readback.abort()
        os.close(self._fd)
        if not isinstance(value, OSError):
            return
        if fsutil.no_space(value):
            self.discard()
            raise DeviceError(
                "no_space",
                f"{self._blobs.root}: the disk is full, writing {self.path} ({self.offset} of {self.size} bytes). "
                "The partial file has been removed and what was active stays active. Free space there and run again",
            ) from value
        raise DeviceError("damaged", f"{self.part}: {value}; check the disk") from value

    def restart(self) -> None:
        """Forget what was here: the source cannot continue it."""
        self._readback.abort()
        os.ftruncate(self._fd, 0)
        self.offset = 0
        self._readback = ReadBack(self._fd)

    def adopt(self, path: str) -> bool:
        """Take the file ``path`` over by a rename instead of copying it. False when others could still write to it."""
        info = os.lstat(path)
        private = stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and info.st_nlink == 1
        if not private or info.st_size != self.size or info.st_dev != os.fstat(self._fd).st_dev:
            return False
        self._readback.abort()
        os.rename(path, self.part)
        fd = os.open(self.part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.fchmod(fd, 0o600)
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        fsutil.wait_flock(self._fd, fsutil.fcntl.LOCK_EX, SINK_WAIT, self.part)
        self.offset = os.fstat(self._fd).st_size
        self._readback = ReadBack(self._fd)
        return True

    def write(self, chunk: bytes | memoryview) -> None:
        """Append bytes. Raises DeviceError(digest_mismatch) as soon as the source sends more than the manifest says."""
        if self.offset + len(chunk) > self.size:
            raise DeviceError(
                "digest_mismatch",
                f"{self.path}: the source sent more than the {self.size} bytes that release.json lists; refused",
            )
        view = memoryview(chunk)
        while view:
            done = os.pwrite(self._fd, view, self.offset)
            view = view[done:]
            self.offset += done
        self._readback.advance(self.offset)

    def commit(self) -> None:
        """Verify what is on the disk and give it its name; otherwise drop it and raise DeviceError(digest_mismatch)."""
        found = self._readback.finish(self.offset)
        if self.offset != self.size or found != self.sha256:
            self.discard()
            raise DeviceError(
                "digest_mismatch",
                f"{self.path}: got {self.offset} bytes with sha256 {found}, release.json lists {self.size} with "
                f"{self.sha256}; thrown away. The source holds another file of this name, or it was damaged",
            )
        os.fchmod(self._fd, BLOB_MODE)
        os.fsync(self._fd)
        os.rename(self.part, self._blobs.path(self.sha256))
        fsutil.fsync_dir(self._blobs.dir)
        fsutil.unlink_quietly(self.note_path)
        self._blobs.remember(self.sha256)

    def discard(self) -> None:
        """Remove the partial file."""
        fsutil.unlink_quietly(self.part)
        fsutil.unlink_quietly(self.note_path)

    def note(self) -> bytes:
        """What the source wrote down about the partial file (an entity tag); empty when nothing."""
        try:
            return fsutil.read_bounded(self.note_path, 4096)
        except (OSError, DeviceError):
            return b""

    def set_note(self, data: bytes) -> None:
        """Write down what is needed to resume. Losing it only costs a download from the start."""
        fd = os.open(self.note_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fsutil.write_all(fd, data)
        finally:
            os.close(fd)


class Blobs:
    """The directory ``<root>/blobs``."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.dir = os.path.join(root, "blobs", "sha256")
        self.partial_dir = os.path.join(root, "blobs", "partial")
        self._verified: dict[str, tuple[int, int, int, int]] = {}

    def prepare(self) -> None:
        """Create the directories."""
        fsutil.make_dirs(self.dir)
        fsutil.make_dirs(self.partial_dir, 0o700)

    def path(self, sha256: str) -> str:
        """Where the blob is, or will be."""
        return os.path.join(self.dir, sha256)

    def _identity(self, sha256: str) -> tuple[int, int, int, int] | None:
        try:
            stat = os.lstat(self.path(sha256))
        except OSError:
            return None
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def remember(self, sha256: str) -> None:
        """Note that this process has verified the blob, so that it hashes it once only."""
        identity = self._identity(sha256)
        if identity is not None:
            self._verified[sha256] = identity

    def check(self, sha256: str, size: int) -> str:
        """``ok``, ``absent`` or ``damaged``: the blob's size and digest as the disk gives them now."""
        identity = self._identity(sha256)
        if identity is None:
            return "absent"
        if identity[1] != size or not os.path.isfile(self.path(sha256)):
            return "damaged"
        if self._verified.get(sha256) == identity:
            return "ok"
        try:
            found = hash_from_disk(self.path(sha256))
        except OSError:
            return "damaged"  # a medium that cannot give it back
        if found != sha256:
            return "damaged"
        self._verified[sha256] = identity
        return "ok"

    def missing(self, entries: Iterable[FileEntry]) -> list[FileEntry]:
        """The entries whose blob is absent or damaged, each blob once. Reads and hashes every blob that is here."""
        wanted: dict[str, FileEntry] = {}
        for entry in entries:
            wanted.setdefault(entry.sha256, entry)
        return [entry for entry in wanted.values() if self.check(entry.sha256, entry.size) != "ok"]

    def partial_bytes(self, sha256: str) -> int:
        """How much of a blob an interrupted transfer left behind."""
        try:
            return os.lstat(os.path.join(self.partial_dir, sha256 + ".part")).st_size
        except OSError:
            return 0

    def free_bytes(self) -> int:
        """Bytes that can still be written under the root."""
        path = self.root
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize

    @contextmanager
    def sink(self, entry: FileEntry) -> Iterator[BlobSink]:
        """Open a sink for one entry."""
        with BlobSink(self, entry.sha256, entry.size, entry.path) as sink:
            yield sink

    def put(self, data: bytes) -> str:
        """Keep small content (release.json, model.sig); returns its hex digest. Replaces a damaged copy."""
        sha256 = hashlib.sha256(data).hexdigest()
        if self.check(sha256, len(data)) != "ok":
            fsutil.write_atomic(self.path(sha256), data, BLOB_MODE)
        return sha256

    def collect(self, keep: set[str], drop_partials: bool, spare: set[str]) -> tuple[int, int]:
        """Delete blobs not in ``keep``, leftovers, and if told partial files but those of ``spare``. (count, bytes)."""
        doomed = [os.path.join(self.dir, name) for name in _names(self.dir) if name not in keep]
        if drop_partials:
            doomed += [
                os.path.join(self.partial_dir, name)
                for name in _names(self.partial_dir)
                if name.split(".")[0] not in spare
            ]
        freed = 0
        for path in doomed:
            freed += _size(path)
            fsutil.unlink_quietly(path)
        return len(doomed), freed


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0

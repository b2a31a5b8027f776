# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The ledger: an append-only, hash-chained, signed file of JSON lines that says what happened in every rollout.

Many processes append at once (the run's main process, its forked workers, the watchdog): every append opens the file,
takes an exclusive lock, reads the last line for the chain, writes one line and syncs it. When `append` has returned,
the record survives a power cut.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable

from . import ledger_keys
from .errors import RolloutError
from .ledger_folds import (
    activated,
    finished,
    last_rollout,
    lifted,
    open_rollout,
    quarantine_entries,
    quarantined,
    taken_back,
    unsettled,
)
from .ledger_format import (
    FILE_NAME,
    GENESIS,
    MAX_LINE,
    Record,
    decode,
    encode,
    line_hash,
    plain,
    signed_message,
    timestamp,
)
from .ledger_verify import Report, verify

__all__ = [
    "FILE_NAME",
    "GENESIS",
    "Ledger",
    "Record",
    "Report",
    "activated",
    "finished",
    "last_rollout",
    "lifted",
    "open_rollout",
    "quarantine_entries",
    "quarantined",
    "taken_back",
    "unsettled",
    "verify",
]

_BLOCK = 64 * 1024
_TORN_NAME = "ledger.torn"


class Ledger:
    """One ledger directory; holds no open file, so it may cross a fork."""

    def __init__(self, directory: str, signing_key_path: str | None = None, passphrase: bytes | None = None) -> None:
        """``directory`` is made with the first record; the key (EC private PEM) is read at the first checkpoint."""
        self.directory = str(directory)
        self.path = os.path.join(self.directory, FILE_NAME)
        self.signing_key_path = str(signing_key_path) if signing_key_path else None
        self._passphrase = passphrase
        self._signer: Any = None

    def append(
        self, record_type: str, data: dict[str, Any], rollout: str | None = None, host: str | None = None
    ) -> Record:
        """Add one record durably and return it; `RolloutError` naming the path when it cannot be written."""
        body = plain(data)
        return self._append(record_type, lambda _prev, _seq: body, rollout, host)

    def checkpoint(self) -> Record | None:
        """Sign everything so far; None (and no record) without a signing key, or when all is signed by it already."""
        if self.signing_key_path is None:
            return None
        if self._signer is None:
            self._signer = ledger_keys.load_signer(self.signing_key_path, self._passphrase)
        signer = self._signer
        with self._locked() as handle:
            self._recover(handle)
            last = _last_record(handle, self.path)
            if last is not None and last["type"] == "checkpoint" and ledger_keys.signed_by(signer, last["data"]):
                return None
            return self._write(
                handle, "checkpoint", lambda prev, seq: ledger_keys.sign(signer, signed_message(prev, seq)), None, None
            )

    def records(self, rollout: str | None = None) -> Iterator[Record]:
        """Every record (of one rollout, if given), oldest first, one in memory at a time; a missing ledger has none.

        A last line that has no newline yet is being written by somebody else, or is torn: it is not a record.
        """
        try:
            handle = open(self.path, "rb")  # noqa: SIM115 - the errors of opening are told apart from those of reading
        except FileNotFoundError:
            return
        except OSError as error:
            raise RolloutError(f"the ledger {self.path} cannot be read: {error.strerror}") from error
        # Most lines of an old ledger are of other rollouts: looking for the id is far cheaper than parsing them.
        needle = b"" if rollout is None else b'"rollout":' + json.dumps(plain(rollout)).encode("ascii")
        with handle:
            for number, line in enumerate(_lines(handle, self.path), 1):
                if needle not in line:
                    continue
                record = decode(line, f"{self.path} line {number}")
                if rollout is None or record["rollout"] == rollout:
                    yield record

    def head(self) -> str:
        """The hash a next record would name as ``prev``: pins the whole ledger as it is now."""
        if not os.path.exists(self.path):
            return GENESIS
        with self._locked() as handle:
            return _last(handle, self.path)[0]

    def _append(
        self, record_type: str, make: Callable[[str, int], dict[str, Any]], rollout: str | None, host: str | None
    ) -> Record:
        with self._locked() as handle:
            self._recover(handle)
            return self._write(handle, record_type, make, rollout, host)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The open file, under an exclusive lock between processes; OS errors become `RolloutError`."""
        try:
            fresh = not os.path.exists(self.path)
            if fresh:
                os.makedirs(self.directory, mode=0o750, exist_ok=True)
            with open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640), "r+b", buffering=0) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if fresh:
                    _sync_directory(self.directory)
                yield handle  # type: ignore[misc]
        except OSError as error:
            raise RolloutError(
                f"the ledger {self.path} cannot be written: {error.strerror or error}; "
                "nothing is changed on a device without it"
            ) from error

    def _write(
        self,
        handle: BinaryIO,
        record_type: str,
        make: Callable[[str, int], dict[str, Any]],
        rollout: str | None,
        host: str | None,
    ) -> Record:
        prev, seq = _last(handle, self.path)
        record = {
            "seq": seq + 1,
            "time": timestamp(),
            "type": record_type,
            "rollout": plain(rollout),
            "host": plain(host),
            "data": make(prev, seq + 1),
            "prev": prev,
        }
        line = encode(record) + b"\n"
        if len(line) > MAX_LINE:
            raise RolloutError(
                f"a {record_type} record of {len(line)} bytes is more than the ledger {self.path} takes ({MAX_LINE})"
            )
        end = handle.seek(0, os.SEEK_END)
        try:
            _write_all(handle, line)
            os.fsync(handle.fileno())
        except OSError:
            # A full disk may have taken half a line. Whoever appends next would repair it; better not to leave it.
            with contextlib.suppress(OSError):
                handle.truncate(end)
            raise
        return record

    def _recover(self, handle: BinaryIO) -> None:
        """Move what a crash left after the last newline into a ``torn`` record.

        The bytes go to a file of their own first, so that a second crash, at any point in here, loses nothing.
        """
        aside = os.path.join(self.directory, _TORN_NAME)
        size = handle.seek(0, os.SEEK_END)
        start = _tail_start(handle, size, self.path)
        if start < size:
            handle.seek(start)
            fragment = handle.read(size - start)
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640), "ab") as keep:
                keep.write(fragment)
                keep.flush()
                os.fsync(keep.fileno())
            _sync_directory(self.directory)
            handle.truncate(start)
        if not os.path.exists(aside):
            return
        size = os.path.getsize(aside)
        if size > MAX_LINE // 2:
            raise RolloutError(
                f"the ledger {self.path} was cut off in a record of {size} bytes; they are in {aside}: look at them "
                "and move the file away"
            )
        with open(aside, "rb") as kept:
            data = {"bytes": base64.b64encode(kept.read()).decode("ascii"), "size": size}
        self._write(handle, "torn", lambda _prev, _seq: data, None, None)
        os.unlink(aside)
        _sync_directory(self.directory)


def _write_all(handle: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[handle.write(view) :]


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tail_start(handle: BinaryIO, end: int, path: str) -> int:
    """Where the line that ends at ``end`` (exclusive) begins: just after the newline before it, found from behind."""
    position = end
    while position > 0:
        size = min(_BLOCK, position)
        handle.seek(position - size)
        found = handle.read(size).rfind(b"\n")
        position -= size
        if found >= 0:
            return position + found + 1
        if end - position > MAX_LINE:
            raise RolloutError(
                f"the ledger {path} ends in a line of more than {MAX_LINE} bytes; it was not written by this program"
            )
    return 0


def _last_line(handle: BinaryIO, path: str) -> bytes | None:
    size = handle.seek(0, os.SEEK_END)
    end = _tail_start(handle, size, path)
    if end == 0:
        return None
    start = _tail_start(handle, end - 1, path)
    handle.seek(start)
    return handle.read(end - 1 - start)


def _last_record(handle: BinaryIO, path: str) -> Record | None:
    line = _last_line(handle, path)
    return None if line is None else decode(line, f"{path}, last line")


def _last(handle: BinaryIO, path: str) -> tuple[str, int]:
    """Hash and number of the last whole record; the genesis values for an empty ledger."""
    line = _last_line(handle, path)
    if line is None:
        return GENESIS, 0
    return line_hash(line), int(decode(line, f"{path}, last line")["seq"])


def _lines(handle: BinaryIO, path: str) -> Iterator[bytes]:
    """Whole lines without their newline; stops at one that is not complete."""
    while True:
        line = handle.readline(MAX_LINE + 1)
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE:
                raise RolloutError(f"the ledger {path} has a line of more than {MAX_LINE} bytes")
            return
        yield line[:-1]

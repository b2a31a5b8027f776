# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The device's journal: one JSON line per transition, fsynced before the transition counts.

Every line carries the model's whole state after the transition and a checksum, so that state.json can be rebuilt from
the last good line, and a torn or damaged line is recognised, left out and reported instead of stopping the device.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from . import fsutil

COMPACT_ABOVE = 512 * 1024
KEEP_LAST = 100
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Record:
    """One transition: its number, time (ISO), operation, model, the model's state after it, and remarks."""

    seq: int
    time: str
    op: str
    model: str
    state: dict[str, Any] | None
    note: dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """What a journal file holds: the good records in order, what was wrong with the rest, bytes of good prefix."""

    records: tuple[Record, ...]
    problems: tuple[str, ...]
    torn_at: int | None


def _body(record: Record) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "time": record.time,
        "op": record.op,
        "model": record.model,
        "state": record.state,
        "note": record.note,
    }


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def encode(record: Record) -> bytes:
    """The record's line, newline included."""
    body = _body(record)
    body["sum"] = _checksum(_body(record))
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Record:
    """Parse one line. Raises ValueError when it is not exactly what `encode` wrote."""
    body = json.loads(line)
    if not isinstance(body, dict):
        raise ValueError("not an object")
    stated = body.pop("sum", None)
    if stated != _checksum(body):
        raise ValueError("checksum does not match")
    return Record(body["seq"], body["time"], body["op"], body["model"], body["state"], body["note"])


def parse(raw: bytes) -> Loaded:
    """Read a whole journal. Never raises: what cannot be read is a problem, not an error. Pure."""
    records: list[Record] = []
    problems: list[str] = []
    torn_at: int | None = None
    lines = raw.split(b"\n")
    if lines[-1]:
        torn_at = len(raw) - len(lines[-1])  # a write cut short: it never counted
    for number, line in enumerate(lines[:-1], start=1):
        try:
            records.append(decode(line))
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            problems.append(f"journal line {number}: {exc}")
    return Loaded(tuple(records), tuple(problems), torn_at)


def compacted(records: tuple[Record, ...], keep_last: int) -> list[Record]:
    """The last ``keep_last`` records and, per model, the last one that carries a state. Pure."""
    needed = {record.model: record.seq for record in records if record.state is not None}
    tail = {record.seq for record in records[-keep_last:]}
    return [r for r in records if r.seq in tail or needed.get(r.model) == r.seq]


class Journal:
    """The journal file at ``path``. Writers hold the store's lock; readers need none."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._cache: tuple[tuple[int, int, int], Loaded] | None = None

    def load(self) -> Loaded:
        """All good records and the problems; empty when there is no file."""
        try:
            stat = os.stat(self.path)
            key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._cache is None or self._cache[0] != key:
                with open(self.path, "rb") as handle:
                    self._cache = (key, parse(handle.read(MAX_BYTES)))
            return self._cache[1]
        except FileNotFoundError:
            return Loaded((), (), None)
        except OSError as exc:
            return Loaded((), (f"journal cannot be read: {exc}",), None)

    def last_state(self, model: str) -> Record | None:
        """The newest record of ``model`` that carries a state."""
        for record in reversed(self.load().records):
            if record.model == model and record.state is not None:
                return record
        return None

    def next_seq(self, at_least: int = 0) -> int:
        """The number of the next record: above all others, and above ``at_least`` (a state.json that outlived them)."""
        records = self.load().records
        return max([at_least] + [r.seq for r in records[-KEEP_LAST:]]) + 1

    def append(self, record: Record) -> None:
        """Write one record durably. On return it counts; before, it does not exist."""
        self._make_fit()
        fresh = not os.path.exists(self.path)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if fresh:
                os.fchmod(fd, 0o644)  # the umask must not decide
            before = os.fstat(fd).st_size
            try:
                fsutil.write_all(fd, encode(record))
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, before)
                raise
        finally:
            os.close(fd)
        if fresh:
            fsutil.fsync_dir(os.path.dirname(self.path))

    def _make_fit(self) -> None:
        """Repair and compact before a record is added. On a full disk leave both for later: the record matters more."""
        try:
            self.repair()
            if os.path.exists(self.path) and os.stat(self.path).st_size > COMPACT_ABOVE:
                self._rewrite(compacted(self.load().records, KEEP_LAST))
        except OSError as exc:
            if not fsutil.no_space(exc):
                raise

    def repair(self) -> list[str]:
        """Cut off a torn last line; with damaged lines keep the file aside and go on with the good ones."""
        loaded = self.load()
        if loaded.torn_at is not None:  # first, because it needs no space
            fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(fd, loaded.torn_at)
                os.fsync(fd)
            finally:
                os.close(fd)
        if loaded.problems:
            self._set_aside()
            self._rewrite(list(loaded.records))
        return list(loaded.problems)

    def _set_aside(self) -> None:
        # One copy, overwritten each time: evidence for a person, bounded on disk. A second name: the file stays.
        aside = self.path + ".damaged"
        fsutil.unlink_quietly(aside)
        # On a file system without hard links there is no copy: the good records matter more than the bad ones.
        with suppress(OSError):
            os.link(self.path, aside)

    def _rewrite(self, records: list[Record]) -> None:
        fsutil.write_atomic(self.path, b"".join(encode(record) for record in records))

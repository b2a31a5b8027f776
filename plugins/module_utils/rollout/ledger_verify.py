# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Is a ledger what was written? Needs the file and one public key, nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from . import ledger_keys
from .errors import RolloutError
from .ledger_format import FILE_NAME, GENESIS, MAX_LINE, Record, decode, line_hash, signed_message

MAX_PROBLEMS = 100


@dataclass
class Report:
    """What `verify` found. ``ok`` is True exactly when ``problems`` is empty.

    ``unsigned_tail`` counts the records after the last good checkpoint: the chain holds them together, no signature
    vouches for them. ``torn_bytes``: bytes after the last newline (a write that was cut off, or is going on).
    """

    ok: bool = True
    records: int = 0
    checkpoints: int = 0
    unsigned_tail: int = 0
    head: str = GENESIS
    torn_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Note a problem; the list is bounded, a ledger can be broken on every line."""
        self.ok = False
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append(f"more than {MAX_PROBLEMS} problems; the rest is not listed")


class _Checker:
    """The chain's state between two lines. After a break it goes on from the line at hand: one edit, one problem."""

    def __init__(self, report: Report, keys: dict[str, Any] | None) -> None:
        self.report = report
        self.keys = keys
        self.prev = GENESIS
        self.seq = 0

    def line(self, number: int, raw: bytes) -> None:
        where = f"line {number}"
        self.report.records += 1
        self.report.unsigned_tail += 1
        try:
            record: Record | None = decode(raw, where)
        except RolloutError as error:
            self.report.problem(str(error))
            record = None
        if record is not None:
            self._chain(where, record)
            if record["type"] == "checkpoint":
                self._checkpoint(where, record)
        self.prev = line_hash(raw)
        self.seq = record["seq"] if record is not None else self.seq + 1

    def _chain(self, where: str, record: Record) -> None:
        expected = self.seq + 1
        if record["seq"] > expected:
            self.report.problem(
                "{}: has number {} where {} belongs: {} record(s) are missing before it".format(
                    where, record["seq"], expected, record["seq"] - expected
                )
            )
        elif record["seq"] < expected:
            self.report.problem(
                "{}: has number {} where {} belongs: it was moved or put in".format(where, record["seq"], expected)
            )
        elif record["prev"] != self.prev:
            self.report.problem(
                f"{where}: does not follow from the line before it: that line was edited, or this one was put in"
            )

    def _checkpoint(self, where: str, record: Record) -> None:
        if self.keys is None:
            return
        # The line's own `prev` would do for the signature; what really stands before it is what must be signed.
        wrong = ledger_keys.signature_problem(self.keys, record["data"], signed_message(self.prev, record["seq"]))
        if wrong is not None:
            self.report.problem(f"{where}: checkpoint: {wrong}")
            return
        self.report.checkpoints += 1
        self.report.unsigned_tail = 0


def verify(path: str, public_key_pem: bytes | None, expected_head: str | None = None) -> Report:
    """Check the ledger at ``path`` (the file, or its directory), reading it once, a line at a time.

    Finds lines that were edited, removed, reordered or put in, and checkpoints that were not signed by a key in
    ``public_key_pem`` (None: the chain alone is checked). A tail cut off at a line's end leaves a ledger that was true
    once: ``expected_head`` (the ``head`` of an earlier report) must then still be in the chain.
    `RolloutError` when the file cannot be read or the key is none.
    """
    report = Report()
    keys = ledger_keys.load_public_keys(public_key_pem) if public_key_pem is not None else None
    checker = _Checker(report, keys)
    seen = expected_head is None or expected_head == GENESIS
    file = os.path.join(path, FILE_NAME) if os.path.isdir(path) else path
    try:
        with open(file, "rb") as handle:
            for number, (line, whole) in enumerate(_lines(handle), 1):
                if not whole:
                    report.torn_bytes = len(line)
                    break
                checker.line(number, line)
                seen = seen or checker.prev == expected_head
    except OSError as error:
        raise RolloutError(f"the ledger {file} cannot be read: {error.strerror}") from error
    report.head = checker.prev
    if not seen:
        report.problem(
            f"the expected head {expected_head} is not in the ledger: records that once stood there are gone or changed"
        )
    if keys is not None and report.records and not report.checkpoints:
        report.problem(f"no checkpoint with a good signature: nothing vouches for these {report.records} record(s)")
    return report


def _lines(handle: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Each line without its newline, and whether it had one."""
    while True:
        line = handle.readline(MAX_LINE + 1)
        if not line:
            return
        whole = line.endswith(b"\n")
        yield (line[:-1] if whole else line), whole
        if not whole:
            return

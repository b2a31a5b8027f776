# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a line of the ledger looks like: encoding, chaining and the bytes a checkpoint signs. No I/O here."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime, timezone
from pathlib import PurePath
from typing import Any

from .errors import RolloutError

FILE_NAME = "ledger.jsonl"
GENESIS = "0" * 64
MAX_LINE = 64 * 1024 * 1024
FIELDS = frozenset(("seq", "time", "type", "rollout", "host", "data", "prev"))
Record = dict[str, Any]


def timestamp(now: datetime | None = None) -> str:
    """The time (UTC, milliseconds) as it stands in records: ``2026-11-23T11:00:00.123Z``."""
    moment = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def plain(value: Any) -> Any:
    """A copy of ``value`` made of plain JSON types only.

    Non-finite floats become text (JSON has none); a type nobody expected becomes its name in angle brackets and not
    its text, because the text of an encrypted value is the secret.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [plain(item) for item in items]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime):
        return timestamp(value)
    return f"<{type(value).__name__}>"


def encode(record: Record) -> bytes:
    """One record as its line, without the newline (compact, sorted, ASCII)."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(line: bytes, where: str) -> Record:
    """The record of one line; `RolloutError` naming ``where`` when it is not one."""
    try:
        record = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise RolloutError(f"{where}: not a ledger record: {error}") from error
    if not isinstance(record, dict) or set(record) != FIELDS:
        raise RolloutError(
            "{}: not a ledger record: it needs exactly the fields {}".format(where, ", ".join(sorted(FIELDS)))
        )
    if (
        not isinstance(record["seq"], int)
        or not isinstance(record["type"], str)
        or not isinstance(record["data"], dict)
    ):
        raise RolloutError(f"{where}: not a ledger record: seq must be a number, type a text, data a mapping")
    return record


def line_hash(line: bytes) -> str:
    """What the next record's ``prev`` holds: SHA-256 (hex) of the line's bytes without the newline."""
    return hashlib.sha256(line).hexdigest()


def signed_message(prev: str, seq: int) -> bytes:
    """The bytes a checkpoint with this ``prev`` and ``seq`` signs; ``prev`` stands for everything before it."""
    return b"edgeai-ledger-v1\n" + prev.encode("ascii") + b"\n" + str(seq).encode("ascii")

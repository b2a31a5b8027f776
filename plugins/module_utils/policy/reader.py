# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Reading checked values out of a ``Document``: every refusal names file, line, field, value and fix."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from re import Pattern
from typing import Any

from .errors import PolicyError, field_error
from .yamlfile import Document

MAX_SHORT, MAX_LONG = 1024, 16384
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
HEX = re.compile(r"[0-9a-f]{64}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Reader:
    """A mapping at ``path`` of a document: construction refuses unknown fields and missing ones."""

    def __init__(
        self, document: Document, path: tuple[Any, ...], required: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> None:
        """Refuse what is not a mapping, has an unknown field, or lacks a required one. Raises PolicyError."""
        self.document, self.path = document, path
        self.value = mapping_at(document, path)
        known = sorted({*required, *optional})
        for name in self.value:
            if name not in known:
                raise self.error(name, "this field is not known; known are " + ", ".join(known))
        for name in required:
            if name not in self.value:
                raise PolicyError(f"{document.at(*path)}: field '{self.at(name)}' is missing")

    def at(self, name: str) -> str:
        """Return the full path of a field as people write it."""
        return dotted((*self.path, name))

    def __contains__(self, name: object) -> bool:
        """Tell whether the field is there."""
        return name in self.value

    def get(self, name: str) -> Any:
        """Return the unchecked value, None when it is absent."""
        return self.value.get(name)

    def error(self, name: str, fix: str) -> PolicyError:
        """Return (not raise) the error for the value of a field."""
        return field_error(self.document.at(*self.path, name), self.at(name), self.value.get(name), fix)

    def line(self, name: str = "") -> int:
        """Return the line of a field, or of this mapping."""
        return self.document.line(*self.path, name) if name else self.document.line(*self.path)

    def text(self, name: str, pattern: Pattern[str] | None = None, fix: str = "", limit: int = MAX_SHORT) -> str:
        """Return a text that is not empty; newlines only where ``limit`` allows long texts."""
        value = self.value.get(name)
        if not isinstance(value, str) or not value.strip() or len(value) > limit:
            raise self.error(name, fix or f"write a text of 1 to {limit} characters (numbers in quotes)")
        if any(not char.isprintable() and not (char == "\n" and limit > MAX_SHORT) for char in value):
            raise self.error(name, "it has a control character; remove it")
        if pattern is not None and not pattern.fullmatch(value):
            raise self.error(name, fix or f"use a text that matches {pattern.pattern}")
        return value.strip()

    def choice(self, name: str, choices: Iterable[str]) -> str:
        """Return a text that is one of ``choices``."""
        value, known = self.value.get(name), list(choices)
        if not isinstance(value, str) or value not in known:
            raise self.error(name, "use one of " + ", ".join(known))
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Return a whole number from low to high."""
        value = self.value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, f"write a whole number from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.value.get(name)
        if not isinstance(value, bool):
            raise self.error(name, "write true or false")
        return value

    def day(self, name: str) -> datetime.date:
        """Return a calendar day written as ``2026-01-31``."""
        value, fix = self.value.get(name), "write a day such as 2026-01-31"
        if not isinstance(value, str) or not _DATE.fullmatch(value):
            raise self.error(name, fix)
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            raise self.error(name, fix) from None

    def moment(self, name: str) -> datetime.datetime:
        """Return a UTC time written as ``2026-01-31T12:00:00Z``."""
        value, fix = self.value.get(name), "write a UTC time such as 2026-01-31T12:00:00Z"
        try:
            naive = datetime.datetime.strptime(value if isinstance(value, str) else "", "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            raise self.error(name, fix) from None
        return naive.replace(tzinfo=datetime.timezone.utc)

    def array(self, name: str, low: int = 0, high: int = 10000) -> list[Any]:
        """Return a list of low to high elements."""
        value = self.value.get(name)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self.error(name, f"write a list of {low} to {high} elements")
        return value

    def texts(self, name: str, pattern: Pattern[str] | None = None, low: int = 0) -> tuple[str, ...]:
        """Return a list of different texts, as a tuple."""
        values = self.array(name, low)
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value or not (pattern is None or pattern.fullmatch(value)):
                fix = f"use a text that matches {pattern.pattern}" if pattern else "use a text"
                raise field_error(self.document.at(*self.path, name, index), f"{self.at(name)}[{index}]", value, fix)
        if len(set(values)) != len(values):
            raise self.error(name, "an element appears twice; keep one of them")
        return tuple(values)

    def names(self, name: str, pattern: Pattern[str] = NAME) -> list[str]:
        """Return the keys of a mapping field (empty when the field is absent), each matching ``pattern``."""
        if name not in self.value:
            return []
        found = mapping_at(self.document, (*self.path, name))
        for key in found:
            if not pattern.fullmatch(key):
                where = self.document.at(*self.path, name, key)
                raise field_error(where, self.at(name), key, f"use keys that match {pattern.pattern}")
        return list(found)

    def below(self, *names: Any, required: Sequence[str] = (), optional: Sequence[str] = ()) -> Reader:
        """Return the reader of a mapping below this one."""
        return Reader(self.document, (*self.path, *names), required, optional)


def dotted(path: Iterable[Any]) -> str:
    """Return ``a.b[0].c`` for a path."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(top level)"


def mapping_at(document: Document, path: tuple[Any, ...]) -> dict[str, Any]:
    """Return the mapping at a path of a document. Raises PolicyError when something else is there."""
    value = document.data
    for part in path:
        value = value[part]
    if not isinstance(value, dict):
        raise field_error(document.at(*path), dotted(path), value, "write a mapping (name: value)")
    return value


def check_format(reader: Reader, known: int = 1) -> None:
    """Refuse a file of another format. Raises PolicyError."""
    value = reader.get("format")
    if value != known or isinstance(value, bool):
        raise reader.error(
            "format", f"this version reads format {known}; update edgeai.fleet here, or correct the file"
        )

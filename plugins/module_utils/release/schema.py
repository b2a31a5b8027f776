# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Strict JSON: a loader that refuses what JSON parsers differ about, and a reader that refuses unknown fields.

Written by hand because a device has the standard library only, and because every error has to name the file, the
field, the value and the fix.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from re import Pattern
from typing import Any, Callable, TypeVar

from .errors import ReleaseError, field_error

T = TypeVar("T")
MAX_TEXT = 1024
_MAX_NUMBER = 40


def is_int(value: Any) -> bool:
    """Whether a value is an integer; true and false, which Python counts among them, are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse_constant(where: str) -> Callable[[str], Any]:
    def refuse(token: str) -> Any:
        raise ReleaseError(f"{where}: the number {token} is not JSON: use a finite number")

    return refuse


def _number_parser(where: str, kind: Callable[[str], T]) -> Callable[[str], T]:
    def parse(token: str) -> T:
        # Very long integers take quadratic time to convert, and nothing in a release needs them.
        if len(token) > _MAX_NUMBER:
            raise ReleaseError(f"{where}: the number {token[:20]}... has more than {_MAX_NUMBER} digits")
        value = kind(token)
        if isinstance(value, float) and not math.isfinite(value):
            raise ReleaseError(f"{where}: the number {token} is too large: use a finite number")
        return value

    return parse


def _unique_object(where: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                raise field_error(where, name, value, "the same key appears twice in one object; keep one of them")
            result[name] = value
        return result

    return build


def load_json(raw: bytes, where: str, limit: int) -> Any:
    """Parse strict JSON from bytes.

    :param where: file named in errors
    :param limit: largest accepted number of bytes

    Refused with ReleaseError: more than ``limit`` bytes, not UTF-8, duplicate keys, NaN and Infinity, numbers that
    overflow or have over 40 digits, nesting deeper than the interpreter can follow, anything after the value.
    """
    if len(raw) > limit:
        raise ReleaseError(f"{where}: has {len(raw)} bytes; at most {limit} are allowed")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{where}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant(where),
            parse_int=_number_parser(where, int),
            parse_float=_number_parser(where, float),
            object_pairs_hook=_unique_object(where),
        )
    except RecursionError as error:
        raise ReleaseError(f"{where}: is nested too deeply; a release has at most 6 levels") from error
    except ValueError as error:
        raise ReleaseError(f"{where}: is not JSON ({error})") from error


class Fields:
    """One JSON object whose fields are all known: construction refuses unknown and missing ones.

    ``path`` is where the object stands inside the document (empty for the top), ``where`` the file.
    """

    def __init__(
        self, value: Any, where: str, path: str, required: Sequence[str], optional: Sequence[str] = ()
    ) -> None:
        """Refuse what is not an object, has an unknown field, or lacks a required one."""
        self.where = where
        self.path = path
        if not isinstance(value, dict):
            raise field_error(where, path or "(top level)", value, "use a JSON object")
        self._value: dict[str, Any] = value
        known = set(required) | set(optional)
        for name in value:
            if name not in known:
                raise field_error(
                    where, self.at(name), value[name], "unknown field; known: " + ", ".join(sorted(known))
                )
        for name in required:
            if name not in value:
                raise ReleaseError(f"{where}: field '{self.at(name)}' is missing")

    def at(self, name: str) -> str:
        """Return the full path of a field of this object."""
        return f"{self.path}.{name}" if self.path else name

    def __contains__(self, name: object) -> bool:
        """Tell whether the field is there."""
        return name in self._value

    def get(self, name: str) -> Any:
        """Return the unchecked value of a field, None when it is absent."""
        return self._value.get(name)

    def error(self, name: str, fix: str) -> ReleaseError:
        """Return the error for the value of a field."""
        return field_error(self.where, self.at(name), self._value.get(name), fix)

    def text(self, name: str, pattern: Pattern[str] | None = None, fix: str = "", empty: bool = False) -> str:
        """Return a string of printable characters (at most 1024), matching ``pattern`` as a whole when given."""
        value = self._value.get(name)
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable() or not (value or empty):
            raise self.error(name, fix or f"use a text of 1 to {MAX_TEXT} printable characters")
        if pattern is not None and not pattern.fullmatch(value):
            raise self.error(name, fix or f"use a text that matches {pattern.pattern}")
        return value

    def choice(self, name: str, choices: Iterable[str]) -> str:
        """Return a string that is one of ``choices``."""
        value = self._value.get(name)
        known = list(choices)
        if not isinstance(value, str) or value not in known:
            raise self.error(name, "use one of " + ", ".join(known))
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Return an integer in [low, high]; true, false and 1.0 are not integers."""
        value = self._value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, f"use an integer from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """Return a finite number in [low, high] as a float; true and false are not numbers."""
        value = self._value.get(name)
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not low <= value <= high:  # type: ignore[operator]
            raise self.error(name, f"use a number from {low:g} to {high:g}")
        return float(value)  # type: ignore[arg-type]

    def array(self, name: str, low: int, high: int) -> list[Any]:
        """Return a list of low to high elements."""
        value = self._value.get(name)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self.error(name, f"use a list of {low} to {high} elements")
        return value

    def texts(self, name: str, pattern: Pattern[str], low: int, high: int) -> tuple[str, ...]:
        """Return a list of distinct strings that each match ``pattern``, as a tuple."""
        values = self.array(name, low, high)
        for index, value in enumerate(values):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                field = f"{self.at(name)}[{index}]"
                raise field_error(self.where, field, value, f"use a text that matches {pattern.pattern}")
        if len(set(values)) != len(values):
            raise self.error(name, "an element appears twice; keep one of them")
        return tuple(values)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checks of single policy values. Each takes (where, name, value) and returns the value or raises RolloutError."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable

from .errors import field_error

Check = Callable[[str, str, Any], Any]


def integer(low: int, high: int) -> Check:
    def check(where: str, name: str, value: Any) -> int:
        # bool is an int in Python; `soak: yes` is a mistake, not one second
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise field_error(where, name, value, f"write a whole number from {low} to {high}, without quotes")
        return int(value)

    return check


def number(low: float, high: float) -> Check:
    def check(where: str, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise field_error(where, name, value, f"write a number from {low:g} to {high:g}, without quotes")
        return float(value)

    return check


def flag(where: str, name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise field_error(where, name, value, "write true or false")
    return bool(value)


def choice(*allowed: str) -> Check:
    def check(where: str, name: str, value: Any) -> str:
        if value not in allowed:
            raise field_error(where, name, value, "choose one of {}".format(", ".join(allowed)))
        return str(value)

    return check


def choices(*allowed: str) -> Check:
    def check(where: str, name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or len(set(map(str, value))) != len(value):
            raise field_error(where, name, value, "write a list without repeats, of {}".format(", ".join(allowed)))
        for item in value:
            if item not in allowed:
                raise field_error(where, name, value, "{!r} is not known: use {}".format(item, ", ".join(allowed)))
        return tuple(str(item) for item in value)

    return check


def text(pattern: str, hint: str) -> Check:
    """Return a check for a text that matches the whole pattern; hint: what to write."""
    compiled = re.compile(pattern)

    def check(where: str, name: str, value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise field_error(where, name, value, hint)
        return str(value)

    return check


def named_list(item: Check, most: int, what: str) -> Check:
    """Return a check for a list of at most so many items, each with a ``name`` of its own; what: they are called."""

    def check(where: str, name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > most:
            raise field_error(where, name, value, f"write a list of up to {most} {what}")
        found = tuple(item(where, f"{name}[{index}]", entry) for index, entry in enumerate(value))
        names = [entry.name for entry in found]
        twice = next((entry for entry in names if names.count(entry) > 1), None)
        if twice:
            raise field_error(where, name, twice, f"two {what} have this name: give each its own")
        return found

    return check


def section(kind: Any, checks: Mapping[str, Check]) -> Check:
    def check(where: str, name: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise field_error(where, name, value, "write a mapping with the keys {}".format(", ".join(sorted(checks))))
        return kind(**checked(where, name + "." if name else "", value, checks))

    return check


def checked(where: str, prefix: str, raw: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    values = {}
    for key, value in raw.items():
        if key not in checks:
            raise field_error(
                where, f"{prefix}{key}", value, "this key is not known; known are {}".format(", ".join(sorted(checks)))
            )
        values[str(key)] = checks[key](where, prefix + key, value)
    return values

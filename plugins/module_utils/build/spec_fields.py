# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checked fields of a release spec: each function takes the file, the field and its value, and raises ReleaseError."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..release.errors import field_error


def known(where: str, prefix: str, value: Mapping[str, Any], allowed: frozenset[str]) -> None:
    """Refuse a field whose name is not in ``allowed``."""
    for name in value:
        if name not in allowed:
            raise field_error(
                where, prefix + str(name), value[name], "a known field; known here: " + ", ".join(sorted(allowed))
            )


def text(where: str, at: str, value: Any) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise field_error(where, at, value, "a string that is not empty")
    return value


def boolean(where: str, at: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise field_error(where, at, value, "true or false")
    return value


def strings(where: str, at: str, value: Any) -> list[str]:
    """A list of strings that are not empty."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item for item in value):
        raise field_error(where, at, value, "a list of strings")
    return list(value)


def file(where: str, at: str, value: Any, base: Path) -> Path:
    """A path, relative to ``base`` unless it is absolute."""
    return base / text(where, at, value)


def optional_file(where: str, at: str, value: Any, base: Path) -> Path | None:
    """The same, or None."""
    return None if value is None else file(where, at, value, base)


def number(where: str, at: str, value: Any, low: float, high: float, what: str) -> float:
    """A number in [low, high]; ``what`` says in the error which numbers are meant."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not good:
        raise field_error(where, at, value, what)
    return float(value)

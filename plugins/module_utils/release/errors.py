# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of the release format, and how its text is put together."""

from __future__ import annotations

from typing import Any

_SHOWN = 120


class ReleaseError(Exception):
    """A release, a signature or a key cannot be used; the text names file, field, value and how to fix it."""


def shown(value: Any) -> str:
    """Return ``repr(value)`` made short and printable, for use inside an error's text."""
    if isinstance(value, dict):
        return f"an object with {len(value)} fields"
    if isinstance(value, list):
        return f"a list of {len(value)} elements"
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def field_error(where: str, field: str, value: Any, fix: str) -> ReleaseError:
    """Return (not raise) the error for one bad value.

    :param where: the file (or other origin) the value came from
    :param field: path of the field inside it, for example ``variants[0].files[2].size``
    :param value: what was found; shortened, never more than 120 characters
    :param fix: what the value has to be instead
    """
    return ReleaseError(f"{where}: field '{field}' is {shown(value)}: {fix}")

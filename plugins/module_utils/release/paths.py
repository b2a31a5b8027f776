# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checks of names, versions and relative paths: everything that is later used to build a path on a device."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from .errors import field_error

MAX_PATH = 1024
MAX_PARTS = 255
MAX_PART_BYTES = 255

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# SemVer 2.0.0, the expression of https://semver.org (item "Is there a suggested regular expression").
_SEMVER = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-((?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)
_MAX_VERSION = 128
_PATH_FIX = "use a relative path with forward slashes that stays inside the release, such as 'variants/x/model.onnx'"


def _part_fault(part: str) -> str:
    """Return what is wrong with one component of a path, or an empty string."""
    if part == "":
        return "it has an empty component"
    if part in (".", ".."):
        return f"it has the component '{part}'"
    if len(part.encode("utf-8")) > MAX_PART_BYTES:
        return f"it has a component of more than {MAX_PART_BYTES} bytes"
    return ""


def _path_fault(path: str) -> str:
    """Return what is wrong with a relative path, or an empty string."""
    if not path:
        return "it is empty"
    if len(path) > MAX_PATH:
        return f"it is longer than {MAX_PATH} characters"
    if "\\" in path:
        return "it has a backslash"
    # Cc: control, Cf: invisible and direction marks, Cs: lone surrogates, Zl/Zp: line separators.
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in path):
        return "it has a control or an invisible character"
    if unicodedata.normalize("NFC", path) != path:
        return "its Unicode is not in normal form C"
    if path.startswith("/"):
        return "it is absolute"
    parts = path.split("/")
    if len(parts) > MAX_PARTS:
        return f"it has more than {MAX_PARTS} components"
    for part in parts:
        fault = _part_fault(part)
        if fault:
            return fault
    return ""


def check_relative(path: Any, where: str, field: str) -> str:
    """Return ``path`` when it is a safe relative POSIX path, else raise ReleaseError.

    Refused: not a string, empty, absolute, ``.`` / ``..`` / empty components, backslash, NUL and control or invisible
    characters, not NFC, more than 255 components, a component over 255 bytes, more than 1024 characters.
    """
    if not isinstance(path, str):
        raise field_error(where, field, path, _PATH_FIX)
    fault = _path_fault(path)
    if fault:
        raise field_error(where, field, path, f"{fault}; {_PATH_FIX}")
    return path


def check_name(value: Any, where: str, field: str) -> str:
    """Return ``value`` when it can be a model's name (one safe path component), else raise ReleaseError."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        fix = "use 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit"
        raise field_error(where, field, value, fix)
    return value


def check_version(value: Any, where: str, field: str) -> str:
    """Return ``value`` when it is a SemVer 2.0.0 version of at most 128 characters, else raise ReleaseError."""
    return _match_version(value, where, field).string


def _match_version(value: Any, where: str, field: str) -> re.Match[str]:
    match = _SEMVER.fullmatch(value) if isinstance(value, str) and len(value) <= _MAX_VERSION else None
    if match is None:
        raise field_error(where, field, value, "use a SemVer 2.0.0 version such as '1.4.0' or '1.5.0-rc.1'")
    return match


def version_key(version: str) -> tuple[Any, ...]:
    """Return a key that sorts versions by SemVer 2.0.0 precedence (section 11; build metadata does not count).

    Raises ReleaseError when ``version`` is not a SemVer version.
    """
    match = _match_version(version, "version", "version")
    core = tuple(int(part) for part in match.group(1, 2, 3))
    if match.group(4) is None:
        return (*core, 1, ())
    # Numeric identifiers compare as numbers and below alphanumeric ones.
    identifiers = tuple((0, int(item), "") if item.isdigit() else (1, 0, item) for item in match.group(4).split("."))
    return (*core, 0, identifiers)

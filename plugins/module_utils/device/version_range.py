# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Version ranges of runtimes (``>=1.17,<2``) over the version strings that runtimes really have."""

from __future__ import annotations

import re

from .errors import DeviceError

# (release, phase, phase number): phase below 0 before the release (_PHASES), 0 the release itself, 1 after it
Version = tuple[tuple[int, ...], int, int]

_VERSION = re.compile(
    r"^v?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[._-]?(?P<phase>dev|alpha|beta|preview|pre|post|rc|a|b|c)[._-]?(?P<number>\d*))?"
    r"(?P<rest>[-+._].*)?$",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"^(?P<op>>=|<=|==|!=|~=|>|<)\s*(?P<version>[^\s]+)$")
_PHASES = {"dev": -5, "a": -4, "alpha": -4, "b": -3, "beta": -3, "rc": -2, "c": -2, "pre": -2, "preview": -2, "post": 1}


def parse_version(text: str) -> Version:
    """A comparable version from strings such as 1.32.0+gpu, 2026.4.1-19876-abc, 1.18.0.dev20240101, 8.6.1.6, 2.0rc1.

    Build suffixes after ``+`` or ``-`` are ignored. Trailing zeros do not count (1.17 equals 1.17.0).
    Raises DeviceError("bad_input") for what has no leading number.
    """
    match = _VERSION.match(text.strip())
    if match is None:
        raise DeviceError("bad_input", f"version {text!r}: not a version; write it like 1.17.0")
    release = [int(part) for part in match.group("release").split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    phase = _PHASES[match.group("phase").lower()] if match.group("phase") else 0
    return tuple(release), phase, int(match.group("number") or 0)


def _same_series(version: Version, prefix: str) -> bool:
    wanted = [int(part) for part in prefix.split(".")]
    release = list(version[0]) + [0] * len(wanted)
    return release[: len(wanted)] == wanted


def _holds(version: Version, operator: str, text: str) -> bool:
    if operator in ("==", "!=") and text.endswith(".*"):
        return _same_series(version, text[:-2]) == (operator == "==")
    bound = parse_version(text)
    if operator == "~=":
        series = re.split(r"[^\d.]", text)[0].split(".")[:-1]
        return version >= bound and _same_series(version, ".".join(series))
    if operator == "<":
        # As in PEP 440: 2.0rc1 is not below 2, although it sorts before it.
        return version < bound and not (bound[1] == 0 and version[1] < 0 and version[0] == bound[0])
    return {
        ">=": version >= bound,
        "<=": version <= bound,
        ">": version > bound,
        "==": version == bound,
        "!=": version != bound,
    }[operator]


def parse_range(text: str | None) -> list[tuple[str, str]]:
    """The clauses of a range; empty for None or an empty string (any version).

    Raises DeviceError("bad_input") that names the clause at fault.
    """
    clauses: list[tuple[str, str]] = []
    for piece in (text or "").split(","):
        piece = piece.strip()
        if not piece:
            continue
        match = _CLAUSE.match(piece)
        if match is None:
            raise DeviceError(
                "bad_input", f"runtime_version {text!r}: {piece!r} is not a clause; write it like >=1.17,<2"
            )
        operator, bound = match.group("op"), match.group("version")
        series = bound[:-2] if bound.endswith(".*") and operator in ("==", "!=") else bound
        if (operator == "~=" and "." not in series) or (series != bound and not re.match(r"^\d+(\.\d+)*$", series)):
            raise DeviceError("bad_input", f"runtime_version {text!r}: {piece!r} needs at least x.y")
        parse_version(series)
        clauses.append((operator, bound))
    return clauses


def in_range(version: str, wanted: str | None) -> bool:
    """Whether ``version`` satisfies every clause of ``wanted``. Raises DeviceError for a malformed one of the two."""
    clauses = parse_range(wanted)
    parsed = parse_version(version)
    return all(_holds(parsed, operator, bound) for operator, bound in clauses)

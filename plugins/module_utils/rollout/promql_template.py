# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Variables in the expressions of Prometheus gates: which there are, where they may stand, how they are escaped. Pure.

``$device``, ``$site``, ``$version`` and ``$digest`` stand for several values and so for a regular expression; they and
``$stratum`` and ``$model`` stand only in the text of a label matcher. ``$window`` is a duration. ``$1`` (label_replace)
is left alone, ``$$`` is a dollar sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .errors import RolloutError

SEVERAL = ("device", "site", "version", "digest")
ONE = ("stratum", "model")
KNOWN = ", ".join(f"${name}" for name in (*SEVERAL, *ONE, "window"))
_VARIABLE = re.compile(r"\$(?:\$|\d+|\{\d+\}|([a-z_]+)|\{([a-z_]+)\})")
_DOLLAR = re.compile(r"\$")
_RANGE = re.compile(r"\[([^\]]*)\]")
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")


class Part(NamedTuple):
    """A piece of an expression. quote: empty for code; before: for a text, the matching operator in front of it."""

    text: str
    quote: str = ""
    before: str = ""


def split(expr: str) -> list[Part]:
    """Return the pieces of an expression: code and quoted texts (without their quotes).

    Raises RolloutError, without a place, for a text that does not end and for a comment.
    """
    parts: list[Part] = []
    start = index = 0
    while index < len(expr):
        char = expr[index]
        if char == "#":
            raise RolloutError("comments (#) are not for expressions of gates: put them into the inventory")
        if char not in "\"'`":
            index += 1
            continue
        code = expr[start:index]
        end = _closing(expr, index)
        before = re.search(r"(=~|!~|!=|(?<![=<>])=)\s*\Z", code)
        parts.append(Part(code))
        parts.append(Part(expr[index + 1 : end], char, before.group(1) if before else ""))
        start = index = end + 1
    parts.append(Part(expr[start:]))
    return parts


def _closing(expr: str, opening: int) -> int:
    """Where the text that begins at ``opening`` ends."""
    quote, index = expr[opening], opening + 1
    while index < len(expr):
        if expr[index] == "\\" and quote != "`":
            index += 2
            continue
        if expr[index] == quote:
            return index
        index += 1
    raise RolloutError(f"a text that begins with {quote} does not end")


def variables(expr: str) -> set[str]:
    """Return the names of the variables in an expression."""
    return {name for match in _VARIABLE.finditer(expr) for name in (match.group(1) or match.group(2),) if name}


def problem(expr: str, window: int, soak: int) -> str | None:
    """Return what is wrong with an expression, as words that say how to write it; None when it may be used.

    window, soak: seconds. An expression must select the devices that are judged, and must not look at a time before
    they had the release.
    """
    try:
        parts = split(expr)
    except RolloutError as error:
        return str(error)
    found = next((text for text in (_part_problem(part) for part in parts) if text), None)
    if found:
        return found
    if "device" not in variables(expr):
        return 'it must select the devices that are judged: put device=~"$device" into its selectors'
    return _time_problem("".join(part.text for part in parts if not part.quote), window, soak)


def _part_problem(part: Part) -> str | None:
    known = _VARIABLE.sub("", part.text)
    if _DOLLAR.search(known):
        return f"a dollar sign begins a variable; known are {KNOWN}; $$ is a dollar sign"
    for name in sorted(variables(part.text)):
        if name not in (*SEVERAL, *ONE, "window"):
            return f"${name} is not known; known are {KNOWN}"
        if name == "window":
            if part.quote:
                return "$window is a duration: write [$window], not a text"
        elif not part.quote:
            return f'${name} stands in the text of a label matcher: {name}{"=~" if name in SEVERAL else "="}"${name}"'
        elif part.before not in (("=~",) if name in SEVERAL else ("=", "=~")):
            why = "it may be several values" if name in SEVERAL and part.before == "=" else "it selects what is judged"
            return f'write {name}{"=~" if name in SEVERAL else "="}"${name}": {why}'
    return None


def _time_problem(code: str, window: int, soak: int) -> str | None:
    """Whether the expression looks outside the window. Ranges in one another (subqueries) add up."""
    if re.search(r"\boffset\b", code, re.IGNORECASE) or "@" in code:
        return "offset and @ look at another time than the soak: leave them out"
    total, nested = 0.0, False
    for match in _RANGE.finditer(code):
        length, colon, _step = match.group(1).partition(":")
        seconds = _seconds(length.strip(), window)
        if seconds is None:
            return f"[{match.group(1)}] is no range: write [$window], or a duration like [30s]"
        if seconds > window:
            return f"[{match.group(1)}] looks back further than the window of {window} s: write [$window]"
        total, nested = total + seconds, nested or bool(colon)
    if nested and total > soak:
        return f"its ranges together look back {total:g} s, the soak is {soak} s: shorten window, or the ranges"
    return None


def _seconds(length: str, window: int) -> float | None:
    if length in ("$window", "${window}"):
        return float(window)
    if not length or _DURATION.sub("", length):
        return None
    return sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(length))


def render(expr: str, values: Mapping[str, Sequence[str]], window: int) -> str:
    """Return the expression with its variables filled in, each escaped for the place it stands in.

    values: name -> its values, of those in ``SEVERAL`` and ``ONE``. Raises RolloutError for a variable that has none.
    """
    return "".join(_filled(part, values, window) for part in split(expr))


def _filled(part: Part, values: Mapping[str, Sequence[str]], window: int) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name is None:
            return "$" if match.group() == "$$" else match.group()
        if name == "window":
            return f"{window}s"
        known = list(dict.fromkeys(values.get(name) or ()))
        if not known:
            raise RolloutError(f"${name} has no value here")
        if part.before == "=~":
            text = "|".join(_escaped(item) for item in known)
            text = text if match.group() == part.text else f"(?:{text})"
        else:
            text = known[0]
        return _quoted(text, part.quote)

    return part.quote + _VARIABLE.sub(value, part.text) + part.quote


def _quoted(text: str, quote: str) -> str:
    """The text as it stands between these quotes."""
    if quote == "`":
        if "`" in text:
            raise RolloutError(f"{text!r} holds a backtick: use double quotes in the expression")
        return text
    escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
    return escaped.replace("\n", "\\n").replace("\r", "\\r")


def selector(labels: Mapping[str, Sequence[str]]) -> str:
    """Return ``{name="value",device=~"a|b"}`` for these labels; ``device`` is always matched as several values."""
    parts = []
    for name, values in labels.items():
        several = name == "device"
        text = "|".join(_escaped(item) for item in values) if several else values[0]
        parts.append(f'{name}{"=~" if several else "="}"{_quoted(text, chr(34))}"')
    return "{" + ",".join(parts) + "}"


def _escaped(text: str) -> str:
    """The text as a regular expression that matches it alone."""
    return _SPECIAL.sub(r"\\\g<0>", text)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Parameters of checks: what each takes, with its default. A default is the strict side, never "not looked at"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .reader import Reader
from .requirement import read_conditions

_TEXT = re.compile(r"[^\s]{1,256}")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its kind (integer, flag, texts, choice, conditions), default, range or choices, and meaning."""

    kind: str
    default: Any
    about: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()


def integer(default: int | None, low: int, high: int, about: str) -> Parameter:
    """Return a parameter that is a whole number."""
    return Parameter("integer", default, about, low, high)


def flag(default: bool, about: str) -> Parameter:
    """Return a parameter that is true or false."""
    return Parameter("flag", default, about)


def texts(default: tuple[str, ...], about: str, choices: tuple[str, ...] = ()) -> Parameter:
    """Return a parameter that is a list of texts, each one of ``choices`` when there are any."""
    return Parameter("texts", default, about, choices=choices)


def choice(default: str, choices: tuple[str, ...], about: str) -> Parameter:
    """Return a parameter that is one of ``choices``."""
    return Parameter("choice", default, about, choices=choices)


def conditions(about: str) -> Parameter:
    """Return a parameter that is a list of conditions; see ``requirement``."""
    return Parameter("conditions", (), about)


def read_parameters(known: Mapping[str, Parameter], given: Reader | None, owner: Reader) -> dict[str, Any]:
    """Return every parameter of a check, defaults filled in. Raises PolicyError naming file, line, field and fix."""
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        if given is None or name not in given:
            values[name] = parameter.default
        elif parameter.kind == "integer":
            values[name] = given.integer(name, parameter.low, parameter.high)
        elif parameter.kind == "flag":
            values[name] = given.flag(name)
        elif parameter.kind == "choice":
            values[name] = given.choice(name, parameter.choices)
        elif parameter.kind == "conditions":
            values[name] = read_conditions(given, name)
        else:
            values[name] = _texts(given, name, parameter)
    if "must" in known and not values["must"]:
        raise owner.error("parameters", "say what must hold: parameters.must, a list of conditions")
    return values


def _texts(given: Reader, name: str, parameter: Parameter) -> tuple[str, ...]:
    values = given.texts(name, _TEXT, 1)
    for value in values:
        if parameter.choices and value not in parameter.choices:
            raise given.error(name, f"{value!r} is not known: use " + ", ".join(parameter.choices))
    return values

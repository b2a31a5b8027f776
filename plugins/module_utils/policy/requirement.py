# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Conditions of a team's own rules: a field of a subject, and what must hold for its value. Pure.

``{field: edge_policy.soak, at_least: 300}``. A part of a field may be ``*``: every element of a list or mapping, and
then the condition must hold for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .reader import Reader

OPERATORS = ("present", "equals", "one_of", "none_of", "at_least", "at_most", "matches")
_FIELD = re.compile(r"[A-Za-z0-9_*-]+(?:\.[A-Za-z0-9_*-]+)*")
_MAX_PATTERN = 256


@dataclass(frozen=True)
class Condition:
    """One condition: a dotted field, an operator, and its operand."""

    field: str
    operator: str
    operand: Any

    def __str__(self) -> str:
        """Return the condition as people would say it."""
        if self.operator == "present":
            return f"{self.field} is {'there' if self.operand else 'not there'}"
        operand = ", ".join(map(str, self.operand)) if isinstance(self.operand, list) else str(self.operand)
        return f"{self.field} {self.operator.replace('_', ' ')} {operand}"


def read_conditions(given: Reader, name: str) -> tuple[Condition, ...]:
    """Return the conditions of a list field. Raises PolicyError naming file, line, field, value and fix."""
    return tuple(_condition(given.below(name, index, optional=("field", *OPERATORS)))
                 for index in range(len(given.array(name, 1, 64))))  # fmt: skip


def _condition(fields: Reader) -> Condition:
    field = fields.text("field", _FIELD, "use names with dots between, such as edge_policy.soak")
    used = [name for name in OPERATORS if name in fields]
    if len(used) != 1:
        raise fields.error("field", "needs exactly one of " + ", ".join(OPERATORS))
    operator, operand = used[0], fields.get(used[0])
    if operator == "present":
        fields.flag(operator)
    elif operator in ("one_of", "none_of"):
        fields.array(operator, 1)
    elif operator in ("at_least", "at_most"):
        if not isinstance(operand, (int, float)) or isinstance(operand, bool):
            raise fields.error(operator, "write a number")
    elif operator == "matches":
        pattern = fields.text(operator, limit=_MAX_PATTERN)
        try:
            re.compile(pattern)
        except re.error as error:
            raise fields.error(operator, f"is not a regular expression: {error}") from error
    elif isinstance(operand, (dict, list)):
        raise fields.error(operator, "compare with a plain value, or use one_of")
    return Condition(field, operator, operand)


def find(data: Any, field: str) -> list[Any]:
    """Return the values at a dotted field, several where it has ``*``, none where something on the way is missing."""
    found = [data]
    for part in field.split("."):
        following: list[Any] = []
        for value in found:
            if isinstance(value, Mapping):
                following += list(value.values()) if part == "*" else [value[part]] if part in value else []
            elif isinstance(value, Sequence) and not isinstance(value, str):
                if part == "*":
                    following += value
                elif part.isdigit() and int(part) < len(value):
                    following.append(value[int(part)])
        found = following
    return [value for value in found if value is not None]


def holds(condition: Condition, data: Any) -> bool | None:
    """Tell whether a condition holds for a subject's data; None when there is nothing to judge."""
    values = find(data, condition.field)
    if condition.operator == "present":
        return bool(values) == condition.operand
    if not values:
        return None
    return all(_holds(condition, value) for value in values)


def _holds(condition: Condition, value: Any) -> bool:
    operator, operand = condition.operator, condition.operand
    if operator == "equals":
        return _same(value, operand)
    if operator == "one_of":
        return any(_same(value, item) for item in operand)
    if operator == "none_of":
        return not any(_same(value, item) for item in operand)
    if operator == "matches":
        return isinstance(value, str) and re.fullmatch(operand, value) is not None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if operator == "at_least":
        return number and value >= operand
    return number and value <= operand


def _same(value: Any, operand: Any) -> bool:
    """Compare without Python's ``True == 1``."""
    return isinstance(value, bool) == isinstance(operand, bool) and bool(value == operand)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of the rollout domain."""

from __future__ import annotations

from typing import Any


class RolloutError(Exception):
    """A rollout cannot go on. The text names file, field and value, and says how to fix it."""


def field_error(where: str, field: str, value: Any, fix: str) -> RolloutError:
    """Return (not raise) the error for one bad field.

    where: file, variable or host it came from; field: dotted name; value: what was found; fix: what would be right.
    """
    shown = repr(value)
    if len(shown) > 120:
        shown = shown[:117] + "..."
    return RolloutError(f"{where}: {field} is {shown}: {fix}")

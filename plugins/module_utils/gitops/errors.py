# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of the fleet repository's domain."""

from __future__ import annotations

from typing import Any


class RepoError(Exception):
    """Something about a fleet repository is not as it must be. The text names file, field, value, and the remedy."""


def field_error(where: str, field: str, value: Any, fix: str) -> RepoError:
    """Return (not raise) the error for one bad field: where it is, its name, what was found, what would be right."""
    shown = repr(value)
    if len(shown) > 120:
        shown = shown[:117] + "..."
    return RepoError(f"{where}: {field} is {shown}: {fix}")

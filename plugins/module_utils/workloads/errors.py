# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception of this package."""

from __future__ import annotations

from typing import Any


class WorkloadError(Exception):
    """A workload or its image cannot be made as asked. The message names the field, its value and how to fix it."""


def bad_value(field: str, value: Any, fix: str) -> WorkloadError:
    """The error for one field."""
    return WorkloadError(f"{field}: {value!r} cannot be used; {fix}")

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of the policy domain: rules, governance, approvals and what they are checked against."""

from __future__ import annotations

from typing import Any

from ..release.errors import shown


class PolicyError(Exception):
    """Rules or declarations cannot be used as they are. The text names file, field and value, and how to fix it."""


def field_error(where: str, field: str, value: Any, fix: str) -> PolicyError:
    """Return (not raise) the error for one bad value.

    where: file and line; field: path of the field inside it; value: what was found, shortened; fix: what is right.
    """
    return PolicyError(f"{where}: field '{field}' is {shown(value)}: {fix}")

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of compatibility reports."""

from __future__ import annotations


class CompatibilityError(Exception):
    """Results or thresholds cannot be used; the text names field, value and how to fix it."""

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""The one exception of the lab."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot do what was asked; the text says what is wrong and how to fix it."""

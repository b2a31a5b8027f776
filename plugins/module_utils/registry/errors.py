# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of model registries."""

from __future__ import annotations


class RegistryError(Exception):
    """A registry cannot be asked, or what it says cannot be used; the text names what, and how to fix it."""

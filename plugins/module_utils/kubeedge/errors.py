# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of the KubeEdge part."""

from __future__ import annotations


class KubeedgeError(Exception):
    """Something does not fit KubeEdge, or could not be done.

    The message is for a person; it names the file, the field and the value, and how to fix it.
    """

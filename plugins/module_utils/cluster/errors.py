# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one exception type of the cluster's parts."""

from __future__ import annotations


class ClusterError(Exception):
    """Something about a cluster is wrong or was refused.

    The message is for a person: it names the file or option, the value, and how to fix it.
    """

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Tokens with which nodes join: which ones are good enough. Pure; no message ever holds a token."""

from __future__ import annotations

import re

from .errors import ClusterError

PINNED = re.compile(r"K10[0-9a-f]{64}::\S+")
TTL = re.compile(r"(\d+(\.\d+)?(h|m|s))+")


def pinned(output: str) -> str:
    """The token in what a server printed or keeps in its file.

    Raises ClusterError unless it names the cluster's authority: a token without its hash would join any server that
    answers at the address.
    """
    found = PINNED.search(output)
    if not found:
        raise ClusterError(
            "the server gave no token that names its authority (K10...); see that it is ready, run again"
        )
    return found.group()


def check_ttl(ttl: str) -> str:
    """Return ``ttl``. Raises ClusterError for a token that would never expire."""
    if not TTL.fullmatch(ttl) or not re.search(r"[1-9]", ttl):
        raise ClusterError(f"ttl: {ttl!r} is no time such as 1h or 30m; a token for agents has to expire")
    return ttl

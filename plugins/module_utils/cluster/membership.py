# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which server a server joins. Pure: a second cluster beside the first is what must never come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .errors import ClusterError


class Seen(NamedTuple):
    """What is known of a server: whether it was looked at, and whether it holds a cluster's data."""

    reached: bool
    initialized: bool


def first_server(order: Sequence[str], seen: Mapping[str, Seen], allow_new: bool = False) -> str:
    """The server that the others join: the first in the inventory's order that holds the cluster's data.

    When none does, the cluster is new and the first one makes it. That is refused unless every server was looked at:
    the one that could not be reached may hold the cluster. ``allow_new`` overrides that. Raises ClusterError.
    """
    if not order:
        raise ClusterError("k3s_servers: the group is empty; put the machines that shall be servers into it")
    nothing = Seen(False, False)
    for name in order:
        if seen.get(name, nothing).initialized:
            return name
    away = [name for name in order if not seen.get(name, nothing).reached]
    if away and not allow_new:
        raise ClusterError(
            "no server that was looked at holds a cluster, and {} could not be looked at: a new cluster beside "
            "an old one "
            "would be the end of both. Run it with all servers, or set k3s_new_cluster: true when there is none".format(
                ", ".join(away)
            )
        )
    return order[0]

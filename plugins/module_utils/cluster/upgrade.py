# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""May a cluster be brought to a version of K3s, and would it survive losing a server? Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .errors import ClusterError

_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-([a-z0-9.]+))?\+k3s(\d+)")
#: The newest Kubernetes minor that KubeEdge's cloud side goes with (1.23 with 1.30 to 1.32).
KUBEEDGE_NEWEST = (1, 32)
#: How many minors a kubelet may be behind its API server.
KUBELET_BEHIND = 3


class Version(NamedTuple):
    """A tag of K3s, comparable: a candidate (-rc1) is older than its release."""

    major: int
    minor: int
    patch: int
    final: bool
    candidate: str
    build: int

    @property
    def kubernetes(self) -> tuple[int, int]:
        """Major and minor of Kubernetes."""
        return self.major, self.minor


def parse(text: str, what: str = "k3s_version") -> Version:
    """Read a tag such as v1.32.5+k3s1. Raises ClusterError."""
    found = _VERSION.fullmatch(text)
    if not found:
        raise ClusterError(f"{what} is {text!r}: write the tag of a release, for example v1.32.5+k3s1")
    major, minor, patch, candidate, build = found.groups()
    return Version(int(major), int(minor), int(patch), candidate is None, candidate or "", int(build))


def check_skew(
    wanted: str, servers: Mapping[str, str], agents: Mapping[str, str], kubeedge: Iterable[str] = ()
) -> None:
    """Raise one ClusterError that names everything that forbids this version.

    servers, agents: host to the version it runs now; kubeedge: hosts of KubeEdge's cloud side that use this cluster.
    """
    target = parse(wanted)
    wrong = []
    for host, found in sorted(servers.items()):
        now = parse(found, f"{host}: its version")
        if target < now:
            wrong.append(f"server {host} runs {found}: a server's data is not made for an older version; restore a "
                         "snapshot to go back")  # fmt: skip
        elif target.major != now.major or target.minor > now.minor + 1:
            wrong.append(f"server {host} runs {found}: {wanted} skips a minor version of Kubernetes; go to "
                         f"v{now.major}.{now.minor + 1} first")  # fmt: skip
    for host, found in sorted(agents.items()):
        now = parse(found, f"{host}: its version")
        if now > target:
            wrong.append(f"agent {host} runs {found}, newer than {wanted}: agents are never newer than their servers")
        elif now.major != target.major or target.minor - now.minor > KUBELET_BEHIND:
            wrong.append(f"agent {host} runs {found}: more than {KUBELET_BEHIND} minor versions behind {wanted}; bring "
                         "it to the servers' version first")  # fmt: skip
    hosts = sorted(kubeedge)
    if hosts and target.kubernetes > KUBEEDGE_NEWEST:
        newest = "{}.{}".format(*KUBEEDGE_NEWEST)
        wrong.append(f"KubeEdge's cloud side ({', '.join(hosts)}) goes with Kubernetes up to {newest}")
    if wrong:
        lines = "".join(f"\n- {line}" for line in wrong)
        raise ClusterError(f"this cluster cannot be brought to k3s_version {wanted}: {len(wrong)} problems{lines}")


class ServerState(NamedTuple):
    """What a server said: ``api`` and ``etcd``: what is wrong, empty for nothing; ``members``: None without etcd."""

    api: str
    etcd: str = ""
    members: Sequence[str] | None = None


class Quorum(NamedTuple):
    """Whether a server may be restarted (after it: the next one), why not, and what a person should know."""

    fine: bool
    reason: str
    note: str


def judge_quorum(said: Mapping[str, ServerState], away: Sequence[str] = ()) -> Quorum:
    """All servers healthy, and enough of them to lose one. A single server is allowed, and said.

    said: server to what it said; away: servers that were not reached.
    """
    bad = [f"{host} was not reached" for host in sorted(away)]
    bad += [f"{host}: {state.api or state.etcd}" for host, state in sorted(said.items()) if state.api or state.etcd]
    lists = {host: sorted(state.members) for host, state in sorted(said.items()) if state.members is not None}
    expected = len(said) + len(away)
    for host, members in lists.items():
        if len(members) != expected:
            bad.append(
                f"{host} counts {len(members)} members of etcd ({', '.join(members)}), the inventory has {expected} "
                "servers: name them all, or remove the member that is gone"
            )
            break
    if bad:
        return Quorum(False, "; ".join(bad), "")
    if expected == 1:
        return Quorum(
            True, "", "a single server: the API does not answer while it restarts, and nothing stands in for it"
        )
    if lists and expected < 3:
        reason = f"{expected} members of etcd do not survive losing one: add a server, or remove one"
        return Quorum(False, reason, "")
    kind = f"{expected} of {expected} members of etcd are healthy" if lists else f"{expected} servers, no embedded etcd"
    return Quorum(True, "", kind)

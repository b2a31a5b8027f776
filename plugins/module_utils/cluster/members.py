# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The members of K3s's embedded etcd, over its gateway on this server's loopback, with K3s's own certificate.

K3s removes a member only with its Node, and a server without a kubelet has none. `lost` is pure.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import urllib.parse
from collections.abc import Iterable
from typing import Any, NamedTuple

from .errors import ClusterError

#: K3s serves etcd's HTTP on this port of the loopback.
PORT = 2382
#: Seconds that a peer has to take a connection.
KNOCK = 3.0
NO_QUORUM = (
    "its etcd has no quorum: start the other servers, or, when they are gone for good, restore K3s from a snapshot "
    "(edgeai.fleet.k3s_restore with k3s_restore_without)"
)


class Member(NamedTuple):
    """One of etcd; ``id`` is a decimal number, ``peers`` the addresses (URL) for the other members."""

    id: str
    name: str
    peers: tuple[str, ...]


class Members(NamedTuple):
    """All of etcd, and the ``id`` of the one that was asked."""

    own: str
    all: tuple[Member, ...]


def node_of(name: str) -> str:
    """The node of a member: K3s appends a hyphen and random characters, and reads names this way itself."""
    cut = name.rfind("-")
    return name[:cut] if cut > 1 else name


def lost(members: Members, node: str, remove: bool) -> tuple[Member, ...]:
    """The members of a node of this name, which are to be removed. Pure.

    Raises ClusterError when there are any and ``remove`` is false, or it is the server that was asked.
    """
    found = tuple(member for member in members.all if node_of(member.name) == node)
    if any(member.id == members.own for member in found):
        raise ClusterError(f"node_name: {node} is the server that was asked; ask another one that is in the cluster")
    if found and not remove:
        raise ClusterError(
            f"etcd knows a server of the name {node} already ({names(found)}). If this is that machine, re-imaged, say "
            "k3s_server_replace: true; else give it another name (k3s_server_node_name)"
        )
    return found


def names(members: Iterable[Member]) -> str:
    """Their names for a message."""
    return ", ".join(member.name for member in members)


def parse(answer: dict[str, Any]) -> Members:
    """Members from the gateway's answer, which leaves out what is empty. Raises ClusterError."""
    try:
        found = [
            Member(str(item["ID"]), str(item.get("name", "")), tuple(map(str, item.get("peerURLs") or ())))
            for item in answer.get("members") or ()
        ]
        return Members(str(answer["header"]["member_id"]), tuple(found))
    except (AttributeError, KeyError, TypeError) as error:
        raise ClusterError(f"etcd's list of members is not understood ({error!r}); see K3s's version") from error


def answering(members: Iterable[Member]) -> str:
    """The first address at which one of the members takes connections, or empty. At most `KNOCK` seconds for each."""
    for member in members:
        for peer in member.peers:
            url = urllib.parse.urlsplit(peer)
            try:
                with socket.create_connection((url.hostname or "", url.port or 2380), KNOCK):
                    return peer
            except OSError:
                continue
    return ""


class Etcd:
    """The embedded etcd of the server on this machine. ``timeout``: seconds for one answer."""

    def __init__(self, data_dir: str, timeout: float = 30.0, port: int = PORT) -> None:
        self.tls = os.path.join(data_dir, "server", "tls", "etcd")
        self.timeout, self.port = timeout, port

    def members(self) -> Members:
        """Who is in it, as the quorum knows it. Raises ClusterError."""
        return parse(self._post("member/list", {}))

    def remove(self, member: Member) -> None:
        """Take a member out; etcd refuses when the rest would have no quorum. Raises ClusterError."""
        self._post("member/remove", {"ID": member.id})

    def _post(self, what: str, body: dict[str, str]) -> dict[str, Any]:
        path = f"/v3/cluster/{what}"
        url = f"https://127.0.0.1:{self.port}{path}"
        try:
            context = ssl.create_default_context(cafile=os.path.join(self.tls, "server-ca.crt"))
            context.load_cert_chain(os.path.join(self.tls, "client.crt"), os.path.join(self.tls, "client.key"))
        except OSError as error:
            raise ClusterError(
                f"{self.tls}: {error.strerror or error}; ask a server with embedded etcd, and as root"
            ) from error
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=self.timeout, context=context)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ClusterError(f"{url}: {error}; K3s does not run on this server, or {NO_QUORUM}") from error
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise ClusterError(f"{url}: {answer.get('message', reply.status)}; {NO_QUORUM}")
        return dict(answer)

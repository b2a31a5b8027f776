"""Members of K3s's embedded etcd: whose they are, which may go, and what its gateway says."""

from __future__ import annotations

import http.server
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.certificates import authority, issue, write_chain, write_key

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import members
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError

#: What the gateway of K3s v1.32.2 said; a member that has not started has no name.
ANSWER = {
    "header": {"cluster_id": "9999350737098178051", "member_id": "339025180046794094", "raft_term": "2"},
    "members": [
        {"ID": "339025180046794094", "name": "lab-01-d43e5ad0", "peerURLs": ["https://198.18.153.11:2380"]},
        {"ID": "12117978136287867649", "name": "lab-02-6d7a3bd8", "peerURLs": ["https://198.18.153.12:2380"]},
        {"ID": "77", "peerURLs": ["https://198.18.153.13:2380"], "isLearner": True},
    ],
}
KNOWN = members.parse(ANSWER)


@pytest.mark.parametrize(
    ("name", "node"),
    [("lab-01-d43e5ad0", "lab-01"), ("gate-d43e5ad0", "gate"), ("gate", "gate"), ("a-1", "a-1"), ("", "")],
    ids=["hyphen", "plain", "bare", "short", "not_started"],
)
def test_node_of_a_member(name: str, node: str) -> None:
    assert members.node_of(name) == node


def test_who_is_lost() -> None:
    assert members.lost(KNOWN, "lab-02", True) == (KNOWN.all[1],)
    assert members.lost(KNOWN, "lab-03", False) == members.lost(KNOWN, "lab", True) == ()


@pytest.mark.parametrize(
    ("node", "remove", "said"),
    [
        ("lab-02", False, r"lab-02 already \(lab-02-6d7a3bd8\).*k3s_server_replace: true"),
        ("lab-01", True, "lab-01 is the server that was asked"),
        ("lab-01", False, "lab-01 is the server that was asked"),
    ],
    ids=["unasked", "itself", "itself_unasked"],
)
def test_who_is_not(node: str, remove: bool, said: str) -> None:
    with pytest.raises(ClusterError, match=said):
        members.lost(KNOWN, node, remove)


@pytest.mark.parametrize("answer", [{}, {"header": {}}, {"header": {"member_id": "1"}, "members": [{"name": "x"}]}])
def test_an_answer_of_another_kind(answer: dict[str, Any]) -> None:
    with pytest.raises(ClusterError, match="not understood"):
        members.parse(answer)


def test_who_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = f"https://127.0.0.1:{server.getsockname()[1]}"
        alive = members.Member("1", "x-1", ("https://127.0.0.1:1", peer))
        assert members.answering([alive]) == peer
    assert members.answering([alive]) == "" == members.answering([])


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers as etcd's does; every member but one may go."""

    seen: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, body))
        refused = body.get("ID") == "77"
        self.send_response(500 if refused else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"message": "etcdserver: unhealthy cluster"} if refused else ANSWER).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[members.Etcd]:
    """A gateway that asks for a certificate of its authority, and K3s's files beside it."""
    tls = tmp_path / "server" / "tls" / "etcd"
    tls.mkdir(parents=True)
    root = authority()
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    for name, identity in {"server": issue("etcd", root, extra=address), "client": issue("client", root)}.items():
        write_chain(tls / f"{name}.crt", identity)
        write_key(tls / f"{name}.key", identity.key)
    write_chain(tls / "server-ca.crt", root)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls / "server-ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    Gateway.seen = []
    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield members.Etcd(str(tmp_path), timeout=60, port=server.server_port)
        server.shutdown()
        thread.join()


def test_over_its_gateway(etcd: members.Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # nobody's business
    assert etcd.members() == KNOWN
    etcd.remove(KNOWN.all[1])
    assert Gateway.seen == [("/v3/cluster/member/list", {}), ("/v3/cluster/member/remove", {"ID": KNOWN.all[1].id})]
    with pytest.raises(ClusterError, match=r"member/remove: etcdserver: unhealthy cluster; .*k3s_restore_without"):
        etcd.remove(KNOWN.all[2])


def test_nobody_there(etcd: members.Etcd, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="K3s does not run on this server"):
        members.Etcd(str(tmp_path), timeout=5, port=1).members()
    with pytest.raises(ClusterError, match="a server with embedded etcd"):
        members.Etcd(str(tmp_path / "other")).members()

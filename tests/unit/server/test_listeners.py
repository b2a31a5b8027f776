# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Where a server listens: on one address, on every address, or on what systemd hands over."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.settings import ServerSettings
from ansible_collections.edgeai.fleet.plugins.module_utils.server.listeners import bind_tcp, inherited_tcp


def at(url: str) -> ServerSettings:
    parts = urlsplit(url)
    return ServerSettings(url, str(parts.hostname), int(parts.port or 0))


def answers(sock: socket.socket, *addresses: str) -> None:
    sock.listen()
    for address in addresses:
        socket.create_connection((address, sock.getsockname()[1]), 5).close()


def test_every_address() -> None:
    with bind_tcp(at("http://0.0.0.0:0")) as sock:
        answers(sock, "127.0.0.1", "127.9.9.9")
    if os.path.exists("/proc/net/if_inet6"):
        with bind_tcp(at("http://[::]:0")) as sock:
            answers(sock, "127.0.0.1", "::1")


def test_a_taken_port_is_named() -> None:
    with bind_tcp(at("http://127.0.0.1:0")) as first:
        first.listen()
        url = f"http://127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(DeviceError, match=f"cannot listen on {url} .*in use") as caught:
            bind_tcp(at(url))
    assert caught.value.code == "busy"


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(DeviceError, match=r"http://192\.0\.2\.1:9001 "):
        bind_tcp(at("http://192.0.2.1:9001"))


def test_a_socket_of_systemd_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        taken = inherited_tcp([os.dup(held.fileno())], at(f"http://127.0.0.1:{port}"))
        assert taken is not None
        with taken:
            assert taken.getsockname() == held.getsockname() and taken.getblocking() is False
    assert inherited_tcp([], at("http://127.0.0.1:9001")) is None


def test_a_socket_of_systemd_on_another_port_is_refused() -> None:
    said = r"device\.json says http://127\.0\.0\.1:1: provision"
    with socket.create_server(("127.0.0.1", 0)) as held, pytest.raises(DeviceError, match=said):
        inherited_tcp([os.dup(held.fileno())], at("http://127.0.0.1:1"))
    with socket.socket() as idle, pytest.raises(DeviceError, match="no listening TCP socket"):
        inherited_tcp([os.dup(idle.fileno())], at("http://127.0.0.1:0"))

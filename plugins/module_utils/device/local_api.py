# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Ask this device's model server for a few things over a bare socket: small enough for a process that always runs."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from .errors import DeviceError

_MAX_SOCKET_PATH = 100
_MAX_ANSWER = 4 << 20


def _connect(path: str, timeout: float) -> socket.socket:
    """Connect to a unix socket whose path may be longer than a socket address holds."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            sock.connect(path)
            return sock
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
    except OSError:
        sock.close()
        raise
    return sock


def _exchange(sock: socket.socket, request: bytes) -> bytes:
    sock.sendall(request)
    answer = bytearray()
    while len(answer) <= _MAX_ANSWER:
        chunk = sock.recv(65536)
        if not chunk:
            break
        answer += chunk
    return bytes(answer)


def ask(edge_root: str, method: str, path: str, timeout: float) -> tuple[int, dict[str, Any]]:
    """Make one request over ``run/server.sock``; returns (HTTP status, JSON object; {} for anything else).

    ``timeout`` (s) bounds each wait for the socket. Raises DeviceError (unreachable) when there is no whole answer.
    """
    sock_path = os.path.join(edge_root, "run", "server.sock")
    request = f"{method} {path} HTTP/1.1\r\nHost: device\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    try:
        with _connect(sock_path, timeout) as sock:
            answer = _exchange(sock, request.encode())
        head, _blank, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
    except (OSError, ValueError, IndexError) as exc:
        raise DeviceError("unreachable", f"{sock_path}: the model server does not answer: {exc}") from exc
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    return status, parsed if isinstance(parsed, dict) else {}


def is_live(edge_root: str, timeout: float = 5.0) -> bool:
    """Say whether the server answers at all."""
    try:
        return ask(edge_root, "GET", "/v2/health/live", timeout)[0] == 200
    except DeviceError:
        return False


def load(edge_root: str, model: str, active: bool, timeout: float) -> str | None:
    """Have the server serve what ``current`` names now (``active`` False: unload). Returns its refusal, None if done.

    Raises DeviceError (unreachable).
    """
    action = "load" if active else "unload"
    status, body = ask(edge_root, "POST", f"/v2/repository/models/{model}/{action}", timeout)
    if status == 200 or (not active and status == 404):
        return None
    return str(body.get("error") or f"HTTP {status}")

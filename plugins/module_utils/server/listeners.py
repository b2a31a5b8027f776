# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The sockets of a server: bound here or handed over by systemd, and the lock that makes it the only one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterable, Iterator

from ..device import fsutil
from ..device.errors import DeviceError
from ..device.settings import ServerSettings

# sockaddr_un holds 108 bytes; leave room for the terminating NUL and the directory trick's own path.
_MAX_SOCKET_PATH = 100


def bind_tcp(server: ServerSettings) -> socket.socket:
    """Return a socket bound to device.json's server.url (port 0: any free one). Raises DeviceError (busy).

    The wildcard ``[::]`` takes IPv4 too, whatever the system's default is.
    """
    try:
        info = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(info[0], info[1], info[2])
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if server.host == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(info[4])
        except OSError:
            sock.close()
            raise
    except OSError as exc:
        raise DeviceError("busy", f"cannot listen on {server.url} (device.json, server.url): {exc}") from exc
    sock.setblocking(False)
    return sock


def inherited_tcp(descriptors: Iterable[int], server: ServerSettings) -> socket.socket | None:
    """Return the socket that systemd listens on for this server (socket activation), None when it passed none.

    Raises DeviceError(bad_input) when it listens on another port than device.json says, or passed something else.
    """
    for descriptor in descriptors:
        sock = socket.socket(fileno=descriptor)
        where = sock.getsockname()
        listening = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not listening or sock.family not in (socket.AF_INET, socket.AF_INET6):
            sock.close()
            raise DeviceError("bad_input", f"systemd passed {where!r}, which is no listening TCP socket: mend the unit")
        if server.port not in (0, where[1]):
            sock.close()
            raise DeviceError(
                "bad_input",
                f"systemd listens on port {where[1]}, device.json says {server.url}: provision the device again",
            )
        sock.setblocking(False)
        return sock
    return None


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """Give a name for ``path`` that fits into a socket address: through /proc/self/fd when it is too long itself."""
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def bind_unix(path: str) -> socket.socket:
    """Return a socket bound to ``path``, mode 0600, replacing what a killed server left. Raises DeviceError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        fsutil.unlink_quietly(path)
        with short_path(path) as name:
            sock.bind(name)
    except OSError as exc:
        raise DeviceError("server", f"cannot listen on {path}: {exc}") from exc
    finally:
        os.umask(before)
    sock.setblocking(False)
    return sock


def hold_lock(run_dir: str) -> int:
    """Take the lock that makes this the device's only server; the descriptor keeps it. Raises DeviceError (busy)."""
    fd = os.open(os.path.join(run_dir, "server.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise DeviceError("busy", f"another server already runs for {os.path.dirname(run_dir)}") from exc
    return fd

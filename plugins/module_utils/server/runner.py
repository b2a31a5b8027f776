# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The server process: sockets, start, signals, and an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from ..device import fsutil, notify
from ..device.about import VERSION, file_digest, program_path, read_boot_id
from ..device.errors import DeviceError
from ..device.settings import Settings, load_settings
from . import deps, loader
from .app import Plane, make_app
from .inference import Inference, Limits
from .log import Handler, Log
from .metrics import Metrics
from .protocol import protocol_class
from .registry import Registry

# sockaddr_un holds 108 bytes; leave room for the terminating NUL and the directory trick's own path.
_MAX_SOCKET_PATH = 100
# Longer than any pause of a client between two requests that is worth a new connection.
_KEEP_ALIVE_S = 75


def bind_tcp(settings: Settings) -> socket.socket:
    """Return a socket bound to device.json's server.url (port 0: any free one). Raises DeviceError (busy)."""
    try:
        info = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(info[0], info[1], info[2])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(info[4])
    except OSError as exc:
        raise DeviceError("busy", f"cannot listen on {settings.url} (device.json, server.url): {exc}") from exc
    sock.setblocking(False)
    return sock


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


def _server_class() -> Any:
    """Return uvicorn's Server without its signal handlers (there are two servers here) and without its 100 ms tick."""
    uvicorn = deps.require("uvicorn", "the model server")

    class QuietServer(uvicorn.Server):  # type: ignore[name-defined, misc]
        """One of the two listeners of this process."""

        stopping: asyncio.Event
        should_exit: bool

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Leave signals to this program."""
            yield

        def install_signal_handlers(self) -> None:
            """The same, for uvicorn before 0.29."""

        async def main_loop(self) -> None:
            """Wake once a second (uvicorn renews its Date header) instead of ten times."""
            counter = 0
            while not await self.on_tick(counter):
                counter = (counter + 10) % 864000
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), 1.0)
                self.should_exit = self.should_exit or self.stopping.is_set()

    return QuietServer


class Process:
    """One run of the server for ``edge_root``."""

    def __init__(self, edge_root: str, limits: Limits, log_all: bool = False) -> None:
        self._root = os.path.abspath(edge_root)
        self._run_dir = os.path.join(self._root, "run")
        self._limits = limits
        self._log = Log()
        self._log_all = log_all
        self._identity = {"start_id": str(uuid.uuid4()), "boot_id": read_boot_id()}

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns 0. Raises DeviceError when it cannot start."""
        settings = load_settings(self._root)
        os.makedirs(self._run_dir, mode=0o700, exist_ok=True)
        os.chmod(self._run_dir, 0o700)
        lock = hold_lock(self._run_dir)
        logging.basicConfig(handlers=[Handler(self._log)], level=logging.WARNING)
        tcp = bind_tcp(settings)
        unix = bind_unix(os.path.join(self._run_dir, "server.sock"))
        try:
            asyncio.run(self._serve(settings, tcp, unix))
        finally:
            for name in ("server.sock", "server.json"):
                fsutil.unlink_quietly(os.path.join(self._run_dir, name))
            os.close(lock)
        return 0

    async def _serve(self, settings: Settings, tcp: socket.socket, unix: socket.socket) -> None:
        metrics = Metrics(**self._identity)
        load = functools.partial(loader.load, threads=self._limits.threads)
        registry = Registry(self._root, load, metrics, self._log, self._identity)
        inference = Inference(registry, metrics, self._log, self._limits, self._log_all)
        stopping = asyncio.Event()
        servers = []
        for management in (False, True):
            plane = Plane(registry, inference, metrics, self._log, VERSION, management)
            servers.append(self._server(plane, stopping))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        registry.start()
        running = [asyncio.ensure_future(server.serve(sockets=[sock])) for server, sock in zip(servers, (tcp, unix))]
        url = self._url(settings, tcp)
        while not all(server.started for server in servers):
            if any(task.done() for task in running):
                break
            await asyncio.sleep(0.005)
        self._announce(url)
        notify.notify(ready=1, status=f"answers at {url}")
        await asyncio.gather(*running)
        registry.stop()
        self._log.event("info", "stopped", **self._identity)

    def _server(self, plane: Plane, stopping: asyncio.Event) -> Any:
        uvicorn = deps.require("uvicorn", "the model server")
        config = uvicorn.Config(
            make_app(plane),
            http=protocol_class(plane.takes, plane.ask, self._limits.body_timeout),
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(self._limits.grace)),
        )
        server = _server_class()(config)
        server.stopping = stopping
        return server

    @staticmethod
    def _url(settings: Settings, tcp: socket.socket) -> str:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"http://{host}:{tcp.getsockname()[1]}"

    def _announce(self, url: str) -> None:
        """Write run/server.json: from now on requests are answered."""
        body = dict(self._identity, pid=os.getpid(), url=url, python=sys.executable, version=VERSION)
        body["bundle"] = file_digest(program_path())
        body["environment"] = os.path.realpath(sys.prefix)
        data = json.dumps(body, sort_keys=True).encode() + b"\n"
        fsutil.write_atomic(os.path.join(self._run_dir, "server.json"), data, 0o600)
        self._log.event("info", "started", **body)


def serve(edge_root: str, limits: Limits, log_all: bool = False) -> int:
    """Run the server for ``edge_root`` in this process until it is told to stop; returns the exit status."""
    return Process(edge_root, limits, log_all).run()

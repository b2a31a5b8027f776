# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The server process: start, signals, renewal of its certificate, and an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from ..device import fsutil, notify, starts
from ..device.about import VERSION, file_digest, program_path, read_boot_id
from ..device.errors import DeviceError
from ..device.settings import ServerSettings, join_url, load_settings
from . import deps, loader
from .app import Plane, make_app
from .heartbeat import Heartbeat
from .inference import Inference, Limits
from .keeper import CertificateKeeper
from .listeners import bind_tcp, bind_unix, hold_lock, inherited_tcp
from .log import Handler, Log
from .metrics import Metrics
from .protocol import protocol_class
from .registry import Registry

# Longer than any pause of a client between two requests that is worth a new connection.
_KEEP_ALIVE_S = 75
_SETTLE_S = 0.05
EXIT_FAILED, EXIT_BUSY = 3, 4
POD = "EDGEAI_POD"
"""Environment variable that names the pod in which the server runs, where it runs in one."""


def _server_class() -> Any:
    """Return uvicorn's Server without its signal handlers (there are two servers here) and without its 100 ms tick."""
    uvicorn = deps.require("uvicorn", "the model server")

    class QuietServer(uvicorn.Server):  # type: ignore[name-defined, misc]
        """One of the two listeners of this process."""

        stopping: asyncio.Event
        should_exit: bool
        servers: list[Any]

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

        async def relisten(self, sock: socket.socket, context: ssl.SSLContext) -> None:
            """Accept with another TLS context on ``sock``, a duplicate of the listening socket.

            Connections that are open go on as they began.
            """
            config = self.config

            def protocol() -> Any:
                state = self.lifespan.state
                return config.http_protocol_class(config=config, server_state=self.server_state, app_state=state)

            loop = asyncio.get_running_loop()
            made = await loop.create_server(protocol, sock=sock, ssl=context, backlog=config.backlog)
            old, self.servers = self.servers, [made]
            for server in old:
                for listening in server.sockets:
                    loop.remove_reader(listening.fileno())
            # What was accepted in this turn of the loop becomes a connection in the next, and needs its server open.
            await asyncio.sleep(_SETTLE_S)
            for server in old:
                server.close()

    return QuietServer


class Process:
    """One run of the server for ``edge_root``."""

    def __init__(self, edge_root: str, limits: Limits, log_all: bool = False, log: Log | None = None) -> None:
        self._root = os.path.abspath(edge_root)
        self._run_dir = os.path.join(self._root, "run")
        self._limits = limits
        self._log = log or Log()
        self._log_all = log_all
        self._identity = {"start_id": str(uuid.uuid4()), "boot_id": read_boot_id()}
        self._metrics: Metrics
        self._keeper: CertificateKeeper | None = None

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns 0. Raises DeviceError when it cannot start."""
        settings = load_settings(self._root).needed_server()
        os.makedirs(self._run_dir, mode=0o700, exist_ok=True)
        os.chmod(self._run_dir, 0o700)
        with starts.counted(hold_lock(self._run_dir), self._identity["boot_id"]):
            self._listen(settings)
        return 0

    def _listen(self, settings: ServerSettings) -> None:
        logging.basicConfig(handlers=[Handler(self._log)], level=logging.WARNING)
        self._keeper = CertificateKeeper(self._root, settings.tls) if settings.tls else None
        context = self._keeper.first_context() if self._keeper else None
        tcp = inherited_tcp(notify.listen_fds(), settings) or bind_tcp(settings)
        unix = bind_unix(os.path.join(self._run_dir, "server.sock"))
        try:
            asyncio.run(self._serve(settings, tcp, unix, context))
        finally:
            for name in ("server.sock", "server.json", "client.pem"):
                fsutil.unlink_quietly(os.path.join(self._run_dir, name))

    async def _serve(
        self, settings: ServerSettings, tcp: socket.socket, unix: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        self._metrics = metrics = Metrics(**self._identity)
        load = functools.partial(loader.load, threads=self._limits.threads)
        registry = Registry(self._root, load, metrics, self._log, self._identity)
        inference = Inference(registry, metrics, self._log, self._limits, self._log_all)
        stopping = asyncio.Event()
        servers = []
        for management in (False, True):
            plane = Plane(registry, inference, metrics, self._log, VERSION, management)
            servers.append(self._server(plane, stopping, None if management else context))
        url = join_url(settings.scheme, settings.host, tcp.getsockname()[1])
        heartbeat = Heartbeat(inference.pulse, lambda: f"{registry.summary()} at {url}", self._log)
        renewal = Renewal(self._keeper, servers[0], tcp.dup(), self._log, metrics)
        self._on_signals(stopping, renewal)
        registry.start()
        running = [asyncio.ensure_future(server.serve(sockets=[sock])) for server, sock in zip(servers, (tcp, unix))]
        while not all(server.started for server in servers):
            if any(task.done() for task in running):
                break
            await asyncio.sleep(0.005)
        renewal.told()
        self._announce(url, settings)
        notify.notify(ready=1, status=f"{registry.summary()} at {url}")
        background = [asyncio.ensure_future(job) for job in (heartbeat.run(), renewal.watch())]
        try:
            await asyncio.gather(*running)
        finally:
            for task in background:
                task.cancel()
        registry.stop()
        self._log.event("info", "stopped", **self._identity)

    def _on_signals(self, stopping: asyncio.Event, renewal: Renewal) -> None:
        def stop() -> None:
            notify.notify(stopping=1, status="finishes the requests under way")
            renewal.close()
            stopping.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, renewal.ask)

    def _server(self, plane: Plane, stopping: asyncio.Event, context: ssl.SSLContext | None) -> Any:
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
        config.load()
        config.ssl = context  # made here and not by uvicorn, which knows files only
        server = _server_class()(config)
        server.stopping = stopping
        return server

    def _announce(self, url: str, settings: ServerSettings) -> None:
        """Write run/server.json: from now on requests are answered."""
        body: dict[str, Any] = dict(self._identity, url=url, python=sys.executable, version=VERSION)
        pod = os.environ.get(POD)
        if pod:  # its pid and paths mean nothing outside of it
            body.update(pid=None, pod=pod)
        else:
            body.update(pid=os.getpid(), environment=os.path.realpath(sys.prefix))
        body["bundle"] = file_digest(program_path())
        body["tls"] = vars(settings.tls) if settings.tls else None
        data = json.dumps(body, sort_keys=True).encode() + b"\n"
        fsutil.write_atomic(os.path.join(self._run_dir, "server.json"), data, 0o600)
        self._log.event("info", "started", **body)


class Renewal:
    """Takes a renewed certificate without losing a request: new connections get it, open ones go on.

    ``sock`` is a duplicate of the listening socket, from which each new listener is duplicated.
    """

    def __init__(
        self, keeper: CertificateKeeper | None, server: Any, sock: socket.socket, log: Log, metrics: Metrics
    ) -> None:
        self._keeper = keeper
        self._server = server
        self._sock = sock
        self._log = log
        self._metrics = metrics
        self._asked = asyncio.Event()
        self._closed = False

    def ask(self) -> None:
        """Read the files now, also when they look the same (SIGHUP)."""
        self._asked.set()

    def close(self) -> None:
        """No more listeners."""
        self._closed = True
        self._sock.close()

    def told(self) -> None:
        """Say which certificate is shown."""
        if self._keeper is not None:
            leaf = self._keeper.pair.leaf
            self._metrics.certificate(leaf.not_after.timestamp())
            level = "info" if leaf.not_after.timestamp() > time.time() else "warning"
            expires = leaf.not_after.isoformat()
            self._log.event(level, "certificate", fingerprint=leaf.fingerprint, expires=expires, names=leaf.names)

    async def watch(self) -> None:
        """Look for renewed files now and then, and when asked; until cancelled."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._asked.wait(), 5.0)
            asked = self._asked.is_set()
            self._asked.clear()
            if asked or (self._keeper is not None and self._keeper.changed()):
                if asked:
                    notify.notify(reloading=1, monotonic_usec=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
                await self._renew()
                if asked:
                    notify.notify(ready=1)

    async def _renew(self) -> None:
        if self._keeper is None or self._closed:
            return
        try:
            context = self._keeper.load()
            await self._server.relisten(self._sock.dup(), context)
        except (DeviceError, OSError) as exc:
            self._log.event("error", "certificate_refused", error=str(exc), kept=self._keeper.pair.leaf.fingerprint)
        else:
            self.told()


def serve(edge_root: str, limits: Limits, log_all: bool = False) -> int:
    """Run the server for ``edge_root`` in this process until it is told to stop; returns the exit status.

    Raises DeviceError when it cannot start; under systemd the journal gets that as one JSON line instead.
    """
    log = Log()
    try:
        return Process(edge_root, limits, log_all, log).run()
    except DeviceError as exc:
        if not log.to_journal:
            raise
        log.event("critical", "start_failed", code=exc.code, error=exc.message)
        notify.notify(status=f"could not start: {exc.message}")
        return EXIT_BUSY if exc.code == "busy" else EXIT_FAILED

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Keep the model server of one device running, and watch the device's own deadlines.

One process per device, standard library only. It sleeps until a child ends, a signal comes, or a second has passed. The
server outlives a supervisor that is killed: the next supervisor takes it over when it is the same program.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import sys
import time
from typing import Any, Callable

from . import control, fsutil, local_api, logfile
from .about import VERSION, file_digest, program_path, read_boot_id
from .agent import Agent
from .daemon import detach
from .errors import DeviceError
from .process import Watched, command_line
from .restarts import Crashes, after_crash, after_revert
from .settings import load_settings
from .wakeup import Wakeup

TICK_S = 1.0
GRACE_S = 15.0
PROBE_EVERY_S = 10.0
# Loading a large model can keep the server's interpreter busy for long; hanging for ever is what this is for.
HUNG_AFTER_S = 120.0
EXIT_BUSY = 4

_SERVER_ENVIRONMENT = {
    # Few arenas: glibc's default of 8 per core keeps freed memory of every thread that ever loaded a model.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "262144",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class Supervisor:
    """The supervising process of one device."""

    def __init__(self, edge_root: str) -> None:
        self.root = os.path.abspath(edge_root)
        self.run_dir = os.path.join(self.root, "run")
        self.report = logfile.JsonLog(os.path.join(self.root, "log", "supervisor.log"))
        self.server_log = os.path.join(self.root, "log", "server.log")
        self.bundle = file_digest(program_path())
        self._agent = Agent(self.root, self.report)
        self._server: Watched | None = None
        self._start_at = 0.0
        self._crashes = Crashes()
        self._probed = self._answered = 0.0
        self._lock = -1

    # -- one instance -----------------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Become the device's only supervisor. Raises DeviceError: busy, or bad_input without a device.json."""
        load_settings(self.root)
        pid = control.agent_pid(self.root)
        if pid is not None:
            raise DeviceError("busy", f"an agent (pid {pid}) already watches {self.root}: systemd runs this device")
        fsutil.make_dirs(self.run_dir, 0o700)
        os.chmod(self.run_dir, 0o700)
        fd = os.open(os.path.join(self.run_dir, "supervisor.pid"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(fd)
            raise DeviceError("busy", f"another supervisor already runs for {self.root}") from exc
        self._lock = fd

    def _announce(self) -> None:
        """Say who supervises: the pid in the locked file, the rest in run/supervisor.json."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        body = {"pid": os.getpid(), "boot_id": read_boot_id(), "bundle": self.bundle, "version": VERSION}
        body["python"] = sys.executable
        path = os.path.join(self.run_dir, "supervisor.json")
        fsutil.write_atomic(path, json.dumps(body, sort_keys=True).encode() + b"\n", 0o600)
        self.report("started", **body)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, ready: Callable[[], None] = lambda: None) -> int:
        """Supervise until TERM or INT; returns 0. Call `acquire` first. ``ready`` is called when it is in charge."""
        wakeup = Wakeup()
        self._announce()
        self._agent.recover()
        ready()
        while not wakeup.stopping:
            self._step()
            wakeup.sleep(self._pause(), self._server.fd if self._server is not None else None)
        self._end()
        return 0

    def _step(self) -> None:
        """Look at everything once."""
        self._agent.tick()
        self._watch()
        if self._server is None and time.monotonic() >= self._start_at:
            self._start()
        logfile.rotate(self.server_log)

    def _pause(self) -> float:
        if self._server is None:
            return min(TICK_S, max(0.0, self._start_at - time.monotonic()))
        return TICK_S

    # -- the server -------------------------------------------------------------------------------------------------

    def command(self) -> list[str]:
        """Return the server's command line: device.json's interpreter, isolated from the caller's environment."""
        return [load_settings(self.root).python, "-I", program_path(), "serve", "--root", self.root]

    def _start(self) -> None:
        try:
            command = self.command()
            self._server = self._adopt(command) or self._spawn(command)
        except (DeviceError, OSError) as exc:
            self.report("start_failed", error=str(exc))
            self._crashed(0.0, False)
            return
        self._probed = self._answered = time.monotonic()

    def _spawn(self, command: list[str]) -> Watched:
        output = logfile.open_append(self.server_log)
        try:
            server = Watched.spawn(command, dict(os.environ, **_SERVER_ENVIRONMENT), output)
        finally:
            os.close(output)
        self.report("server_started", pid=server.pid)
        return server

    def _adopt(self, command: list[str]) -> Watched | None:
        """Take over a server that outlived its supervisor; one of another program is stopped. None: there is none."""
        info = self._server_info()
        pid = info.get("pid")
        if not isinstance(pid, int) or pid <= 1 or command_line(pid)[2:] != command[2:]:
            return None
        server = Watched(pid)
        same = info.get("bundle") == self.bundle and command_line(pid)[0] == command[0]
        if same and not server.ended():
            self.report("server_adopted", pid=pid)
            return server
        self.report("server_replaced", pid=pid)
        server.stop(GRACE_S)
        server.close()
        return None

    def _server_info(self) -> dict[str, Any]:
        try:
            raw = fsutil.read_bounded(os.path.join(self.run_dir, "server.json"), 1 << 16)
            info = json.loads(raw)
        except (OSError, ValueError, DeviceError):
            return {}
        return info if isinstance(info, dict) else {}

    def _watch(self) -> None:
        """Notice the server's end, and a server that does not answer."""
        server = self._server
        if server is None:
            return
        now = time.monotonic()
        if not server.ended():
            self._probe(server, now)
            return
        lifetime = now - server.started
        self.report("server_ended", pid=server.pid, status=server.status, seconds=round(lifetime, 1))
        blame = server.status not in (0, EXIT_BUSY)
        server.close()
        self._server = None
        self._crashed(lifetime, blame)

    def _crashed(self, lifetime: float, blame: bool) -> None:
        """Set the time of the next start; revert an unconfirmed release that the server keeps crashing with."""
        decision = after_crash(self._crashes, time.monotonic(), lifetime, random.random())
        self._crashes = decision.crashes
        self._start_at = time.monotonic() + decision.delay
        if blame and decision.suspect:
            moved = self._agent.revert_unconfirmed("the model server crashed again and again with this release")
            if moved:
                self._crashes = after_revert(self._crashes)
                self._start_at = 0.0

    def _probe(self, server: Watched, now: float) -> None:
        """Kill a server that has not answered for HUNG_AFTER_S."""
        if now - self._probed < PROBE_EVERY_S:
            return
        self._probed = now
        if local_api.is_live(self.root):
            self._answered = time.monotonic()
        elif now - self._answered > HUNG_AFTER_S:
            self.report("server_hung", pid=server.pid, seconds=round(now - self._answered))
            server.send(signal.SIGKILL)

    def _end(self) -> None:
        """Stop the server, then leave."""
        if self._server is not None:
            graceful = self._server.stop(GRACE_S)
            self.report("server_stopped", pid=self._server.pid, graceful=graceful)
        fsutil.unlink_quietly(os.path.join(self.run_dir, "supervisor.json"))
        os.ftruncate(self._lock, 0)
        self.report("stopped")


def supervise(edge_root: str, daemon: bool) -> int:
    """Run the supervisor, in the background when ``daemon``; returns the exit status. Raises DeviceError.

    With ``daemon`` it returns in the calling process as soon as the one in the background is in charge.
    """
    supervisor = Supervisor(edge_root)
    if not daemon:
        supervisor.acquire()
        return supervisor.run()
    output = logfile.open_append(os.path.join(supervisor.root, "log", "supervisor.err"))
    return detach(output, supervisor.acquire, supervisor.run)

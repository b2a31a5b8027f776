# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The agent of a device whose model server is run by systemd or in a pod: one process, standard library only.

Everything it needs is imported at the start: the program's file may be replaced by a newer one while it runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Mapping

from . import control, crashwatch, fsutil, server_unit, starts
from .about import VERSION, file_digest, program_path, read_boot_id
from .agent import Agent
from .errors import DeviceError
from .logfile import JournalLog
from .notify import notify
from .settings import provisioned
from .states import ENGINE
from .wakeup import Wakeup

TICK_S = 1.0
LOOK_S = 2.0
"""How often systemd is asked about the server while a release waits for its confirmation, seconds."""
LOOK_IDLE_S = 30.0
START_AGAIN_S = 600.0
"""A server that systemd has given up is started again this often, seconds: what it lacked may be back."""
ACQUIRE_S = 5.0
LOCK, NOTE = "agent.lock", "agent.json"


class ServerWatch:
    """Follows what systemd (in a pod: the server itself) says; reverts unconfirmed releases that it crashes with."""

    def __init__(self, edge_root: str, agent: Agent, report: JournalLog) -> None:
        self._root = edge_root
        self._agent = agent
        self._report = report
        self._watch = crashwatch.Watch()
        self._on_trial: frozenset[str] = frozenset()
        self._look_at = self._start_at = 0.0

    def tick(self, waiting: frozenset[str]) -> None:
        """Look when it is time. ``waiting``: digests of the unconfirmed releases. Never raises."""
        now = time.monotonic()
        if waiting != self._on_trial:
            self._on_trial, self._look_at = waiting, 0.0
            self._watch = crashwatch.forgive(self._watch)
        if now < self._look_at or not server_unit.managed():
            return
        self._look_at = now + (LOOK_S if waiting else LOOK_IDLE_S)
        try:
            show = server_unit.show()
            told = show if show is not None else self._told_by_server()
            if told is not None:
                self._judge(told, now, by_systemd=show is not None)
        except (DeviceError, OSError) as exc:
            self._report("look_failed", error=str(exc))

    def _told_by_server(self) -> Mapping[str, str] | None:
        """What there is to know of a server that systemd does not run: its pod's kubelet tells only the cluster."""
        counted = starts.read_starts(control.read_run_file(self._root, "server.lock"))
        if counted is None or counted.boot_id != read_boot_id():
            return None
        return starts.as_unit(counted, control.server_running(self._root))

    def _judge(self, show: Mapping[str, str], now: float, by_systemd: bool) -> None:
        verdict = crashwatch.judge(self._watch, show, now)
        self._watch = verdict.watch
        if verdict.crashed:
            self._report("server_crashed", times=verdict.crashed, restarts=show["NRestarts"], result=show["Result"])
        moved = []
        if verdict.suspect and self._on_trial:
            said = f" (systemd says: {show['Result']})" if by_systemd else ""
            reason = f"the model server crashed again and again with this release{said}"
            moved = self._agent.revert_unconfirmed(reason)
        if moved:
            self._watch = crashwatch.forgive(self._watch)
        if by_systemd and (moved or (verdict.down and now >= self._start_at)):
            self._start_server(show, now)

    def _start_server(self, show: Mapping[str, str], now: float) -> None:
        """systemd has given the server up, or waits ever longer: start it now, with what ``current`` names now."""
        self._start_at = now + START_AGAIN_S
        if show["ActiveState"] == "failed" or show["SubState"] == "auto-restart":
            self._report("server_started_again", was=show["ActiveState"], result=show["Result"])
            server_unit.start_again()


class AgentProcess:
    """The agent's process for ``edge_root``."""

    def __init__(self, edge_root: str) -> None:
        self.root = os.path.abspath(edge_root)
        self._dir = os.path.join(self.root, ENGINE)
        self._report = JournalLog()
        self._agent = Agent(self.root, self._report)
        self._watch = ServerWatch(self.root, self._agent, self._report)
        self._lock = -1
        self._status = ""

    def acquire(self) -> None:
        """Become the only one that watches this device. Raises DeviceError: busy, or bad_input (not provisioned)."""
        provisioned(self.root)
        fsutil.make_dirs(self._dir)
        pid = control.supervisor_pid(self.root)
        if pid is not None:
            raise DeviceError("busy", f"a supervisor (pid {pid}) already watches {self.root}: stop it first")
        path = os.path.join(self._dir, LOCK)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        os.fchmod(fd, 0o644)  # everybody may ask whether it runs
        try:
            fsutil.wait_flock(fd, fcntl.LOCK_EX, ACQUIRE_S, path, "another agent runs")
        except DeviceError:
            os.close(fd)
            raise
        self._lock = fd

    def _announce(self) -> None:
        body = {"pid": os.getpid(), "boot_id": read_boot_id(), "version": VERSION, "python": sys.executable}
        body["bundle"] = file_digest(program_path())
        try:
            fsutil.write_atomic(os.path.join(self._dir, NOTE), json.dumps(body, sort_keys=True).encode() + b"\n")
        except OSError as exc:  # a full disk must not keep it from reverting
            self._report("announce_failed", error=str(exc))
        self._report("started", **body)

    def run(self) -> int:
        """Watch until TERM or INT; returns 0. Call `acquire` first."""
        wakeup = Wakeup()
        self._announce()
        self._agent.recover()
        notify(ready=1)
        while not wakeup.stopping:
            self._step()
            wakeup.sleep(TICK_S)
        notify(stopping=1)
        fsutil.unlink_quietly(os.path.join(self._dir, NOTE))
        self._report("stopped")
        return 0

    def _step(self) -> None:
        """Look at everything once, then tell systemd that this still works."""
        self._agent.tick()
        try:
            waiting = self._agent.waiting()
        except (DeviceError, OSError) as exc:
            self._report("tick_failed", error=str(exc))
            waiting = {}
        self._watch.tick(frozenset(entry.digest for entry in waiting.values()))
        status = ", ".join(f"{model} {entry.version}" for model, entry in sorted(waiting.items()))
        status = f"waiting for the confirmation of {status}" if status else "nothing waits for a confirmation"
        notify(watchdog=1, status=status if status != self._status else None)
        self._status = status


def run_agent(edge_root: str) -> int:
    """Run the agent in the foreground; returns the exit status. Raises DeviceError when it cannot start."""
    process = AgentProcess(edge_root)
    process.acquire()
    return process.run()

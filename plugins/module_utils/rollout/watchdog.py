# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The process that outlives a rollout: when the run ends without a verdict, it takes the devices back.

It is a session of its own, started by the callback edgeai.fleet.rollout, and holds the read end of a pipe. The run's
main process holds the write end, and so does every worker it forks. First comes one line of configuration (with
the run's secrets: they are never in arguments, environment or a lasting file), then a line now and then as a sign of
life, at last ``end``. A pipe that closes without ``end``, or a parent that is gone, means that nobody will decide any
more. Only SIGKILL ends this process before its work is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from . import watchdog_lock
from .control import waiting
from .errors import RolloutError
from .ledger import Ledger, finished, unsettled
from .watchdog_run import RollbackRun, clean_environment

MAX_CONFIG = 64 * 1024 * 1024
MAX_LOG = 1024 * 1024
TICK = 0.5
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0


@dataclass
class Config:
    """What the callback hands over. Times in seconds.

    in_flight: how long tasks under way may go on after the run is gone; stall: silence after which a living run counts
    as stuck and is killed (0: never); deadline: how long devices that cannot be reached are tried again.
    """

    ledger: str
    rollout: str
    model: str
    pid: int
    run: dict[str, Any]
    ledger_key: str | None = None
    in_flight: float = 330.0
    stall: float = 0.0
    deadline: float = 900.0
    first_pause: float = FIRST_PAUSE
    extra: dict[str, Any] = field(default_factory=dict)


def main() -> int:
    """Arm, wait, act. Returns 0 when the run ended with a verdict or everything could be settled."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    reader = _Lines(0)
    try:
        config = Config(**json.loads(reader.first(60.0)))
        lock = watchdog_lock.take(config.ledger, config.model, config.rollout)
        _check_runner()
        ledger = Ledger(config.ledger, config.ledger_key)
        ledger.append(
            "watchdog",
            {"event": "armed", "pid": os.getpid(), "run": config.pid, "deadline": config.deadline},
            config.rollout,
        )
    except (RolloutError, OSError, ValueError, TypeError) as error:
        _answer({"refused": str(error)})
        return 1
    _to_log(os.path.join(config.ledger, f"watchdog-{config.model}.log"))
    clean_environment(os.environ)
    reason = _watch(reader, config, ledger)
    status = 0 if reason is None else _act(reader, config, ledger, reason)
    os.close(lock)
    return status


def _check_runner() -> None:
    try:
        import ansible_runner  # noqa: F401
    except ImportError as error:
        raise RolloutError(
            f"the watchdog needs the Python package ansible-runner; {sys.executable} has none ({error})"
        ) from error


def _answer(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _to_log(path: str) -> None:
    """From here on, standard output and error are a file beside the ledger (bounded: an old one is cut), owner only."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(descriptor).st_size > MAX_LOG:
        os.ftruncate(descriptor, 0)
    os.dup2(descriptor, 2)
    _answer({"armed": os.getpid()})
    os.dup2(descriptor, 1)
    os.close(descriptor)


class _Lines:
    """Lines from a pipe, with a time limit; remembers that the pipe was closed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.closed = False
        self._rest = b""

    def first(self, limit: float) -> bytes:
        """The first line; `RolloutError` when it does not come in time."""
        until = time.monotonic() + limit
        while b"\n" not in self._rest:
            if self.closed or time.monotonic() > until or len(self._rest) > MAX_CONFIG:
                raise RolloutError("the watchdog was given no configuration")
            self._fill(TICK)
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def poll(self, limit: float) -> list[bytes]:
        """Whole lines that are there within ``limit`` seconds; an empty list when none is, or the pipe is closed."""
        self._fill(limit)
        *lines, self._rest = self._rest.split(b"\n")
        return lines

    def _fill(self, limit: float) -> None:
        if self.closed:
            time.sleep(min(limit, TICK))
            return
        if not select.select([self.descriptor], [], [], limit)[0]:
            return
        block = os.read(self.descriptor, 65536)
        self.closed = not block
        self._rest += block


def _watch(reader: _Lines, config: Config, ledger: Ledger) -> str | None:
    """Wait while the run lives. None when it said ``end``; else why nobody will decide any more."""
    last_sign = time.monotonic()
    while True:
        lines = reader.poll(TICK)
        if b"end" in lines:
            return None
        if reader.closed:
            return "the run's end of the pipe is closed"
        if os.getppid() != config.pid:
            return f"the run (process {config.pid}) is gone"
        if lines:
            last_sign = time.monotonic()
        elif config.stall and _stuck(time.monotonic() - last_sign, config, ledger):
            _kill(config.pid)
            return f"the run (process {config.pid}) gave no sign of life for {config.stall:.0f} seconds and was killed"


def _stuck(silent: float, config: Config, ledger: Ledger) -> bool:
    """Whether a run has been silent for too long: while it waits for people, it may be for as long as it said."""
    if silent <= config.stall:
        return False
    waits = waiting(ledger.records(config.rollout), config.rollout)
    return silent > config.stall + (waits["seconds"] if waits else 0)


def _kill(pid: int) -> None:
    # Still our parent, so the id cannot have been given to another process.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _act(reader: _Lines, config: Config, ledger: Ledger, reason: str) -> int:
    """The run is gone: let tasks in flight end, then roll back what is unsettled until nothing is, or the deadline."""
    ended = finished(ledger.records(config.rollout), config.rollout)
    if ended is not None:
        return 0
    ledger.append("watchdog", {"event": "controller_gone", "reason": reason}, config.rollout)
    _let_finish(reader, config, ledger)
    until = time.monotonic() + config.deadline
    pause, attempt = config.first_pause, 0
    waits = waiting(ledger.records(config.rollout), config.rollout)
    while True:
        left = unsettled(ledger.records(config.rollout), config.rollout)
        if not left:
            break
        attempt += 1
        outcome = RollbackRun(config.run, config.rollout).start(max(60.0, until - time.monotonic()))
        left = unsettled(ledger.records(config.rollout), config.rollout)
        if not left:
            break
        hosts = [item["host"] for item in left]
        ledger.append("watchdog", {"event": "rollback_incomplete", "attempt": attempt, "remaining": hosts, **outcome},
                      config.rollout)  # fmt: skip
        if time.monotonic() + pause > until:
            break
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
    if waits is not None and not attempt:
        return _stop(config, ledger, int(waits.get("after") or 0))
    return _close(config, ledger, left)


def _let_finish(reader: _Lines, config: Config, ledger: Ledger) -> None:
    """Wait until every worker of the run has gone (they hold the pipe open), or for ``in_flight`` seconds."""
    until = time.monotonic() + config.in_flight
    while not reader.closed and time.monotonic() < until:
        reader.poll(TICK)
    if not reader.closed:
        ledger.append("watchdog", {"event": "in_flight_deadline", "seconds": config.in_flight}, config.rollout)


def _stop(config: Config, ledger: Ledger, after: int) -> int:
    """The run died while it waited between two waves, where all is settled: the next run goes on from there."""
    about = {"after": after, "why": "controller_gone", "reason": "the controller died while it waited"}
    ledger.append("stopped", about, config.rollout)
    ledger.append("rollout_finished", {"status": "stopped", "by": "watchdog"}, config.rollout)
    ledger.checkpoint()
    return 0


def _close(config: Config, ledger: Ledger, waiting: list[dict[str, Any]]) -> int:
    """The last records of an aborted rollout. Devices that remain have their own deadline."""
    if finished(ledger.records(config.rollout), config.rollout) is None:
        remaining = [item["host"] for item in waiting]
        ledger.append("rollback_finished", {"remaining": remaining, "by": "watchdog"}, config.rollout)
        ledger.append("rollout_finished", {"status": "aborted", "by": "watchdog"}, config.rollout)
        ledger.checkpoint()
    return 1 if waiting else 0

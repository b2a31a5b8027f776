# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The sign of life: given while workers answer, withheld when they hang. Real threads, a real datagram socket."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.servers import wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.server.heartbeat import EVERY_S, Heartbeat, Pulse
from ansible_collections.edgeai.fleet.plugins.module_utils.server.log import Log


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's socket; the watchdog wants a sign every 8 s."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "8000000")
        yield sock


def hang(pool: ThreadPoolExecutor, workers: int) -> threading.Event:
    """Occupy workers until the event is set."""
    over = threading.Event()
    for _number in range(workers):
        pool.submit(over.wait)
    return over


def test_idle_workers_answer(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    pulse = Pulse(pool, clock)
    for _turn in range(5):
        clock.now += 1000
        wait_for(lambda: pulse.silent_for() == 0, what="the pool answered")


def test_one_busy_worker_of_two_is_no_matter(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    pulse = Pulse(pool, clock)
    over = hang(pool, 1)
    pulse.silent_for()
    clock.now += 1000
    wait_for(lambda: pulse.silent_for() == 0, what="the other one answered")
    over.set()


def test_workers_that_hang_fall_silent_and_come_back(pool: ThreadPoolExecutor) -> None:
    clock = Clock()
    pulse = Pulse(pool, clock)
    over = hang(pool, 2)
    assert pulse.silent_for() == 0
    clock.now += 7
    assert pulse.silent_for() == 7
    clock.now += 5
    assert pulse.silent_for() == 12
    pulse.progress()  # slow, but something came back
    clock.now += 3
    assert pulse.silent_for() == 3
    over.set()
    wait_for(lambda: pulse.silent_for() == 0, what="it answers again")


def test_the_sign_is_withheld_when_workers_hang(pool: ThreadPoolExecutor, manager: socket.socket) -> None:
    clock, out = Clock(), io.StringIO()
    heartbeat = Heartbeat(Pulse(pool, clock), lambda: "serves scale 1.0.0", Log(out))
    assert heartbeat.period == 2.0
    assert heartbeat.beat() is True
    assert manager.recv(1000) == b"WATCHDOG=1\nSTATUS=serves scale 1.0.0"
    over = hang(pool, 2)
    wait_for(lambda: heartbeat._pulse._ping is not None and heartbeat._pulse._ping.done(), what="the first ping")
    assert heartbeat.beat() is True
    assert manager.recv(1000) == b"WATCHDOG=1"
    clock.now += 15
    assert heartbeat.beat() is True, "two intervals are allowed"
    assert manager.recv(1000) == b"WATCHDOG=1"
    clock.now += 1
    assert heartbeat.beat() is False and heartbeat.beat() is False
    assert manager.recv(1000) == b"STATUS=hangs: no worker finished anything for 16 s"
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(event["event"], event["seconds"]) for event in events] == [("workers_hang", 16.0)]
    over.set()
    wait_for(heartbeat.beat, what="it comes back")
    assert manager.recv(1000) == b"WATCHDOG=1\nSTATUS=serves scale 1.0.0"


def test_without_a_watchdog_only_news_is_told(
    pool: ThreadPoolExecutor, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC")
    heartbeat = Heartbeat(Pulse(pool), iter(["a", "a", "b"]).__next__, Log(io.StringIO()))
    assert heartbeat.period == EVERY_S
    for _turn in range(3):
        assert heartbeat.beat()
    manager.setblocking(False)
    assert [manager.recv(100), manager.recv(100)] == [b"STATUS=a", b"STATUS=b"]
    with pytest.raises(BlockingIOError):
        manager.recv(100)

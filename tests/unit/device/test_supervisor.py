"""The supervisor's decisions and small parts; its processes are in tests/integration/test_supervisor.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import control, logfile, restarts, service
from ansible_collections.edgeai.fleet.plugins.module_utils.device.process import Watched
from ansible_collections.edgeai.fleet.plugins.module_utils.device.service import Running


def crash(times: int, lifetime: float, every: float = 1.0, jitter: float = 0.0) -> list[restarts.Decision]:
    """Return the decisions after ``times`` crashes."""
    crashes, decisions = restarts.Crashes(), []
    for number in range(times):
        decisions.append(restarts.after_crash(crashes, number * every, lifetime, jitter))
        crashes = decisions[-1].crashes
    return decisions


def test_delays_double_up_to_a_minute() -> None:
    delays = [decision.delay for decision in crash(12, 1.0)]
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == 60.0


def test_jitter_spreads_but_never_shortens() -> None:
    plain, spread = crash(12, 1.0), crash(12, 1.0, jitter=1.0)
    for first, second in zip(plain, spread):
        assert second.delay == pytest.approx(1.5 * first.delay)


def test_three_rapid_crashes_in_a_row_make_a_release_suspect() -> None:
    assert [decision.suspect for decision in crash(3, 1.0)] == [False, False, True]


def test_crashes_that_are_far_apart_do_not() -> None:
    decisions = crash(8, lifetime=3600.0, every=3600.0)
    assert not any(decision.suspect for decision in decisions)
    assert {decision.delay for decision in decisions} == {0.2}


def test_crashing_every_minute_makes_it_suspect_too() -> None:
    assert [decision.suspect for decision in crash(5, lifetime=60.0, every=61.0)] == [False] * 4 + [True]


def test_a_revert_starts_the_count_anew() -> None:
    crashes = restarts.after_revert(crash(3, 1.0)[-1].crashes)
    assert not restarts.after_crash(crashes, 10.0, 1.0, 0.0).suspect


@pytest.mark.parametrize(
    ("state", "now", "action"),
    [
        ("stopped", Running(None, False, ()), "none"),
        ("stopped", Running(None, True, ()), "stop"),
        ("stopped", Running(7, True, ()), "stop"),
        ("started", Running(None, False, ()), "start"),
        ("started", Running(None, True, (("new", "/p"),)), "start"),
        ("started", Running(7, True, (("new", "/p"), ("new", "/q"))), "none"),
        ("started", Running(7, False, (("new", "/p"),)), "none"),
        ("started", Running(7, True, (("old", "/p"), ("new", "/q"))), "restart"),
        ("started", Running(7, True, (("new", "/p"), ("old", "/q"))), "restart"),
        ("started", Running(7, True, (("new", "/other"), ("new", "/q"))), "restart"),
        ("started", Running(7, True, (("new", "/p"), ("new", "/other"))), "restart"),
        ("restarted", Running(7, True, (("new", "/p"), ("new", "/q"))), "restart"),
        ("restarted", Running(None, False, ()), "start"),
    ],
)
def test_what_has_to_be_done(state: str, now: Running, action: str) -> None:
    assert service.needed(state, now, "new", "/p", "/q")[0] == action


def test_a_log_never_grows_beyond_its_bound_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "log" / "server.log"
    fd = logfile.open_append(str(path))
    for number in range(1000):
        os.write(fd, b"%08d\n" % number)
        logfile.rotate(str(path), max_bytes=900)
    os.close(fd)
    sizes = {p.name: p.stat().st_size for p in path.parent.iterdir()}
    assert set(sizes) == {"server.log", "server.log.1", "server.log.2"}
    assert max(sizes.values()) <= 909
    # the writer has it open the whole time: no hole of zeros after a truncation, and the end is the newest
    text = (tmp_path / "log" / "server.log.1").read_bytes() + path.read_bytes()
    assert b"\0" not in text
    assert text.endswith(b"00000999\n")


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    logfile.JsonLog(str(tmp_path / "log" / "supervisor.log"))("event", key=1)


def test_the_end_of_a_process_is_seen_for_a_child_and_for_an_adopted_one() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    child = Watched.spawn([sys.executable, "-c", "input()"], dict(os.environ), null)
    os.close(null)
    assert child.wait(10.0)  # stdin is nowhere: input() fails
    assert child.status == 1
    other = subprocess.Popen(["sleep", "60"])
    adopted = Watched(other.pid)
    assert adopted.adopted
    assert not adopted.ended()
    other.kill()
    assert adopted.wait(10.0)  # not reaped yet: a zombie counts as ended
    other.wait()
    child.close()
    adopted.close()


def test_nothing_runs_in_an_empty_directory(tmp_path: Path) -> None:
    assert control.supervisor_pid(str(tmp_path)) is None
    assert not control.server_running(str(tmp_path))
    assert control.stop(str(tmp_path), 1.0) is False
    assert control.agent_pid(str(tmp_path)) is None


def test_a_pid_file_that_nobody_holds_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "supervisor.pid").write_text(f"{os.getpid()}\n")
    assert control.supervisor_pid(str(tmp_path)) is None
    assert control.stop(str(tmp_path), 1.0) is False  # and this process is still here

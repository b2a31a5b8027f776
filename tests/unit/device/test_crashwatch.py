"""Crashes of a server that systemd restarts, from what systemctl shows."""

from __future__ import annotations

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import units
from ansible_collections.edgeai.fleet.plugins.module_utils.device.crashwatch import Verdict, Watch, forgive, judge

RUNNING = {"ActiveState": "active", "SubState": "running", "Result": "success", "ExecMainStatus": "0"}
WAITING = {"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal", "ExecMainStatus": "11"}
GIVEN_UP = {"ActiveState": "failed", "SubState": "failed", "Result": "start-limit-hit", "ExecMainStatus": "1"}


def show(base: dict[str, str], restarts: int) -> dict[str, str]:
    return {**dict.fromkeys(units.PROPERTIES, ""), **base, "NRestarts": str(restarts)}


def looks(*seen: tuple[float, dict[str, str], int]) -> list[Verdict]:
    """The verdicts of a series of looks: (time, state, restarts)."""
    watch, verdicts = Watch(), []
    for now, base, restarts in seen:
        verdicts.append(judge(watch, show(base, restarts), now))
        watch = verdicts[-1].watch
    return verdicts


def test_three_rapid_crashes_make_a_release_suspect() -> None:
    seen = [(0, RUNNING, 7), (4, WAITING, 7), (6, RUNNING, 8), (8, RUNNING, 9), (12, RUNNING, 10)]
    verdicts = looks(*seen)
    assert [verdict.crashed for verdict in verdicts] == [0, 0, 1, 1, 1]
    assert [verdict.suspect for verdict in verdicts] == [False] * 4 + [True]


def test_several_crashes_between_two_looks_all_count() -> None:
    assert looks((0, RUNNING, 0), (9, RUNNING, 3))[-1].suspect


@pytest.mark.parametrize("restarts", [0, 40])
def test_what_was_before_the_first_look_does_not_count(restarts: int) -> None:
    assert looks((0, RUNNING, restarts), (60, RUNNING, restarts)) == [
        Verdict(Watch(restarts, 0), 0, False, False),
        Verdict(Watch(restarts, 0), 0, False, False),
    ]


def test_a_start_by_hand_begins_a_new_count() -> None:
    assert looks((0, RUNNING, 9), (5, RUNNING, 0), (9, RUNNING, 1))[-1].crashed == 1


def test_crashes_far_apart_are_nobodys_fault_but_five_in_ten_minutes_are() -> None:
    assert not any(verdict.suspect for verdict in looks(*[(number * 3600.0, RUNNING, number) for number in range(9)]))
    assert looks(*[(number * 100.0, RUNNING, number) for number in range(6)])[-1].suspect


@pytest.mark.parametrize("status", ["0", "4"])
def test_a_server_that_was_told_to_stop_or_found_its_address_taken_is_not_blamed_on_a_release(status: str) -> None:
    ended = {**WAITING, "Result": "success" if status == "0" else "exit-code", "ExecMainStatus": status}
    seen = [(0.0, RUNNING, 0)]
    for number in range(1, 7):
        seen += [(number * 4.0, ended, number - 1), (number * 4.0 + 2, RUNNING, number)]
    assert not any(verdict.suspect for verdict in looks(*seen))


def test_what_systemd_has_given_up_is_suspect_at_once_and_down() -> None:
    first = looks((0, GIVEN_UP, 5))[0]
    assert (first.suspect, first.down) == (True, True)
    stopped_by_hand = {"ActiveState": "inactive", "SubState": "dead", "Result": "success", "ExecMainStatus": "0"}
    assert looks((0, RUNNING, 0), (5, stopped_by_hand, 0))[-1] == Verdict(Watch(0, 0), 0, False, False)


def test_another_release_is_judged_by_its_own_crashes() -> None:
    watch = looks((0, RUNNING, 0), (2, RUNNING, 1), (4, RUNNING, 2))[-1].watch
    assert judge(watch, show(RUNNING, 3), 6).suspect
    assert not judge(forgive(watch), show(RUNNING, 3), 6).suspect

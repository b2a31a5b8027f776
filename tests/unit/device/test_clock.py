"""Deadlines that no wrong clock moves, and the time that certificates are judged by."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import clock
from ansible_collections.edgeai.fleet.plugins.module_utils.device.clock import ClockReading, Deadline
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError

START = ClockReading(boottime=500.0, boot_id="a", wall=1_795_000_000.0)
DEADLINE = clock.make_deadline(900, START)


@pytest.mark.parametrize(
    ("reading", "left"),
    [
        (START, 900),
        (replace(START, boottime=1399.0), 1),
        (replace(START, boottime=1400.0), 0),
        (ClockReading(3.0, "b", START.wall), 897),  # a reboot restarts it ...
        (ClockReading(901.0, "b", START.wall), -1),  # ... and it is never longer than the whole
        (replace(START, boottime=20.0), 880),  # the boot clock went back: another boot under the same id
    ],
)
def test_remaining(reading: ClockReading, left: float) -> None:
    assert clock.remaining(DEADLINE, reading) == pytest.approx(left)
    assert clock.expired(DEADLINE, reading) is (left <= 0)


@pytest.mark.parametrize("wall", [0.0, -5.0, 1.0e12])
def test_the_wall_clock_takes_no_part(wall: float) -> None:
    for boottime in (500.0, 1399.0, 1401.0):
        moved = ClockReading(boottime, "a", wall)
        assert clock.expired(DEADLINE, moved) is clock.expired(DEADLINE, replace(moved, wall=START.wall))


def test_a_device_that_reboots_for_ever_runs_out_of_time() -> None:
    deadline = DEADLINE
    for boot in range(clock.MAX_REBOOTS):
        reading = ClockReading(5.0, f"boot-{boot}", 0.0)
        assert not clock.expired(deadline, reading)
        deadline = clock.rebase(deadline, reading)
        assert clock.rebase(deadline, reading) == deadline, "one boot counts once"
    assert clock.expired(deadline, ClockReading(5.0, "one-too-many", 0.0))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 31 * 86400])
def test_absurd_deadlines_are_refused(seconds: float) -> None:
    with pytest.raises(DeviceError, match="confirm_within"):
        clock.make_deadline(seconds, START)


def test_round_trip() -> None:
    carried = clock.rebase(DEADLINE, ClockReading(5.0, "b", 0.0))
    assert Deadline.from_dict(carried.to_dict()) == carried


@pytest.mark.parametrize(
    "raw", [None, {}, {"seconds": 1}, dict(DEADLINE.to_dict(), seconds="9"), dict(DEADLINE.to_dict(), boot_id=1)]
)
def test_damaged_deadlines_are_told(raw: object) -> None:
    with pytest.raises(DeviceError) as caught:
        Deadline.from_dict(raw)
    assert caught.value.code == "damaged"


def test_the_real_clock() -> None:
    one, two = clock.read_clock(), clock.read_clock()
    assert one.boot_id == two.boot_id != ""
    assert two.boottime >= one.boottime > 0
    assert clock.read_clock("/no/such/file").boot_id == "unknown"


def test_certificates_are_never_judged_before_the_floor() -> None:
    floor = "2026-11-23T11:00:00Z"
    at_1970 = ClockReading(10.0, "a", 5.0)
    assert clock.trusted_now(at_1970, floor) == datetime(2026, 11, 23, 11, tzinfo=timezone.utc)
    assert clock.trusted_now(at_1970, floor, "2026-12-01T00:00:00Z") == datetime(2026, 12, 1, tzinfo=timezone.utc)
    assert clock.trusted_now(at_1970, floor, "2020-01-01T00:00:00Z") == datetime(2026, 11, 23, 11, tzinfo=timezone.utc)
    # A device clock that runs years ahead is not believed when the controller tells the time.
    ahead = ClockReading(10.0, "a", 4_000_000_000.0)
    assert clock.trusted_now(ahead, floor, "2026-12-01T01:00:00+01:00") == datetime(2026, 12, 1, tzinfo=timezone.utc)


def test_the_floor_only_rises() -> None:
    assert clock.raise_floor("2026-11-23T11:00:00Z", "2025-01-01T00:00:00Z") == "2026-11-23T11:00:00Z"
    assert clock.raise_floor(clock.EPOCH, "2026-11-23T11:00:00Z") == "2026-11-23T11:00:00Z"


@pytest.mark.parametrize("text", ["yesterday", "2026-11-23T11:00:00", ""])
def test_times_without_a_zone_are_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="controller_time"):
        clock.parse_time(text, "controller_time")

"""Maintenance windows over midnight and changes of the clock, and vetoes with their end."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Device, Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.not_now import NotNow
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy, parse_policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.table import plan_table
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.vetoes import (
    parse_moment,
    parse_vetoes,
    recorded_vetoes,
    veto_reason,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.windows import (
    check_window,
    closed_reason,
    standing,
)

BERLIN = "Europe/Berlin"
NIGHT = {"timezone": BERLIN, "open": [{"days": ["fri"], "from": "22:00", "to": "05:00"}]}


def at(text: str, zone: str = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def is_open(window: dict[str, Any], moment: datetime) -> bool:
    return standing(check_window("x", "edge_window", window), moment).closes is not None


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-27T21:59:59", False),  # a Friday
        ("2026-11-27T22:00:00", True),
        ("2026-11-28T00:00:00", True),
        ("2026-11-28T04:59:59", True),
        ("2026-11-28T05:00:00", False),
        ("2026-11-27T03:00:00", False),  # the night from Thursday
        ("2026-11-28T23:00:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_begins(moment: str, expected: bool) -> None:
    assert is_open(NIGHT, at(moment)) is expected
    assert is_open(NIGHT, at(moment).astimezone(ZoneInfo("Asia/Tokyo"))) is expected, (
        "the zone of the moment is no matter"
    )


@pytest.mark.parametrize(
    ("evening", "hours"),
    [("2026-03-28T22:00:00", 6), ("2026-10-24T22:00:00", 8), ("2026-11-21T22:00:00", 7)],
    ids=["spring", "autumn", "usual"],
)
def test_a_night_with_a_change_of_the_clock_is_an_hour_shorter_or_longer(evening: str, hours: int) -> None:
    window = check_window("x", "edge_window", {"timezone": BERLIN, "open": [{"from": "22:00", "to": "05:00"}]})
    start = at(evening).astimezone(timezone.utc)
    found = standing(window, start)
    assert found.closes is not None and found.closes - start == timedelta(hours=hours)


def test_a_window_in_the_hour_that_the_clock_skips_is_not_lost() -> None:
    window = {"timezone": BERLIN, "open": [{"days": ["sun"], "from": "02:15", "to": "02:45"}]}
    moments = [at("2026-03-29T01:00:00").astimezone(timezone.utc) + timedelta(minutes=15 * i) for i in range(16)]
    assert sum(is_open(window, moment) for moment in moments) == 2


def test_windows_that_touch_count_as_one_and_the_next_opening_is_told() -> None:
    rules = [{"days": ["mon"], "from": "20:00", "to": "24:00"}, {"days": ["tue"], "from": "00:00", "to": "02:00"}]
    window = check_window("x", "edge_window", {"timezone": "UTC", "open": rules})
    found = standing(window, at("2026-11-23T21:00:00", "UTC"))
    assert found.closes == at("2026-11-24T02:00:00", "UTC") and found.opens == at("2026-11-30T20:00:00", "UTC")
    assert closed_reason(window, at("2026-11-24T02:00:00", "UTC"), 60).endswith("it opens mon 2026-11-30 20:00 UTC")


def test_a_change_does_not_begin_that_could_not_end_in_the_window() -> None:
    window = check_window("x", "edge_window", NIGHT)
    assert closed_reason(window, at("2026-11-28T04:50:00"), 600) == ""
    reason = closed_reason(window, at("2026-11-28T04:50:01"), 600)
    assert "closes sat 2026-11-28 05:00 Europe/Berlin, in 10 min, and a wave may take 10 min" in reason
    assert Policy().wave_takes == 420


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        ([], "edge_window is []"),
        ({"zone": "UTC"}, "edge_window.zone"),
        ({"timezone": "Berlin"}, "edge_window.timezone is 'Berlin'"),
        ({"timezone": "../etc/passwd"}, "edge_window.timezone"),
        (
            {"open": [{"from": 1320, "to": "05:00"}]},
            "edge_window.open[0].from is 1320: write hours and minutes in quotes",
        ),
        ({"open": [{"from": "22:00", "to": "22:00"}]}, "it is never open"),
        ({"open": [{"from": "22:00", "to": "25:00"}]}, "edge_window.open[0].to"),
        ({"open": [{"days": ["friday"], "from": "22:00", "to": "23:00"}]}, "edge_window.open[0].days"),
        ({"open": [{"from": "22:00"}]}, "edge_window.open[0] is"),
    ],
    ids=["list", "key", "zone", "path", "number", "empty", "hour", "day", "half"],
)
def test_a_wrong_window_is_named(value: Any, fragment: str) -> None:
    with pytest.raises(RolloutError, match="host h1: ") as error:
        NotNow(Policy(), "digits", at("2026-11-23T12:00:00")).reason("h1", value, None)
    assert fragment in str(error.value)


def test_a_policy_with_a_window_survives_its_plan_and_one_without_keeps_its_hash() -> None:
    policy = parse_policy({"window": NIGHT, "approval": {"after": ["canary"]}, "growth_factor": 2, "jitter": 5})
    assert parse_policy(policy.to_dict()) == policy
    later = {"window", "approval", "pause_limit", "growth_factor", "site_concurrency", "jitter", "prometheus"}
    assert not later & set(Policy().to_dict())


def test_the_hosts_own_window_goes_before_the_policys() -> None:
    policy = parse_policy({"window": NIGHT})
    not_now = NotNow(policy, "digits", at("2026-11-23T12:00:00"))
    kind, reason = not_now.reason("h1", None, None) or ("", "")
    assert kind == "window" and "it opens fri 2026-11-27 22:00 Europe/Berlin" in reason
    assert not_now.reason("h2", {"open": []}, None) is None


def veto(until: str, **more: str) -> dict[str, str]:
    return {"by": "Ana", "reason": "stocktaking", "until": until, **more}


def test_a_veto_stands_until_its_end_and_for_its_model() -> None:
    now = parse_moment("x", "now", "2026-11-23T12:00:00Z")
    vetoes = parse_vetoes(
        "host h1", "edge_vetoes", [veto("2026-11-23T13:00:00+01:00"), veto("2026-11-24T00:00:00Z", model="a")]
    )
    assert veto_reason(vetoes, now, "b") == ""  # the first ended this very second
    assert veto_reason(vetoes, now, "a") == "vetoed by Ana until 2026-11-24 00:00 UTC: stocktaking"


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        ("no", "edge_vetoes is 'no'"),
        ([{"by": "Ana", "reason": "x"}], "edge_vetoes[0].until is None"),
        ([veto("")], "edge_vetoes[0].until is ''"),
        ([veto("tomorrow")], "edge_vetoes[0].until is 'tomorrow'"),
        ([veto("2026-11-23T13:00:00")], "say in which zone"),
        ([veto("2026-11-23T13:00:00Z", site="x")], "edge_vetoes[0] is"),
    ],
    ids=["text", "none", "empty", "word", "zone", "key"],
)
def test_a_veto_without_an_end_is_refused(value: Any, fragment: str) -> None:
    with pytest.raises(RolloutError) as error:
        parse_vetoes("host h1", "edge_vetoes", value)
    assert fragment in str(error.value)


def test_vetoes_of_the_ledger_count_until_they_are_lifted() -> None:
    data = {**veto("2026-12-01T00:00:00Z"), "hosts": ["h1", "h2"], "model": ""}
    records = [
        {"seq": 1, "type": "veto", "data": data},
        {"seq": 2, "type": "veto_lifted", "data": {"hosts": ["h2"], "model": ""}},
    ]
    assert sorted(recorded_vetoes(records)) == ["h1"]
    not_now = NotNow(Policy(), "digits", at("2026-11-23T12:00:00"), records)
    assert not_now.reason("h1", None, None) == ("veto", "vetoed by Ana until 2026-12-01 00:00 UTC: stocktaking")
    assert not_now.reason("h2", None, None) is None


def test_the_plan_defers_them_with_the_reason_and_leaves_alone_who_has_the_release() -> None:
    release = Release("digits", "1.2.0", "sha256:" + "a" * 64)
    common = {"stratum": "cpu/onnxruntime/x86_64", "not_now": ("window", "its maintenance window is closed")}
    devices = [
        Device("h1", active_digest="sha256:old", **common),  # type: ignore[arg-type]
        Device("h2", active_digest=release.digest, **common),  # type: ignore[arg-type]
    ]
    plan = make_plan(devices, release, Policy(), "r1")
    assert plan["deferred"] == [{"host": "h1", "kind": "window", "reason": "its maintenance window is closed"}]
    assert plan["unchanged"] == ["h2"] and plan["waves"] == []
    assert "deferred: h1: its maintenance window is closed" in plan_table(plan)

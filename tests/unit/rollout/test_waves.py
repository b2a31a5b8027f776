# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a person watches: right counts, and one screen whatever the fleet's size."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import waves_text as text
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.waves_model import Rollout, outcome_of, reason_of
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.waves_tasks import TaskLog

FAILED_GATE = {
    "result": "reverted", "reverted": True, "msg": "gate golden failed",
    "gates": [
        {"gate": "memory", "verdict": "pass", "phase": "candidate", "value": 1, "limit": 2},
        {"gate": "golden", "verdict": "fail", "phase": "candidate", "value": 0.71, "limit": 0.96, "reason": "too low"},
    ],
}  # fmt: skip


def plan(strata: int, devices: int, waves: int = 3) -> dict[str, Any]:
    """A plan of ``devices`` per stratum, spread over the waves."""
    found: list[dict[str, Any]] = []
    for number in range(1, waves + 1):
        groups = {
            f"s{s:03}/onnxruntime/x86_64": [f"d{s:03}-{n:05}" for n in range(devices) if n % waves == number - 1]
            for s in range(strata)
        }
        found.append({
            "number": number, "kind": "canary" if number == 1 else "growth", "strata": groups,
            "hosts": [host for hosts in groups.values() for host in hosts],
            "detectable": {stratum: {"failure_rate": 0.5, "power": 0.95} for stratum in groups},
        })  # fmt: skip
    return {
        "rollout_id": "r1", "model": "digits", "version": "1.2.0", "digest": "sha256:1", "waves": found,
        "stratum_of": {host: s for wave in found for s, hosts in wave["strata"].items() for host in hosts},
        "wave_of": {host: wave["number"] for wave in found for host in wave["hosts"]},
        "unchanged": ["u1"], "deferred": [{"host": "away1", "reason": "unreachable"}],
        "refused": [{"host": f"q{n}", "stratum": "s", "reason": "quarantined"} for n in range(9)],
    }  # fmt: skip


def flat(lines: list[text.Line]) -> list[str]:
    """The lines without their styles."""
    return ["".join(piece for piece, _style in line) for line in lines]


@pytest.mark.parametrize(("action", "result", "flags", "outcome"), [
    ("active", {"result": "activated"}, {}, "activated"),
    ("active", {"result": "resumed"}, {}, "activated"),
    ("active", {"result": "unchanged"}, {}, "unchanged"),
    ("confirmed", {"result": "unchanged"}, {}, "confirmed"),
    ("reverted", {"result": "unchanged"}, {}, "reverted"),
    ("active", FAILED_GATE, {"failed": True}, "reverted"),
    ("active", {"result": "refused"}, {"failed": True}, "refused"),
    ("active", {"msg": "crash"}, {"failed": True}, "failed"),
    ("active", {"msg": "no route"}, {"failed": True, "unreachable": True}, "unreachable"),
    ("active", {}, {"skipped": True}, "held"),
])  # fmt: skip
def test_outcomes(action: str, result: dict[str, Any], flags: dict[str, bool], outcome: str) -> None:
    arguments = {"failed": False, "unreachable": False, **flags}
    assert outcome_of(action, result, **arguments) == outcome


def test_a_reason_names_the_gate_its_value_and_its_limit() -> None:
    assert reason_of(FAILED_GATE) == "gate golden fail in phase candidate: 0.71 (limit 0.96) too low"
    assert reason_of({"msg": " two\n lines "}) == "two lines"


def test_a_wave_counts_each_device_once() -> None:
    rollout = Rollout()
    rollout.planned(plan(1, 4, 1))
    wave = rollout.wave_started(rollout.plan["waves"][0]["hosts"])
    for host in rollout.plan["waves"][0]["hosts"]:
        rollout.released(host, "active", "activated", {})
    rollout.released("d000-00000", "confirmed", "confirmed", {})
    rollout.released("d000-00001", "confirmed", "reverted", FAILED_GATE)
    rollout.released("d000-00002", "confirmed", "held", {})  # a skipped confirmation changes nothing
    assert dict(wave.counts()) == {"confirmed": 1, "reverted": 1, "activated": 2}
    assert [failure.host for failure in wave.failures] == ["d000-00001"]


def test_taken_back_in_the_wave_and_after_it() -> None:
    rollout = Rollout()
    rollout.planned(plan(1, 4, 2))
    first = rollout.wave_started(rollout.plan["waves"][0]["hosts"])
    for host in rollout.plan["waves"][0]["hosts"]:
        rollout.released(host, "active", "confirmed", {})
    second = rollout.wave_started(rollout.plan["waves"][1]["hosts"])
    for host in rollout.plan["waves"][1]["hosts"]:
        rollout.released(host, "active", "activated", {})
        assert rollout.released(host, "reverted", "reverted", {}) is second
    rollout.judged({"stage": "soak", "rollback": {"hosts": rollout.plan["waves"][0]["hosts"], "sizes": [2]}})
    back = rollout.released("d000-00000", "reverted", "reverted", {"golden_restored": True}, in_wave=False)
    assert back is rollout.undo and back.total == 2
    rollout.released("d000-00002", "reverted", "reverted", {"golden_restored": False}, in_wave=False)
    assert back.failures[0].reason == "golden outputs are not those from before"
    assert dict(rollout.totals()) == {"reverted": 3, "failed": 1} and first.counts()["confirmed"] == 2


@pytest.mark.parametrize(("strata", "devices"), [(1, 1), (3, 40), (200, 50), (2, 20000)])
def test_one_screen_whatever_the_size(strata: int, devices: int) -> None:
    rollout = Rollout()
    rollout.planned(plan(strata, devices, min(devices, 3)))
    assert len(text.plan_lines(rollout.plan)) <= 40
    chosen = random.Random(1)
    for number in range(len(rollout.plan["waves"])):
        hosts = rollout.plan["waves"][number]["hosts"]
        wave = rollout.wave_started(hosts)
        for host in hosts:
            failed = chosen.random() < 0.3
            rollout.released(host, "active", "reverted" if failed else "activated", FAILED_GATE if failed else {})
    rollout.judged({"stage": "activation", "halted_strata": [f"s{n}" for n in range(strata)], "strata": {
        stratum: {"verdict": "fail", "reason": "3 of 9 failed"} for stratum in wave.strata},
        "quarantine": [{"stratum": stratum, "reason": "golden"} for stratum in wave.strata]})  # fmt: skip
    assert len(text.stage_lines(wave, 5, True, "activation")) <= 2 * text.MAX_STRATA + 7
    lines = text.wave_lines(wave, 3, 5) + text.verdict_lines(wave, "activation")
    assert len(lines) <= 1 + text.MAX_STRATA + 1 + 6 + text.MAX_STRATA
    shown = sum(wave.counts(stratum).total() for stratum in list(wave.strata)[:1]) > 0
    assert shown and len(text.summary_lines(rollout, 3.0)) <= 6 + text.MAX_STRATA
    for line in text.wave_lines(wave, 3, 5):
        assert text.width_of(text.cut(line, 60)) <= 60


def test_the_bar_shows_every_outcome_that_occurs() -> None:
    rollout = Rollout()
    rollout.planned(plan(1, 1000, 1))
    wave = rollout.wave_started(rollout.plan["waves"][0]["hosts"])
    for host in rollout.plan["waves"][0]["hosts"][:-1]:
        rollout.released(host, "active", "activated", {})
    rollout.released("d000-00999", "active", "failed", {"msg": "x"})
    stratum = next(iter(wave.strata))
    line = flat([text.stratum_line(wave, stratum, 0, unicode=False)])[0]
    assert "===================x" in line and "999 activated" in line and "1 failed" in line


def test_the_plan_tells_who_is_left_out_and_why() -> None:
    lines = flat(text.plan_lines(plan(2, 6)))
    assert "  refused 9: q0, q1, q2, q3 and 5 more · quarantined" in lines
    assert "  deferred 1: away1 · unreachable" in lines
    assert any("canary" in line and "50.0% or more" in line for line in lines)
    assert "  nothing to do" in flat(text.plan_lines({**plan(1, 1), "waves": []}))


def test_equal_problems_are_shown_once() -> None:
    log = TaskLog()
    log.start("Break", "shell")
    for number in range(100):
        log.problem("failed", f"h{number}", f"rc: 7 at {number}", "red", key="rc: 7")
    shown = log.finish(quiet=False, verbosity=0)
    assert shown[0][0] == "Break  failed=100"
    assert len(shown) == 2 and shown[1][0].endswith("and 80 more] Break => rc: 7 at 0")
    assert log.finish(quiet=False, verbosity=0) == []


def test_quiet_tasks_speak_of_failures_only() -> None:
    log = TaskLog()
    log.start("Keep", "set_fact")
    log.count("ok", "h")
    assert log.finish(quiet=True, verbosity=0) == []
    log.count("ok", "h")
    log.problem("failed", "h", "no", "red")
    assert len(log.finish(quiet=True, verbosity=0)) == 2

"""Verdicts over waves: only evidence passes, and nobody who is away or broken decides for the others."""

from __future__ import annotations

import copy
import itertools
import json
import random
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.findings import classify, outcome_of
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Device, Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.gates import preview, wave_verdict
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import parse_policy

NEW = "sha256:" + "a" * 64
OLD = "sha256:" + "b" * 64
A, B = "cpu-int8/onnxruntime/x86_64", "cpu/openvino/x86_64"


def gate(phase: str, verdict: str = "pass", digest: str = NEW, start_id: str | None = "s1") -> dict[str, Any]:
    return {
        "gate": "golden",
        "verdict": verdict,
        "phase": phase,
        "reason": "score 0.98",
        "evidence": {"digest": digest, "start_id": start_id, "boot_id": "b", "time": "2026-11-23T11:00:00Z"},
    }


def activated(**changes: Any) -> dict[str, Any]:
    return {
        "result": "activated",
        "changed": True,
        "gates": [gate("candidate"), gate("serving")],
        "server": {"digest": NEW, "start_id": "s1", "boot_id": "b"},
        "active": {"digest": NEW},
        "unconfirmed": {"digest": NEW},
        **changes,
    }


def confirmed(**changes: Any) -> dict[str, Any]:
    return activated(**{"result": "confirmed", "gates": [gate("soak")], "unconfirmed": None, **changes})


def failed(code: str | None = "gate", verdict: str | None = "fail", **changes: Any) -> dict[str, Any]:
    gates = [gate("candidate", verdict)] if verdict else []
    return {"failed": True, "code": code, "msg": f"{code} failed", "result": "reverted", "gates": gates, **changes}


AWAY = {"unreachable": True, "msg": "no route to host"}
FULL = failed("no_space", None, result="refused")
BAD = failed()
RESTARTED = failed(verdict="inconclusive")


class Rollout:
    """A plan and the results so far; hosts are named by stratum and number: a0, a1, ... b0, ..."""

    def __init__(self, policy: dict[str, Any] | None = None, a: int = 8, b: int = 4, deferred: int = 0) -> None:
        devices = [Device(f"a{index}", stratum=A, active_digest=OLD) for index in range(a)]
        devices += [Device(f"b{index}", stratum=B, active_digest=OLD) for index in range(b)]
        devices += [Device(f"x{index}", reachable=False, reason="away") for index in range(deferred)]
        self.policy = parse_policy(policy or {})
        self.plan = make_plan(devices, Release("digits", "1.2.0", NEW), self.policy, "r1")
        self.results: dict[str, dict[str, Any]] = {}
        self.halted: list[str] = []

    def hosts(self, wave: int, stratum: str) -> list[str]:
        return list(self.plan["waves"][wave - 1]["strata"][stratum])

    def set(self, wave: int, stratum: str, *results: Any) -> list[str]:
        """Give the stratum's devices these results, the rest of them the last one."""
        hosts = self.hosts(wave, stratum)
        for host, result in itertools.zip_longest(hosts, results[: len(hosts)], fillvalue=results[-1]):
            self.results[host] = {"result": result} if result is not None else {}
        return hosts

    def confirm(self, wave: int, stratum: str, *results: Any) -> None:
        hosts = self.hosts(wave, stratum)
        for host, result in itertools.zip_longest(hosts, results[: len(hosts)], fillvalue=results[-1]):
            self.results[host]["confirm"] = result

    def judge(self, wave: int, stage: str = "activation") -> dict[str, Any]:
        verdict = wave_verdict(self.results, self.plan, wave, stage, self.policy, self.halted)
        self.halted = verdict["halted_strata"]
        assert json.loads(json.dumps(verdict)) == verdict
        return verdict

    def pass_wave(self, wave: int) -> None:
        for stratum in self.plan["waves"][wave - 1]["strata"]:
            self.set(wave, stratum, activated())
            self.confirm(wave, stratum, confirmed())


def test_a_wave_passes_on_evidence_and_all_of_it_is_confirmed() -> None:
    rollout = Rollout()
    rollout.set(1, A, activated())
    rollout.set(1, B, activated())
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "pass"
    assert verdict["confirm"] == sorted(rollout.plan["waves"][0]["hosts"])
    assert (verdict["halt"], verdict["halted_strata"], verdict["rollback"], verdict["quarantine"]) == (
        False,
        [],
        [],
        [],
    )
    rollout.confirm(1, A, confirmed())
    rollout.confirm(1, B, confirmed())
    assert rollout.judge(1, "soak")["verdict"] == "pass"


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (None, "no result"),
        ({}, "no result"),
        ({"result": "staged"}, "no result"),
        (activated(gates=[]), "measured nothing in the serving phase"),
        (activated(gates=[gate("candidate")]), "measured nothing in the serving phase"),
        (activated(gates=[gate("serving", digest=OLD)]), "not on the planned"),
        (activated(gates=[gate("serving", start_id=None)]), "no start id"),
        (activated(gates=[gate("serving", start_id="s0")]), "measured on server start s0, now it is s1"),
        (activated(gates=[gate("serving"), gate("serving", "no_data")]), "verdict no_data"),
        (activated(gates=[gate("serving", "fail")]), "verdict fail"),
        (activated(gates=[{"gate": "golden", "verdict": "pass", "phase": "serving"}]), "measured on None"),
        (activated(server={"digest": OLD, "start_id": "s1"}), "its server serves"),
        (activated(result="resumed", gates=[]), "no record of a passed gate"),
    ],
)
def test_what_is_no_evidence_never_passes(result: Any, why: str) -> None:
    rollout = Rollout(b=0)
    (host,) = rollout.set(1, A, result)
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "no_data"
    assert why in verdict["strata"][A]["reasons"][host]
    assert verdict["confirm"] == [] and verdict["rollback"] == [host]
    assert verdict["halted_strata"] == [A] and verdict["quarantine"] == []


def test_evidence_from_before_a_restart_does_not_confirm() -> None:
    rollout = Rollout(b=0)
    rollout.set(1, A, activated())
    rollout.confirm(1, A, confirmed(gates=[gate("soak", start_id="s2")], server={"digest": NEW, "start_id": "s2"}))
    verdict = rollout.judge(1, "soak")
    assert verdict["verdict"] == "no_data" and "restarted" in verdict["strata"][A]["reason"]
    assert verdict["rollback"] == rollout.hosts(1, A)


def test_an_activation_that_was_never_confirmed_does_not_count_as_one() -> None:
    rollout = Rollout(b=0)
    rollout.set(1, A, activated())
    assert rollout.judge(1, "soak")["strata"][A]["verdict"] == "no_data"


def test_an_interrupted_activation_counts_by_its_own_record() -> None:
    unconfirmed = {"digest": NEW, "gated": True, "evidence": {"start_id": "s1"}}
    resumed = activated(result="resumed", gates=[], unconfirmed=unconfirmed)
    assert classify("h", {"result": resumed}, NEW, "activation").kind == "passed"
    restarted = {**resumed, "server": {"digest": NEW, "start_id": "s2"}}
    assert classify("h", {"result": restarted}, NEW, "activation").kind == "doubtful"


def test_a_failing_canary_halts_its_stratum_and_quarantines_it() -> None:
    rollout = Rollout()
    (bad,) = rollout.set(1, A, BAD)
    (good,) = rollout.set(1, B, activated())
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "fail"
    assert verdict["strata"][A]["verdict"] == "fail" and verdict["strata"][B]["verdict"] == "pass"
    assert verdict["strata"][A]["failed"] == [bad]
    assert verdict["halted_strata"] == verdict["failed_strata"] == [A]
    assert verdict["confirm"] == [good] and verdict["rollback"] == []  # it went back by itself
    assert not verdict["halt"]
    (pair,) = verdict["quarantine"]
    assert (pair["digest"], pair["stratum"], pair["version"]) == (NEW, A, "1.2.0")
    assert bad in pair["reason"] and "golden" in pair["reason"]


def test_policy_rollout_halts_and_takes_back_everything() -> None:
    rollout = Rollout({"halt": "rollout"})
    rollout.set(1, A, BAD)
    (good,) = rollout.set(1, B, activated())
    verdict = rollout.judge(1)
    assert verdict["halt"] and A in verdict["halt_reason"]
    assert verdict["halted_strata"] == [A, B] and verdict["failed_strata"] == [A]
    assert verdict["confirm"] == [] and verdict["rollback"] == [good]
    assert [pair["stratum"] for pair in verdict["quarantine"]] == [A]


def test_a_later_failure_takes_back_the_stratum_newest_wave_first() -> None:
    rollout = Rollout()
    rollout.pass_wave(1)
    rollout.pass_wave(2)
    hosts = rollout.set(3, A, activated(), BAD)
    rollout.set(3, B, activated())
    verdict = rollout.judge(3)
    assert verdict["strata"][A]["verdict"] == "fail"
    assert verdict["rollback"] == [hosts[0], *rollout.hosts(2, A), *rollout.hosts(1, A)]
    assert verdict["confirm"] == rollout.hosts(3, B)


def test_a_release_failure_without_a_gate_fails_but_does_not_quarantine() -> None:
    rollout = Rollout(b=0)
    rollout.set(1, A, failed("no_variant", None, result="refused"))
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "fail" and verdict["quarantine"] == []


def test_a_device_that_went_back_without_a_verdict_on_the_release_proves_nothing() -> None:
    rollout = Rollout(b=0)
    rollout.set(1, A, RESTARTED)
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "inconclusive" and verdict["held_strata"] == [A]
    assert verdict["quarantine"] == [] and verdict["failed_strata"] == []


@pytest.mark.parametrize("condition", [FULL, AWAY, failed("server", None, result="refused")])
def test_a_canary_that_could_not_try_holds_its_stratum_only(condition: dict[str, Any]) -> None:
    rollout = Rollout()
    rollout.set(1, A, condition)
    (good,) = rollout.set(1, B, activated())
    verdict = rollout.judge(1)
    assert verdict["strata"][A]["verdict"] in ("inconclusive", "no_data")
    assert verdict["held_strata"] == verdict["halted_strata"] == [A]
    assert verdict["confirm"] == [good] and verdict["quarantine"] == [] and not verdict["halt"]


def test_a_spare_canary_carries_on_for_one_with_a_full_disk() -> None:
    rollout = Rollout({"canary": {"per_stratum": 1, "spare": 1}}, b=0)
    hosts = rollout.set(1, A, FULL, activated())
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "pass" and verdict["confirm"] == [hosts[1]]
    assert verdict["strata"][A]["device_failed"] == [hosts[0]]


def test_a_spare_canary_does_not_outvote_one_that_failed() -> None:
    rollout = Rollout({"canary": {"per_stratum": 3, "spare": 1}, "failure_budget": {"count": 3}}, b=0)
    hosts = rollout.set(1, A, BAD, activated())
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "fail" and verdict["rollback"] == hosts[1:]


@pytest.mark.parametrize("condition", [FULL, AWAY])
def test_a_later_wave_with_nobody_at_home_goes_on(condition: dict[str, Any]) -> None:
    rollout = Rollout()
    rollout.pass_wave(1)
    rollout.set(2, A, condition)
    verdict = rollout.judge(2)
    assert verdict["verdict"] in ("no_data", "inconclusive")
    assert verdict["halted_strata"] == [] and verdict["confirm"] == []


def test_device_conditions_have_their_own_budget() -> None:
    rollout = Rollout(b=0)
    for wave in (1, 2, 3):
        rollout.pass_wave(wave)
    rollout.set(4, A, FULL, activated())
    assert rollout.judge(4)["verdict"] == "pass"
    rollout.halted = []
    hosts = rollout.set(4, A, FULL, FULL, activated())
    verdict = rollout.judge(4)
    assert verdict["verdict"] == "inconclusive" and verdict["held_strata"] == [A]
    assert sorted(verdict["rollback"]) == sorted(hosts[2:])  # this wave only: the earlier ones passed
    assert verdict["quarantine"] == []


def test_failures_within_the_budget_do_not_stop_and_are_not_confirmed() -> None:
    rollout = Rollout({"failure_budget": {"count": 1}}, b=0)
    for wave in (1, 2, 3):
        rollout.pass_wave(wave)
    hosts = rollout.set(4, A, BAD, activated())
    verdict = rollout.judge(4)
    assert verdict["verdict"] == "pass" and sorted(verdict["confirm"]) == sorted(hosts[1:])
    assert verdict["quarantine"] == []
    rollout.set(4, A, BAD, BAD, activated())
    assert rollout.judge(4)["verdict"] == "fail"


def test_a_failed_device_that_did_not_go_back_is_taken_back_in_a_wave_that_passes() -> None:
    rollout = Rollout({"failure_budget": {"count": 1}}, b=0)
    for wave in (1, 2, 3):
        rollout.pass_wave(wave)
    stuck = failed(None, None, result=None, msg="Timed out after 330 seconds")
    hosts = rollout.set(4, A, stuck, activated())
    verdict = rollout.judge(4)
    assert verdict["verdict"] == "pass" and verdict["rollback"] == [hosts[0]]


def test_half_of_them_failed_breaks_a_budget_of_half() -> None:
    rollout = Rollout({"failure_budget": {"share": 0.5}}, b=0)
    for wave in (1, 2, 3):
        rollout.pass_wave(wave)
    assert len(rollout.set(4, A, BAD, BAD, activated())) == 4
    assert rollout.judge(4)["verdict"] == "fail"
    rollout.halted = []
    rollout.set(4, A, BAD, activated())
    assert rollout.judge(4)["verdict"] == "pass"


def test_who_is_away_is_in_no_denominator() -> None:
    rollout = Rollout({"failure_budget": {"share": 0.5}}, b=0)
    for wave in (1, 2, 3):
        rollout.pass_wave(wave)
    rollout.set(4, A, BAD, activated(), AWAY)
    verdict = rollout.judge(4)
    assert verdict["strata"][A]["allowed"] == 0
    assert verdict["verdict"] == "fail"


def test_nothing_passed_is_never_a_pass() -> None:
    rollout = Rollout({"failure_budget": {"count": 100}, "device_failure_budget": {"count": 100}}, b=0)
    for wave in (1, 2, 3):
        rollout.pass_wave(wave)
    for results in ([BAD], [FULL, BAD], [RESTARTED], [AWAY, BAD], [FULL, FULL, FULL, RESTARTED]):
        rollout.halted = []
        rollout.set(4, A, *results)
        verdict = rollout.judge(4)
        assert verdict["verdict"] != "pass" and verdict["confirm"] == []


def test_smallest_sample_of_what_the_wave_has() -> None:
    policy = {"canary": {"per_stratum": 3}, "smallest_sample": 3}
    rollout = Rollout(policy, a=2, b=0)
    rollout.set(1, A, activated())
    assert rollout.judge(1)["verdict"] == "pass"  # the stratum has no third device
    rollout = Rollout(policy, a=8, b=0)
    rollout.set(1, A, AWAY, activated())
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "inconclusive" and "2 measured, at least 3" in verdict["strata"][A]["reason"]


def test_a_halted_stratum_is_left_alone_and_does_not_spoil_the_verdict_of_others() -> None:
    rollout = Rollout()
    rollout.halted = [A]
    hosts = rollout.set(1, A, {"skipped": True})
    rollout.set(1, B, activated())
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "pass"
    assert verdict["strata"][A]["verdict"] == "no_data" and verdict["strata"][A]["action"] == "none"
    assert verdict["rollback"] == [] and hosts[0] not in verdict["confirm"]
    assert verdict["halted_strata"] == [A]


def test_all_strata_halted_ends_the_rollout() -> None:
    rollout = Rollout()
    rollout.set(1, A, BAD)
    rollout.set(1, B, FULL)
    verdict = rollout.judge(1)
    assert verdict["halt"] and verdict["halt_reason"] == "every stratum is halted"


def test_the_unreachable_have_a_budget_over_the_whole_rollout() -> None:
    rollout = Rollout({"unreachable_budget": {"count": 2, "share": 0.0}}, deferred=1)
    rollout.pass_wave(1)
    rollout.set(2, A, AWAY)
    verdict = rollout.judge(2)
    assert verdict["unreachable_budget"] == {"count": 2, "allowed": 2} and not verdict["halt"]
    rollout.set(3, A, AWAY, activated())
    rollout.set(3, B, activated())
    verdict = rollout.judge(3)
    assert verdict["unreachable_budget"]["count"] == 3
    assert verdict["halt"] and "3 devices unreachable" in verdict["halt_reason"]
    assert verdict["failed_strata"] == []


def test_a_device_that_had_it_already_is_neither_passed_nor_taken_back() -> None:
    rollout = Rollout()
    rollout.set(1, A, {"result": "unchanged", "active": {"digest": NEW}, "server": {"digest": NEW}, "gates": []})
    rollout.set(1, B, activated(result="resumed", gates=[], unconfirmed=None))
    verdict = rollout.judge(1)
    assert verdict["verdict"] == "no_data" and verdict["halted_strata"] == []
    assert verdict["confirm"] == verdict["rollback"] == []
    rollout.set(1, A, {"result": "unchanged", "active": {"digest": OLD}, "gates": []})
    assert rollout.judge(1)["halted_strata"] == [A]


def test_without_device_gates_the_active_digest_is_all_there_is() -> None:
    rollout = Rollout({"gate": {"enabled": False}}, b=0)
    rollout.set(1, A, activated(gates=[], server=None))
    assert rollout.judge(1)["verdict"] == "pass"
    rollout.set(1, A, activated(gates=[], server=None, active={"digest": OLD}))
    assert rollout.judge(1)["verdict"] == "no_data"
    assert any("nothing is measured" in warning for warning in rollout.plan["warnings"])


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (None, None),
        ({}, None),
        (AWAY, "unreachable"),
        ({"skipped": True}, "held"),
        (activated(), "activated"),
        (activated(result="resumed"), "activated"),
        (confirmed(), "confirmed"),
        ({"result": "unchanged"}, "unchanged"),
        (BAD, "reverted"),
        (failed("server", None, result="activated", reverted=False), "failed"),
        (FULL, "refused"),
        ({"failed": True, "msg": "MODULE FAILURE"}, "failed"),
    ],
)
def test_outcomes_of_registered_results(result: Any, outcome: str | None) -> None:
    assert outcome_of(result) == outcome


def test_wrong_waves_and_stages_are_errors() -> None:
    rollout = Rollout()
    for wave, stage in ((0, "activation"), (99, "activation"), (1, "finish")):
        with pytest.raises(RolloutError):
            rollout.judge(wave, stage)


def test_check_mode_predicts_and_judges_nothing() -> None:
    rollout = Rollout()
    hosts = rollout.set(1, A, activated(gates=[]))
    rollout.set(1, B, FULL)
    verdict = preview(rollout.results, rollout.plan, 1, "activation", rollout.policy)
    assert verdict["verdict"] == "no_data" and verdict["confirm"] == hosts and not verdict["halt"]
    assert verdict["strata"][B]["failed"] == rollout.hosts(1, B)
    assert set(verdict) == set(rollout.judge(1))


@pytest.mark.parametrize("seed", range(200))
def test_invariants_on_random_waves(seed: int) -> None:
    rng = random.Random(seed)
    budget = {"count": rng.randint(0, 3), "share": rng.choice([0.0, 0.2, 1.0])}
    rollout = Rollout({"failure_budget": budget, "halt": rng.choice(["stratum", "rollout"])}, rng.randint(1, 30), 5)
    kinds = [activated(), activated(), activated(gates=[]), BAD, RESTARTED, FULL, AWAY, None, {"skipped": True}]
    for wave in range(1, len(rollout.plan["waves"]) + 1):
        for stratum, hosts in rollout.plan["waves"][wave - 1]["strata"].items():
            rollout.set(wave, stratum, *[copy.deepcopy(rng.choice(kinds)) for _ in hosts])
        before = set(rollout.halted)
        verdict = rollout.judge(wave)
        assert before <= set(verdict["halted_strata"])
        for stratum, found in verdict["strata"].items():
            if found["verdict"] == "pass":
                assert stratum not in before and found["passed"]
                assert len(found["failed"]) <= max(found["allowed"], 0)
            else:
                assert not set(verdict["confirm"]) & set(rollout.hosts(wave, stratum))
            if found["verdict"] == "fail":
                assert stratum in verdict["halted_strata"]
        for host in verdict["confirm"]:
            gates = rollout.results[host]["result"]["gates"]
            assert gates and all(item["evidence"]["digest"] == NEW for item in gates)
        # what is active after the verdict is either confirmed next or goes back
        on_it = {
            host
            for host in rollout.plan["waves"][wave - 1]["hosts"]
            if outcome_of(rollout.results[host].get("result")) == "activated"
        }
        judged = {host for host in on_it if rollout.plan["stratum_of"][host] not in before}
        assert judged <= set(verdict["confirm"]) | set(verdict["rollback"])

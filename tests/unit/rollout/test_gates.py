"""Verdicts over waves: only evidence passes, and nobody who is away or broken decides for the others."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from support.verdicts import AWAY, BAD, FULL, NEW, RESTARTED, A, B, Rollout, activated, confirmed, failed

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.findings import outcome_of
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.gates import combined, preview, wave_verdict


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
            rollout.set(wave, stratum, *[copy.deepcopy(rng.choice(kinds)) for _host in hosts])
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


def query(verdict: str, name: str = "errors") -> dict[str, Any]:
    return {"query": name, "verdict": verdict, "reason": f"it is {verdict}", "value": 1.0, "limit": 0.5}


@pytest.mark.parametrize(
    ("verdicts", "verdict", "action"),
    [
        (["pass", "pass"], "pass", "continue"),
        (["pass", "fail", "no_data"], "fail", "rollback"),
        (["pass", "inconclusive"], "inconclusive", "hold"),
        (["no_data", "pass"], "no_data", "hold"),
        ([], "no_data", "hold"),
    ],
)
def test_a_stratum_passes_only_when_every_query_does(verdicts: list[str], verdict: str, action: str) -> None:
    rollout = Rollout()
    rollout.pass_wave(1)
    rollout.pass_wave(2)
    rollout.set(3, A, activated())
    rollout.set(3, B, activated())
    first = rollout.judge(3)
    asked = {A: [query(item, f"q{number}") for number, item in enumerate(verdicts)], B: [query("pass")]}
    second = wave_verdict(rollout.results, rollout.plan, 3, "activation", rollout.policy, rollout.halted, asked)
    found = second["strata"][A]
    assert (second["stage"], found["verdict"], found["action"]) == ("metrics", verdict, action)
    assert [item["query"] for item in found["queries"]] == [f"q{number}" for number in range(len(verdicts))]
    passing = rollout.hosts(3, B) + (rollout.hosts(3, A) if verdict == "pass" else [])
    assert second["confirm"] == sorted(passing)
    back = {"fail": [host for wave in (3, 2, 1) for host in rollout.hosts(wave, A)], "pass": []}.get(
        verdict, rollout.hosts(3, A)
    )
    assert second["rollback"] == back
    assert [pair["stratum"] for pair in second["quarantine"]] == ([A] if verdict == "fail" else [])
    both = combined([first, second])
    assert both["verdict"] == verdict and [part["stage"] for part in both["before"]] == ["activation"]
    assert both["confirm"] == second["confirm"] and both["halted_strata"] == ([] if verdict == "pass" else [A])


def test_what_failed_before_prometheus_was_asked_stays_failed() -> None:
    rollout = Rollout()
    rollout.set(1, A, BAD)
    rollout.set(1, B, activated())
    first = rollout.judge(1)
    asked = {B: [query("pass")]}
    second = wave_verdict(rollout.results, rollout.plan, 1, "activation", rollout.policy, rollout.halted, asked)
    both = combined([first, second])
    assert both["strata"][A]["verdict"] == "fail" and both["strata"][B]["verdict"] == "pass"
    assert both["failed_strata"] == [A] and both["confirm"] == rollout.hosts(1, B) and both["verdict"] == "fail"
    assert [pair["stratum"] for pair in both["quarantine"]] == [A]


def test_with_halt_rollout_a_failing_query_takes_everything_back() -> None:
    rollout = Rollout({"halt": "rollout"})
    rollout.set(1, A, activated())
    rollout.set(1, B, activated())
    asked = {A: [query("fail")], B: [query("pass")]}
    verdict = wave_verdict(rollout.results, rollout.plan, 1, "activation", rollout.policy, (), asked)
    assert verdict["confirm"] == [] and sorted(verdict["rollback"]) == sorted(rollout.plan["waves"][0]["hosts"])
    assert verdict["halt"] and verdict["failed_strata"] == [A]

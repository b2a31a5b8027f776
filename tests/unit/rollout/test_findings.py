"""What a device's result is evidence of."""

from __future__ import annotations

from typing import Any

import pytest
from support.verdicts import AWAY, BAD, FULL, NEW, OLD, A, B, Rollout, activated, confirmed, failed, gate

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.findings import classify, outcome_of


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

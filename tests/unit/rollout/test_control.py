"""Pause, abort, approvals, going on after a stop, and how fast waves may grow."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import (
    approvers,
    control,
    control_apply,
    ledger_keys,
    pace,
    resume,
    undo,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Device, Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.gates import wave_verdict
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.history import (
    final_status,
    read_history,
    read_progress,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, finished
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan, pace_warnings, plan_hash
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import parse_policy

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
RELEASE = Release("digits", "1.2.0", NEW)
STRATUM = "cpu/onnxruntime/x86_64"
NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
APPROVAL = {"approval": {"after": ["canary"], "people": 2}}


def plan_of(
    count: int = 8, policy: dict[str, Any] | None = None, done: tuple[str, ...] = (), seed: str = "s"
) -> dict[str, Any]:
    devices = [
        Device(f"h{index}", stratum=STRATUM, active_digest=NEW if f"h{index}" in done else OLD)
        for index in range(count)
    ]
    return make_plan(devices, RELEASE, parse_policy(policy), "r1", seed=seed)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger with an open rollout of eight devices that waits behind its canary."""
    made = Ledger(str(tmp_path / "ledger"))
    start(made, plan_of(policy=APPROVAL))
    made.append("waiting", {"after": 1, "why": "approval"}, "r1")
    return made


def start(ledger: Ledger, plan: dict[str, Any], **more: Any) -> None:
    about = {name: plan[name] for name in ("plan_hash", "model", "version", "digest")}
    ledger.append("rollout_started", {**about, "plan": plan, **more}, "r1")


def order(**fields: Any) -> control_apply.Order:
    return replace(control_apply.Order(by="Ana", reason="because", now=NOW), **fields)


def test_a_pause_is_of_a_model_and_holds_until_somebody_resumes(ledger: Ledger) -> None:
    assert control_apply.apply(ledger, "paused", order())["changed"] is True
    assert control_apply.apply(ledger, "paused", order(by="Bo"))["changed"] is False
    word = control.paused(ledger.records(), "digits")
    assert word is not None and (word.by, word.reason) == ("Ana", "because")
    assert control.paused(ledger.records(), "other") is None
    ledger.append("rollout_finished", {"status": "aborted"}, "r1")
    assert control.paused(ledger.records(), "digits"), "it outlives the rollout"
    assert control_apply.apply(ledger, "running", order(reason=""))["changed"] is True
    assert control.paused(ledger.records(), "digits") is None
    assert control_apply.apply(ledger, "running", order())["changed"] is False


def test_what_is_said_needs_a_reason_and_a_check_run_says_nothing(ledger: Ledger) -> None:
    for state in ("paused", "aborted", "vetoed"):
        with pytest.raises(RolloutError, match="reason is empty"):
            control_apply.apply(ledger, state, order(reason=" ", hosts=["h1"]))
    size = os.path.getsize(ledger.path)
    assert control_apply.apply(ledger, "paused", order(check=True))["changed"] is True
    assert os.path.getsize(ledger.path) == size


def test_an_abort_is_of_one_start_of_a_rollout(ledger: Ledger) -> None:
    control_apply.apply(ledger, "aborted", order())
    assert control.abort_asked(ledger.records(), "r1") is not None
    assert control_apply.apply(ledger, "aborted", order())["changed"] is False
    plan = plan_of(policy=APPROVAL)
    assert final_status(plan, read_progress(ledger.records(), "r1")) == "aborted"
    start(ledger, plan)
    assert control.abort_asked(ledger.records(), "r1") is None
    ledger.append("rollout_finished", {"status": "succeeded"}, "r1")
    with pytest.raises(RolloutError, match=r"has ended: succeeded; .* edge_rollback_scope=all"):
        control_apply.apply(ledger, "aborted", order())


def test_approvals_are_of_one_plan_by_different_people_and_expire(ledger: Ledger) -> None:
    plan = plan_of(policy=APPROVAL)
    approval = parse_policy(APPROVAL).approval

    def missing(after: int = 1, moment: datetime = NOW) -> str:
        return control.missing_approval(approval, control.approvals(ledger.records(), plan["plan_hash"]), after, moment)

    with pytest.raises(RolloutError, match=f"plan_hash is 'sha256:0': the plan of rollout r1 is {plan['plan_hash']}"):
        control_apply.apply(ledger, "approved", order(plan_hash="sha256:0"))
    control_apply.apply(ledger, "approved", order(plan_hash=plan["plan_hash"]))
    assert missing() == "1 of 2 approvals (Ana) to go on behind wave 1"
    with pytest.raises(RolloutError, match="by is 'Ana': has approved this already"):
        control_apply.apply(ledger, "approved", order(plan_hash=plan["plan_hash"]))
    control_apply.apply(ledger, "approved", order(plan_hash=plan["plan_hash"], by="Bo"))
    assert missing() == "" and missing(after=2) != ""
    assert missing(moment=NOW + timedelta(days=1)) == "0 of 2 approvals to go on behind wave 1"
    again = control_apply.apply(ledger, "approved", order(plan_hash=plan["plan_hash"], now=NOW + timedelta(days=2)))
    assert again["changed"] is True, "an expired one may be given again"
    other = plan_of(policy=APPROVAL, seed="other")
    assert control.approvals(ledger.records(), other["plan_hash"]) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([], [None] * 4),
        (["plan"], [0, None, None, None]),
        (["canary"], [None, 1, None, None]),
        (["every"], [None, 1, 2, 3]),
    ],
    ids=["never", "plan", "canary", "every"],
)
def test_where_people_have_to_approve(after: list[str], expected: list[int | None]) -> None:
    plan = plan_of()
    approval = parse_policy({"approval": {"after": after}}).approval
    assert [control.approval_due(approval, plan, wave) for wave in range(1, 5)] == expected


def test_a_rollout_that_waits_for_nothing_needs_the_wave_named(ledger: Ledger) -> None:
    plan = plan_of(policy=APPROVAL)
    ledger.append("intent", {"action": "activate"}, "r1", "h1")
    with pytest.raises(RolloutError, match="wave is None: it waits for none"):
        control_apply.apply(ledger, "approved", order(plan_hash=plan["plan_hash"]))
    assert "behind wave 2" in control_apply.apply(ledger, "approved", order(plan_hash=plan["plan_hash"], wave=2))["msg"]


def test_a_veto_has_an_end_within_three_months(ledger: Ledger) -> None:
    for until, fragment in (
        (None, "a veto ends"),
        ("2026-11-22T00:00:00Z", "within"),
        ("2027-11-22T00:00:00Z", "within"),
    ):
        with pytest.raises(RolloutError, match=fragment):
            control_apply.apply(ledger, "vetoed", order(hosts=["h1"], until=until))
    control_apply.apply(ledger, "vetoed", order(hosts=["h1"], until="2026-11-24T00:00:00+01:00"))
    assert control_apply.apply(ledger, "unvetoed", order(hosts=["h2"]))["changed"] is False
    assert control_apply.apply(ledger, "unvetoed", order(hosts=["h1", "h2"]))["changed"] is True


def stop(ledger: Ledger) -> None:
    ledger.append("stopped", {"after": 1, "why": "approval", "reason": "nobody came"}, "r1")
    ledger.append("rollout_finished", {"status": "stopped"}, "r1")


def test_a_stopped_rollout_is_not_over_and_goes_on_with_its_plan(ledger: Ledger) -> None:
    plan = plan_of(policy=APPROVAL)
    canary = tuple(plan["waves"][0]["hosts"])
    stop(ledger)
    assert finished(ledger.records(), "r1") == "stopped"
    assert final_status(plan, read_progress(ledger.records(), "r1")) == "stopped"
    history = read_history(ledger.records(), "digits", NEW)
    assert (history.open_id, history.finished) == ("r1", 0)
    found = resume.stopped(ledger.records(), "r1")
    assert found is not None
    fresh = plan_of(policy=APPROVAL, done=canary)
    assert fresh["plan_hash"] != plan["plan_hash"]
    again, late = resume.continued(fresh, found) or ({}, ["none"])
    assert late == [] and again["plan_hash"] == plan["plan_hash"] == plan_hash(again)
    assert again["hosts"] == [host for wave in plan["waves"][1:] for host in wave["hosts"]]
    assert again["sizes"] == [len(wave["hosts"]) for wave in plan["waves"][1:]]
    assert resume.outcomes(again, fresh) == dict.fromkeys(canary, "confirmed")
    start(ledger, again, continued=True)
    assert read_progress(ledger.records(), "r1").stopped == "" and resume.stopped(ledger.records(), "r1") is None


def test_another_fleet_policy_or_a_halted_stratum_means_a_new_plan(ledger: Ledger) -> None:
    plan = plan_of(policy=APPROVAL)
    canary = tuple(plan["waves"][0]["hosts"])
    stop(ledger)
    found = resume.stopped(ledger.records(), "r1")
    assert found is not None
    assert resume.continued(plan_of(9, APPROVAL, canary), found) is None, "a device that it does not know"
    assert resume.continued(plan_of(7, APPROVAL, canary), found) is None, "a device that is gone"
    fresh = plan_of(8, APPROVAL, canary)
    lost = plan["waves"][1]["hosts"][0]
    entry = {"host": lost, "kind": "quarantined", "reason": "", "stratum": STRATUM}
    without = {**fresh, "hosts": [host for host in fresh["hosts"] if host != lost]}
    assert resume.continued({**without, "refused": [entry]}, found) is None
    busy = {**entry, "kind": "group_busy"}
    assert resume.continued({**without, "deferred": [busy]}, found) is None
    # less than what was approved may go on, and what comes late waits
    again, late = resume.continued({**without, "deferred": [entry]}, found) or ({}, ["none"])
    assert again["plan_hash"] == plan["plan_hash"] and late == []
    again, late = resume.continued(plan_of(8, APPROVAL), found) or ({}, [])
    assert late == list(canary), "it went back meanwhile"
    assert resume.outcomes(again, plan_of(8, APPROVAL)) == {}
    assert resume.continued(plan_of(8, {**APPROVAL, "soak": 1}, canary), found) is None
    assert resume.continued(plan_of(8, APPROVAL, canary, "other"), found) is None
    ledger.append("verdict", {"wave": 1, "stage": "soak", "halted_strata": [STRATUM]}, "r1")
    stop(ledger)
    assert resume.stopped(ledger.records(), "r1") is None


def test_a_run_that_died_while_it_waited_has_stopped(ledger: Ledger) -> None:
    ledger.append("waiting", {"after": 1, "why": "pause", "seconds": 60}, "r1")
    ledger.append("waiting", {"after": 1, "why": "approval", "seconds": 30}, "r1")
    assert control.waiting(ledger.records(), "r1") == {"after": 1, "why": "approval", "seconds": 90}
    ledger.append("paused", {"model": "digits"}, "r1")
    ledger.append("watchdog", {"event": "controller_gone"}, "r1")
    assert control.waiting(ledger.records(), "r1") is not None
    ledger.append("intent", {"action": "activate"}, "r1", "h1")
    assert control.waiting(ledger.records(), "r1") is None


def test_waves_grow_by_a_factor_of_what_was_changed_before() -> None:
    sizes = {factor: plan_of(40, {"growth": [1.0], "growth_factor": factor})["sizes"] for factor in (0, 1, 2, 0.5)}
    assert sizes[0] == [1, 39] and sizes[1] == [1, 1, 2, 4, 8, 16, 8] and sizes[2] == [1, 2, 6, 18, 13]
    assert sum(sizes[0.5]) == 40 and sizes[0.5][:6] == [1, 1, 1, 1, 2, 3]
    done = tuple(f"h{index}" for index in range(20))
    assert plan_of(40, {"growth": [1.0], "growth_factor": 1}, done)["sizes"] == [1, 19], "confirmed ones count"


def test_only_so_many_begin_as_have_really_succeeded() -> None:
    policy = parse_policy({"growth": [1.0], "growth_factor": 2})
    plan = plan_of(20, {"growth": [1.0], "growth_factor": 2})
    assert plan["sizes"] == [1, 2, 6, 11]
    first, second, third = (wave["hosts"] for wave in plan["waves"][:3])
    outcomes = {first[0]: "confirmed", second[0]: "confirmed", second[1]: "unreachable"}
    late = pace.too_many(plan, 3, outcomes, third, policy)
    assert list(late) == third[4:]
    assert late[third[4]] == (
        f"2 devices of {STRATUM} have succeeded so far, so at most 4 may begin now (growth_factor 2)"
    )
    assert pace.too_many(plan, 3, {**outcomes, second[1]: "confirmed"}, third, policy) == {}
    assert list(pace.too_many(plan, 2, {}, second, policy)) == second[1:], "one may always begin"
    assert pace.too_many(plan, 1, {}, first, policy) == {}, "a canary goes ahead of everything"


def test_a_site_has_so_many_at_once_and_devices_without_one_do_not_wait() -> None:
    sites = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "x1": None, "x2": None}
    assert pace.rounds(sites, sites, 2) == {"a1": 1, "a2": 1, "a3": 2, "b1": 1, "x1": 1, "x2": 1}
    assert set(pace.rounds(sites, sites, 0).values()) == {1}
    policy = {"site_concurrency": 1, "growth": [1.0], "confirm_within": 500}
    plan = plan_of(90, policy)
    alone = dict.fromkeys(plan["hosts"], "harbour")
    assert "1 of a site at a time" in pace_warnings(plan, parse_policy(policy), 1000, alone)[0]
    assert pace_warnings(plan, parse_policy(policy), 1000, {}) == []


def test_jitter_spreads_and_is_the_same_every_time() -> None:
    delays = [pace.delay("seed", f"h{index}", 30) for index in range(1000)]
    assert delays == [pace.delay("seed", f"h{index}", 30) for index in range(1000)]
    assert 0 <= min(delays) < 1 and 29 < max(delays) <= 30 and 13 < sum(delays) / 1000 < 17
    assert pace.delay("seed", "h1", 0) == 0.0
    with pytest.raises(RolloutError, match="jitter"):
        parse_policy({"jitter": 600})


def test_who_is_deferred_as_the_wave_begins_counts_for_nothing() -> None:
    plan = plan_of(4, {"growth": [1.0]})
    policy = parse_policy({"growth": [1.0]})
    hosts = plan["waves"][1]["hosts"]
    gate = {"gate": "golden", "verdict": "pass", "phase": "serving", "evidence": {"digest": NEW, "start_id": "s"}}
    passed = {"result": "activated", "gates": [gate], "server": {"digest": NEW, "start_id": "s"}}
    results: dict[str, Any] = {plan["waves"][0]["hosts"][0]: {"outcome": "confirmed"}, hosts[0]: {"result": passed}}
    results.update({host: {"outcome": "deferred"} for host in hosts[1:]})
    verdict = wave_verdict(results, plan, 2, "activation", policy)
    found = verdict["strata"][STRATUM]
    assert (found["verdict"], found["reason"], found["deferred"]) == ("pass", "1 of 1 passed", hosts[1:])
    assert verdict["rollback"] == [] and verdict["confirm"] == hosts[:1]
    results = {plan["waves"][0]["hosts"][0]: {"outcome": "deferred"}}
    canary = wave_verdict(results, plan, 1, "activation", policy)["strata"][STRATUM]
    assert (canary["action"], canary["verdict"]) == ("hold", "no_data") and "1 deferred" in canary["reason"]


def test_a_rollback_of_nothing_leaves_a_stopped_rollout_as_it_is_and_one_of_everything_ends_it(ledger: Ledger) -> None:
    stop(ledger)
    assert undo.finish(ledger, "r1", "unsettled", [], "Ana", False)["closed"] is False
    assert finished(ledger.records(), "r1") == "stopped"
    assert undo.finish(ledger, "r1", "all", [], "Ana", False)["closed"] is True
    assert finished(ledger.records(), "r1") == "aborted"


def pair(directory: Path, name: str) -> tuple[Any, str]:
    """A person's private key, and the path of its public half."""
    private, public = directory / f"{name}.pem", directory / f"{name}.pub.pem"
    keys.generate_key(private, public)
    return ledger_keys.load_signer(str(private)), str(public)


def test_with_keys_only_signed_approvals_of_the_named_count(ledger: Ledger, tmp_path: Path) -> None:
    plan_hash = plan_of(policy=APPROVAL)["plan_hash"]
    (ana, ana_path), (bo, bo_path) = pair(tmp_path, "ana"), pair(tmp_path, "bo")
    known = approvers.load_approvers({"Ana": ana_path, "Bo": bo_path})

    def approve(key: Any, by: str, wave: int = 1, **more: Any) -> dict[str, Any]:
        signature = ledger_keys.sign(key, approvers.statement(plan_hash, wave, by))["signature"] if key else None
        said = order(by=by, plan_hash=plan_hash, approvers=known, signature=signature)
        return control_apply.apply(ledger, "approved", replace(said, **more))

    for key, by, wave, fragment in (
        (None, "Ana", 1, "has to sign"),
        (bo, "Ana", 1, "the signature is not of Ana"),
        (ana, "Ana", 2, "or of another plan or wave"),
        (ana, "Eve", 1, "names Ana, Bo, not Eve"),
    ):
        with pytest.raises(RolloutError, match=fragment):
            approve(key, by, wave)
    with pytest.raises(RolloutError, match="the signature is not of Ana"):
        approve(ana, "Ana", signature="x")
    approve(ana, "Ana")
    unsigned = control_apply.apply(ledger, "approved", order(by="Bo", plan_hash=plan_hash))
    assert unsigned["changed"] is True, "somebody wrote it without asking for keys"
    assert [item.by for item in control.approvals(ledger.records(), plan_hash, known)] == ["Ana"]
    approve(bo, "Bo")
    found = control.approvals(ledger.records(), plan_hash, known)
    assert control.missing_approval(parse_policy(APPROVAL).approval, found, 1, NOW) == ""


def test_people_and_their_keys_are_checked(tmp_path: Path) -> None:
    path = pair(tmp_path, "ana")[1]
    assert approvers.load_approvers(None) is None
    for raw, fragment in (
        (["ana"], "edge_approvers is"),
        ({"ana": str(tmp_path / "none.pem")}, "edge_approvers: ana is .*none.pem': No such file"),
        ({"ana": str(tmp_path / "ana.pem")}, "not a public key"),
        ({"ana": path, "bo": path}, "the same key as that of ana"),
    ):
        with pytest.raises(RolloutError, match=fragment):
            approvers.load_approvers(raw)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The verdict over a wave, per stratum. A pure function of the plan and the devices' results.

A stratum's devices in a wave are judged together; verdicts are ``pass``, ``fail``, ``inconclusive`` and ``no_data``,
and only ``pass`` lets a device be confirmed. What follows from a verdict is its ``action``:

==================================================================== ============ =========================
what was found, first match                                          verdict      action
==================================================================== ============ =========================
the stratum was halted before this wave                              no_data      none
more failures and doubts than the budget, a failure among them       fail         rollback
more doubts than the budget, something was measured                  inconclusive hold
more doubts than the budget, nothing was measured                    no_data      hold
more devices in a bad condition of their own than that budget        inconclusive hold
all had the release, confirmed, before this wave                     no_data      continue
nothing measured: a canary                                           inconclusive hold
                                                                     or no_data
nothing measured: later waves (nothing was activated, nothing risked) the same    continue
measured, but none passed                                            inconclusive hold
fewer measured than ``smallest_sample`` (or all of a smaller share)  inconclusive hold
a Prometheus query failed (``metrics``: after the soak)              fail         rollback
a Prometheus query proved nothing                                    inconclusive hold
                                                                     or no_data
otherwise                                                            pass         continue
==================================================================== ============ =========================

Budgets count among the devices that were reached: who was away, or deferred as its wave began, is in no denominator.
A canary's budget is 0.
``hold``: what this wave activated in the stratum goes back, its further devices wait for the next run; earlier waves,
which passed, stay. ``rollback``: everything this rollout activated in the stratum goes back. Only a gate that failed on
a device, or a query, quarantines the release for the stratum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import RolloutError
from .findings import (
    DEFERRED,
    DEVICE,
    DOUBTFUL,
    FAILED,
    PASSED,
    UNCHANGED,
    UNREACHABLE,
    Finding,
    classify,
    outcome_of,
)
from .policy import Policy

STAGES = ("activation", "soak")
METRICS = "metrics"
CONTINUE, HOLD, ROLLBACK, NONE = "continue", "hold", "rollback", "none"
_WORST_FIRST = ("fail", "inconclusive", "no_data", "pass")
# a device with one of these outcomes may be on the new release
_MAY_BE_ON_IT = frozenset(("activated", "confirmed", "unreachable", "failed", "unknown"))

Results = Mapping[str, Mapping[str, Any]]
Metrics = Mapping[str, Iterable[Mapping[str, Any]]]


def wave_verdict(
    results: Results,
    plan: Mapping[str, Any],
    wave: int,
    stage: str,
    policy: Policy,
    halted: Iterable[str] = (),
    metrics: Metrics | None = None,
) -> dict[str, Any]:
    """Judge a wave.

    results: host -> {outcome, result, confirm} of this wave and those before it; plan: as `planner.make_plan` gave it;
    wave: its number; stage: activation or soak; halted: strata that were halted before; metrics: stratum -> what its
    Prometheus queries said at the end of the soak, which makes this the stage ``metrics``.
    Returns plain JSON types: ``verdict`` (the worst of its strata), ``strata``, ``confirm``, ``rollback`` (hosts,
    newest wave first), ``halted_strata`` (all so far), ``failed_strata``, ``held_strata``, ``halt`` (nothing new may
    start at all) and ``halt_reason``, ``quarantine``, ``unreachable_budget`` (not ``unreachable``: Ansible
    would take a result with that key for an unreachable host).
    Raises RolloutError for a wave or stage the plan does not have.
    """
    this = _wave(plan, wave, stage)
    before = set(halted)
    gated = policy.gate.enabled
    findings = {host: classify(host, results.get(host) or {}, plan["digest"], stage, gated) for host in this["hosts"]}
    for earlier in plan["waves"][: wave - 1]:
        for host in earlier["hosts"]:
            findings[host] = classify(host, results.get(host) or {}, plan["digest"], "soak", gated)
    strata = {
        stratum: _judge(stratum, [findings[host] for host in hosts], this["kind"] == "canary", policy, before)
        for stratum, hosts in this["strata"].items()
    }
    if metrics is not None:
        strata = {stratum: _with_queries(found, list(metrics.get(stratum) or ())) for stratum, found in strata.items()}
    failed = sorted(stratum for stratum, verdict in strata.items() if verdict["action"] == ROLLBACK)
    held = sorted(stratum for stratum, verdict in strata.items() if verdict["action"] == HOLD)
    judged = {verdict["verdict"] for verdict in strata.values() if verdict["action"] != NONE}
    everything = bool(failed) and policy.halt == "rollout"
    now_halted = _planned_strata(plan) if everything else before | set(failed) | set(held)
    away = _unreachable(plan, findings, policy)
    reason = _halt_reason(plan, policy, failed, now_halted, away)
    return {
        "wave": wave,
        "kind": this["kind"],
        "stage": METRICS if metrics is not None else stage,
        "verdict": next((name for name in _WORST_FIRST if name in judged), "no_data"),
        "strata": strata,
        "confirm": [] if everything else _to_confirm(strata),
        "rollback": _rollback(plan, wave, findings, strata, everything),
        "halted_strata": sorted(now_halted),
        "failed_strata": failed,
        "held_strata": held,
        "halt": bool(reason),
        "halt_reason": reason,
        "quarantine": _quarantine(plan, strata, findings),
        "unreachable_budget": away,
    }


def combined(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the verdicts that were made one after the other in one stage as one: the last, with what came before.

    ``before`` holds the earlier ones (stage, verdict, strata) for whoever shows them; ``strata`` is each stratum's last
    word, ``failed_strata``, ``held_strata`` and ``quarantine`` those of all.
    """
    last, earlier = dict(verdicts[-1]), verdicts[:-1]
    if not earlier:
        return last
    strata: dict[str, Any] = {}
    for verdict in verdicts:
        strata.update({name: found for name, found in verdict["strata"].items() if found["action"] != NONE})
    last["strata"] = {**last["strata"], **strata}
    for name in ("failed_strata", "held_strata"):
        last[name] = sorted({stratum for verdict in verdicts for stratum in verdict[name]})
    last["quarantine"] = [pair for verdict in verdicts for pair in verdict["quarantine"]]
    judged = {found["verdict"] for found in strata.values()}
    last["verdict"] = next((name for name in _WORST_FIRST if name in judged), "no_data")
    last["before"] = [{name: verdict[name] for name in ("stage", "verdict", "strata")} for verdict in earlier]
    return last


def preview(results: Results, plan: Mapping[str, Any], wave: int, stage: str, policy: Policy) -> dict[str, Any]:
    """Return what `wave_verdict` returns, for check mode: nothing was measured, so nothing passes and nothing halts."""
    this = _wave(plan, wave, stage)
    strata: dict[str, dict[str, Any]] = {}
    for stratum, hosts in this["strata"].items():
        lists: dict[str, list[str]] = {"activated": [], "failed": [], "unreachable": [], "unchanged": []}
        for host in hosts:
            outcome = str(
                (results.get(host) or {}).get("outcome") or outcome_of((results.get(host) or {}).get("result"))
            )
            outcome = {"confirmed": "activated", "reverted": "failed", "refused": "failed"}.get(outcome, outcome)
            lists.setdefault(outcome, []).append(host)
        strata[stratum] = {
            "verdict": "no_data",
            "action": CONTINUE,
            "reason": "check mode: nothing was measured",
            "planned": len(hosts),
            "measured": 0,
            "allowed": policy.failures_allowed(len(hosts), this["kind"] == "canary"),
            **{name: lists[name] for name in ("activated", "failed", "unreachable", "unchanged")},
            "passed": [],
            "device_failed": [],
            "reasons": {},
        }
    return {
        **{"wave": wave, "kind": this["kind"], "stage": stage, "verdict": "no_data", "strata": strata},
        "confirm": sorted(host for verdict in strata.values() for host in verdict["activated"]),
        **{"rollback": [], "halted_strata": [], "failed_strata": [], "held_strata": [], "quarantine": []},
        **{"halt": False, "halt_reason": "", "unreachable_budget": _unreachable(plan, {}, policy)},
    }


def _planned_strata(plan: Mapping[str, Any]) -> set[str]:
    return {stratum for wave in plan["waves"] for stratum in wave["strata"]}


def _to_confirm(strata: Mapping[str, Mapping[str, Any]]) -> list[str]:
    passing = (verdict for verdict in strata.values() if verdict["verdict"] == "pass")
    return sorted(host for verdict in passing for host in verdict["passed"])


def _wave(plan: Mapping[str, Any], wave: int, stage: str) -> Mapping[str, Any]:
    if stage not in STAGES:
        raise RolloutError(f"stage is {stage!r}: a wave is judged after {' or '.join(STAGES)}")
    if not 1 <= wave <= len(plan["waves"]):
        raise RolloutError(f"wave is {wave!r}: the plan of {plan['rollout_id']} has waves 1 to {len(plan['waves'])}")
    found: Mapping[str, Any] = plan["waves"][wave - 1]
    return found


def _judge(stratum: str, findings: list[Finding], canary: bool, policy: Policy, halted: set[str]) -> dict[str, Any]:
    """The verdict of one stratum's devices in one wave, with who is in which group and why."""
    by_kind: dict[str, list[str]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding.host)
    if stratum in halted:
        verdict, action, reason = "no_data", NONE, "the stratum was halted before this wave"
    else:
        verdict, action, reason = _decide(findings, by_kind, canary, policy)
    return {
        "verdict": verdict,
        "action": action,
        "reason": reason,
        "planned": len(findings),
        "measured": len(by_kind.get(PASSED, ())) + len(by_kind.get(FAILED, ())),
        "allowed": policy.failures_allowed(
            len(findings) - len(by_kind.get(UNREACHABLE, ())) - len(by_kind.get(DEFERRED, ())), canary
        ),
        "activated": [item.host for item in findings if item.outcome in ("activated", "confirmed")],
        "passed": by_kind.get(PASSED, []),
        "failed": by_kind.get(FAILED, []) + by_kind.get(DOUBTFUL, []),
        "device_failed": by_kind.get(DEVICE, []),
        "unreachable": by_kind.get(UNREACHABLE, []),
        "unchanged": by_kind.get(UNCHANGED, []),
        "deferred": by_kind.get(DEFERRED, []),
        "reasons": {item.host: item.reason for item in findings if item.reason},
    }


def _decide(
    findings: list[Finding], by_kind: Mapping[str, list[str]], canary: bool, policy: Policy
) -> tuple[str, str, str]:
    count = {kind: len(by_kind.get(kind, ())) for kind in (PASSED, FAILED, DOUBTFUL, DEVICE, UNREACHABLE, DEFERRED)}
    reached = len(findings) - count[UNREACHABLE] - count[DEFERRED]
    allowed = policy.failures_allowed(reached, canary)
    bad = count[FAILED] + count[DOUBTFUL]
    first = next((item for kind in (FAILED, DOUBTFUL, DEVICE) for item in findings if item.kind == kind), None)
    example = f"; {first.host}: {first.reason}" if first else ""
    if bad > allowed and count[FAILED]:
        return "fail", ROLLBACK, f"{bad} of {reached} failed, {allowed} allowed{example}"
    measured = count[PASSED] + count[FAILED]
    if bad > allowed:
        verdict = (
            "inconclusive" if measured or any(item.kind == DOUBTFUL and item.code for item in findings) else "no_data"
        )
        return verdict, HOLD, f"{bad} of {reached} proved nothing, {allowed} allowed{example}"
    if count[DEVICE] > policy.device_failure_budget.tolerated(reached):
        tolerated = policy.device_failure_budget.tolerated(reached)
        text = f"{count[DEVICE]} of {reached} devices in a bad condition of their own, {tolerated} allowed{example}"
        return "inconclusive", HOLD, text
    if measured and not count[PASSED]:
        return "inconclusive", HOLD, f"none of {reached} passed{example}"
    if findings and all(item.kind == UNCHANGED for item in findings):
        return "no_data", CONTINUE, "they had the release already, nothing was tried"
    if not measured:
        verdict = "inconclusive" if count[DEVICE] else "no_data"
        later = f", {count[DEFERRED]} deferred" if count[DEFERRED] else ""
        away, bad_ones = count[UNREACHABLE], count[DEVICE]
        why = f"nothing was measured: {away} unreachable, {bad_ones} in a bad condition{later}{example}"
        return verdict, HOLD if canary else CONTINUE, why
    needed = min(policy.smallest_sample, len(findings) - count[DEFERRED])
    if measured < needed:
        return "inconclusive", HOLD, f"{measured} measured, at least {needed} are needed"
    return "pass", CONTINUE, f"{count[PASSED]} of {reached} passed{example}"


def _with_queries(judged: dict[str, Any], queries: list[Mapping[str, Any]]) -> dict[str, Any]:
    """A stratum's verdict with those of its queries; a stratum that would pass passes only if each of them does."""
    if judged["verdict"] != "pass":
        return judged
    worst = next((name for name in _WORST_FIRST if any(query["verdict"] == name for query in queries)), "no_data")
    bad = [query for query in queries if query["verdict"] != "pass"]
    found = {**judged, "queries": [dict(query) for query in queries], "verdict": worst}
    if not queries:
        return {**found, "action": HOLD, "reason": "no query was asked"}
    if not bad:
        return {**found, "reason": f"{judged['reason']}; {len(queries)} queries passed"}
    first = next(query for query in queries if query["verdict"] == worst)
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    reason = f"query {first['query']}: {first['reason']}{more}"
    return {**found, "action": ROLLBACK if worst == "fail" else HOLD, "reason": reason}


def _unreachable(plan: Mapping[str, Any], findings: Mapping[str, Finding], policy: Policy) -> dict[str, Any]:
    """Count who was away in the whole rollout: when the plan was made, in earlier waves, in this one."""
    hosts = {entry["host"] for entry in plan["deferred"] if entry["kind"] == "unreachable"}
    hosts.update(host for host, finding in findings.items() if finding.kind == UNREACHABLE)
    total = sum(len(plan[name]) for name in ("hosts", "unchanged", "deferred", "refused"))
    return {"count": len(hosts), "allowed": policy.unreachable_budget.tolerated(total)}


def _halt_reason(
    plan: Mapping[str, Any], policy: Policy, failed: list[str], halted: set[str], away: Mapping[str, int]
) -> str:
    """Why nothing new may start at all; empty when the next wave may."""
    if failed and policy.halt == "rollout":
        return f"{', '.join(failed)} failed, and the policy halts the rollout with it"
    if away["count"] > away["allowed"]:
        return f"{away['count']} devices unreachable, {away['allowed']} allowed in the whole rollout"
    if halted and halted >= _planned_strata(plan):
        return "every stratum is halted"
    return ""


def _rollback(
    plan: Mapping[str, Any],
    wave: int,
    findings: Mapping[str, Finding],
    strata: Mapping[str, Mapping[str, Any]],
    everything: bool,
) -> list[str]:
    """Who has to go back, newest wave first.

    Of a failed stratum everybody who may be on the release; of a held one this wave's devices; and anywhere in this
    wave a device that failed, or has no evidence, and did not go back by itself.
    """
    hosts = []
    for number in range(wave, 0, -1):
        for host in plan["waves"][number - 1]["hosts"]:
            finding = findings[host]
            action = strata.get(plan["stratum_of"][host], {}).get("action")
            goes = everything or action == ROLLBACK
            if number == wave and action != NONE:
                goes = goes or action == HOLD or finding.kind in (FAILED, DOUBTFUL)
            if goes and finding.outcome in _MAY_BE_ON_IT:
                hosts.append(host)
    return hosts


def _quarantine(
    plan: Mapping[str, Any], strata: Mapping[str, Mapping[str, Any]], findings: Mapping[str, Finding]
) -> list[dict[str, str]]:
    pairs = []
    for stratum, verdict in strata.items():
        broken = [findings[host] for host in verdict["failed"] if findings[host].gate_failed]
        query = next((item for item in verdict.get("queries") or () if item["verdict"] == "fail"), None)
        if verdict["action"] == ROLLBACK and (broken or query):
            reason = f"{broken[0].host}: {broken[0].reason}" if broken else str(verdict["reason"])
            pairs.append(
                {
                    "model": plan["model"],
                    "version": plan["version"],
                    "digest": plan["digest"],
                    "stratum": stratum,
                    "reason": reason,
                }
            )
    return pairs

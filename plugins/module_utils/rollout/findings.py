# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What one device's result says about the release, the device, or neither. Pure functions over results.

A device counts as passed only with evidence: gates that passed, measured on a server that served exactly the planned
digest, with a start id. Whatever is missing, of another digest, or from another start of the server is no evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

PASSED = "passed"
FAILED = "failed"
"""The release's fault: counts against the failure budget; a gate that failed quarantines the release."""
DOUBTFUL = "doubtful"
"""It went back, or says it is on the release without evidence: counts against the failure budget, proves nothing."""
DEVICE = "device_failed"
"""The device's own condition: counts against the device failure budget, says nothing about the release."""
UNREACHABLE = "unreachable"
UNCHANGED = "unchanged"
HELD = "held"
"""Not started, because its stratum was halted before."""
DEFERRED = "deferred"
"""Not started, because its window is closed, its site said not now, or too few have succeeded before it."""

RELEASE_CODES = frozenset(("no_variant", "digest_mismatch", "not_trusted", "counter", "bad_input"))
DEVICE_CODES = frozenset(("no_space", "busy", "unreachable", "damaged", "quarantined"))
UNTRIED_CODES = frozenset(("server", "deadline"))
OUTCOMES = frozenset(("activated", "unchanged", "failed", "reverted", "refused", "unreachable", "confirmed"))

_PHASES = {"activation": "serving", "soak": "soak"}


class Finding(NamedTuple):
    """One device in one wave: its kind (above), its outcome, a reason for people, its code, whether a gate failed."""

    host: str
    kind: str
    outcome: str
    reason: str = ""
    code: str = ""
    gate_failed: bool = False


def classify(host: str, entry: Mapping[str, Any], digest: str, stage: str, gated: bool = True) -> Finding:
    """Return what a device's result means.

    entry: ``result`` (of the activation), ``confirm`` (of the confirmation, from stage ``soak`` on) and ``outcome``
    (overrides what the results say), each may be missing; digest: the planned release digest; stage: activation or
    soak; gated: False when the policy switched the device gate off.
    """
    result = _mapping(entry.get("result"))
    confirm = _mapping(entry.get("confirm"))
    judged = confirm if stage == "soak" and confirm and not confirm.get("skipped") else result
    outcome = entry.get("outcome") or outcome_of(judged)
    if outcome == HELD:
        return Finding(host, HELD, HELD, "not started: its stratum was halted")
    if outcome == DEFERRED:
        return Finding(host, DEFERRED, DEFERRED, "not started: it was deferred as its wave began")
    if outcome == "unreachable":
        return Finding(host, UNREACHABLE, outcome, str(judged.get("msg") or "unreachable"))
    if outcome in ("failed", "reverted", "refused"):
        return _failure(host, str(outcome), judged, judged is result)
    if outcome not in ("activated", "unchanged", "confirmed"):
        return Finding(host, DOUBTFUL, str(outcome or "unknown"), "no result was recorded for this device")
    settled = judged.get("result") == "resumed" and not judged.get("unconfirmed")
    if (outcome == "unchanged" or settled) and not judged.get("gates"):
        return _unchanged(host, judged, digest)
    if stage == "soak" and outcome != "confirmed":
        return Finding(host, DOUBTFUL, str(outcome), "activated, but never confirmed")
    problem = evidence_problem(judged, digest, stage, gated, _start_id(result) if judged is confirm else None)
    if problem:
        return Finding(host, DOUBTFUL, str(outcome), problem)
    return Finding(host, PASSED, str(outcome))


def outcome_of(result: Any) -> str | None:
    """Return the outcome that a registered result of ``model_release`` stands for; None where it says nothing."""
    if not isinstance(result, Mapping) or not result:
        return None
    if result.get("unreachable"):
        return "unreachable"
    if result.get("skipped"):
        return HELD
    named = result.get("result")
    if result.get("failed"):
        if named == "refused":
            return "refused"
        return "reverted" if result.get("reverted") or named == "reverted" else "failed"
    if named == "resumed":
        return "activated"
    return str(named) if named in OUTCOMES else None


def evidence_problem(
    result: Mapping[str, Any], digest: str, stage: str, gated: bool = True, since: str | None = None
) -> str | None:
    """Return why this result does not prove that the device serves the release well; None when it does.

    since: start id of the server at the activation; evidence from another start is about another process.
    """
    server = _mapping(result.get("server"))
    if server.get("digest") not in (None, digest):
        return f"its server serves {server.get('digest')}, not the planned {digest}"
    if not gated:
        active = _mapping(result.get("active")).get("digest")
        return None if active == digest else f"its active release is {active}, not the planned {digest}"
    if result.get("result") == "resumed" and not result.get("gates"):
        return _resumed_problem(_mapping(result.get("unconfirmed")), server, digest)
    gates = [gate for gate in result.get("gates") or [] if isinstance(gate, Mapping)]
    wanted = _PHASES[stage]
    if not any(gate.get("phase") == wanted for gate in gates):
        return f"it measured nothing in the {wanted} phase"
    for gate in gates:
        problem = _gate_problem(gate, digest, server.get("start_id"), since)
        if problem:
            return f"gate {gate.get('gate')} ({gate.get('phase')}): {problem}"
    return None


def _gate_problem(gate: Mapping[str, Any], digest: str, start_id: Any, since: str | None) -> str | None:
    if gate.get("verdict") != "pass":
        return f"verdict {gate.get('verdict')}: {gate.get('reason')}"
    evidence = _mapping(gate.get("evidence"))
    if evidence.get("digest") != digest:
        return f"measured on {evidence.get('digest')}, not on the planned {digest}"
    measured_on = evidence.get("start_id")
    if not measured_on:
        return "no start id of the server it was measured on"
    if start_id and measured_on != start_id:
        return f"measured on server start {measured_on}, now it is {start_id}"
    if since and measured_on != since:
        return f"measured on server start {measured_on}, activated on {since}: the server restarted"
    return None


def _resumed_problem(unconfirmed: Mapping[str, Any], server: Mapping[str, Any], digest: str) -> str | None:
    """A device found already switched by an interrupted run: its own record of the serving gate is the evidence."""
    if unconfirmed.get("digest") != digest or not unconfirmed.get("gated"):
        return "it was switched before and has no record of a passed gate"
    start_id = _mapping(unconfirmed.get("evidence")).get("start_id")
    if server.get("digest") != digest or not start_id or server.get("start_id") != start_id:
        return "its server restarted since the gate passed"
    return None


def _failure(host: str, outcome: str, result: Mapping[str, Any], activating: bool) -> Finding:
    code = str(result.get("code") or "")
    message = str(result.get("msg") or "failed without a message")
    bad = [gate for gate in result.get("gates") or [] if isinstance(gate, Mapping) and gate.get("verdict") == "fail"]
    if bad:
        named = ", ".join(sorted({str(gate.get("gate")) for gate in bad}))
        text = f"gate {named} failed: {bad[0].get('reason') or message}"
        return Finding(host, FAILED, outcome, text, code or "gate", True)
    if code in RELEASE_CODES:
        return Finding(host, FAILED, outcome, message, code)
    # refused to begin: its server does not answer, or its link was too slow; the release was not even tried
    untouched = activating and outcome == "refused" and code in UNTRIED_CODES
    if code in DEVICE_CODES or untouched:
        return Finding(host, DEVICE, outcome, message, code)
    return Finding(host, DOUBTFUL, outcome, message, code)


def _unchanged(host: str, result: Mapping[str, Any], digest: str) -> Finding:
    """It had the release, confirmed, before this wave: nothing was tried and nothing is to be taken back."""
    active = _mapping(result.get("active")).get("digest")
    serves = _mapping(result.get("server")).get("digest")
    if active not in (None, digest) or serves not in (None, digest):
        return Finding(host, DOUBTFUL, "unchanged", f"says it had the release, but has {active} and serves {serves}")
    return Finding(host, UNCHANGED, "unchanged", "had the release already")


def _start_id(result: Mapping[str, Any]) -> str | None:
    start_id = _mapping(result.get("server")).get("start_id")
    return str(start_id) if start_id else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

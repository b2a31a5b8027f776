# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What is known of a rollout while it runs: counts per wave and stratum, first failures, verdicts. No output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WAITING = "waiting"
OUTCOMES = (
    "confirmed", "activated", "unchanged", "reverted", "failed", "refused", "unreachable", "held", "deferred", WAITING,
)  # fmt: skip
BAD = frozenset(("failed", "reverted", "refused"))
NO_STRATUM = "-"


def outcome_of(action: str, result: Mapping[str, Any], failed: bool, unreachable: bool, skipped: bool = False) -> str:
    """The outcome a result of model_release stands for; ``action`` is its state argument."""
    if unreachable:
        return "unreachable"
    if skipped:
        return "held"
    named = result.get("result")
    if failed:
        if named == "refused":
            return "refused"
        return "reverted" if result.get("reverted") or named == "reverted" else "failed"
    known = {"activated": "activated", "resumed": "activated", "confirmed": "confirmed", "reverted": "reverted"}
    if named == "unchanged":
        return {"confirmed": "confirmed", "reverted": "reverted"}.get(action, "unchanged")
    return known.get(str(named), "activated" if action == "active" else str(named or "failed"))


def reason_of(result: Mapping[str, Any]) -> str:
    """One line that says why: the first gate that did not pass with its value and limit, else the message."""
    for gate in result.get("gates") or []:
        if isinstance(gate, Mapping) and gate.get("verdict") != "pass":
            figures = f"{_figure(gate.get('value'))} (limit {_figure(gate.get('limit'))})"
            why = str(gate.get("reason") or "").strip()
            return (
                f"gate {gate.get('gate')} {gate.get('verdict')} in phase {gate.get('phase')}: {figures} {why}".strip()
            )
    message = str(result.get("msg") or "").strip()
    return " ".join((message or str(result.get("censored") or "no message")).split())


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass
class Failure:
    """One device that failed, in words."""

    host: str
    stratum: str
    outcome: str
    reason: str


@dataclass
class Verdict:
    """What was decided over a stratum of a wave; queries: what Prometheus was asked for it."""

    stage: str
    stratum: str
    verdict: str
    reason: str
    queries: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Wave:
    """Devices that change together, and what became of each so far."""

    number: int | None
    kind: str
    strata: dict[str, list[str]]
    outcomes: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    stage: str = "activation"

    def __post_init__(self) -> None:
        """Remember whose stratum is which."""
        self._stratum_of = {host: stratum for stratum, hosts in self.strata.items() for host in hosts}

    def expect(self, host: str, stratum: str) -> str:
        """Count a device in, once; returns the stratum it is in."""
        if host not in self._stratum_of:
            self._stratum_of[host] = stratum
            self.strata.setdefault(stratum, []).append(host)
        return self._stratum_of[host]

    @property
    def total(self) -> int:
        """How many devices the wave has."""
        return sum(len(hosts) for hosts in self.strata.values())

    def counts(self, stratum: str | None = None) -> Counter[str]:
        """Devices per outcome, of one stratum or all."""
        groups: Iterable[list[str]] = self.strata.values() if stratum is None else [self.strata.get(stratum, [])]
        return Counter(self.outcomes.get(host, WAITING) for hosts in groups for host in hosts)

    def note(self, host: str, stratum: str, outcome: str, reason: str) -> None:
        """One device's outcome; a later one replaces an earlier one."""
        self.expect(host, stratum)
        self.outcomes[host] = outcome
        if outcome in BAD:
            self.failures.append(Failure(host, stratum, outcome, reason))


class Rollout:
    """A rollout as the results of its tasks tell it."""

    def __init__(self) -> None:
        self.plan: dict[str, Any] = {}
        self.waves: list[Wave] = []
        self.undo = Wave(None, "rollback", {})
        self.quarantine: list[dict[str, Any]] = []
        self.halted: list[str] = []
        self.halt_reason = ""
        self.status: str | None = None

    def planned(self, plan: Mapping[str, Any]) -> None:
        """A plan was made: forget whatever was before."""
        self.__init__()  # type: ignore[misc]
        self.plan = dict(plan)

    def stratum_of(self, host: str) -> str:
        """The stratum the plan put a host in."""
        return str((self.plan.get("stratum_of") or {}).get(host) or NO_STRATUM)

    def wave_started(self, hosts: Iterable[str]) -> Wave:
        """A batch of the wave play begins."""
        planned = self.plan.get("wave_of") or {}
        batch = [host for host in hosts if host in planned]
        number = next((n for n in map(planned.get, batch) if n), len(self.waves) + 1)
        kind = next((w.get("kind") for w in self.plan.get("waves") or [] if w.get("number") == number), "")
        strata: dict[str, list[str]] = {}
        for host in batch:
            strata.setdefault(self.stratum_of(host), []).append(host)
        wave = Wave(number, str(kind or ""), dict(sorted(strata.items())))
        self.waves.append(wave)
        return wave

    def undo_expected(self, hosts: Iterable[str], targets: Mapping[str, Any] | None = None) -> None:
        """These devices will be taken back."""
        for host in hosts:
            self.undo.expect(host, str((targets or {}).get(host, {}).get("stratum") or self.stratum_of(host)))

    def released(self, host: str, action: str, outcome: str, result: Mapping[str, Any], in_wave: bool = True) -> Wave:
        """A model_release result; returns the wave (or the rollback) it belongs to.

        ``in_wave``: it came from the play of the waves, where a device may also be taken back at once.
        """
        if action == "reverted" and in_wave and self.waves and host in self.waves[-1].outcomes:
            self.waves[-1].outcomes[host] = outcome
            return self.waves[-1]
        if action == "reverted" or not self.waves:
            wave = self.undo
            stratum = wave.expect(host, self.stratum_of(host))
            if outcome == "reverted" and result.get("golden_restored") is False:
                outcome, result = "failed", {"msg": "golden outputs are not those from before", **result}
            wave.outcomes[host] = outcome
            if outcome in ("failed", "refused"):
                wave.failures.append(Failure(host, stratum, outcome, reason_of(result)))
            return wave
        wave = self.waves[-1]
        if outcome == "held" and wave.outcomes.get(host):
            return wave  # a skipped confirmation says nothing new
        if action == "confirmed":
            wave.stage = "soak"
        wave.note(host, self.stratum_of(host), outcome, reason_of(result))
        return wave

    def begun(self, result: Mapping[str, Any]) -> None:
        """A rollout_begin result: devices that do not begin now, or the end of the rollout before this wave."""
        if result.get("halt"):
            self.halt_reason = str(result.get("halt_reason") or "")
            self.undo_expected(result.get("rollback") or [])
        for entry in result.get("deferred") or []:
            if self.waves:
                self.waves[-1].note(str(entry["host"]), self.stratum_of(str(entry["host"])), "deferred", "")

    def judged(self, result: Mapping[str, Any]) -> None:
        """A rollout_gate result."""
        if result.get("status"):
            self.status = str(result["status"])
        self.halted = list(result.get("halted_strata") or self.halted)
        self.halt_reason = str(result.get("halt_reason") or self.halt_reason)
        self.quarantine += [item for item in result.get("quarantine") or [] if item not in self.quarantine]
        back = result.get("rollback") or []
        self.undo_expected(back.get("hosts") or [] if isinstance(back, Mapping) else back)
        if not self.waves:
            return
        wave = self.waves[-1]
        for part in [*(result.get("before") or []), result]:
            self._noted(wave, str(part.get("stage") or wave.stage), part.get("strata") or {})
        wave.stage = "soak" if str(result.get("stage") or wave.stage) in ("activation", "metrics") else "done"

    def _noted(self, wave: Wave, stage: str, strata: Mapping[str, Any]) -> None:
        for stratum, found in sorted(strata.items()):
            queries = [dict(item) for item in found.get("queries") or []]
            if found.get("action") == "none" or (stage == "metrics" and not queries):
                continue  # halted before, or not asked about: nothing was judged
            wave.verdicts.append(
                Verdict(
                    stage,
                    stratum,
                    str(found.get("verdict")),
                    " ".join(str(found.get("reason") or "").split()),
                    queries,
                )
            )

    def undone(self, result: Mapping[str, Any]) -> None:
        """A rollout_undo result: the start of a rollback, or its end."""
        if result.get("targets") is not None:
            self.undo_expected(result.get("hosts") or [], result["targets"])
            self.status = "not settled" if self.undo.total else "nothing_to_do"
        elif "remaining" in result and self.undo.total:
            self.status = "not settled" if result["remaining"] else "settled"

    def totals(self) -> Counter[str]:
        """Devices per outcome over all waves; who was taken back afterwards counts as reverted."""
        outcomes: dict[str, str] = {}
        for wave in self.waves:
            outcomes.update({host: WAITING for hosts in wave.strata.values() for host in hosts})
            outcomes.update(wave.outcomes)
        outcomes.update(self.undo.outcomes)
        return Counter(outcomes.values())

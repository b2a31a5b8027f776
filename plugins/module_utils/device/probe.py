# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The device gate: measure a release on the server that will serve it, and judge it by its signed budget.

Three phases. ``candidate``: loaded beside the incumbent, before anything changes: golden samples, latency in turn with
the incumbent and, where it is asked for, the requests that clients send meanwhile. ``serving``: after the switch, over
the default path: golden samples and memory. ``soak``: before a release is confirmed: the same, and the server's own
failures since. In each, the server's identity (digest and start id) is read before and after; when it changed, nothing
that was measured in between counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ..release.errors import ReleaseError
from ..release.golden import GoldenSet
from ..release.model import Budget, Manifest
from ..release.paths import version_key
from . import measure, verdicts
from .client import Client, Ready
from .errors import DeviceError
from .oip import ServerError
from .prometheus import total
from .verdicts import Comparison, Evidence, Verdict

PHASES = ("candidate", "serving", "soak")
#: Share of the time that measurements may take; the rest is for reading the evidence afterwards.
_MEASURING = 0.9


@dataclass(frozen=True)
class GateSettings:
    """How much to measure. ``timeout``: seconds for a whole phase.

    ``shadow_agreement``: share of clients' own requests (0..1) that the candidate has to answer as the incumbent does,
    None for no such comparison, over ``shadow_requests`` of them, for which it waits at most ``shadow_seconds``.
    """

    samples: int = 64
    requests: int = 200
    warmup: int = 20
    timeout: float = 60.0
    shadow_agreement: float | None = None
    shadow_requests: int = 50
    shadow_seconds: float = 20.0


def gate_settings(raw: Mapping[str, Any] | None) -> GateSettings:
    """Checked settings; None and absent fields are the defaults.

    Fewer requests than a p95 needs, or fewer golden samples than MIN_GOLDEN, would loosen the gate: they are raised.
    Raises DeviceError("bad_input").
    """
    given = {key: value for key, value in (raw or {}).items() if value is not None}
    values: dict[str, Any] = {}
    least_of = {"samples": verdicts.MIN_GOLDEN, "requests": verdicts.MIN_LATENCIES, "warmup": 0, "shadow_requests": 1}
    for name, least in least_of.items():
        value = given.get(name, getattr(GateSettings, name))
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise DeviceError("bad_input", f"gate.{name} is {value!r}: it must be a whole number, 0 or more")
        values[name] = max(least, value)
    timeout = given.get("timeout", GateSettings.timeout)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 86400:
        raise DeviceError("bad_input", f"gate.timeout is {timeout!r}: it must be seconds, more than 0")
    for name, most in (("shadow_agreement", 1.0), ("shadow_seconds", 3600.0)):
        value = given.get(name, getattr(GateSettings, name))
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most
        ):
            raise DeviceError("bad_input", f"gate.{name} is {value!r}: it must be above 0, up to {most:g}")
        values[name] = value
    return GateSettings(timeout=float(timeout), **values)


def read_counters(client: Client, model: str) -> dict[str, float | None]:
    """The server's counters of a model, all versions: ``requests``, ``errors`` (5xx); and its ``resident_bytes``.

    None for what it does not tell, or when it does not answer.
    """
    try:
        samples = client.metrics()
    except ServerError:
        samples = []
    return {
        "requests": total(samples, "edgeai_requests_total", model=model),
        "errors": total(samples, "edgeai_request_errors_total", model=model),
        "resident_bytes": total(samples, "process_resident_memory_bytes"),
    }


class _Gate:
    """One phase on one device: what is measured, and the records so far."""

    def __init__(
        self,
        phase: str,
        client: Client,
        manifest: Manifest,
        variant_id: str,
        golden: GoldenSet,
        budget: Budget,
        settings: GateSettings,
        now: Callable[[], datetime],
    ) -> None:
        self.phase = phase
        self.client = client
        self.manifest = manifest
        self.variant_id = variant_id
        self.golden = golden
        self.budget = budget
        self.settings = settings
        self.now = now
        self.version = manifest.version if phase == "candidate" else None
        self.found: dict[str, Verdict] = {}
        self.digests: set[str | None] = set()

    def look(self) -> tuple[Evidence | None, Ready | None]:
        """Who serves right now; (None, None) when nobody is ready or answers."""
        try:
            ready = self.client.ready(self.manifest.model, self.version)
        except ServerError:
            return None, None
        time = self.now().astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (Evidence(ready.digest, ready.start_id, ready.boot_id, time), ready) if ready.ready else (None, None)

    def golden_samples(self, incumbent: Mapping[str, Any] | None) -> None:
        """Score the golden samples; compare with the incumbent's answers to the same ones."""
        run = measure.run_golden(self.client, self.manifest, self.golden, self.version, self.settings.samples)
        self.digests |= run.digests
        wanted = min(self.settings.samples, self.golden.samples)
        score = broken = None
        if run.error is not None:
            # A signed input that is refused is the model's fault; no answer, or a busy server, says nothing about it.
            if run.error.status in measure.MODEL_FAULTS:
                broken = run.error.message
        else:
            broken = measure.broken_outputs(run, self.golden)
        try:
            if run.error is None and broken is None:
                score = measure.score_run(self.manifest, run, self.golden)
            reference = measure.reference_score(self.manifest, self.golden, wanted)
        except ReleaseError as error:
            broken, reference = str(error), self.manifest.golden.reference_score
        compared = self._compare(run, incumbent) if incumbent and score is not None else None
        verdict = verdicts.golden_verdict(score, reference, self.budget, run.rows, wanted, compared, broken)
        if run.error is not None and broken is None:
            verdict = replace(verdict, reason=f"{verdict.reason}: {run.error.message}")
        self.found["golden"] = verdict

    def _compare(self, run: measure.GoldenRun, incumbent: Mapping[str, Any]) -> Comparison | None:
        """The incumbent on the same samples; None when the two cannot be compared."""
        if self.manifest.golden.metric != "top1" or self.golden.labels is None:
            return None  # without labels the reference is the truth, and an incumbent can only differ from it
        other = measure.run_golden(self.client, self.manifest, self.golden, None, run.rows)
        told = {digest for digest in other.digests if digest is not None}
        if other.error is not None or (incumbent.get("digest") and told - {incumbent["digest"]}):
            return None
        try:
            score = measure.score_run(self.manifest, other, self.golden)
            mine = measure.hits(self.manifest, run, self.golden)
            theirs = measure.hits(self.manifest, other, self.golden)
            older = version_key(self.manifest.version) < version_key(str(incumbent.get("version") or "0.0.0"))
        except ReleaseError:
            return None
        lost = sum(1 for a, b in zip(mine, theirs) if b and not a)
        gained = sum(1 for a, b in zip(mine, theirs) if a and not b)
        return Comparison(score, lost, gained, binding=not older)

    def latency(self, incumbent: bool) -> None:
        """Time single requests, in turn with the incumbent's."""
        calls = measure.single_calls(self.manifest, self.golden)
        mine, theirs = measure.measure_latency(
            self.client,
            self.manifest.model,
            calls,
            self.version,
            self.settings.requests,
            self.settings.warmup,
            self.client.time_left(),
            incumbent,
        )
        self.digests |= mine.digests
        verdict = verdicts.latency_verdict(mine.milliseconds, theirs.milliseconds, self.budget, mine.errors)
        if mine.last_error is not None:
            verdict = replace(verdict, reason=f"{verdict.reason}: {mine.last_error.message}")
        self.found["latency"] = verdict

    def shadow(self) -> None:
        """Have the candidate answer what clients send now, beside the incumbent; only figures come back."""
        wanted, limit = self.settings.shadow_requests, self.settings.shadow_agreement
        if limit is None:
            return
        seconds = min(self.settings.shadow_seconds, max(0.1, self.client.time_left() / 2))
        try:
            told = self.client.shadow(self.manifest.model, self.manifest.version, wanted, seconds)
        except ServerError as error:
            self.found["shadow"] = Verdict(verdicts.NO_DATA, error.message, None, limit, "agreement")
            return
        self.digests.add(told.get("digest"))
        self.found["shadow"] = verdicts.shadow_verdict(told, wanted, seconds, limit)

    def records(self, identity: Verdict, evidence: Evidence | None, more: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The records, identity first. Without a proven identity no measurement is worth more than a doubt."""
        foreign = {digest for digest in self.digests if digest is not None} - {self.manifest.digest}
        if identity.verdict == verdicts.PASS and foreign:
            text = f"some requests were answered by {', '.join(sorted(foreign))}"
            identity = replace(identity, verdict=verdicts.INCONCLUSIVE, reason=text)
        result = [self._record("identity", identity, evidence, more)]
        for gate, verdict in self.found.items():
            doubtful = identity.verdict != verdicts.PASS and gate != "load"
            if doubtful and verdict.verdict != verdicts.NO_DATA:
                text = f"stale ({identity.reason}): {verdict.reason}"
                verdict = replace(verdict, verdict=verdicts.INCONCLUSIVE, reason=text)
            result.append(self._record(gate, verdict, evidence, more))
        return result

    def _record(
        self, gate: str, verdict: Verdict, evidence: Evidence | None, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        shown: dict[str, Any] = {"digest": None, "start_id": None, "boot_id": None, "time": None}
        if evidence is not None:
            shown.update(vars(evidence))
        return {
            "gate": gate,
            "verdict": verdict.verdict,
            "phase": self.phase,
            "value": verdict.value,
            "limit": verdict.limit,
            "unit": verdict.unit,
            "samples": verdict.samples,
            "reason": verdict.reason,
            "evidence": {**shown, **more},
        }


def run_gate(
    phase: str,
    client: Client,
    manifest: Manifest,
    variant: Any,
    golden: GoldenSet,
    budget: Budget,
    settings: Mapping[str, Any] | None = None,
    incumbent: Mapping[str, Any] | None = None,
    since: Mapping[str, Any] | None = None,
    now: Callable[[], datetime] | None = None,
) -> list[dict[str, Any]]:
    """Measure and judge one phase. Returns gate records (plain JSON types), the identity's first; only ``pass`` passes.

    ``phase``: candidate (``client`` must speak to the management socket; a candidate that is not loaded yet is loaded),
    serving or soak. ``variant``: the chosen Variant or its id. ``budget``: manifest.budget(stratum).
    ``settings``: samples, requests, warmup, timeout; and p95_ms, p95_ratio, memory_mib, accuracy_drop, which only
    tighten. ``incumbent``: {version, digest} of what serves on the default path, None when nothing does (candidate).
    ``since``: the evidence of an earlier record that this phase continues: its start id must still be the server's; for
    soak the evidence of the serving phase, whose ``counters`` are those from which failures are counted.
    Raises DeviceError("bad_input") for wrong arguments only: whatever goes wrong with the server becomes a verdict.
    """
    if phase not in PHASES:
        raise DeviceError("bad_input", f"phase {phase!r}: use one of {', '.join(PHASES)}")
    chosen = gate_settings(settings)
    gate = _Gate(
        phase,
        client,
        manifest,
        str(getattr(variant, "id", variant)),
        golden,
        verdicts.tighten(budget, settings or {}),
        chosen,
        now or _utcnow,
    )
    more: dict[str, Any] = {}
    with client.deadline(chosen.timeout):
        refused = _ensure_candidate(gate) if phase == "candidate" else None
        before, ready = gate.look()
        if refused is not None:
            gate.found["load"] = refused
        elif before is not None and before.digest == manifest.digest:
            with client.deadline(client.time_left() * _MEASURING):
                more = _measure(gate, incumbent, since or {})
        after = gate.look()[0]
    return gate.records(_identity(gate, before, ready, after, refused, since or {}), before, more)


def _measure(gate: _Gate, incumbent: Mapping[str, Any] | None, since: Mapping[str, Any]) -> dict[str, Any]:
    """All measurements of a phase; returns what the evidence holds besides who served: {"counters": ...} or {}."""
    if gate.phase == "candidate":
        comparable = bool(incumbent) and _same_inputs(gate)
        gate.golden_samples(incumbent if comparable else None)
        gate.latency(comparable)
        if comparable:
            gate.shadow()
        return {}
    if gate.phase == "soak":
        # Before the golden samples: what they cause is theirs, and judged as such.
        now, then = read_counters(gate.client, gate.manifest.model), since.get("counters") or {}
        requests = (now["requests"] or 0.0) - (then.get("requests") or 0.0)
        gate.found["errors"] = verdicts.soak_verdict(then.get("errors"), now["errors"], requests)
    gate.golden_samples(None)
    counters = read_counters(gate.client, gate.manifest.model)
    gate.found["memory"] = verdicts.memory_verdict(counters.pop("resident_bytes"), gate.budget)
    return {"counters": counters}


def _ensure_candidate(gate: _Gate) -> Verdict | None:
    """Load the candidate when it is not there yet; a verdict when it does not load."""
    ready = gate.look()[1]
    if ready is not None and (ready.digest, ready.variant) == (gate.manifest.digest, gate.variant_id):
        return None
    try:
        gate.client.load(gate.manifest.model, gate.manifest.version, gate.variant_id, timeout=gate.settings.timeout)
    except ServerError as error:
        # Refused with a reason: this release does not load here. Anything else says nothing about the release.
        verdict = verdicts.FAIL if error.status in (*measure.MODEL_FAULTS, 409) else verdicts.NO_DATA
        return Verdict(verdict, f"the candidate does not load: {error.message}")
    return None


def _same_inputs(gate: _Gate) -> bool:
    """Whether the incumbent understands the candidate's requests."""
    try:
        told = gate.client.metadata(gate.manifest.model)
        theirs = [(item["name"], item["datatype"], tuple(item["shape"])) for item in told["inputs"]]
    except (ServerError, KeyError, TypeError):
        return False
    return sorted(theirs) == sorted((spec.name, spec.datatype, spec.shape) for spec in gate.manifest.inputs)


def _identity(
    gate: _Gate,
    before: Evidence | None,
    ready: Ready | None,
    after: Evidence | None,
    refused: Verdict | None,
    since: Mapping[str, Any],
) -> Verdict:
    if refused is not None:
        return Verdict(verdicts.NO_DATA, refused.reason)
    if ready is not None and ready.variant not in (None, gate.variant_id):
        return Verdict(verdicts.FAIL, f"the server serves variant {ready.variant}, not {gate.variant_id}", samples=1)
    return verdicts.identity_verdict(before, after, gate.manifest.digest, since.get("start_id"))


def _utcnow() -> datetime:
    return datetime.now(timezone.utc)

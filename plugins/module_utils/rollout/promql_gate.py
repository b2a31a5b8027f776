# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The queries of one wave: what is asked of Prometheus for a stratum, and the verdicts with their evidence.

No I/O: ``ask(expression)`` gives the API's answer (JSON) to an instant query, all at one moment, by Prometheus' clock.
So a controller whose clock is wrong does not take data from before the activation for data of the soak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fractions import Fraction
from math import ceil
from typing import Any

from . import promql_template
from .errors import RolloutError
from .ledger_format import timestamp
from .policy import exact
from .promql import INCONCLUSIVE, NO_DATA, Coverage, Reading, coverage, decide, read_value, served
from .promql_policy import Prometheus, Query

Ask = Callable[[str], Mapping[str, Any]]
MAX_CONTROL = 500
"""Devices on the old release that are compared with; more make the number no better."""
_SHOWN = 10


@dataclass(frozen=True)
class Target:
    """Whom the queries are about. device_stratum: as the label has it, without what ``stratify_by`` adds;
    hosts: activated in this wave, with evidence; control: of the stratum, not yet touched; sites: host -> site.
    """

    device_stratum: str
    hosts: Sequence[str]
    control: Sequence[str]
    model: str
    version: str
    digest: str
    soak: int
    sites: Mapping[str, str] = field(default_factory=dict)


def targets(plan: Mapping[str, Any], wave: int, verdict: Mapping[str, Any], soak: int) -> dict[str, Target]:
    """Return stratum -> whom to ask about, for the strata whose devices would be confirmed next.

    verdict: that of the wave after its activation. The control group is what later waves will change.
    """
    later: dict[str, list[str]] = {}
    for after in plan["waves"][wave:]:
        for stratum, hosts in after["strata"].items():
            later.setdefault(stratum, []).extend(hosts)
    found = {}
    for stratum, judged in verdict["strata"].items():
        if judged["verdict"] == "pass" and judged["passed"]:
            names = plan["device_stratum_of"]
            found[stratum] = Target(
                device_stratum=str(names.get(judged["passed"][0]) or stratum),
                hosts=list(judged["passed"]),
                control=later.get(stratum, [])[:MAX_CONTROL],
                model=plan["model"],
                version=plan["version"],
                digest=plan["digest"],
                soak=soak,
            )
    return found


def judge(prometheus: Prometheus, target: Target, ask: Ask, at: float) -> list[dict[str, Any]]:
    """Return one verdict with its evidence per query, as plain JSON types. at: the moment of the answers, POSIX s."""
    return [_Question(prometheus, query, target, ask, at).judge() for query in prometheus.queries]


def unasked(prometheus: Prometheus, target: Target, reason: str) -> list[dict[str, Any]]:
    """Return the verdicts when Prometheus could not be asked at all."""
    return [_record(query, target, NO_DATA, reason) for query in prometheus.queries]


def _record(query: Query, target: Target, verdict: str, reason: str, **evidence: Any) -> dict[str, Any]:
    kind = "max" if query.max is not None else "min"
    return {
        "query": query.name,
        "verdict": verdict,
        "reason": reason,
        "value": None,
        "limit": getattr(query, kind),
        "kind": kind,
        "expr": query.expr,
        "window": query.window or target.soak,
        "devices": len(target.hosts),
        **evidence,
    }


class _Question:
    """One query about one stratum."""

    def __init__(self, prometheus: Prometheus, query: Query, target: Target, ask: Ask, at: float) -> None:
        self.prometheus, self.query, self.target, self.ask, self.at = prometheus, query, target, ask, at
        self.window = query.window or target.soak

    def judge(self) -> dict[str, Any]:
        target, query = self.target, self.query
        known = self._known(target.hosts)
        covered = self._covered(target.hosts, known, planned=True)
        evidence: dict[str, Any] = {
            "at": timestamp(datetime.fromtimestamp(self.at, timezone.utc)),
            **_covered_evidence(covered),
        }
        wrong = self._lacking(covered)
        if wrong:
            return _record(query, target, *wrong, **evidence)
        samples = self._samples(covered.fit, [(target.digest, target.version)])
        value = self._ask_value(query.expr, covered.fit, [(target.digest, target.version)])
        evidence.update(value=value.value, samples=samples.value if samples else None)
        evidence["answers"] = {"value": value.answer, "samples": samples.answer if samples else None}
        wrong = _too_few(samples, query.min_samples) or ((value.verdict, value.reason) if value.verdict else None)
        if wrong or value.value is None:
            return _record(query, target, *(wrong or (NO_DATA, "there is no value")), **evidence)
        control = self._control(evidence) if query.compare else None
        decision = decide(query, value.value, control)
        return _record(query, target, decision.verdict, decision.reason, **{**evidence, "limit": decision.limit})

    # -- who counts ------------------------------------------------------------------------------------------------

    def _known(self, hosts: Sequence[str]) -> dict[str, list[tuple[str, str]]] | None:
        """What Prometheus says these hosts serve; None when the policy does not ask."""
        if not self.prometheus.identity or not hosts:
            return None
        labels = {"job": [self.prometheus.job], "device": hosts, "model": [self.target.model]}
        return served(self.ask(f"edgeai_model_info{promql_template.selector(labels)}"))

    def _covered(
        self, hosts: Sequence[str], known: Mapping[str, list[tuple[str, str]]] | None, planned: bool
    ) -> Coverage:
        """Who was scraped all along and serves the planned release, or, of the control group, another one."""
        if not hosts:
            return Coverage()
        labels = {"job": [self.prometheus.job], "device": hosts}
        expr = f"up{promql_template.selector(labels)}[{self.window}s]"
        query = self.query
        found = coverage(self.ask(expr), hosts, self.at, query.stale_after, query.min_scrapes)
        if known is None:
            return found
        for host in list(found.fit):
            digests = [digest for digest, _version in known.get(host, [])]
            wrong = _identity_problem(digests, self.target.digest, planned)
            if wrong:
                found.fit.remove(host)
                found.unfit[host] = wrong
        return found

    def _lacking(self, covered: Coverage) -> tuple[str, str] | None:
        """Whether too few of the wave's devices count."""
        devices = len(self.target.hosts)
        needed = max(1, ceil(exact(self.prometheus.coverage) * Fraction(devices)))
        if len(covered.fit) >= needed:
            return None
        host, (verdict, reason) = next(iter(covered.unfit.items()))
        text = f"{len(covered.fit)} of {devices} devices can be judged, {needed} needed; {host}: {reason}"
        return (verdict if not covered.fit else INCONCLUSIVE), text

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _ask_value(self, expr: str, hosts: Sequence[str], releases: Sequence[tuple[str, str]]) -> Reading:
        target = self.target
        values = {
            "device": hosts,
            "site": [target.sites[host] for host in hosts if target.sites.get(host)],
            "stratum": [target.device_stratum],
            "model": [target.model],
            "version": [version for _digest, version in releases],
            "digest": [digest for digest, _version in releases],
        }
        try:
            return read_value(self.ask(promql_template.render(expr, values, self.window)))
        except RolloutError as error:
            return Reading(None, INCONCLUSIVE, str(error))

    def _samples(self, hosts: Sequence[str], releases: Sequence[tuple[str, str]]) -> Reading | None:
        return self._ask_value(self.query.samples, hosts, releases) if self.query.samples else None

    def _control(self, evidence: dict[str, Any]) -> Reading | None:
        """The value of the devices that are still on the old release; None when none is left."""
        known = self._known(self.target.control)
        covered = self._covered(self.target.control, known, planned=False)
        about: dict[str, Any] = {"devices": len(self.target.control), "covered": len(covered.fit), "value": None}
        evidence["control"] = about
        if not covered.fit:
            if not covered.unfit:
                return None
            host, (_verdict, reason) = next(iter(covered.unfit.items()))
            return Reading(None, INCONCLUSIVE, f"no device on the old release can be measured; {host}: {reason}")
        releases = sorted({item for host in covered.fit for item in (known or {}).get(host, [])})
        about["versions"] = sorted({version for _digest, version in releases})
        samples = self._samples(covered.fit, releases)
        wrong = _too_few(samples, self.query.min_samples)
        if wrong:
            return Reading(None, wrong[0], f"of the old release, {wrong[1]}")
        value = self._ask_value(self.query.expr, covered.fit, releases)
        about.update(value=value.value, samples=samples.value if samples else None)
        evidence["answers"]["control"] = value.answer
        return value if value.value is not None else value._replace(reason=f"of the old release, {value.reason}")


def _identity_problem(digests: Sequence[str], digest: str, planned: bool) -> tuple[str, str] | None:
    if not digests:
        return NO_DATA, "its metrics do not say what it serves (edgeai_model_info)"
    if planned and set(digests) != {digest}:
        other = next(item for item in digests if item != digest)
        return INCONCLUSIVE, f"its metrics say it serves {other}, not the planned {digest}"
    if not planned and digest in digests:
        return INCONCLUSIVE, "it serves the new release already"
    return None


def _too_few(samples: Reading | None, needed: int) -> tuple[str, str] | None:
    if samples is None:
        return None
    if samples.value is None:
        return samples.verdict, f"samples: {samples.reason}"
    if samples.value < needed:
        return INCONCLUSIVE, f"it rests on {samples.value:.6g} samples, {needed} needed"
    return None


def _covered_evidence(covered: Coverage) -> dict[str, Any]:
    shown = list(covered.unfit.items())[:_SHOWN]
    return {
        "covered": len(covered.fit),
        "scrapes": covered.scrapes,
        "oldest_s": None if covered.oldest is None else round(covered.oldest, 3),
        "left_out": {host: reason for host, (_verdict, reason) in shown},
    }

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The comparison of devices that got the release (B) with those that wait for it (A), half-way through a rollout.

No I/O: ``ask(expression)`` gives the API's answer to an instant query, all at one moment, by Prometheus' clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

from . import promql_template
from .ab_policy import AbTest, Metric
from .comparison import Difference, difference
from .errors import RolloutError
from .policy import Policy, exact
from .promql import FAIL, INCONCLUSIVE, NO_DATA, PASS, coverage, read_devices, served
from .promql_policy import Prometheus
from .vetoes import parse_moment

Ask = Callable[[str], Mapping[str, Any]]
MAX_SIDE = 2000
"""Devices of each side that are asked about; more narrow the interval no further than matters."""
_SHOWN = 10


class Standing(NamedTuple):
    """What the ledger says of a comparison. since: when the last device had B for good; passed: whether it is over."""

    since: datetime | None
    passed: bool


def boundary(plan: Mapping[str, Any], share: float) -> int | None:
    """Return the wave behind which every stratum has its share on B; None when nobody is left on A there."""
    total: dict[str, int] = {}
    for wave in plan["waves"]:
        for stratum, hosts in wave["strata"].items():
            total[stratum] = total.get(stratum, 0) + len(hosts)
    wanted = {stratum: min(ceil(exact(share) * devices), max(1, devices - 1)) for stratum, devices in total.items()}
    for wave in plan["waves"][:-1]:
        for stratum, hosts in wave["strata"].items():
            wanted[stratum] -= len(hosts)
        if all(missing <= 0 for missing in wanted.values()):
            return int(wave["number"])
    return None


def ab_warnings(plan: Mapping[str, Any], policy: Policy) -> list[str]:
    """Warn of an A/B test that cannot take place."""
    if not policy.ab_test.share or not plan["waves"] or boundary(plan, policy.ab_test.share) is not None:
        return []
    return ["nobody would be left on A: no A/B test in this rollout"]


def standing(records: Iterable[Mapping[str, Any]], rollout: str, wave: int) -> Standing:
    """Fold the ledger for the comparison behind ``wave`` of a rollout."""
    since: datetime | None = None
    passed = False
    for record in records:
        data = record["data"]
        if record["rollout"] != rollout or data.get("wave") != wave:
            continue
        if record["type"] == "verdict" and data.get("stage") == "soak":
            since = parse_moment(f"ledger record {record['seq']}", "time", record["time"])
        elif record["type"] == "ab_test":
            passed = data.get("verdict") == PASS
    return Standing(since, passed)


def pending(test: AbTest, found: Standing, now: datetime) -> str:
    """Return until when B is measured, as words; empty when it has been measured for long enough."""
    if found.since is None:
        return "the wave that completes the share of B was not judged"
    until = found.since + timedelta(seconds=test.measure)
    return "" if now >= until else f"B is measured until {until.strftime('%Y-%m-%dT%H:%M:%SZ')}"


def overdue(test: AbTest, found: Standing, now: datetime) -> bool:
    """Whether B should have been shown to be no worse by now."""
    return found.since is not None and now >= found.since + timedelta(seconds=test.limit)


@dataclass(frozen=True)
class Sides:
    """Whom the comparison is about: stratum -> hosts planned for B, and for A."""

    b: Mapping[str, Sequence[str]]
    a: Mapping[str, Sequence[str]]
    model: str
    version: str
    digest: str


def sides(plan: Mapping[str, Any], wave: int) -> Sides:
    """Return who got the release up to ``wave``, and who gets it later, of the strata that have both."""
    on: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for item in plan["waves"]:
        for stratum, hosts in item["strata"].items():
            on[item["number"] > wave].setdefault(stratum, []).extend(hosts)
    b, a = on
    return Sides(
        {stratum: b[stratum] for stratum in b if stratum in a},
        {stratum: a[stratum] for stratum in a if stratum in b},
        plan["model"], plan["version"], plan["digest"],
    )  # fmt: skip


def judge(test: AbTest, prometheus: Prometheus, who: Sides, ask: Ask, at: float) -> list[dict[str, Any]]:
    """Return a verdict with its evidence per metric, as plain JSON types. at: the moment of the answers, POSIX s."""
    return [_Comparison(test, metric, prometheus, who, ask, at).judge() for metric in test.metrics]


def unasked(test: AbTest, reason: str) -> list[dict[str, Any]]:
    """Return the verdicts when Prometheus could not be asked at all."""
    return [{"metric": item.name, "verdict": NO_DATA, "reason": reason, "expr": item.expr} for item in test.metrics]


def overall(found: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the verdict of all metrics together with its reasons: one that fails is enough, all have to pass."""
    items = list(found)
    for verdict in (FAIL, NO_DATA, INCONCLUSIVE, PASS):
        reasons = [f"{item['metric']}: {item['reason']}" for item in items if item["verdict"] == verdict]
        if reasons:
            return verdict, "; ".join(reasons)
    return NO_DATA, "nothing was compared"


class _Comparison:
    """One metric."""

    def __init__(self, test: AbTest, metric: Metric, prometheus: Prometheus, who: Sides, ask: Ask, at: float) -> None:
        self.test, self.metric, self.prometheus, self.who, self.ask, self.at = test, metric, prometheus, who, ask, at
        self.left_out: dict[str, str] = {}

    def judge(self) -> dict[str, Any]:
        on_b = self._values(self.who.b, planned=True)
        on_a = self._values(self.who.a, planned=False)
        found = difference({name: (on_a[name], on_b[name]) for name in on_b}, self.test.confidence)
        evidence: dict[str, Any] = {
            "metric": self.metric.name,
            "expr": self.metric.expr,
            "window": self.test.measure,
            "left_out": dict(list(self.left_out.items())[:_SHOWN]),
            "left_out_count": len(self.left_out),
        }
        if found is None:
            counts = (sum(map(len, on_b.values())), sum(map(len, on_a.values())))
            example = next((f"; {host}: {reason}" for host, reason in self.left_out.items()), "")
            reason = "{} devices on B and {} on A can be compared, too few to tell chance from difference{}".format(
                *counts, example
            )
            return {**evidence, "verdict": INCONCLUSIVE if all(counts) else NO_DATA, "reason": reason}
        verdict, reason, margin = decide(self.metric, found)
        shown = {**found._asdict(), "confidence": self.test.confidence, "margin": margin}
        return {**evidence, **shown, "verdict": verdict, "reason": reason}

    def _values(self, planned_hosts: Mapping[str, Sequence[str]], planned: bool) -> dict[str, list[float]]:
        """The numbers of the devices that count, by stratum."""
        hosts = [host for stratum in planned_hosts.values() for host in stratum][:MAX_SIDE]
        releases = self._fit(hosts, planned)
        numbers: dict[str, float] = {}
        # what is asked of A has A's versions; each device is asked about its own
        by_release: dict[tuple[str, str], list[str]] = {}
        for host, release in releases.items():
            by_release.setdefault(release, []).append(host)
        for (digest, version), fit in sorted(by_release.items()):
            numbers.update(self._ask(fit, digest, version))
        return {
            stratum: [numbers[host] for host in named if host in numbers] for stratum, named in planned_hosts.items()
        }

    def _fit(self, hosts: Sequence[str], planned: bool) -> dict[str, tuple[str, str]]:
        """Host -> (digest, version) of those that were scraped all along and are on the side they were planned for."""
        if not hosts:
            return {}
        labels = {"job": [self.prometheus.job], "device": hosts}
        window = f"up{promql_template.selector(labels)}[{self.test.measure}s]"
        metric = self.metric
        covered = coverage(self.ask(window), hosts, self.at, metric.stale_after, metric.min_scrapes)
        self.left_out.update({host: reason for host, (_verdict, reason) in covered.unfit.items()})
        info = promql_template.selector({**labels, "model": [self.who.model]})
        known = served(self.ask(f"edgeai_model_info{info}"))
        found = {}
        for host in covered.fit:
            releases = known.get(host, [])
            if len(releases) == 1 and (releases[0][0] == self.who.digest) == planned:
                found[host] = releases[0]
            else:
                self.left_out[host] = f"its metrics do not say that it is on {'B' if planned else 'A'}"
        return found

    def _ask(self, hosts: Sequence[str], digest: str, version: str) -> dict[str, float]:
        values = {"device": hosts, "model": [self.who.model], "version": [version], "digest": [digest]}
        try:
            answer = self.ask(promql_template.render(self.metric.expr, values, self.test.measure))
        except RolloutError as error:
            self.left_out.update(dict.fromkeys(hosts, str(error)))
            return {}
        numbers, problems = read_devices(answer, hosts)
        self.left_out.update(problems)
        return numbers


def decide(metric: Metric, found: Difference) -> tuple[str, str, float]:
    """Return verdict, reason and the margin: how much worse B may be, in the metric's unit.

    B passes when it is, with the confidence asked for, not worse by more than the margin: when the whole interval lies
    on the good side of it. It fails when the whole interval lies on the bad side.
    """
    lower = metric.better == "lower"
    if metric.difference is not None:
        margin = metric.difference
    else:
        ratio = metric.ratio or 1.0
        margin = found.mean_a * (ratio - 1.0 if lower else 1.0 - ratio)
    worst, best = (found.high, found.low) if lower else (-found.low, -found.high)
    text = (
        f"B - A = {found.value:.4g} [{found.low:.4g}, {found.high:.4g}] with {found.n_b} devices on B and {found.n_a}"
        f" on A (mean {found.mean_a:.4g}); worse by up to {margin:.4g} is allowed"
    )
    if found.mean_a < 0 and metric.difference is None:
        return INCONCLUSIVE, f"a ratio to A's mean, {found.mean_a:.4g}, means nothing: give a difference", margin
    if worst <= margin:
        return PASS, text, margin
    return (FAIL if best > margin else INCONCLUSIVE), text, margin

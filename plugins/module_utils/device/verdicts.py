# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The device gate's decisions, apart from its measurements: pure functions from numbers to one of four verdicts.

``pass`` is the only one that passes. ``fail``: measured, and outside the budget. ``inconclusive``: measured, but it
proves nothing (too few samples, or the server changed meanwhile). ``no_data``: nothing was measured.

The budget is part of what is signed; settings that come with a request can tighten it and never loosen it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..release.model import Budget
from .errors import DeviceError

PASS, FAIL, INCONCLUSIVE, NO_DATA = "pass", "fail", "inconclusive", "no_data"

#: Fewest requests from which a 95th percentile is read: with 20, one lies beyond it.
MIN_LATENCIES = 20
#: Fewest golden samples a request may reduce the measurement to (all of them when the release has fewer).
MIN_GOLDEN = 16
#: Milliseconds. A p95 that is worse than the incumbent's by less than this never fails by its ratio: schedulers and
#: interrupts alone move the p95 of a model that answers in microseconds by this much.
NOISE_MS = 2.0
#: Chance of failing a candidate that is as good as the incumbent, in the comparison of the two.
SIGNIFICANCE = 0.05
#: So many requests, all beyond the ceiling, settle it: with a p95 below the ceiling that happens once in 8000 times.
_CERTAIN = 3
_EPSILON = 1e-9


@dataclass(frozen=True)
class Verdict:
    """A verdict with the number it rests on, the limit it was held against, and why."""

    verdict: str
    reason: str
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    samples: int = 0


@dataclass(frozen=True)
class Evidence:
    """Whose measurement it is: the digest that was served, the server process (start id), the boot, when (ISO)."""

    digest: str | None
    start_id: str | None
    boot_id: str | None
    time: str


def tighten(budget: Budget, settings: Mapping[str, Any]) -> Budget:
    """The stricter of the signed budget and the request's settings, field by field (absent or None: the budget's).

    Raises DeviceError("bad_input") for a setting that is no positive number.
    """
    changes: dict[str, Any] = {}
    for name in ("accuracy_drop", "p95_ms", "p95_ratio", "memory_mib"):
        value = settings.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise DeviceError("bad_input", f"gate.{name} is {value!r}: it must be a number, 0 or more")
        changes[name] = min(getattr(budget, name), value)
    return replace(budget, **changes)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value with at least ``share`` (0..1) of the values at or below it."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - _EPSILON) - 1)]


def quantile_bounds(values: Sequence[float], share: float) -> tuple[float, float]:
    """One-sided 95 % confidence bounds (lower, upper) of a quantile, whatever the distribution.

    Order statistics whose ranks come from the normal approximation of the binomial (Conover, Practical Nonparametric
    Statistics, 3.2). With few values the upper bound is the largest one.
    """
    ordered = sorted(values)
    centre, spread = len(ordered) * share, 1.645 * math.sqrt(len(ordered) * share * (1.0 - share))
    lower = max(1, math.floor(centre - spread))
    upper = min(len(ordered), math.ceil(centre + spread))
    return ordered[lower - 1], ordered[upper - 1]


def sign_test(lost: int, gained: int) -> float:
    """The chance of losing at least ``lost`` of ``lost + gained`` differing samples if both models were equally good.

    The one-sided exact sign test (McNemar's exact test): a binomial tail with p = 1/2.
    """
    differing = lost + gained
    return sum(math.comb(differing, k) for k in range(lost, differing + 1)) / 2.0**differing


@dataclass(frozen=True)
class Comparison:
    """Candidate and incumbent on the same labelled samples: the incumbent's score, and the samples that differ.

    ``lost``: the incumbent was right, the candidate is wrong. ``binding`` is False when somebody goes back to an older
    release on purpose: then it is information.
    """

    score: float
    lost: int
    gained: int
    binding: bool = True


def golden_verdict(
    score: float | None,
    reference: float,
    budget: Budget,
    samples: int,
    wanted: int,
    incumbent: Comparison | None = None,
    broken: str | None = None,
) -> Verdict:
    """Judge the score (0..1) on the golden samples.

    The floor is the signed reference's score less the budget; no incumbent lowers or raises it. Besides, a candidate
    must not be worse than the incumbent by more than the same budget, where the two can be compared (labels), and
    only when the difference is not chance (sign_test): so a bad incumbent never blocks a good candidate, and a
    handful of samples that fell differently never blocks it either.
    ``samples`` of ``wanted`` were answered. ``broken``: why the outputs are worthless (NaN, wrong shape), which fails.
    """
    floor = reference - budget.accuracy_drop

    def say(verdict: str, reason: str) -> Verdict:
        value = None if score is None or broken else round(score, 6)
        return Verdict(verdict, reason, value, round(floor, 6), "score", samples)

    if broken is not None:
        return say(FAIL, broken)
    if samples == 0:
        return say(NO_DATA, "no golden sample was answered")
    if samples < wanted or score is None:
        return say(INCONCLUSIVE, f"{samples} of {wanted} golden samples were answered")
    text = f"{score:.4f} on {samples} samples, reference {reference:.4f}"
    if incumbent is not None:
        text += f", incumbent {incumbent.score:.4f}"
    if not score >= floor - _EPSILON:
        return say(FAIL, f"{text}: below the floor {floor:.4f}")
    if incumbent is None or score >= incumbent.score - budget.accuracy_drop - _EPSILON:
        return say(PASS, text)
    if not incumbent.binding:
        return say(PASS, f"{text} (an older release may be less accurate)")
    chance = sign_test(incumbent.lost, incumbent.gained)
    text += f" ({incumbent.lost} samples lost, {incumbent.gained} gained, p={chance:.3g})"
    if chance <= SIGNIFICANCE:
        return say(FAIL, f"{text}: worse than the incumbent")
    return say(PASS, f"{text}: may be chance")


def latency_verdict(
    candidate_ms: Sequence[float], incumbent_ms: Sequence[float], budget: Budget, errors: int = 0
) -> Verdict:
    """Judge the p95 of batch-1 requests, in milliseconds, against the ceiling and the incumbent on the same device.

    The ratio to the incumbent fails only beyond NOISE_MS of difference, only with enough samples of both, and only when
    the two p95 are surely that far apart (quantile_bounds): a device under load has long tails on both sides.
    ``errors`` counts requests of the candidate that the server failed: one is enough to fail.
    """
    count = len(candidate_ms)
    if errors:
        return Verdict(FAIL, f"{errors} of {count + errors} requests failed", None, budget.p95_ms, "ms", count)
    if count == 0:
        return Verdict(NO_DATA, "no request was answered", None, budget.p95_ms, "ms", 0)
    p95 = percentile(candidate_ms, 0.95)
    value = round(p95, 4)
    if count < MIN_LATENCIES:
        if count >= _CERTAIN and min(candidate_ms) > budget.p95_ms:
            text = f"all of only {count} requests took more than the ceiling {budget.p95_ms:g} ms"
            return Verdict(FAIL, text, value, budget.p95_ms, "ms", count)
        text = f"{count} requests, at least {MIN_LATENCIES} are needed for a p95"
        return Verdict(INCONCLUSIVE, text, value, budget.p95_ms, "ms", count)
    text = f"p95 {p95:.3f} ms of {count} requests"
    if p95 > budget.p95_ms:
        return Verdict(FAIL, f"{text}: above the ceiling {budget.p95_ms:g} ms", value, budget.p95_ms, "ms", count)
    if len(incumbent_ms) < MIN_LATENCIES:
        return Verdict(PASS, f"{text}, no incumbent to compare with", value, budget.p95_ms, "ms", count)
    before = percentile(incumbent_ms, 0.95)
    # What a ratio allows, but never less than the noise above the incumbent, and never more than the ceiling.
    slowest = quantile_bounds(incumbent_ms, 0.95)[1]
    limit = round(min(budget.p95_ms, max(slowest * budget.p95_ratio, slowest + NOISE_MS)), 4)
    text += f", incumbent {before:.3f} ms"
    if quantile_bounds(candidate_ms, 0.95)[0] > limit + _EPSILON:
        return Verdict(FAIL, f"{text}: slower than {budget.p95_ratio:g} times", value, limit, "ms", count)
    if p95 > limit + _EPSILON:
        text += f": slower than {budget.p95_ratio:g} times, but that may be chance"
    return Verdict(PASS, text, value, limit, "ms", count)


def shadow_verdict(told: Mapping[str, Any], wanted: int, seconds: float, limit: float) -> Verdict:
    """Judge how often the candidate agreed with the incumbent on clients' own requests.

    ``told``: the server's figures (requests, rows, errors, agreement). Fewer requests than ``wanted`` prove nothing.
    """
    requests, errors, agreed = int(told.get("requests") or 0), int(told.get("errors") or 0), told.get("agreement")
    if not requests or agreed is None:
        return Verdict(NO_DATA, f"no client sent a request within {seconds:g} s", None, limit, "agreement", 0)
    text = f"{agreed:.4f} of {told.get('rows')} answers agree with the incumbent's, {requests} requests"
    if errors:
        text += f", {errors} of which the candidate could not answer"
    value = round(float(agreed), 6)
    if requests < wanted:
        text = f"{requests} of {wanted} requests came within {seconds:g} s; {text}"
        return Verdict(INCONCLUSIVE, text, value, limit, "agreement", requests)
    if agreed < limit - _EPSILON:
        return Verdict(FAIL, f"{text}: below {limit:g}", value, limit, "agreement", requests)
    return Verdict(PASS, text, value, limit, "agreement", requests)


def memory_verdict(resident_bytes: float | None, budget: Budget) -> Verdict:
    """Judge the resident memory of the server process, in MiB."""
    limit = float(budget.memory_mib)
    if resident_bytes is None or not resident_bytes > 0:
        return Verdict(NO_DATA, "the server does not tell its resident memory", None, limit, "MiB", 0)
    value = round(resident_bytes / 1048576.0, 1)
    if value > limit:
        return Verdict(FAIL, f"{value:g} MiB are resident, the budget is {limit:g}", value, limit, "MiB", 1)
    return Verdict(PASS, f"{value:g} MiB are resident", value, limit, "MiB", 1)


def identity_verdict(
    before: Evidence | None, after: Evidence | None, digest: str, start_id: str | None = None
) -> Verdict:
    """Judge whether one server process served exactly ``digest`` from before the measurements until after them.

    ``start_id``: the process that must have done so (soak: the one of the activation). A wrong digest fails; a change
    or a restart makes every measurement stale: inconclusive.
    """
    if before is None:
        return Verdict(NO_DATA, "nothing was ready to be measured")
    if before.digest != digest:
        return Verdict(FAIL, f"the server serves {before.digest}, not {digest}", samples=1)
    if before.start_id is None:
        return Verdict(INCONCLUSIVE, "the server does not tell its start id", samples=1)
    if start_id is not None and before.start_id != start_id:
        return Verdict(INCONCLUSIVE, f"the server restarted: start id {before.start_id}, was {start_id}", samples=1)
    if after is None:
        return Verdict(INCONCLUSIVE, "the server stopped answering during the measurements", samples=1)
    if after.digest != digest:
        return Verdict(INCONCLUSIVE, f"the digest changed during the measurements to {after.digest}", samples=2)
    if (after.start_id, after.boot_id) != (before.start_id, before.boot_id):
        return Verdict(INCONCLUSIVE, "the server restarted during the measurements", samples=2)
    return Verdict(PASS, f"one server process served {digest} throughout", samples=2)


def soak_verdict(errors_before: float | None, errors_now: float | None, requests: float | None) -> Verdict:
    """Judge the server's own failures (5xx) since the activation; none is allowed.

    No traffic is no reason to fail: the golden samples of the same soak have shown that it answers.
    """
    if errors_before is None or errors_now is None:
        return Verdict(NO_DATA, "the server's error counter is missing", None, 0.0, "errors", 0)
    errors = errors_now - errors_before
    seen = int(requests) if requests is not None and requests > 0 else 0
    if errors < 0:
        return Verdict(INCONCLUSIVE, "the error counter went back: the server restarted", None, 0.0, "errors", seen)
    if errors > 0:
        text = f"{errors:g} of {seen} requests failed since the activation"
        return Verdict(FAIL, text, float(errors), 0.0, "errors", seen)
    return Verdict(PASS, f"none of {seen} requests failed since the activation", 0.0, 0.0, "errors", seen)

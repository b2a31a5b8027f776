# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a wave can and cannot notice: exact binomial detection power, in the standard library alone.

A wave of ``n`` devices that tolerates ``c`` failures lets a release pass which fails on a share ``p`` of the devices
with probability ``P(X <= c)``, X ~ Binomial(n, p). Several waves are independent samples, so a release gets through
all of them with the product of these. The figures are exact, not a normal approximation: waves are small.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Union

Sample = tuple[int, int]
"""(devices, failures tolerated)."""
Samples = Union[Iterable[Sample], Mapping[Sample, int]]
"""Samples one by one, or each with how many times it was drawn."""

_BISECTIONS = 60


def _log_term(k: int, n: int, p: float) -> float:
    """Return log P(X = k), X ~ Binomial(n, p), 0 < p < 1."""
    log_choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return log_choose + k * math.log(p) + (n - k) * math.log1p(-p)


def _tail(k: int, n: int, p: float, step: int) -> float:
    """Return the sum of P(X = j) from j = k away from the mean (step -1: downwards, +1: upwards).

    Each term follows from the one before by the ratio of neighbours; away from the mean they shrink, so the sum ends
    when a term no longer changes it, after O(sqrt(n)) terms.
    """
    term = math.exp(_log_term(k, n, p))
    total = 0.0
    odds = p / (1.0 - p)
    while 0 <= k <= n:
        total += term
        if term <= total * 1e-17:
            break
        if step < 0:
            term *= k / ((n - k + 1) * odds)
        else:
            term *= (n - k) * odds / (k + 1)
        k += step
    return total


def pass_probability(n: int, allowed: int, rate: float) -> float:
    """Return P(X <= allowed) for X ~ Binomial(n, rate): the chance that a wave lets the release through.

    n: devices; allowed: failures tolerated; rate: the release's true failure rate, 0..1.
    """
    if allowed >= n or rate <= 0.0:
        return 1.0
    if rate >= 1.0 or allowed < 0:
        return 0.0
    if allowed == 0:
        return math.exp(n * math.log1p(-rate))
    if allowed <= n * rate:
        return min(1.0, _tail(allowed, n, rate, -1))
    return max(0.0, 1.0 - _tail(allowed + 1, n, rate, +1))


def _counted(samples: Samples) -> dict[Sample, int]:
    return dict(samples) if isinstance(samples, Mapping) else dict(Counter(samples))


def detection_power(samples: Samples, rate: float) -> float:
    """Return the chance that at least one of the samples exceeds its budget when devices fail at this rate."""
    through = 1.0
    for (n, allowed), times in _counted(samples).items():
        through *= pass_probability(n, allowed, rate) ** times
    return 1.0 - through


def detectable_rate(samples: Samples, power: float) -> float | None:
    """Return the smallest true failure rate that these samples notice with at least this power.

    samples: (devices, failures tolerated) of each wave so far; power: 0..1, e.g. 0.95.
    Returns None where no rate is noticed with that power (no devices, or a budget as large as the wave).
    """
    kept = {sample: times for sample, times in _counted(samples).items() if sample[0] > sample[1] >= 0}
    if not kept or not 0.0 < power < 1.0:
        return None
    return _detectable(tuple(sorted(kept.items())), power)


@lru_cache(maxsize=4096)
def _detectable(kept: tuple[tuple[Sample, int], ...], power: float) -> float:
    zero_budget = [n * times for (n, allowed), times in kept if allowed == 0]
    if len(zero_budget) == len(kept):
        # (1 - p)^n = 1 - power, solved for p without loss for large n
        return -math.expm1(math.log1p(-power) / sum(zero_budget))
    low, high = 0.0, 1.0
    for _unused in range(_BISECTIONS):
        middle = (low + high) / 2.0
        through = 1.0
        for (n, allowed), times in kept:
            through *= pass_probability(n, allowed, middle) ** times
        if through <= 1.0 - power:
            high = middle
        else:
            low = middle
    return high

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The difference between two groups of devices with its confidence interval, in the standard library alone.

One number per device, devices in blocks (strata), two groups: A and B. The model is additive, y = block + effect of B +
noise, fitted by least squares; which devices are B was drawn by hash, within each block. By the theorem of Frisch,
Waugh and Lovell the effect is the regression of y on membership of B, both as differences from their block's mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Blocks = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""block -> (values of the devices on A, values of those on B)"""

_TINY = 1e-300
_BISECTIONS = 200


class Difference(NamedTuple):
    """B minus A, in the unit of the values, and its two-sided interval [low, high].

    mean_a: A's mean, the blocks weighted as in the difference; n_a, n_b: devices that count; freedom: degrees of it.
    """

    value: float
    low: float
    high: float
    mean_a: float
    n_a: int
    n_b: int
    freedom: int


def difference(blocks: Blocks, confidence: float) -> Difference | None:
    """Return how B differs from A; None when too few devices are there to tell how much they vary by themselves.

    Only blocks with devices of both groups count. confidence: of the interval, 0..1.
    """
    both = [(list(a), list(b)) for a, b in blocks.values() if a and b]
    n_a, n_b = sum(len(a) for a, _b in both), sum(len(b) for _a, b in both)
    freedom = n_a + n_b - len(both) - 1
    if freedom < 1:
        return None
    sxx = sxy = syy = weighted_a = 0.0
    for a, b in both:
        size, share = len(a) + len(b), len(b) / (len(a) + len(b))
        weight = size * share * (1.0 - share)
        mean = math.fsum([*a, *b]) / size
        mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
        sxx += weight
        sxy += weight * (mean_b - mean_a)
        syy += math.fsum((value - mean) ** 2 for value in (*a, *b))
        weighted_a += weight * mean_a
    effect = sxy / sxx
    residual = max(0.0, syy - effect * sxy)
    half = t_quantile((1.0 + confidence) / 2.0, freedom) * math.sqrt(residual / freedom / sxx)
    return Difference(effect, effect - half, effect + half, weighted_a / sxx, n_a, n_b, freedom)


def t_quantile(p: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, 0.5 <= p < 1, by bisection of its distribution function."""
    low, high = 0.0, 1.0
    while _t_cdf(high, freedom) < p:
        high *= 2.0
    for _unused in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        if _t_cdf(middle, freedom) < p:
            low = middle
        else:
            high = middle
    return high


def _t_cdf(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0: Abramowitz and Stegun, 26.7.1, by the incomplete beta function."""
    x = freedom / (freedom + t * t)
    return 1.0 - 0.5 * _incomplete_beta(freedom / 2.0, 0.5, x)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized I_x(a, b), by its continued fraction (DLMF 8.17.22), where that converges fast."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) with the coefficients of DLMF 8.17.23, by Lentz's method."""
    value = c = 1.0
    d = 0.0
    for index in range(1, 10000):
        m = index // 2
        if index % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / ((1.0 + term * d) or _TINY)
        c = (1.0 + term / c) or _TINY
        value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value

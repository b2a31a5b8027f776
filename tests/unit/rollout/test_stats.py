"""Detection power against exact rational arithmetic, and against the definition."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.stats import (
    detectable_rate,
    detection_power,
    pass_probability,
)


def exact_cdf(n: int, allowed: int, rate: Fraction) -> Fraction:
    return sum((math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(allowed + 1)), Fraction(0))


@pytest.mark.parametrize("n", [1, 2, 5, 13, 60, 250])
@pytest.mark.parametrize("allowed_share", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("rate", [Fraction(1, 1000), Fraction(1, 10), Fraction(1, 2), Fraction(19, 20)])
def test_pass_probability_equals_exact_arithmetic(n: int, allowed_share: float, rate: Fraction) -> None:
    allowed = int(n * allowed_share)
    assert pass_probability(n, allowed, float(rate)) == pytest.approx(float(exact_cdf(n, allowed, rate)), rel=1e-9)


def test_one_device_notices_what_fails_nineteen_times_in_twenty() -> None:
    assert detectable_rate([(1, 0)], 0.95) == pytest.approx(0.95)
    assert detectable_rate([(1, 0)], 0.8) == pytest.approx(0.8)


def test_without_tolerance_the_formula_is_the_rule_of_three() -> None:
    # 3/n is the textbook approximation of 1 - 0.05^(1/n)
    assert detectable_rate([(1000, 0)], 0.95) == pytest.approx(0.003, rel=0.01)


@pytest.mark.parametrize("samples", [[(12, 1)], [(100, 5)], [(1, 0), (3, 0), (40, 4)], [(5000, 50)], [(100000, 37)]])
@pytest.mark.parametrize("power", [0.8, 0.95])
def test_the_rate_is_the_smallest_with_that_power(samples: list[tuple[int, int]], power: float) -> None:
    rate = detectable_rate(samples, power)
    assert rate is not None
    assert detection_power(samples, rate) == pytest.approx(power, abs=1e-9)
    assert detection_power(samples, rate * 0.999) < power


def test_samples_may_come_counted() -> None:
    assert detectable_rate({(7, 1): 3}, 0.95) == detectable_rate([(7, 1)] * 3, 0.95)


def test_more_devices_notice_more_and_more_tolerance_notices_less() -> None:
    by_size = [detectable_rate([(n, 0)], 0.95) or 0 for n in range(1, 200)]
    assert by_size == sorted(by_size, reverse=True)
    by_budget = [detectable_rate([(200, c)], 0.95) or 0 for c in range(0, 199, 7)]
    assert by_budget == sorted(by_budget)


@pytest.mark.parametrize("samples", [[], [(0, 0)], [(3, 3)], [(2, 5)]])
def test_nothing_is_noticed_without_devices_or_with_a_budget_for_all(samples: list[tuple[int, int]]) -> None:
    assert detectable_rate(samples, 0.95) is None


def test_large_waves_are_fast_and_stable() -> None:
    started = time.process_time()
    rate = detectable_rate([(100_000, 10_000)], 0.95)
    assert time.process_time() - started < 0.5
    # normal approximation: 0.1 + 1.645 * sqrt(0.09 / n)
    assert rate == pytest.approx(0.1 + 1.645 * math.sqrt(0.09 / 100_000), rel=1e-3)

"""The gate's decisions as a table of numbers and verdicts."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.probe import gate_settings
from ansible_collections.edgeai.fleet.plugins.module_utils.device.verdicts import (
    MIN_GOLDEN,
    MIN_LATENCIES,
    NOISE_MS,
    Comparison,
    Evidence,
    golden_verdict,
    identity_verdict,
    latency_verdict,
    memory_verdict,
    percentile,
    quantile_bounds,
    shadow_verdict,
    sign_test,
    soak_verdict,
    tighten,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.release.model import Budget

BUDGET = Budget(accuracy_drop=0.02, p95_ms=50.0, p95_ratio=3.0, memory_mib=1024)


@pytest.mark.parametrize(
    ("score", "reference", "samples", "incumbent", "broken", "verdict"),
    [
        (0.98, 0.98, 64, None, None, "pass"),
        (0.96, 0.98, 64, None, None, "pass"),  # exactly at the floor
        (0.9599, 0.98, 64, None, None, "fail"),
        (float("nan"), 0.98, 64, None, None, "fail"),
        (None, 0.98, 0, None, None, "no_data"),
        (0.98, 0.98, 63, None, None, "inconclusive"),
        (0.98, 0.98, 64, None, "output 'y' has 3 values that are NaN", "fail"),
        (None, 0.98, 0, None, "output 'y' is missing", "fail"),
        # a bad incumbent neither blocks a good candidate nor lowers the bar for a bad one
        (0.98, 0.98, 64, Comparison(0.10, 0, 56), None, "pass"),
        (0.50, 0.98, 64, Comparison(0.10, 0, 25), None, "fail"),
        # a good incumbent blocks a candidate whose own reference is bad
        (0.70, 0.70, 64, Comparison(0.98, 18, 0), None, "fail"),
        # a few samples that fell differently are chance
        (0.95, 0.96, 64, Comparison(0.98, 2, 0), None, "pass"),
        (0.95, 0.96, 64, Comparison(0.98, 4, 2), None, "pass"),
        # going back on purpose
        (0.70, 0.70, 64, Comparison(0.98, 18, 0, binding=False), None, "pass"),
    ],
)
def test_golden(
    score: float | None, reference: float, samples: int, incumbent: Any, broken: str | None, verdict: str
) -> None:
    result = golden_verdict(score, reference, BUDGET, samples, 64, incumbent, broken)
    assert result.verdict == verdict, result
    assert result.limit == pytest.approx(reference - 0.02) and result.unit == "score" and result.reason


def test_golden_says_what_it_compared() -> None:
    result = golden_verdict(0.70, 0.70, BUDGET, 64, 64, Comparison(0.98, 18, 0))
    assert "incumbent 0.9800" in result.reason and "18 samples lost, 0 gained" in result.reason
    assert result.value == 0.70


def test_sign_test_is_the_binomial_tail() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 0) == pytest.approx(1 / 32)
    assert sign_test(4, 1) == pytest.approx(6 / 32)
    assert sign_test(3, 3) == pytest.approx(42 / 64)


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    random.Random(1).shuffle(values)
    assert [percentile(values, share) for share in (0.5, 0.95, 1.0)] == [50.0, 95.0, 100.0]
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([1.0] * 19 + [9.0], 0.95) == 1.0


def test_quantile_bounds_cover_the_quantile() -> None:
    source = random.Random(5)
    lower_missed = upper_missed = 0
    for _turn in range(1000):
        low, high = quantile_bounds([source.random() for _turn in range(200)], 0.95)
        lower_missed += low > 0.95
        upper_missed += high < 0.95
    assert 0 < lower_missed < 70 and 0 < upper_missed < 70, "each side is missed about one time in twenty"
    assert quantile_bounds([1.0, 2.0], 0.95) == (1.0, 2.0)


FAST = [1.0] * 100


@pytest.mark.parametrize(
    ("candidate", "incumbent", "errors", "verdict", "limit"),
    [
        ([], FAST, 0, "no_data", 50.0),
        ([1.0] * (MIN_LATENCIES - 1), FAST, 0, "inconclusive", 50.0),
        ([80.0] * 3, FAST, 0, "fail", 50.0),  # too few for a p95, but all beyond the ceiling
        ([80.0] * 2, FAST, 0, "inconclusive", 50.0),
        ([1.0, 80.0, 80.0, 80.0], FAST, 0, "inconclusive", 50.0),
        (FAST, FAST, 0, "pass", 3.0),
        ([3.0] * 100, FAST, 0, "pass", 3.0),
        ([3.1] * 100, FAST, 0, "fail", 3.0),
        # below the noise floor a ratio proves nothing: 0.02 ms against 1.5 ms
        ([1.5] * 100, [0.02] * 100, 0, "pass", 0.02 + NOISE_MS),
        ([2.5] * 100, [0.02] * 100, 0, "fail", 0.02 + NOISE_MS),
        # the ceiling holds even where the ratio would allow more
        ([51.0] * 100, [40.0] * 100, 0, "fail", 50.0),
        ([49.0] * 100, [40.0] * 100, 0, "pass", 50.0),
        # a slow incumbent does not block a fast fix, nor does a missing one
        (FAST, [400.0] * 100, 0, "pass", 50.0),
        ([20.0] * 100, [], 0, "pass", 50.0),
        ([20.0] * 100, [1.0] * 5, 0, "pass", 50.0),
        # five of a hundred slow requests are not the p95, six are
        ([1.0] * 95 + [80.0] * 5, FAST, 0, "pass", 3.0),
        ([1.0] * 94 + [80.0] * 6, FAST, 0, "fail", 50.0),
        # the candidate's tail alone may be chance when it is as thin as this; the ceiling still counts
        ([1.0] * 93 + [9.0] * 7, FAST, 0, "pass", 3.0),
        ([1.0] * 90 + [9.0] * 10, FAST, 0, "fail", 3.0),
        # long tails on both sides, as on a busy device
        ([1.0] * 90 + [20.0] * 10, [1.0] * 92 + [15.0] * 8, 0, "pass", 45.0),
        (FAST, FAST, 1, "fail", 50.0),
    ],
)
def test_latency(candidate: list[float], incumbent: list[float], errors: int, verdict: str, limit: float) -> None:
    result = latency_verdict(candidate, incumbent, BUDGET, errors)
    assert result.verdict == verdict, result
    assert result.limit == pytest.approx(limit) and result.unit == "ms" and result.samples == len(candidate)


@pytest.mark.parametrize(
    ("resident", "verdict"),
    [(None, "no_data"), (0.0, "no_data"), (float("nan"), "no_data"), (1024 * 1048576.0, "pass"), (1.1e9, "fail")],
)
def test_memory(resident: float | None, verdict: str) -> None:
    assert memory_verdict(resident, BUDGET).verdict == verdict


GOOD = Evidence("sha256:aa", "s1", "b1", "2026-11-23T11:00:00Z")


@pytest.mark.parametrize(
    ("before", "after", "start_id", "verdict", "said"),
    [
        (GOOD, GOOD, None, "pass", "throughout"),
        (GOOD, GOOD, "s1", "pass", "throughout"),
        (None, GOOD, None, "no_data", "nothing was ready"),
        (GOOD, None, None, "inconclusive", "stopped answering"),
        (replace(GOOD, digest="sha256:bb"), GOOD, None, "fail", "serves sha256:bb"),
        (replace(GOOD, digest=None), GOOD, None, "fail", "serves None"),
        (GOOD, replace(GOOD, digest="sha256:bb"), None, "inconclusive", "the digest changed"),
        (GOOD, replace(GOOD, start_id="s2"), None, "inconclusive", "restarted during"),
        (GOOD, replace(GOOD, boot_id="b2"), None, "inconclusive", "restarted during"),
        (GOOD, GOOD, "s0", "inconclusive", "restarted: start id s1, was s0"),
        (replace(GOOD, start_id=None), replace(GOOD, start_id=None), None, "inconclusive", "does not tell"),
    ],
)
def test_identity(
    before: Evidence | None, after: Evidence | None, start_id: str | None, verdict: str, said: str
) -> None:
    result = identity_verdict(before, after, "sha256:aa", start_id)
    assert (result.verdict, said in result.reason) == (verdict, True), result


@pytest.mark.parametrize(
    ("before", "now", "requests", "verdict"),
    [
        (0.0, 0.0, 100.0, "pass"),
        (0.0, 0.0, 0.0, "pass"),  # no traffic is no reason to fail
        (3.0, 3.0, None, "pass"),
        (3.0, 4.0, 100.0, "fail"),
        (3.0, 0.0, 1.0, "inconclusive"),
        (None, 0.0, 1.0, "no_data"),
        (0.0, None, 1.0, "no_data"),
    ],
)
def test_soak(before: float | None, now: float | None, requests: float | None, verdict: str) -> None:
    assert soak_verdict(before, now, requests).verdict == verdict


@pytest.mark.parametrize(
    ("requests", "agreement", "verdict"),
    [
        (0, None, "no_data"),
        (19, 1.0, "inconclusive"),
        (20, 0.95, "pass"),
        (20, 0.949, "fail"),
        (19, 0.1, "inconclusive"),
    ],
)
def test_shadow_traffic(requests: int, agreement: float | None, verdict: str) -> None:
    told = {"requests": requests, "rows": requests, "errors": 0, "agreement": agreement}
    found = shadow_verdict(told, 20, 5.0, 0.95)
    assert (found.verdict, found.samples, found.limit) == (verdict, requests, 0.95)


@pytest.mark.parametrize("name", ["shadow_agreement", "shadow_seconds", "shadow_requests"])
@pytest.mark.parametrize("value", [0, -1, True, "1"], ids=str)
def test_shadow_settings_are_checked(name: str, value: Any) -> None:
    if name == "shadow_requests" and value == 0:
        assert gate_settings({name: value}).shadow_requests == 1, "fewer would prove nothing"
        return
    with pytest.raises(DeviceError, match=f"gate.{name}"):
        gate_settings({name: value})


def test_settings_tighten_and_never_loosen() -> None:
    loose = {"p95_ms": 9e9, "p95_ratio": 900, "memory_mib": 10**9, "accuracy_drop": 1.0, "samples": 5}
    assert tighten(BUDGET, loose) == BUDGET
    assert tighten(BUDGET, {"p95_ms": None}) == BUDGET
    strict = {"p95_ms": 5, "p95_ratio": 1.5, "memory_mib": 100, "accuracy_drop": 0.0}
    assert tighten(BUDGET, strict) == Budget(0.0, 5, 1.5, 100)
    for value in (-1, float("nan"), "5", True, [1]):
        with pytest.raises(DeviceError, match=r"gate\.p95_ms"):
            tighten(BUDGET, {"p95_ms": value})


def test_too_few_samples_cannot_be_asked_for() -> None:
    chosen = gate_settings({"samples": 1, "requests": 1, "warmup": 0, "timeout": 5})
    assert (chosen.samples, chosen.requests, chosen.warmup, chosen.timeout) == (MIN_GOLDEN, MIN_LATENCIES, 0, 5.0)
    assert gate_settings(None).requests == 200 and gate_settings({"requests": None}).requests == 200
    for wrong in ({"samples": -1}, {"requests": 2.5}, {"warmup": True}, {"timeout": 0}, {"timeout": float("nan")}):
        with pytest.raises(DeviceError):
            gate_settings(wrong)

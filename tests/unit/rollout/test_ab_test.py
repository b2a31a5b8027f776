"""A/B tests: the statistics against SciPy, the decision, whom it is about, and what is asked of Prometheus."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import ab_test
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ab_policy import Metric
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.comparison import Difference, difference, t_quantile
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import parse_policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql import read_devices

EXPR = 'avg by (device) (latency{device=~"$device",version=~"$version"})'
PROMETHEUS = {"url": "http://127.0.0.1:9090"}
DIGEST = "sha256:new"


def policy(**test: Any) -> dict[str, Any]:
    metrics = [{"name": "latency", "expr": EXPR, "ratio": 1.1}]
    about = {"share": 0.5, "measure": 60, "limit": 600, "metrics": metrics, **test}
    return {"growth": [0.5, 1.0], "prometheus": PROMETHEUS, "ab_test": about}


# -- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.75, 0.95, 0.975, 0.995, 0.9999995])
@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 97, 5000])
def test_quantiles_of_t_are_those_of_scipy(p: float, freedom: int) -> None:
    assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9)


def test_one_block_is_students_t_test() -> None:
    a, b = [1.0, 2.0, 3.5], [4.0, 5.0, 5.5, 7.0]
    found = difference({"s": (a, b)}, 0.9)
    assert found is not None
    expected = stats.ttest_ind(b, a).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.n_a, found.n_b, found.freedom, found.mean_a) == (3, 4, 5, pytest.approx(sum(a) / 3))


def test_several_blocks_are_least_squares_with_an_effect_for_each() -> None:
    draw = random.Random(7)
    sizes = {"x": (5, 2), "y": (1, 3), "z": (8, 1)}
    blocks = {
        name: ([level + draw.gauss(0, 1) for _i in range(a)], [level + 2 + draw.gauss(0, 1) for _i in range(b)])
        for (name, (a, b)), level in zip(sizes.items(), (10.0, 100.0, -5.0))
    }
    rows = [
        ([float(name == other) for other in sizes] + [float(is_b)], value)
        for name, (a, b) in blocks.items()
        for is_b, values in ((0, a), (1, b))
        for value in values
    ]
    x, y = np.array([row for row, _value in rows]), np.array([value for _row, value in rows])
    beta, residual, _rank, _singular = np.linalg.lstsq(x, y, rcond=None)
    freedom = len(y) - len(sizes) - 1
    error = float(np.sqrt(residual[0] / freedom * np.linalg.inv(x.T @ x)[-1, -1]))
    found = difference(blocks, 0.95)
    assert found is not None and found.freedom == freedom
    assert found.value == pytest.approx(beta[-1])
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, freedom) * error)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = random.Random(1)
    hits = 0
    for _turn in range(600):
        blocks = {
            name: ([draw.gauss(level, 1) for _i in range(4)], [draw.gauss(level + 0.5, 1) for _i in range(2)])
            for name, level in (("x", 0.0), ("y", 9.0))
        }
        found = difference(blocks, 0.9)
        hits += found is not None and found.low <= 0.5 <= found.high
    assert 0.87 <= hits / 600 <= 0.93  # 90 %, give or take 2.5 standard deviations of 600 draws


@pytest.mark.parametrize(
    "blocks", [{}, {"s": ([1.0], [2.0])}, {"s": ([1.0, 2.0], []), "t": ([], [3.0, 4.0])}],
    ids=["nothing", "one-each", "never-both"],
)  # fmt: skip
def test_too_few_devices_give_no_interval(blocks: Any) -> None:
    assert difference(blocks, 0.95) is None


# -- the decision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "limit", "low", "high", "verdict"),
    [
        ("lower", {"difference": 1.0}, -3.0, 1.0, "pass"),
        ("lower", {"difference": 1.0}, -3.0, 1.1, "inconclusive"),
        ("lower", {"difference": 1.0}, 1.1, 4.0, "fail"),
        ("lower", {"ratio": 1.1}, -1.0, 1.0, "pass"),
        ("lower", {"ratio": 0.9}, -0.5, 0.0, "fail"),
        ("higher", {"difference": 1.0}, -1.0, 5.0, "pass"),
        ("higher", {"difference": 1.0}, -5.0, -1.1, "fail"),
        ("higher", {"ratio": 0.9}, -0.9, 2.0, "pass"),
        ("higher", {"ratio": 1.1}, 0.0, 0.5, "fail"),
        ("higher", {"ratio": 1.1}, 0.5, 1.5, "inconclusive"),
    ],
)
def test_the_whole_interval_has_to_lie_on_one_side(
    better: str, limit: dict[str, float], low: float, high: float, verdict: str
) -> None:
    found = Difference((low + high) / 2, low, high, 10.0, 5, 5, 8)
    assert ab_test.decide(Metric("m", EXPR, better, **limit), found)[0] == verdict


def test_a_ratio_to_something_negative_means_nothing() -> None:
    found = Difference(0.0, -1.0, 1.0, -10.0, 5, 5, 8)
    assert ab_test.decide(Metric("m", EXPR, "lower", ratio=1.1), found)[0] == "inconclusive"


def test_one_failing_metric_is_enough_and_all_have_to_pass() -> None:
    def of(*verdicts: str) -> str:
        return ab_test.overall({"metric": v, "verdict": v, "reason": "r"} for v in verdicts)[0]

    assert of("pass", "fail", "no_data") == "fail" and of("pass", "pass") == "pass"
    assert of("pass", "inconclusive") == "inconclusive" and of("inconclusive", "no_data", "pass") == "no_data"
    assert of() == "no_data"


# -- whom it is about, and when ----------------------------------------------------------------------------------------


def plan(*waves: dict[str, list[str]]) -> dict[str, Any]:
    numbered = [{"number": index, "strata": strata} for index, strata in enumerate(waves, 1)]
    return {"waves": numbered, "model": "m", "version": "2", "digest": DIGEST, "rollout_id": "r"}


TWO = plan({"x": ["x1"], "y": ["y1"]}, {"x": ["x2"]}, {"x": ["x3", "x4"]})


def test_b_is_complete_behind_the_wave_that_gives_every_stratum_its_share() -> None:
    assert ab_test.boundary(TWO, 0.25) == 1 and ab_test.boundary(TWO, 0.5) == 2
    assert ab_test.boundary(TWO, 0.9) is None, "behind the last wave nobody is on A"
    assert ab_test.boundary(plan({"x": ["x1"]}), 0.5) is None
    assert ab_test.ab_warnings(plan({"x": ["x1"]}), parse_policy(policy())) != []
    assert ab_test.ab_warnings(TWO, parse_policy(policy())) == []


def test_a_stratum_without_devices_on_a_is_not_compared() -> None:
    who = ab_test.sides(TWO, 2)
    assert who.b == {"x": ["x1", "x2"]} and who.a == {"x": ["x3", "x4"]}


def test_the_time_counts_from_the_wave_that_completed_b() -> None:
    test = parse_policy(policy()).ab_test
    begin = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)

    def record(kind: str, **data: Any) -> dict[str, Any]:
        return {"seq": 1, "type": kind, "rollout": "r", "time": "2026-11-23T12:00:00Z", "data": {"wave": 2, **data}}

    assert ab_test.pending(test, ab_test.standing([], "r", 2), begin) != ""
    found = ab_test.standing([record("verdict", stage="activation"), record("verdict", stage="soak")], "r", 2)
    assert found == (begin, False)
    assert "until 2026-11-23T12:01:00Z" in ab_test.pending(test, found, begin + timedelta(seconds=59))
    assert ab_test.pending(test, found, begin + timedelta(seconds=60)) == ""
    assert not ab_test.overdue(test, found, begin + timedelta(seconds=599))
    assert ab_test.overdue(test, found, begin + timedelta(seconds=600))
    later = [record("verdict", stage="soak"), record("ab_test", verdict="inconclusive")]
    assert not ab_test.standing(later, "r", 2).passed
    assert ab_test.standing([*later, record("ab_test", verdict="pass")], "r", 2).passed
    assert not ab_test.standing([record("ab_test", verdict="pass")], "another", 2).passed


# -- Prometheus --------------------------------------------------------------------------------------------------------


def vector(values: Mapping[str, float | str], **more: str) -> dict[str, Any]:
    result = [{"metric": {"device": host, **more}, "value": [1000.0, str(value)]} for host, value in values.items()]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


class Answers:
    """What a Prometheus would say of these devices."""

    def __init__(self, values: Mapping[str, float | str], on_b: set[str], silent: frozenset[str] = frozenset()) -> None:
        self.values, self.on_b, self.silent = values, on_b, silent

    def __call__(self, expr: str) -> dict[str, Any]:
        if expr.startswith("up{"):
            up = [
                {"metric": {"device": host}, "values": [[990.0, "1"], [999.0, "1"]]}
                for host in self.values if host not in self.silent
            ]  # fmt: skip
            return {"status": "success", "data": {"resultType": "matrix", "result": up}}
        if expr.startswith("edgeai_model_info"):
            found = vector({})
            for host in self.values:
                about = {"digest": DIGEST, "version": "2"} if host in self.on_b else {"digest": "old", "version": "1"}
                found["data"]["result"] += vector({host: 1}, **about)["data"]["result"]
            return found
        version = "2" if 'version=~"2"' in expr else "1"
        asked = {host: value for host, value in self.values.items() if host in expr}
        assert all((host in self.on_b) == (version == "2") for host in asked)
        return vector(asked)


WHO = ab_test.sides(plan({"x": ["x1", "x2", "x3"]}, {"x": ["x4", "x5", "x6"]}), 1)


def judged(ask: Answers) -> dict[str, Any]:
    checked = parse_policy(policy())
    (found,) = ab_test.judge(checked.ab_test, checked.prometheus, WHO, ask, 1000.0)
    return found


def test_what_is_as_good_passes_and_what_is_worse_fails() -> None:
    old = {"x4": 10.0, "x5": 10.1, "x6": 9.9}
    found = judged(Answers({"x1": 10.0, "x2": 10.2, "x3": 9.9, **old}, {"x1", "x2", "x3"}))
    assert found["verdict"] == "pass" and (found["n_a"], found["n_b"], found["freedom"]) == (3, 3, 4)
    assert found["margin"] == pytest.approx(1.0) and found["low"] < found["value"] < found["high"]
    found = judged(Answers({"x1": 13.0, "x2": 13.2, "x3": 12.9, **old}, {"x1", "x2", "x3"}))
    assert found["verdict"] == "fail" and "B - A = 3.033 [" in found["reason"]
    found = judged(Answers({"x1": 10.0, "x2": 19.2, "x3": 2.9, **old}, {"x1", "x2", "x3"}))
    assert found["verdict"] == "inconclusive"


def test_only_devices_with_whole_evidence_count() -> None:
    values: dict[str, float | str] = {"x1": 10.0, "x2": "NaN", "x3": 10.0, "x4": 10.0, "x5": 10.0, "x6": 10.0}
    found = judged(Answers(values, {"x1", "x2"}, frozenset(("x6",))))
    assert found["left_out_count"] == 3 and (found["n_a"], found["n_b"]) == (2, 1)
    assert found["left_out"]["x3"] == "its metrics do not say that it is on B"
    assert "NaN" in found["left_out"]["x2"] and "not scraped" in found["left_out"]["x6"]
    found = judged(Answers(values, set()))
    assert found["verdict"] == "no_data" and "0 devices on B and 3 on A" in found["reason"]


def test_an_answer_has_one_number_per_device() -> None:
    many = vector({"a": 1.0})
    many["data"]["result"] *= 2
    numbers, problems = read_devices(many, ["a", "b"])
    assert numbers == {} and "2 series" in problems["a"] and "by (device)" in problems["b"]
    scalar = {"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}
    assert "a scalar" in read_devices(scalar, ["a"])[1]["a"]
    assert "boom" in read_devices({"status": "error", "error": "boom"}, ["a"])[1]["a"]


# -- policy ------------------------------------------------------------------------------------------------------------


def test_a_policy_round_trips_and_without_a_test_its_plan_keeps_its_hash() -> None:
    checked = parse_policy(policy())
    assert parse_policy(checked.to_dict()) == checked
    assert "ab_test" not in parse_policy({}).to_dict()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"share": 0.3}, "ab_test.share"),
        ({"metrics": []}, "ab_test.metrics"),
        ({"limit": 10}, "ab_test.limit"),
        ({"confidence": 1.0}, "ab_test.confidence"),
        ({"metrics": [{"name": "m", "expr": EXPR}]}, "ab_test.metrics[0]"),
        ({"metrics": [{"name": "m", "expr": EXPR, "ratio": 1, "difference": 0}]}, "ab_test.metrics[0]"),
        ({"metrics": [{"name": "m", "expr": "avg(latency)", "ratio": 1}]}, "ab_test.metrics[0].expr"),
        ({"metrics": [{"name": "m", "ratio": 1}]}, "ab_test.metrics[0].expr"),
        ({"metrics": [{"name": "m", "expr": EXPR, "ratio": 1, "better": "more"}]}, "ab_test.metrics[0].better"),
        ({"metrics": [{"name": "m", "expr": EXPR, "ratio": 1}] * 2}, "ab_test.metrics"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_policy_is_refused_by_its_field(change: dict[str, Any], named: str) -> None:
    with pytest.raises(RolloutError, match=re.escape(f"{named} ")):
        parse_policy(policy(**change))


@pytest.mark.parametrize(("settings", "named"), [({}, "url"), ({**PROMETHEUS, "identity": False}, "identity")])
def test_it_needs_a_prometheus_that_knows_who_serves_what(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(RolloutError, match=rf"prometheus\.{named}"):
        parse_policy({**policy(), "prometheus": settings})

"""What answers of Prometheus prove: only finite numbers of well scraped devices on the planned release pass."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import promql_template as template
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import parse_policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql import (
    Reading,
    coverage,
    decide,
    read_value,
    served,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_gate import Target, judge
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_policy import Compare, Prometheus, Query

NOW = 1_800_000_000.0
NEW, OLD = "sha256:new", "sha256:old"
EXPR = 'sum(rate(bad_total{device=~"$device"}[$window]))'


def success(kind: str, result: Any, **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}, **more}


def vector(*values: Any) -> dict[str, Any]:
    return success("vector", [{"metric": {"n": str(n)}, "value": [NOW, str(value)]} for n, value in enumerate(values)])


def ups(**devices: list[tuple[float, str]]) -> dict[str, Any]:
    """The raw samples of up: device -> [(age in s, value)]."""
    return success(
        "matrix",
        [
            {"metric": {"device": device}, "values": [[NOW - age, value] for age, value in samples]}
            for device, samples in devices.items()
        ],
    )


GOOD = [(15.0, "1"), (10.0, "1"), (5.0, "1")]


@pytest.mark.parametrize(
    ("answer", "verdict", "named"),
    [
        (vector(), "no_data", "no series"),
        (vector(1, 2), "inconclusive", "2 series"),
        (vector("NaN"), "inconclusive", "NaN"),
        (vector("+Inf"), "inconclusive", "infinite"),
        (vector("-Inf"), "inconclusive", "infinite"),
        (vector("abc"), "no_data", "no sample"),
        (success("matrix", []), "inconclusive", "matrix"),
        (success("string", [NOW, "x"]), "inconclusive", "string"),
        (success("vector", [{"metric": {}, "histogram": [NOW, {}]}]), "inconclusive", "no plain number"),
        (success("vector", ["odd"]), "inconclusive", "no plain number"),
        ({**vector(0), "warnings": ["store gateway 2 did not answer"]}, "inconclusive", "store gateway 2"),
        ({"status": "error", "errorType": "bad_data", "error": "parse error"}, "no_data", "parse error"),
        ({"status": "error"}, "no_data", "no message"),
        ({"status": "success"}, "no_data", "not that of its query API"),
        ({}, "no_data", "error"),
    ],
)
def test_what_is_no_number_is_no_value(answer: dict[str, Any], verdict: str, named: str) -> None:
    reading = read_value(answer)
    assert (reading.value, reading.verdict) == (None, verdict) and named in reading.reason


def test_numbers_are_values() -> None:
    assert read_value(vector("0.25")).value == 0.25
    assert read_value(success("scalar", [NOW, "3"])).value == 3.0
    assert read_value({**vector(1), "warnings": ["PromQL info: might not be a counter"]}).value == 1.0


@pytest.mark.parametrize(
    ("samples", "verdict", "named"),
    [
        ([], "no_data", "not scraped"),
        ([(200.0, "1"), (190.0, "1"), (180.0, "1")], "no_data", "180 s old"),
        ([(15.0, "1"), (10.0, "1"), (5.0, "0")], "no_data", "up is 0"),
        ([(15.0, "0"), (10.0, "0"), (5.0, "1")], "inconclusive", "1 scrapes of it in the window, 2 needed"),
        ([(5.0, "1")], "inconclusive", "2 needed"),
        ([(15.0, "NaN"), (10.0, "NaN"), (5.0, "NaN")], "no_data", "failed"),
    ],
)
def test_a_device_that_is_not_scraped_well_does_not_count(
    samples: list[tuple[float, str]], verdict: str, named: str
) -> None:
    found = coverage(ups(a=GOOD, b=samples), ["a", "b"], NOW, 60, 2)
    assert found.fit == ["a"] and found.unfit["b"][0] == verdict and named in found.unfit["b"][1]
    assert (found.scrapes, found.oldest) == (3, 5.0)


def test_one_failed_scrape_in_between_is_no_harm_and_the_newer_address_counts() -> None:
    assert coverage(ups(a=[(15.0, "1"), (10.0, "0"), (5.0, "1")]), ["a"], NOW, 60, 2).fit == ["a"]
    moved = ups(a=[(40.0, "1"), (35.0, "0")])
    moved["data"]["result"] += ups(a=GOOD)["data"]["result"]
    assert coverage(moved, ["a"], NOW, 60, 2).fit == ["a"]
    moved["data"]["result"].reverse()
    assert coverage(moved, ["a"], NOW, 60, 2).fit == ["a"]


def test_an_error_covers_nobody() -> None:
    found = coverage({"status": "error", "errorType": "unreachable", "error": "refused"}, ["a"], NOW, 60, 2)
    assert found.fit == [] and "refused" in found.unfit["a"][1]


def test_served_reads_the_info_metric() -> None:
    info = success(
        "vector",
        [
            {"metric": {"device": "a", "digest": NEW, "version": "2"}, "value": [NOW, "1"]},
            {"metric": {"device": "a", "digest": OLD, "version": "1"}, "value": [NOW, "0"]},
        ],
    )
    assert served(info) == {"a": [(NEW, "2")]} and served({"status": "error"}) == {}


def lower(**changes: Any) -> Query:
    return Query(**{"name": "q", "expr": EXPR, "max": 0.1, **changes})


RATIO = Compare(floor=0.01, ratio=2.0)


@pytest.mark.parametrize(
    ("query", "value", "control", "verdict"),
    [
        (lower(), 0.1, None, "pass"),
        (lower(), 0.1001, None, "fail"),
        (lower(max=None, min=5.0), 5.0, None, "pass"),
        (lower(max=None, min=5.0), 4.9, None, "fail"),
        (lower(compare=RATIO), 0.05, 0.03, "pass"),
        (lower(compare=RATIO), 0.05, 0.02, "fail"),
        (lower(compare=RATIO), 0.2, 0.5, "fail"),  # no incumbent is bad enough to excuse what is above max
        (lower(compare=RATIO), 0.01, 0.0, "pass"),  # the floor: good enough, whatever the incumbent does
        (lower(compare=RATIO), 0.011, 0.0, "fail"),
        (lower(compare=RATIO), 0.011, None, "inconclusive"),
        (lower(compare=RATIO), 0.01, None, "pass"),
        (lower(compare=RATIO), 0.05, -1.0, "inconclusive"),
        (lower(compare=Compare(floor=0.01, difference=0.02)), 0.05, 0.03, "pass"),
        (lower(compare=Compare(floor=0.01, difference=0.02)), 0.06, 0.03, "fail"),
        (lower(max=None, min=1.0, compare=Compare(floor=100.0, ratio=0.9)), 9.0, 10.0, "pass"),
        (lower(max=None, min=1.0, compare=Compare(floor=100.0, ratio=0.9)), 8.9, 10.0, "fail"),
        (lower(max=None, min=1.0, compare=Compare(floor=100.0, difference=1.0)), 8.9, 10.0, "fail"),
        (lower(max=None, min=1.0, compare=Compare(floor=100.0, ratio=0.9)), 100.0, 1e9, "pass"),
    ],
)
def test_decisions(query: Query, value: float, control: float | None, verdict: str) -> None:
    old = None if control is None else Reading(control)
    decision = decide(query, value, old)
    assert decision.verdict == verdict, decision


class Answers:
    """A Prometheus that knows what each device measured: device -> (up samples, digest, value)."""

    def __init__(self, **devices: tuple[list[tuple[float, str]], str, float]) -> None:
        self.devices = devices
        self.asked: list[str] = []

    def __call__(self, expr: str) -> dict[str, Any]:
        self.asked.append(expr)
        named = [name for name in self.devices if f'"{name}"' in expr.replace("|", '"').replace("=~", "=~")]
        if expr.startswith("up{"):
            return ups(**{name: self.devices[name][0] for name in named})
        if expr.startswith("edgeai_model_info"):
            return success(
                "vector",
                [
                    {"metric": {"device": name, "digest": self.devices[name][1], "version": "v"}, "value": [NOW, "1"]}
                    for name in named
                ],
            )
        return vector(sum(self.devices[name][2] for name in named)) if named else vector()


def asked(answers: Answers, control: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    query = changes.pop("query", lower())
    settings = Prometheus(url="http://p", queries=(query,), **changes)
    hosts = [name for name in answers.devices if name.startswith("n")]
    target = Target("s", hosts, control or [], "digits", "1.2.0", NEW, 60)
    (found,) = judge(settings, target, answers, NOW)
    assert json.loads(json.dumps(found)) == found
    return found


def test_a_verdict_carries_its_evidence() -> None:
    found = asked(Answers(n1=(GOOD, NEW, 0.01), n2=(GOOD, NEW, 0.02)))
    assert found["verdict"] == "pass" and math.isclose(found["value"], 0.03) and found["limit"] == 0.1
    assert (found["devices"], found["covered"], found["scrapes"], found["oldest_s"]) == (2, 2, 3, 5.0)
    assert found["answers"]["value"] == [NOW, "0.03"] and found["at"] == "2027-01-15T08:00:00.000Z"
    assert found["expr"] == EXPR and found["window"] == 60


def test_every_device_has_to_count_unless_the_coverage_says_otherwise() -> None:
    answers = Answers(n1=(GOOD, NEW, 0.01), n2=([(5.0, "0")], NEW, 0.02))
    found = asked(answers)
    assert found["verdict"] == "inconclusive" and "1 of 2 devices can be judged, 2 needed; n2" in found["reason"]
    found = asked(answers, coverage=0.5)
    assert found["verdict"] == "pass" and found["value"] == 0.01, "the device that does not count is not asked about"
    assert found["left_out"] == {"n2": "its last scrape failed (up is 0)"}
    assert asked(Answers(n1=([(5.0, "0")], NEW, 0.0)), coverage=0.01)["verdict"] == "no_data"


@pytest.mark.parametrize(("digest", "identity", "verdict"), [(OLD, True, "inconclusive"), (OLD, False, "pass")])
def test_metrics_of_another_release_prove_nothing(digest: str, identity: bool, verdict: str) -> None:
    assert asked(Answers(n1=(GOOD, digest, 0.0)), identity=identity)["verdict"] == verdict


def test_a_comparison_is_with_well_scraped_devices_on_the_old_release() -> None:
    query = lower(compare=Compare(floor=0.0001, ratio=2.0))
    new = (GOOD, NEW, 0.05)
    found = asked(Answers(n1=new, c1=(GOOD, OLD, 0.03)), ["c1"], query=query)
    assert found["verdict"] == "pass" and found["control"]["value"] == 0.03 and found["control"]["versions"] == ["v"]
    assert asked(Answers(n1=new, c1=(GOOD, OLD, 0.02)), ["c1"], query=query)["verdict"] == "fail"
    for control in ((GOOD, NEW, 0.03), ([(5.0, "0")], OLD, 0.03), ([], OLD, 0.03)):
        found = asked(Answers(n1=new, c1=control), ["c1"], query=query)
        assert found["verdict"] == "inconclusive" and "c1" in found["reason"], found
    assert asked(Answers(n1=new), [], query=query)["verdict"] == "inconclusive"
    assert asked(Answers(n1=(GOOD, NEW, 0.0001)), [], query=query)["verdict"] == "pass"


def test_too_few_samples_prove_nothing_on_either_side() -> None:
    query = lower(samples='sum(increase(n{device=~"$device"}[$window]))', min_samples=10, max=1000.0)
    assert asked(Answers(n1=(GOOD, NEW, 9.0)), query=query)["verdict"] == "inconclusive"
    found = asked(Answers(n1=(GOOD, NEW, 10.0)), query=query)
    assert found["verdict"] == "pass" and found["samples"] == 10.0
    query = lower(
        samples=query.samples, min_samples=10, max=1000.0, compare=Compare(floor=1.0, ratio=2.0)
    )  # the control group's own
    found = asked(Answers(n1=(GOOD, NEW, 10.0), c1=(GOOD, OLD, 9.0)), ["c1"], query=query)
    assert found["verdict"] == "inconclusive" and "of the old release, it rests on 9 samples" in found["reason"]


def test_values_are_escaped_for_where_they_stand() -> None:
    values = {"device": ["a.b", 'q"x'], "stratum": ['s"\\'], "version": ["1.0+x"]}
    expr = 'x{device=~"$device",stratum=\'${stratum}\',v=~`$version`,w=~"a$version"}[$window]'
    assert template.render(expr, values, 30) == (
        'x{device=~"a\\\\.b|q\\"x",stratum=\'s"\\\\\',v=~`1\\.0\\+x`,w=~"a(?:1\\\\.0\\\\+x)"}[30s]'
    )
    with pytest.raises(RolloutError, match="no value"):
        template.render('x{site=~"$site"}', values, 30)
    with pytest.raises(RolloutError, match="backtick"):
        template.render("x{stratum=`$stratum`}", {"stratum": ["`"]}, 30)


def policy(query: Any = None, **changes: Any) -> dict[str, Any]:
    one = {"name": "errors", "expr": EXPR, "max": 0.1, **(query or {})}
    one = {key: value for key, value in one.items() if value != "absent"}
    return {"soak": 60, "prometheus": {"url": "http://p:9090", "queries": [one], **changes}}


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (policy({"name": "Bad Name"}), "prometheus.queries[0].name"),
        (policy({"name": "absent"}), "prometheus.queries[0].name"),
        (policy({"expr": "absent"}), "prometheus.queries[0].expr"),
        (policy({"expr": 5}), "prometheus.queries[0].expr"),
        (policy({"expr": "up"}), "prometheus.queries[0].expr"),
        (policy({"expr": 'up{device="$device"}'}), "prometheus.queries[0].expr"),
        (policy({"expr": 'up{device!~"$device"}'}), "prometheus.queries[0].expr"),
        (policy({"expr": 'up{device=~"$device"}[5m]'}), "prometheus.queries[0].expr"),
        (policy({"expr": 'up{device=~"$device"} offset 1h'}), "prometheus.queries[0].expr"),
        (policy({"expr": 'up{device=~"$device"} @ start()'}), "prometheus.queries[0].expr"),
        (policy({"expr": 'up{device=~"$device",x="$y"}'}), "prometheus.queries[0].expr"),
        (policy({"expr": 'up{device=~"$device'}), "prometheus.queries[0].expr"),
        (policy({"expr": 'max_over_time(rate(x{device=~"$device"}[60s])[60s:])'}), "prometheus.queries[0].expr"),
        (policy({"max": "absent"}), "prometheus.queries[0].max"),
        (policy({"min": 0.1}), "prometheus.queries[0].max"),
        (policy({"max": float("nan")}), "prometheus.queries[0].max"),
        (policy({"max": True}), "prometheus.queries[0].max"),
        (policy({"compare": "incumbent"}), "prometheus.queries[0].compare"),
        (policy({"compare": {"ratio": 2.0}}), "prometheus.queries[0].compare"),
        (policy({"compare": {"floor": 0.01}}), "prometheus.queries[0].compare"),
        (policy({"compare": {"floor": 0.01, "ratio": 2, "difference": 1}}), "prometheus.queries[0].compare"),
        (policy({"compare": {"floor": 0.2, "ratio": 2}}), "prometheus.queries[0].compare.floor"),
        (policy({"compare": {"floor": 0.01, "ratio": 0.5}}), "prometheus.queries[0].compare.ratio"),
        (policy({"max": "absent", "min": 1, "compare": {"floor": 2, "ratio": 1.5}}), "queries[0].compare.ratio"),
        (policy({"max": "absent", "min": 1, "compare": {"floor": 0.5, "ratio": 0.9}}), "queries[0].compare.floor"),
        (policy({"window": 61}), "prometheus.queries[0].window"),
        (policy({"min_samples": 5}), "prometheus.queries[0].min_samples"),
        (policy({"samples": "sum(x)"}), "prometheus.queries[0].samples"),
        (policy({"limit": 1}), "prometheus.queries[0].limit"),
        (policy(url=""), "prometheus.url"),
        (policy(url="p:9090"), "prometheus.url"),
        (policy(url="http://u:hunter2@p"), "prometheus.url"),
        (policy(client_key="/k"), "prometheus.client_cert"),
        (policy(coverage=0), "prometheus.coverage"),
        (policy(token="hunter2"), "prometheus.token"),
        (policy(queries={}), "prometheus.queries"),
        (policy(queries=[policy()["prometheus"]["queries"][0]] * 2), "prometheus.queries"),
        ({**policy(), "soak": 0}, "soak"),
        ({**policy(deadline=600), "confirm_within": 900}, "confirm_within"),
        (
            policy(
                {"expr": EXPR.replace("{", '{version=~"$version",'), "compare": {"floor": 0.01, "ratio": 2}},
                identity=False,
            ),
            "prometheus.queries[0].expr",
        ),
    ],
)
def test_each_mistake_in_the_policy_is_named(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(RolloutError) as raised:
        parse_policy(raw, "group_vars/edge.yml")
    text = str(raised.value)
    assert text.startswith("group_vars/edge.yml: ") and f"{named} is " in text
    assert "hunter2" not in text


def test_a_policy_survives_the_plan_and_one_without_queries_is_as_before() -> None:
    raw = policy({"compare": {"floor": 0.01, "ratio": 2}, "samples": EXPR, "min_samples": 3}, coverage=0.9)
    parsed = parse_policy(raw)
    assert parse_policy(json.loads(json.dumps(parsed.to_dict()))) == parsed
    plain = parse_policy(policy())
    assert parse_policy(plain.to_dict()) == plain
    assert hash(parsed) and "min" not in parsed.to_dict()["prometheus"]["queries"][0]
    assert "prometheus" not in parse_policy({}).to_dict()

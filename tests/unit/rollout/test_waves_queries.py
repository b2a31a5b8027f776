# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Prometheus' answers on the screen and in the report."""

from __future__ import annotations

from typing import Any

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import report, report_view, waves_text
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.waves_model import Rollout

S = "cpu/onnxruntime/x86_64"
PLAN = {
    "rollout_id": "r1", "model": "m", "version": "2", "stratum_of": {"a": S}, "wave_of": {"a": 1},
    "waves": [{"number": 1, "kind": "canary", "hosts": ["a"], "strata": {S: ["a"]}}],
}  # fmt: skip


def query(name: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "query": name, "verdict": verdict, "reason": f"because {verdict}", "value": 0.25, "limit": 0.1, "kind": "max",
        "expr": 'x{device=~"<b>"}', "window": 90, "devices": 2, "covered": 1, "scrapes": 6, "samples": 1200.0,
        "control": {"devices": 3, "covered": 3, "value": 0.05, "versions": ["1"]}, "left_out": {"b": "up is 0"}, **more,
    }  # fmt: skip


def judged(stage: str, verdict: str, *queries: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"verdict": verdict, "action": "continue", "reason": f"{stage} {verdict}"}
    return {"stage": stage, "wave": 1, "strata": {S: {**found, "queries": list(queries)} if queries else found}}


def test_the_screen_shows_each_query_and_why() -> None:
    rollout = Rollout()
    rollout.planned(PLAN)
    wave = rollout.wave_started(["a"])
    asked = judged("metrics", "fail", query("good", "pass"), query("bad", "fail"))
    rollout.judged({**asked, "before": [judged("activation", "pass")]})
    lines = ["".join(text for text, _style in line) for line in waves_text.stage_lines(wave, 5, False, "metrics")]
    assert [line.strip() for line in lines[1:]] == [
        f"query bad fail on {S}: because fail",
        f"query good pass on {S}: because pass",
        f"verdict fail on {S} after metrics: metrics fail",
    ]
    assert [verdict.stage for verdict in wave.verdicts] == ["activation", "metrics"] and wave.stage == "soak"


def test_many_queries_stay_on_one_screen() -> None:
    rollout = Rollout()
    rollout.planned(PLAN)
    wave = rollout.wave_started(["a"])
    rollout.judged(judged("metrics", "fail", *[query(f"q{number}", "pass") for number in range(100)]))
    lines = waves_text.query_lines(wave, "metrics")
    assert len(lines) == waves_text.MAX_ROWS + 1 and "76 more queries" in lines[-1][0][0]


def test_the_report_shows_what_prometheus_said_and_only_where_it_was_asked() -> None:
    def view(*verdicts: dict[str, Any]) -> dict[str, Any]:
        started = {"model": "m", "version": "2", "digest": "sha256:d", "plan": PLAN}
        items = [("rollout_started", started), *(("verdict", verdict) for verdict in verdicts)]
        records = [
            {"seq": n, "time": f"2026-11-23T11:00:{n:02d}Z", "type": kind, "rollout": "r1", "host": None, "data": data}
            for n, (kind, data) in enumerate(items, 1)
        ]
        return report_view.rollout_view(report.fold(records).rollouts["r1"], 1)

    plain = view(judged("activation", "pass"), judged("soak", "pass"))
    assert plain["queries"] == [] and plain["stages"] == ["activation", "soak"]
    asked = view(judged("activation", "pass"), judged("metrics", "fail", query("good", "pass"), query("bad", "fail")))
    assert asked["stages"] == ["activation", "metrics", "soak"]
    assert [cell["text"] for cell in asked["plan"][0]["lines"][0]["stages"]] == ["pass", "fail", ""]
    bad, good = asked["queries"]
    assert (bad["query"], good["query"], bad["css"]) == ("bad", "good", "bad")
    assert (bad["value"], bad["limit"], bad["control"], bad["versions"]) == ("0.25", "≤ 0.1", "0.05", "1")
    assert (bad["devices"], bad["samples"], bad["left_out"]) == ("1 of 2", "1200", ["b: up is 0"])
    odd = view(judged("metrics", "no_data", {"query": "q", "verdict": "no_data", "value": None, "limit": None}))
    assert odd["queries"][0]["value"] == "" and odd["queries"][0]["css"] == "warn"

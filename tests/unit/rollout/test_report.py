"""The report: what it makes of a ledger, how it draws it, and what it must never do."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import report_sample

from ansible_collections.edgeai.fleet.plugins.action import rollout_report
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import (
    report,
    report_charts,
    report_figures,
    report_rows,
    report_view,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger

VOID = {"meta", "link", "br", "input", "hr", "img", "col"}


def records(*items: Any) -> list[dict[str, Any]]:
    """Return ledger records from (offset s, type, data, host) tuples, all of rollout r1."""
    return [
        {"seq": n, "time": f"2026-11-23T11:00:{at:02d}Z", "type": kind, "rollout": "r1", "host": host, "data": data}
        for n, (at, kind, data, host) in enumerate(items, 1)
    ]


def started(**plan: Any) -> tuple[int, str, dict[str, Any], None]:
    base = {
        "waves": [{"number": 1, "kind": "canary", "hosts": ["a"], "strata": {"s": ["a"]}}],
        "stratum_of": {"a": "s"},
    }
    return (0, "rollout_started", {"model": "m", "version": "2", "digest": "sha256:d", "plan": {**base, **plan}}, None)


def intent(at: int, action: str = "activate", host: str = "a") -> tuple[int, str, dict[str, Any], str]:
    return (at, "intent", {"action": action, "stratum": "s", "wave": 1}, host)


def result(at: int, action: str, host: str = "a", **data: Any) -> tuple[int, str, dict[str, Any], str]:
    return (at, "result", {"action": action, "failed": False, **data}, host)


def only(*items: Any) -> report.Rollout:
    return next(iter(report.fold(records(*items)).rollouts.values()))


def page_of(folder: Path, story: report_sample.Story, **options: Any) -> tuple[str, dict[str, Any]]:
    ledger, key = report_sample.write_ledger(folder, story)
    args = {"ledger": str(ledger), "public_key": str(key), "rollouts": [], "latest": 20, "extra": None, "title": "T"}
    page, told = rollout_report.make_report({**args, **options})
    return page.decode(), told


class Outline(HTMLParser):
    """Checks that tags nest, and collects ids, links to them, and addresses of anything outside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href" and (value or "").startswith("#"):
                self.anchors.append((value or "")[1:])
            elif name in ("src", "href", "data", "action", "srcset") or name.startswith("on"):
                self.outside.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("demo")
    extra = folder / "extra.json"
    extra.write_text(json.dumps(report_sample.client_extra()), encoding="utf-8")
    return page_of(folder / "ledger", report_sample.demo_story(), extra=str(extra))[0]


@pytest.mark.parametrize(
    ("items", "outcome"),
    [
        ([], "waiting"),
        ([intent(1)], "in_flight"),
        ([intent(1), result(2, "activate", result="activated")], "activated"),
        ([intent(1), result(2, "activate", result="unchanged")], "unchanged"),
        ([intent(1), result(2, "activate", failed=True, result="reverted", code="gate")], "self_reverted"),
        (
            [intent(1), result(2, "activate", failed=True, reverted=True, gates=[{"phase": "candidate"}])],
            "candidate_failed",
        ),
        (
            [
                intent(1),
                result(2, "activate", failed=True, reverted=True, gates=[{"phase": "candidate"}, {"phase": "serving"}]),
            ],
            "self_reverted",
        ),
        ([intent(1), result(2, "activate", failed=True, reverted=True)], "self_reverted"),
        ([intent(1), result(2, "activate", failed=True, code="no_space")], "failed"),
        ([intent(1), result(2, "activate", failed=True, result="refused")], "refused"),
        ([intent(1), result(2, "activate", failed=True, unreachable=True)], "unreachable"),
        ([intent(1), (2, "unreachable", {"msg": "gone"}, "a")], "unreachable"),
        (
            [intent(1), result(2, "activate"), intent(3, "confirm"), result(4, "confirm", result="confirmed")],
            "confirmed",
        ),
        ([intent(1), result(2, "activate"), result(4, "confirm", failed=True, result="reverted")], "self_reverted"),
        ([intent(1), result(2, "activate"), result(4, "revert", result="reverted")], "rolled_back"),
        (
            [intent(1), result(2, "activate", failed=True, reverted=True), result(3, "revert", result="unchanged")],
            "self_reverted",
        ),
        ([intent(1), result(2, "activate"), result(4, "revert", failed=True)], "failed"),
    ],
)
def test_outcome_of_a_device(items: list[Any], outcome: str) -> None:
    assert only(started(), *items).devices["a"].outcome == outcome


def test_times_of_a_device_make_its_bars() -> None:
    device = only(started(), intent(1), result(3, "activate"), intent(6, "confirm"), result(7, "confirm")).devices["a"]
    zero = report.parse_time("2026-11-23T11:00:00Z")
    assert [device.started - zero, device.activated - zero, device.settled - zero] == [1, 3, 7]  # type: ignore[operator]


def test_a_resumed_rollout_is_open_again_and_keeps_its_first_waves() -> None:
    again = started(waves=[{"number": 2, "hosts": ["b"], "strata": {"s": ["b"]}}], unchanged=["a"])
    rollout = only(
        started(),
        intent(1),
        result(2, "activate"),
        result(3, "confirm"),
        (4, "rollout_finished", {"status": "aborted"}, None),
        (5, *again[1:]),
    )
    assert (rollout.status, rollout.runs, [w["number"] for w in rollout.waves]) == ("open", 2, [1, 2])
    assert rollout.devices["a"].outcome == "confirmed", "what it did in the first run is not forgotten"


def test_deferred_and_refused_come_from_plan_or_records() -> None:
    rollout = only(
        started(deferred=[{"host": "b", "reason": "away"}], refused=[{"host": "c", "stratum": "s", "reason": "held"}]),
        (1, "deferred", {"host": "d", "reason": "asleep"}, "d"),
    )
    assert rollout.deferred == {"b": ("", "away"), "d": ("", "asleep")}
    assert rollout.refused == {"c": ("s", "held")}
    assert rollout.counts() == {"refused": 1, "deferred": 2, "waiting": 1}


def test_a_device_held_back_by_a_halt_was_not_started() -> None:
    held = {"host": "a", "kind": "held", "stratum": "s", "reason": "stratum s was halted before its wave"}
    rollout = only(started(), (1, "deferred", held, "a"))
    assert rollout.devices["a"].outcome == "waiting"
    assert report_view.held_rows(rollout.deferred)[0]["reason"] == held["reason"]


def test_quarantine_and_its_lifting() -> None:
    pair = {"model": "m", "version": "2", "digest": "sha256:d", "stratum": "s"}
    history = report.fold(
        records(
            (1, "quarantine", {**pair, "reason": "bad"}, None),
            (2, "quarantine", {**pair, "reason": "again"}, None),
            (3, "quarantine_lifted", {**pair, "by": "ann", "reason": "fixed"}, None),
        )
    )
    assert [(q.reason, q.lifted_by) for q in history.quarantine] == [("bad", "ann")]
    row = report_view.quarantine_view(history)[0]
    assert not row["standing"] and "by ann: fixed" in row["lifted"]


def test_only_the_latest_rollouts_are_kept_and_unknown_ones_are_refused() -> None:
    lines = [{**records(started())[0], "rollout": f"r{n}"} for n in range(6)]
    history = report.fold(lines, keep=2)
    assert (list(history.rollouts), history.left_out) == (["r4", "r5"], 4)
    assert list(report.fold(lines, only=["r1"]).rollouts) == ["r1"]
    with pytest.raises(RolloutError, match="r9"):
        report.fold(lines, only=["r9"])


def test_a_damaged_record_ends_the_story_and_is_named() -> None:
    history = report.fold([*records(started()), {"type": "intent", "time": "yesterday"}, *records(intent(3))])
    assert "yesterday" in history.unreadable
    assert history.records == 1


def test_sentences_tell_the_bad_part_first() -> None:
    verdict = {
        "wave": 1,
        "stage": "activation",
        "verdict": "fail",
        "strata": {
            "s": {"verdict": "fail", "action": "rollback", "reason": "1 of 1 failed"},
            "old": {"verdict": "no_data", "action": "none", "reason": "halted before this wave"},
        },
    }
    back = {"result": "reverted", "golden_before": "aa", "golden_after": "aa"}
    rollout = only(started(), intent(1), result(2, "activate", failed=True, **back), (3, "verdict", verdict, None))
    said = report_view.sentences(rollout, report_rows.rollback_proof(rollout))
    assert said[0] == "Wave 1 did not pass after activation in s: 1 of 1 failed."
    assert said[1] == "1 device went back to the release before; golden outputs are those from before on 1 of 1."
    assert not any(" old" in text for text in said)
    gone = only(started(), intent(1), (2, "watchdog", {"event": "controller_gone", "reason": "x"}, None))
    assert "watchdog took over" in report_view.sentences(gone, report_rows.rollback_proof(gone))[0]


def test_rollback_proof_never_calls_a_missing_measurement_equal() -> None:
    rollout = only(
        started(waves=[{"number": 1, "hosts": ["a", "b", "c"], "strata": {}}]),
        *[
            item
            for host, data in {
                "a": {},
                "b": {"golden_before": "1", "golden_after": "2"},
                "c": {"golden_restored": False},
            }.items()
            for item in (intent(1, host=host), result(2, "revert", host, result="reverted", **data))
        ],
    )
    proof = report_rows.rollback_proof(rollout)
    assert (proof["total"], proof["equal"]) == (3, 0)
    assert [row["verdict"] for row in proof["rows"]] == ["not measured", "different", "different"]


def test_a_candidate_that_failed_never_left_the_release_before() -> None:
    gates = [{"gate": "golden", "phase": "candidate", "verdict": "fail"}]
    rollout = only(started(), intent(1), result(2, "activate", failed=True, reverted=True, gates=gates))
    proof = report_rows.rollback_proof(rollout)
    assert proof["rows"][0]["verdict"] == "never switched"
    assert report_view.sentences(rollout, proof) == [
        "On 1 device it failed before the switch: the release before kept serving."
    ]


def test_a_verdict_about_halted_strata_only_is_no_verdict() -> None:
    verdict = {
        "wave": 1,
        "stage": "soak",
        "verdict": "no_data",
        "strata": {"s": {"verdict": "no_data", "action": "none"}},
    }
    drawn = report_figures.wave_chart("x", only(started(), intent(1), (2, "verdict", verdict, None)))["svg"]
    assert "no data" not in drawn and "m-warn" not in drawn


def test_a_rollback_afterwards_is_told_and_does_not_stretch_the_picture() -> None:
    rollout = only(
        started(),
        intent(1),
        result(2, "activate"),
        result(3, "confirm"),
        (4, "rollout_finished", {"status": "succeeded"}, None),
        (50, "rollback_started", {"hosts": ["a"]}, None),
        result(55, "revert", result="reverted"),
    )
    view = report_view.rollout_view(rollout, 1)
    assert (view["status"], view["duration"]) == ("Succeeded, taken back later", "4 s")
    assert view["counts"] == [{"n": 1, "text": "rolled back", "css": "back"}]


def test_the_playbooks_last_word_is_no_failed_task() -> None:
    rollout = only(
        started(),
        (1, "task_failed", {"task": "x"}, "a"),
        (2, "rollout_finished", {"status": "halted"}, None),
        (3, "task_failed", {"task": "y"}, "a"),
    )
    assert [item["kind"] for item in rollout.failures] == ["x"]


def test_page_is_whole_self_contained_and_consistent(demo: str) -> None:
    outline = Outline()
    outline.feed(demo)
    assert outline.open == []
    assert outline.outside == [], "the page loads nothing"
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.anchors) <= set(outline.ids)
    assert "@import" not in demo and "url(" not in demo
    for drawing in re.findall(r"<svg.*?</svg>", demo, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_page_says_what_happened(demo: str) -> None:
    text = re.sub(r"<[^>]+>", " ", demo)
    for fact in (
        "Ledger verified",
        "digits 1.2.0",
        "Halted",
        "Nothing to do",
        "failed its gate",
        "rolled back",
        "2 of 2 devices proved",
        "connection timed out after 10 s",
        "quarantined",
        "0.3594",
        "depot-04, harbour-03, quarry-03, quarry-04",
        "3,454",
    ):
        assert fact in re.sub(r"\s+", " ", text), fact


def test_page_is_the_same_for_the_same_ledger(tmp_path: Path) -> None:
    one, _told = page_of(tmp_path / "one", report_sample.demo_story())
    two, _told = page_of(tmp_path / "two", report_sample.demo_story())
    # ECDSA signatures differ from run to run, so the heads of the two chains do; nothing else may.
    assert re.sub("[0-9a-f]{64}", "", one) == re.sub("[0-9a-f]{64}", "", two)
    ledger = tmp_path / "one"
    args = {
        "ledger": str(ledger),
        "public_key": str(ledger / "ledger.pub.pem"),
        "rollouts": [],
        "latest": 20,
        "extra": None,
        "title": "T",
    }
    assert rollout_report.make_report(args)[0].decode() == one


def test_text_from_the_ledger_is_never_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&\x00\ud800"
    story = report_sample.Story({f"{evil}host": f"{evil}stratum"}, (("canary", (f"{evil}host",)),))
    report_sample.VARIANT[f"{evil}stratum"] = evil
    story.rollout(0, "1.0.0", "0.9.0", bad=(f"{evil}host",), status=evil)
    page, _told = page_of(tmp_path, story, title=evil)
    assert page.count("<script>") == 1, "only the page's own"
    assert "alert(1)&lt;/script&gt;" in page
    Outline().feed(page)
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_a_ledger_that_was_edited_is_reported_first(tmp_path: Path) -> None:
    ledger, _key = report_sample.write_ledger(tmp_path, report_sample.demo_story())
    path = ledger / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"value":0.3594', b'"value":0.9594', 1))
    args = {
        "ledger": str(ledger),
        "public_key": str(ledger / "ledger.pub.pem"),
        "rollouts": [],
        "latest": 20,
        "extra": None,
        "title": "T",
    }
    page, told = rollout_report.make_report(args)
    assert told["verified"] is False and told["problems"]
    text = page.decode()
    assert text.index("Ledger does not verify") < text.index("digits 1.0.0")
    assert 'role="alert"' in text


def test_a_large_fleet_gives_a_bounded_page(tmp_path: Path) -> None:
    page, told = page_of(tmp_path, report_sample.large_story(2000))
    assert told["rollouts"][0]["devices"]["candidate_failed"] == 1
    assert len(page) < 600_000
    assert page.count('class="evidence"') == report_rows.MAX_ROWS
    assert page.index(">failed its gate</b>") < page.index(">confirmed</b>"), "what needs a look is not cut off"
    assert len(re.findall("<circle", page)) < 500, "boxes, not thousands of dots"


def test_lanes_below_the_limit_areas_above() -> None:
    def rollout(n: int) -> report.Rollout:
        hosts = [f"h{i}" for i in range(n)]
        plan = started(waves=[{"number": 1, "hosts": hosts, "strata": {"s": hosts}}])
        return only(plan, *[item for h in hosts for item in (intent(1, host=h), result(2, "activate", h))])

    assert report_figures.wave_chart("x", rollout(report_charts.MAX_LANES))["kind"] == "lanes"
    assert report_figures.wave_chart("x", rollout(report_charts.MAX_LANES + 1))["kind"] == "areas"
    assert report_figures.wave_chart("x", only(started(waves=[])))["kind"] == "none"


def test_the_deciding_measurement_is_the_one_that_failed() -> None:
    gates = [
        {"gate": "golden", "verdict": v, "value": x, "unit": "score"}
        for v, x in (("pass", 1.0), ("fail", 0.2), ("pass", 0.9))
    ]
    assert report_figures._deciding(gates)[("golden", "score")]["value"] == 0.2
    device = report.Device("a", gates=gates)
    assert report_rows.gate_cell(device, "golden") == {"text": "0.2000", "css": "bad", "sort": 0.2}


def test_view_of_an_empty_ledger(tmp_path: Path) -> None:
    view = report_view.build_view(report.fold(Ledger(str(tmp_path)).records()), {"ok": True}, None, "T")
    assert "holds no rollout" in rollout_report.render(view).decode()

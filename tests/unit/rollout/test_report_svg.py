"""The report's small drawing and formatting functions."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import report_charts, report_svg


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.33, 1.0, [0.4, 0.6, 0.8, 1.0]),
        (5, 5, [5]),
        (0, 1024, [0, 200, 400, 600, 800, 1000]),
    ],
)
def test_nice_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert report_svg.nice_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(("span", "count"), [(0.4, 5), (27, 6), (3600, 7), (40 * 86400, 7)])
def test_time_ticks_stay_few_and_inside(span: float, count: int) -> None:
    ticks = report_svg.time_ticks(span)
    assert len(ticks) == count and ticks[0] == 0 and ticks[-1] <= span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_duration_text(seconds: float, text: str) -> None:
    assert report_svg.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.98437, "score", "0.9844"),
        (1.0561, "ratio", "1.06×"),
        (0.01423, "ms", "0.0142 ms"),
        (171.6, "MiB", "172 MiB"),
        (0, "ms", "0 ms"),
        (1e-12, "ms", "0.000000 ms"),
    ],
)
def test_value_text(value: float, unit: str, text: str) -> None:
    assert report_svg.value_text(value, unit) == text


def test_quantile_is_the_linear_one() -> None:
    assert [report_svg.quantile([1, 2, 3, 4], q) for q in (0, 0.25, 0.5, 1)] == [1, 1.75, 2.5, 4]
    assert report_svg.quantile([7], 0.75) == 7


def test_shorten_keeps_both_ends() -> None:
    assert report_svg.shorten("abcdefghij", 10) == "abcdefghij"
    assert report_svg.shorten("abcdefghijk", 6) == "ab…ijk"


def test_strips_with_many_values_become_boxes_but_failures_stay_dots() -> None:
    points = [(1 + i / 100, "c-bad" if i == 3 else "c-ok", "") for i in range(100)]
    row = report_charts.Strip("2", points, [3.0])
    drawn = report_charts.strips_chart("x", "t", [report_charts.StripGroup("s", [row])], "ratio")
    assert drawn.count("<circle") == 1 and 'class="box"' in drawn and 'class="limit"' in drawn


def test_a_standalone_drawing_carries_its_colours() -> None:
    drawing = report_svg.svg("x", 20, "T", [report_svg.rect(0, 0, 5, 5, "c-ok")])
    root = ElementTree.fromstring(report_svg.standalone(drawing))
    style = root.find("{http://www.w3.org/2000/svg}style")
    assert style is not None and ".c-ok" in str(style.text) and "prefers-color-scheme" in str(style.text)


def test_outcome_bar_adds_up_to_its_width() -> None:
    root = ElementTree.fromstring(
        report_charts.outcome_bar("x", [("c-ok", "confirmed", 3), ("c-bad", "failed", 1)], 100)
    )
    widths = [float(item.attrib["width"]) for item in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == [74, 24], "three quarters and a quarter, less a gap of one each"

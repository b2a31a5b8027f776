# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The charts of the rollout report: waves over time, measurements by stratum, client requests. Pure; SVG text out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .report_svg import (
    WIDTH,
    cross,
    dot,
    duration_text,
    line,
    nice_ticks,
    num,
    quantile,
    rect,
    shorten,
    svg,
    text,
    time_ticks,
    unit_suffix,
    value_text,
)

MAX_LANES = 60
MAX_AREAS = 40
MAX_DOTS = 60


def outcome_bar(name: str, parts: Sequence[tuple[str, str, int]], width: float = 320, height: float = 14) -> str:
    """Return a stacked bar of device counts. parts: (css class, label, devices)."""
    total = sum(count for _css, _label, count in parts) or 1
    body, at = [], 0.0
    for css, label, count in parts:
        share = width * count / total
        body.append(rect(at, 0, max(share - 1, 0.5), height, css, f"{count} {label}"))
        at += share
    title = ", ".join(f"{count} {label}" for _css, label, count in parts) or "no devices"
    return svg(name, height, title, body, width)


@dataclass
class Lane:
    """One row of the wave chart: bars (start, end, css, tip) and marks (time, kind, css), times as offsets in s."""

    label: str
    note: str
    bars: list[tuple[float, float, str, str]] = field(default_factory=list)
    marks: list[tuple[float, str, str]] = field(default_factory=list)
    note_css: str = "t"


@dataclass
class LaneGroup:
    """A wave: its header, a note at the right, verdict marks (time, css, tip) and its lanes."""

    label: str
    note: str
    note_css: str = "t"
    marks: list[tuple[float, str, str]] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)


def _axis(span: float, x_of: Callable[[float], float], top: float, bottom: float) -> list[str]:
    body = []
    for tick in time_ticks(span):
        body.append(line(x_of(tick), top, x_of(tick), bottom, "grid"))
        body.append(text(x_of(tick), bottom + 15, "0" if tick == 0 else duration_text(tick), "t-s", "middle"))
    return body


def lanes_chart(name: str, title: str, groups: Sequence[LaneGroup], span: float) -> str:
    """Return the wave chart: one lane per device, grouped by wave, over ``span`` seconds."""
    left, right, row, head = 200.0, WIDTH - 210.0, 20.0, 24.0
    scale = (right - left) / (span or 1.0)

    def x_of(offset: float) -> float:
        return left + max(0.0, min(offset, span)) * scale

    height = sum(head + row * len(group.lanes) + 8 for group in groups)
    body, y = _axis(span, x_of, 0, height), 0.0
    for group in groups:
        body.append(rect(0, y, WIDTH, head - 3, "band", radius=3))
        body.append(text(8, y + 15, group.label, "t-b"))
        body.append(text(right + 14, y + 15, group.note, group.note_css))
        for at, css, tip in group.marks:
            body.append(rect(x_of(at) - 1, y, 2, head - 3 + row * len(group.lanes), css, tip))
        y += head
        for lane in group.lanes:
            body.extend(_lane(lane, x_of, y, row, left, right))
            y += row
        y += 8
    return svg(name, height + 22, title, body)


def _lane(lane: Lane, x_of: Callable[[float], float], y: float, row: float, left: float, right: float) -> list[str]:
    middle = y + row / 2 - 1
    body = [text(left - 12, middle + 4, shorten(lane.label, 26), "t", "end"), line(left, middle, right, middle, "base")]
    for start, end, css, tip in lane.bars:
        body.append(rect(x_of(start), middle - 5, max(x_of(end) - x_of(start), 1.5), 10, css, tip))
    for at, kind, css in lane.marks:
        body.append(cross(x_of(at) + 7, middle, 4, css) if kind == "cross" else dot(x_of(at), middle, 4, css))
    body.append(text(right + 14, middle + 4, shorten(lane.note, 32), lane.note_css))
    return body


@dataclass
class Area:
    """One stratum over time, for fleets too large for lanes.

    steps: (offset s, unconfirmed, confirmed) device counts. marks: (offset s, css, tip) of the stratum's verdicts.
    """

    label: str
    note: str
    second: str
    total: int
    steps: list[tuple[float, int, int]] = field(default_factory=list)
    marks: list[tuple[float, str, str]] = field(default_factory=list)
    note_css: str = "t"


def areas_chart(name: str, title: str, areas: Sequence[Area], span: float) -> str:
    """Return, per stratum, how many devices served the new release over time."""
    left, right, tall, gap = 8.0, WIDTH - 240.0, 40.0, 28.0
    scale = (right - left) / (span or 1.0)

    def x_of(offset: float) -> float:
        return left + max(0.0, min(offset, span)) * scale

    height = len(areas) * (tall + gap) + 4
    body = _axis(span, x_of, 0, height)
    for index, area in enumerate(areas):
        top = index * (tall + gap) + gap - 4
        body.append(text(left, top - 6, area.label, "t-b"))
        body.append(rect(left, top, right - left, tall, "band"))
        for css, pick in (("c-new", 0), ("c-ok", 1)):
            body.append(f'<path d="{_steps_path(area, pick, x_of, top, tall, span)}" class="{css}"/>')
        for at, css, tip in area.marks:
            body.append(rect(x_of(at) - 1, top - 3, 2, tall + 6, css, tip))
        body.append(text(right + 14, top + 17, area.note, area.note_css))
        body.append(text(right + 14, top + 34, shorten(area.second, 38), "t-s"))
    return svg(name, height + 22, title, body)


def _steps_path(area: Area, pick: int, x_of: Callable[[float], float], top: float, tall: float, span: float) -> str:
    """Return the outline of a step area: confirmed alone (pick 1) or confirmed + unconfirmed (pick 0)."""
    base, unit = top + tall, tall / (area.total or 1)
    points = [f"M{num(x_of(0))} {num(base)}"]
    for offset, fresh, confirmed in area.steps:
        level = base - unit * (confirmed + (fresh if pick == 0 else 0))
        points.append(f"H{num(x_of(offset))}V{num(level)}")
    points.append(f"H{num(x_of(span))}V{num(base)}Z")
    return "".join(points)


@dataclass
class Strip:
    """One row of a measurement chart. points: (value, css class, tip). limits: what the values were held against."""

    label: str
    points: list[tuple[float, str, str]] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)


@dataclass
class StripGroup:
    """The rows of one stratum."""

    label: str
    rows: list[Strip] = field(default_factory=list)


def strips_chart(name: str, title: str, groups: Sequence[StripGroup], unit: str) -> str:
    """Return dots (boxes above MAX_DOTS) of a measured value per device, by stratum and release, against its limit."""
    left, right, row, head = 120.0, WIDTH - 216.0, 22.0, 24.0
    values = [v for g in groups for r in g.rows for v in [p[0] for p in r.points] + r.limits]
    low, high, use_log = _range(values, unit)
    place: Callable[[float], float] = math.log10 if use_log else float
    scale = (right - left) / (place(high) - place(low))

    def x_of(value: float) -> float:
        return left + (place(min(max(value, low), high)) - place(low)) * scale

    height = sum(head + row * len(group.rows) + 6 for group in groups)
    ticks = _log_ticks(low, high) if use_log else nice_ticks(low, high)
    body = []
    for tick in ticks:
        body.append(line(x_of(tick), 0, x_of(tick), height, "grid"))
        body.append(text(x_of(tick), height + 15, f"{tick:g}" + (unit_suffix(unit)), "t-s", "middle"))
    y = 0.0
    for group in groups:
        body.append(rect(0, y, WIDTH, head - 3, "band", radius=3))
        body.append(text(8, y + 15, shorten(group.label, 90), "t-b"))
        y += head
        for strip in group.rows:
            body.extend(_strip(strip, x_of, y + row / 2 - 1, row, left, right, unit))
            y += row
        y += 6
    return svg(name, height + 22, title, body)


def _range(values: Sequence[float], unit: str) -> tuple[float, float, bool]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if unit == "score":
        return max(0.0, math.floor(low * 10 - 0.5) / 10), max(1.0, high), False
    if low > 0 and high / low > 30:
        return low / 1.3, high * 1.3, True
    return 0.0, (high * 1.06 if high > 0 else 1.0), False


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 2000 else (1,)
    return [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]


def _strip(
    strip: Strip, x_of: Callable[[float], float], middle: float, row: float, left: float, right: float, unit: str
) -> list[str]:
    body = [
        text(left - 12, middle + 4, shorten(strip.label, 14), "t", "end"),
        line(left, middle, right, middle, "base"),
    ]
    ordered = sorted(point[0] for point in strip.points)
    if strip.limits:
        low, high = x_of(min(strip.limits)), x_of(max(strip.limits))
        if high - low > 2:  # each device has a limit of its own: show the span of them
            body.append(rect(low, middle - row / 2 + 2, high - low, row - 4, "limit-span", "limits"))
        for limit in sorted({min(strip.limits), max(strip.limits)}):
            body.append(
                rect(x_of(limit) - 1, middle - row / 2 + 1, 2, row - 2, "limit", f"limit {value_text(limit, unit)}")
            )
    if not ordered:
        return [*body, text(right + 20, middle + 4, "no data", "t-s")]
    if len(ordered) > MAX_DOTS:
        q0, q1, q2, q3, q4 = (quantile(ordered, share) for share in (0, 0.25, 0.5, 0.75, 1))
        body.append(line(x_of(q0), middle, x_of(q4), middle, "whisker"))
        body.append(rect(x_of(q1), middle - 6, max(x_of(q3) - x_of(q1), 1.5), 12, "box"))
        body.append(rect(x_of(q2) - 1, middle - 6, 2, 12, "c-ok"))
    shown = strip.points if len(ordered) <= MAX_DOTS else [p for p in strip.points if p[1] != "c-ok"][:MAX_DOTS]
    body.extend(_dots(shown, x_of, middle))
    body.append(text(right + 20, middle + 4, f"median {value_text(quantile(ordered, 0.5), unit)}", "t"))
    body.append(text(WIDTH - 4, middle + 4, f"n {len(ordered)}", "t-s", "end"))
    return body


def _dots(points: Sequence[tuple[float, str, str]], x_of: Callable[[float], float], middle: float) -> list[str]:
    """Return the dots; those that would cover each other are fanned out above and below, the same way every time."""
    body: list[str] = []
    taken: dict[int, int] = {}
    for value, css, tip in sorted(points):
        column = round(x_of(value) / 5)
        rank = taken.get(column, 0)
        taken[column] = rank + 1
        lift = 0.0 if rank == 0 else min((rank + 1) // 2, 3) * 2.6 * (1 if rank % 2 else -1)
        body.append(dot(x_of(value), middle + lift, 3.6, css, tip))
    return body


def timeline_chart(
    name: str,
    title: str,
    points: Sequence[tuple[float, float, float]],
    bands: Sequence[tuple[float, float, str]],
    span: float,
) -> str | None:
    """Return client requests per interval.

    points: (offset s, answered, lost or wrong). bands: rollouts as (from s, to s, label).
    """
    if not points:
        return None
    left, right, tall, top = 64.0, WIDTH - 16.0, 110.0, 20.0
    scale, peak = (right - left) / (span or 1.0), max(1.0, max(good + bad for _at, good, bad in points))

    def x_of(offset: float) -> float:
        return left + max(0.0, min(offset, span)) * scale

    body = [
        piece
        for start, end, label in bands
        for piece in (
            rect(x_of(start), 0, x_of(end) - x_of(start), tall + top, "band"),
            text(x_of(start) + 5, 13, label, "t-s"),
        )
    ]
    body.extend(_axis(span, x_of, top, tall + top))
    for tick in nice_ticks(0, peak, 3):
        y = top + tall - tall * tick / peak
        body.append(line(left, y, right, y, "grid"))
        body.append(text(left - 8, y + 4, f"{tick:g}", "t-s", "end"))
    path = " ".join(f"{num(x_of(at))},{num(top + tall - tall * good / peak)}" for at, good, _bad in points)
    body.append(f'<polyline points="{path}" class="curve"/>')
    for at, _good, bad in points:
        if bad:
            body.append(cross(x_of(at), top + tall - 6, 4, "x-bad"))
    return svg(name, tall + top + 22, title, body)

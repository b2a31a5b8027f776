# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a client saw while the rollouts ran: counts, and requests over time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import field_error
from .report import Rollout, parse_time
from .report_charts import timeline_chart

_COUNTS = ("requests", "lost", "wrong")
_MAX_POINTS = 2000


def check_extra(extra: Any, where: str) -> dict[str, Any]:
    """Return ``extra`` when it is usable, or raise RolloutError.

    requests, lost, wrong: whole numbers. per_release: {version: requests}. timeline: [{"time": ISO 8601,
    "requests": n, "lost": n, "wrong": n}]. examples: [text]. p50_ms, p99_ms: numbers. Other keys are ignored.
    """
    if not isinstance(extra, dict):
        raise field_error(where, "(top level)", extra, "must be a JSON object with requests, lost and wrong")
    for name in _COUNTS:
        _count(extra, name, where, name)
    if not isinstance(extra.get("per_release", {}), dict):
        raise field_error(where, "per_release", extra["per_release"], "must map a version to its number of requests")
    if not isinstance(extra.get("timeline", []), list):
        raise field_error(where, "timeline", extra["timeline"], "must be a list of objects")
    for index, point in enumerate(extra.get("timeline", [])):
        if not isinstance(point, dict) or not isinstance(point.get("time"), str):
            raise field_error(
                where, f"timeline[{index}]", point, "must be an object with time, requests, lost and wrong"
            )
        for name in _COUNTS:
            _count(point, name, where, f"timeline[{index}].{name}")
    return extra


def _count(holder: dict[str, Any], name: str, where: str, field: str) -> int:
    value = holder.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise field_error(where, field, value, "must be a whole number, 0 or more")
    return value


def client_view(extra: dict[str, Any], rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Return the client's section: counts, requests per release, and requests over time with the rollouts behind."""
    lost, wrong = extra.get("lost", 0), extra.get("wrong", 0)
    per_release = sorted((str(version), count) for version, count in (extra.get("per_release") or {}).items())
    timings = [
        (label, extra[key])
        for key, label in (("p50_ms", "median"), ("p99_ms", "p99"))
        if isinstance(extra.get(key), (int, float))
    ]
    return {
        "requests": f"{extra.get('requests', 0):,}",
        "lost": lost,
        "wrong": wrong,
        "css": "ok" if not lost and not wrong else "bad",
        "per_release": [
            {"version": version, "n": f"{count:,}" if isinstance(count, int) else str(count)}
            for version, count in per_release
        ],
        "timings": [f"{label} {value:g} ms" for label, value in timings],
        "examples": [str(item) for item in (extra.get("examples") or [])[:10]],
        "chart": _timeline(extra.get("timeline") or [], rollouts),
    }


def _timeline(points: Sequence[dict[str, Any]], rollouts: Sequence[Rollout]) -> str:
    if len(points) < 2:
        return ""
    times = [parse_time(point["time"]) for point in points]
    zero, end = min(times), max(times)
    step = max(1, -(-len(points) // _MAX_POINTS))  # merged, never dropped: a lost request must stay visible
    merged = []
    for at in range(0, len(points), step):
        part = points[at : at + step]
        good = sum(p.get("requests", 0) - p.get("lost", 0) for p in part)
        merged.append((times[at] - zero, float(good), float(sum(p.get("lost", 0) + p.get("wrong", 0) for p in part))))
    bands = [
        (max(r.started - zero, 0.0), r.end - zero, r.version) for r in rollouts if r.end > zero and r.started < end
    ]
    return timeline_chart("client-chart", "Requests answered over time", merged, bands, max(end - zero, 0.001)) or ""

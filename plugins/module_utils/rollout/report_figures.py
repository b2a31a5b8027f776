# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which bars, marks and dots a rollout's charts have. Pure: from the folded history to SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .report import BAD, OUTCOME_TEXT, Device, Rollout
from .report_charts import (
    MAX_AREAS,
    MAX_LANES,
    Area,
    Lane,
    LaneGroup,
    Strip,
    StripGroup,
    areas_chart,
    lanes_chart,
    strips_chart,
)
from .report_svg import WIDTH, duration_text, value_text

_POINT_CSS = {"pass": "c-ok", "fail": "c-bad"}
_GATE_TITLES = {
    "golden": "Golden samples",
    "latency": "Latency",
    "shadow": "Shadow traffic",
    "memory": "Memory",
}


def wave_chart(name: str, rollout: Rollout) -> dict[str, Any]:
    """Return the waves over time: a lane per device, or an area per stratum above MAX_LANES devices."""
    span = max(rollout.end - rollout.started, 0.001)
    title = f"Waves of {rollout.model} {rollout.version} over {duration_text(span)}"
    if not any(device.started is not None for device in rollout.devices.values()):
        return {"svg": "", "kind": "none"}
    if len(rollout.devices) <= MAX_LANES:
        return {"svg": lanes_chart(name, title, _lane_groups(rollout, span), span), "kind": "lanes"}
    return {"svg": areas_chart(name, title, _areas(rollout), span), "kind": "areas"}


def _mark_css(verdict: dict[str, Any]) -> str:
    return {"pass": "m-ok", "fail": "m-bad"}.get(str(verdict.get("verdict")), "m-warn")


def _judged(verdict: dict[str, Any]) -> bool:
    """Whether the verdict was about any stratum: those that were halted before have action ``none``."""
    strata = verdict.get("strata") or {}
    return not strata or any(item.get("action") != "none" for item in strata.values())


def _lane_groups(rollout: Rollout, span: float) -> list[LaneGroup]:
    groups = []
    for wave in rollout.waves:
        number = int(wave.get("number") or 0)
        verdicts = [v for v in rollout.verdicts if int(v.get("wave") or 0) == number and _judged(v)]
        members = [d for d in rollout.devices.values() if d.wave == number]
        members.sort(key=lambda device: (device.stratum, device.host))
        devices = "1 device" if len(members) == 1 else f"{len(members)} devices"
        kind = wave.get("kind") if wave.get("kind") != "growth" else ""
        groups.append(
            LaneGroup(
                " · ".join(part for part in (f"Wave {number}", str(kind or ""), devices) if part),
                " · ".join(f"{v.get('stage')} {str(v.get('verdict')).replace('_', ' ')}" for v in verdicts[-2:]),
                "t-bad" if any(v.get("verdict") != "pass" for v in verdicts) else "t",
                [
                    (v["time"] - rollout.started, _mark_css(v), f"{v.get('stage')}: {v.get('verdict')}")
                    for v in verdicts
                ],
                [_device_lane(device, rollout, span) for device in members],
            )
        )
    outside = sorted((d for d in rollout.devices.values() if not d.wave), key=lambda d: (d.outcome, d.host))
    if outside:
        groups.append(LaneGroup("In no wave", "", lanes=[_device_lane(d, rollout, span) for d in outside]))
    return groups


def _device_lane(device: Device, rollout: Rollout, span: float) -> Lane:
    note_css = "t-bad" if device.outcome in BAD else "t"
    lane = Lane(device.host, OUTCOME_TEXT[device.outcome], note_css=note_css)
    if device.started is None:
        return lane
    zero = rollout.started
    start, changed = device.started - zero, (device.activated or device.settled)
    lane.bars.append((start, changed - zero if changed else span, "c-change", f"{device.host}: stage, activate, gate"))
    if device.activated:
        until = device.settled - zero if device.settled else span
        lane.bars.append(
            (device.activated - zero, until, "c-new", f"{device.host}: serves {rollout.version}, unconfirmed")
        )
    if device.outcome == "confirmed" and device.settled:
        lane.bars.append((device.settled - zero, span, "c-ok", f"{device.host}: serves {rollout.version}, confirmed"))
    elif (device.went_back or device.outcome == "failed") and device.settled:
        lane.marks.append((device.settled - zero, "cross", "x-bad" if device.outcome != "rolled_back" else "x-back"))
    return lane


def _areas(rollout: Rollout) -> list[Area]:
    strata: dict[str, list[Device]] = {}
    for device in rollout.devices.values():
        strata.setdefault(device.stratum or "stratum unknown", []).append(device)
    largest = sorted(strata.items(), key=lambda item: (-len(item[1]), item[0]))[:MAX_AREAS]
    return [_area(label, devices, rollout) for label, devices in sorted(largest)]


def _area(label: str, devices: Sequence[Device], rollout: Rollout) -> Area:
    changes: list[tuple[float, int, int]] = []
    for device in devices:
        if device.activated:
            changes.append((device.activated - rollout.started, 1, 0))
        if device.settled and device.outcome == "confirmed":
            changes.append((device.settled - rollout.started, -1 if device.activated else 0, 1))
        elif device.settled and device.activated:
            changes.append((device.settled - rollout.started, -1, 0))
    steps: dict[int, tuple[float, int, int]] = {}
    fresh, confirmed, pixel = 0, 0, max(rollout.end - rollout.started, 0.001) / WIDTH
    for offset, more_fresh, more_confirmed in sorted(changes):
        fresh, confirmed = fresh + more_fresh, confirmed + more_confirmed
        steps[int(offset / pixel)] = (offset, fresh, confirmed)  # no more corners than pixels
    counts = {key: sum(device.outcome == key for device in devices) for key in OUTCOME_TEXT}
    rest = sorted(((k, n) for k, n in counts.items() if n and k != "confirmed"), key=lambda item: (-item[1], item[0]))
    bad = any(counts[key] for key in BAD)
    return Area(
        label,
        f"{counts['confirmed']} of {len(devices)} confirmed",
        ", ".join(f"{n} {OUTCOME_TEXT[key]}" for key, n in rest[:2]),
        len(devices),
        list(steps.values()),
        _stratum_marks(label, rollout),
        "t-bad" if bad else "t",
    )


def _stratum_marks(stratum: str, rollout: Rollout) -> list[tuple[float, str, str]]:
    found = []
    for verdict in rollout.verdicts:
        item = (verdict.get("strata") or {}).get(stratum)
        if item is not None:
            tip = f"wave {verdict.get('wave')} {verdict.get('stage')}: {item.get('verdict')}"
            found.append((verdict["time"] - rollout.started, _mark_css(item), tip))
    return found


def gate_charts(rollouts: Sequence[Rollout]) -> list[dict[str, Any]]:
    """Return one chart per gate that measures a number: value per device by stratum and release, against its limit."""
    found: dict[tuple[str, str], dict[str, dict[str, Strip]]] = {}
    for rollout in rollouts:
        for host in sorted(rollout.devices):
            device = rollout.devices[host]
            for (gate, unit), measured in _deciding(device.gates).items():
                strata = found.setdefault((gate, unit), {})
                releases = strata.setdefault(device.stratum or "stratum unknown", {})
                strip = releases.setdefault(rollout.version, Strip(rollout.version))
                value, css = float(measured["value"]), _POINT_CSS.get(str(measured.get("verdict")), "c-warn")
                strip.points.append((value, css, f"{host} {rollout.version}: {value_text(value, unit)}"))
                limit = measured.get("limit")
                if isinstance(limit, (int, float)):
                    strip.limits.append(float(limit))
    charts = []
    # Counts of errors are nearly always nought and say more in words than as a row of dots on a line.
    found = {key: strata for key, strata in found.items() if key[1] != "errors"}
    for index, ((gate, unit), strata) in enumerate(found.items(), 1):
        groups = [StripGroup(label, list(rows.values())) for label, rows in sorted(strata.items())[:MAX_AREAS]]
        title = _GATE_TITLES.get(gate, gate.replace("_", " ").capitalize())
        rule = "no less than the line" if unit == "score" else "no more than the line"
        charts.append(
            {
                "title": title,
                "rule": rule,
                "unit": unit,
                "svg": strips_chart(f"gate-{index}", f"{title} per device, by stratum and release", groups, unit),
            }
        )
    return charts


def _deciding(gates: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return per (gate, unit) the measurement that decided: the first that did not pass, else the last."""
    decided: dict[tuple[str, str], dict[str, Any]] = {}
    for gate in gates:
        value = gate.get("value")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        key = (str(gate.get("gate")), str(gate.get("unit") or ""))
        if key not in decided or decided[key].get("verdict") == "pass":
            decided[key] = gate
    return decided

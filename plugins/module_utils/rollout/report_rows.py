# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Table rows of the report: devices with their evidence, and the proof of a rollback. Pure; bounded by MAX_ROWS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .report import BAD, OUTCOME_TEXT, OUTCOMES, Device, Rollout
from .report_svg import duration_text, value_text

MAX_ROWS = 100
MAX_GATES = 24
VERDICT_CSS = {"pass": "ok", "fail": "bad", "inconclusive": "warn", "no_data": "warn"}
OUTCOME_CSS = {
    "failed": "bad",
    "candidate_failed": "bad",
    "self_reverted": "bad",
    "rolled_back": "back",
    "in_flight": "warn",
    "activated": "new",
    "unreachable": "warn",
    "confirmed": "ok",
    "unchanged": "calm",
    "refused": "held",
    "deferred": "calm",
    "waiting": "calm",
}


def plural(count: int, word: str) -> str:
    """Return "1 device", "2 devices"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def host_list(hosts: Sequence[str], limit: int = 12) -> str:
    """Return host names with commas, the first ``limit`` of them."""
    more = len(hosts) - limit
    return ", ".join(hosts[:limit]) + (f" and {more} more" if more > 0 else "")


def gate_columns(rollout: Rollout) -> list[str]:
    """Return the gates with numbers, at most three, in the order the devices ran them: columns of the device table."""
    seen: dict[str, None] = {}
    for device in rollout.devices.values():
        for gate in device.gates:
            if isinstance(gate.get("value"), (int, float)):
                seen.setdefault(str(gate.get("gate")), None)
    return list(seen)[:3]


def device_rows(rollout: Rollout) -> tuple[list[dict[str, Any]], int]:
    """Return (rows, devices left out). All devices up to MAX_ROWS; beyond, those that need attention come first."""
    rank = {key: place for place, (key, _text) in enumerate(OUTCOMES)}
    taken = [d for d in rollout.devices.values() if d.started is not None or d.outcome in BAD]
    taken.sort(key=lambda device: (rank[device.outcome], device.wave, device.stratum, device.host))
    columns = gate_columns(rollout)
    return [device_row(device, columns) for device in taken[:MAX_ROWS]], max(0, len(taken) - MAX_ROWS)


def device_row(device: Device, columns: Sequence[str]) -> dict[str, Any]:
    """Return one device's line and its evidence."""
    took = (device.activated or device.settled or 0) - (device.started or 0)
    known = device.started is not None and (device.activated or device.settled)
    return {
        "host": device.host,
        "stratum": device.stratum,
        "wave": device.wave or "",
        "outcome": OUTCOME_TEXT[device.outcome],
        "css": OUTCOME_CSS[device.outcome],
        "bad": device.outcome in BAD,
        "variant": device.variant,
        "took": (f"{took:.1f} s" if took < 60 else duration_text(took)) if known else "",
        "took_s": took if known else 0,
        "cells": [gate_cell(device, name) for name in columns],
        "message": device.message if device.outcome in BAD else "",
        "code": device.code if device.outcome in BAD else "",
        "gates": [gate_row(gate) for gate in device.gates[:MAX_GATES]],
        "server": ", ".join(f"{key} {value}" for key, value in sorted(device.server.items()) if value),
        "transfer": transfer_text(device.transfer),
        "durations": ", ".join(
            f"{key} {value_text(value, 'ms')}"
            for key, value in sorted(device.durations_ms.items())
            if isinstance(value, (int, float))
        ),
    }


def gate_cell(device: Device, name: str) -> dict[str, Any]:
    """Return the measurement that decided for a gate: the first that did not pass, else the last."""
    measured = [g for g in device.gates if str(g.get("gate")) == name]
    wrong = [g for g in measured if g.get("verdict") != "pass"]
    if not measured:
        return {"text": "", "css": "", "sort": 0}
    gate = wrong[0] if wrong else measured[-1]
    verdict = str(gate.get("verdict") or "")
    value = gate.get("value")
    return {
        "text": gate_value(gate, "value") or verdict.replace("_", " "),
        "css": VERDICT_CSS.get(verdict, "warn"),
        "sort": value if isinstance(value, (int, float)) else 0,
    }


def gate_value(gate: dict[str, Any], name: str) -> str:
    """Return a gate's ``value`` or ``limit`` with its unit, or an empty text."""
    value = gate.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return value_text(value, str(gate.get("unit") or ""))


def gate_row(gate: dict[str, Any]) -> dict[str, str]:
    """Return one gate as the texts of a table row."""
    evidence = gate.get("evidence") or {}
    verdict = str(gate.get("verdict") or "")
    return {
        "gate": str(gate.get("gate") or ""),
        "phase": str(gate.get("phase") or gate.get("action") or ""),
        "verdict": verdict.replace("_", " "),
        "css": VERDICT_CSS.get(verdict, "warn"),
        "value": gate_value(gate, "value"),
        "limit": gate_value(gate, "limit"),
        "samples": str(gate.get("samples") if gate.get("samples") is not None else ""),
        "reason": str(gate.get("reason") or ""),
        "digest": str(evidence.get("digest") or ""),
        "start_id": str(evidence.get("start_id") or ""),
        "time": str(evidence.get("time") or ""),
    }


def query_rows(rollout: Rollout) -> tuple[list[dict[str, Any]], int]:
    """Return (rows, rows left out): what Prometheus was asked for each wave and stratum; what did not pass first."""
    rows = []
    for verdict in rollout.verdicts:
        for stratum, judged in sorted((verdict.get("strata") or {}).items()):
            for query in judged.get("queries") or []:
                if isinstance(query, dict):
                    rows.append(query_row(query, int(verdict.get("wave") or 0), stratum))
    rows.sort(key=lambda row: row["css"] == "ok")
    return rows[:MAX_ROWS], max(0, len(rows) - MAX_ROWS)


def query_row(query: dict[str, Any], wave: int, stratum: str) -> dict[str, Any]:
    """Return one query about one stratum as the texts of a table row."""
    verdict, control = str(query.get("verdict") or ""), query.get("control") or {}
    sign = "≥ " if query.get("kind") == "min" else "≤ "
    left_out = query.get("left_out") or {}
    return {
        "wave": wave,
        "stratum": stratum,
        "query": str(query.get("query") or ""),
        "verdict": verdict.replace("_", " "),
        "css": VERDICT_CSS.get(verdict, "warn"),
        "value": _number(query.get("value")),
        "limit": sign + _number(query.get("limit")) if query.get("limit") is not None else "",
        "control": _number(control.get("value")),
        "versions": ", ".join(str(item) for item in control.get("versions") or []),
        "devices": f"{query.get('covered', 0)} of {query.get('devices', 0)}",
        "window": duration_text(float(query.get("window") or 0)),
        "scrapes": _number(query.get("scrapes")),
        "samples": _number(query.get("samples")),
        "at": str(query.get("at") or ""),
        "reason": str(query.get("reason") or ""),
        "left_out": [f"{host}: {why}" for host, why in sorted(left_out.items())],
        "expr": str(query.get("expr") or ""),
    }


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def transfer_text(transfer: dict[str, Any]) -> str:
    """Return what travelled: "1.2 MiB in 4 blobs, 0.4 MiB already there"."""
    if not transfer:
        return ""
    moved, reused = (float(transfer.get(name) or 0) / 2**20 for name in ("bytes", "reused_bytes"))
    text = f"{value_text(moved, 'MiB')} sent"
    if isinstance(transfer.get("blobs"), int):
        text += f" in {plural(transfer['blobs'], 'blob')}"
    return text + (f", {value_text(reused, 'MiB')} already there" if reused else "")


def _comparison(device: Device) -> tuple[str, str]:
    """Return (text, colour): are the golden outputs those from before? What was not measured is not called equal."""
    if device.outcome == "candidate_failed":
        return "never switched", "ok"
    before, after, said = device.golden_before, device.golden_after, device.golden_restored
    if said is None and not (before and after):
        return "not measured", "warn"
    equal = said if said is not None else before == after
    return ("equal", "ok") if equal else ("different", "bad")


def rollback_proof(rollout: Rollout) -> dict[str, Any]:
    """Return who went back, and whether the golden outputs are again those from before (mismatches listed first)."""
    back = [device for device in rollout.devices.values() if device.went_back]
    rows = []
    for device in back:
        before, after = device.golden_before, device.golden_after
        verdict, css = _comparison(device)
        rows.append(
            {
                "host": device.host,
                "outcome": OUTCOME_TEXT[device.outcome],
                "before": before,
                "after": after,
                "verdict": verdict,
                "css": css,
            }
        )
    rows.sort(key=lambda row: (row["css"] == "ok", row["host"]))
    return {
        "total": len(rows),
        "equal": sum(row["css"] == "ok" for row in rows),
        "rows": rows[:MAX_ROWS],
        "more": max(0, len(rows) - MAX_ROWS),
    }

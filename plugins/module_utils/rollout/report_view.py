# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""From the history of a ledger to what the report's template shows: texts, numbers, table rows, charts.

Pure, bounded and deterministic: above MAX_ROWS devices per rollout, only those that need attention are listed and the
rest is counted; nothing depends on the clock.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from . import report_client
from .report import OUTCOME_TEXT, History, Rollout
from .report_charts import outcome_bar
from .report_figures import gate_charts, wave_chart
from .report_rows import (
    OUTCOME_CSS,
    VERDICT_CSS,
    device_rows,
    gate_columns,
    host_list,
    plural,
    query_rows,
    rollback_proof,
)
from .report_svg import duration_text

MAX_LIST = 200
STATUS = {
    "succeeded": ("Succeeded", "ok"),
    "halted": ("Halted", "bad"),
    "aborted": ("Aborted", "bad"),
    "stopped": ("Stopped between two waves", "warn"),
    "nothing_to_do": ("Nothing to do", "calm"),
    "open": ("Not finished", "warn"),
}


# What went well lines up at the left of every bar, what needs a look at the right.
BAR_ORDER = (
    "confirmed", "activated", "unchanged", "refused", "deferred", "waiting", "unreachable", "in_flight", "rolled_back",
    "self_reverted",
    "candidate_failed", "failed",
)  # fmt: skip


def build_view(
    history: History, verification: dict[str, Any], extra: dict[str, Any] | None, title: str
) -> dict[str, Any]:
    """Return everything the template needs, as plain dicts, lists and texts; ``svg`` values are finished markup.

    verification: ok, records, checkpoints, unsigned_tail, problems, key (text) of the ledger's check.
    extra: what a client saw meanwhile, or None (see ``report_client``).
    """
    rollouts = [rollout_view(rollout, index) for index, rollout in enumerate(history.rollouts.values(), 1)]
    return {
        "title": title,
        "extent": extent(history),
        "records": history.records,
        "left_out": history.left_out,
        "unreadable": history.unreadable,
        "verification": verification_view(verification),
        "client": report_client.client_view(extra, list(history.rollouts.values())) if extra else None,
        "rollouts": rollouts,
        "measures": gate_charts(list(history.rollouts.values())),
        "quarantine": quarantine_view(history),
    }


def stamp(when: float | None) -> str:
    """Return a POSIX time (s) as 2026-11-23 11:00:00 UTC; an empty text for None."""
    if when is None:
        return ""
    return datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def extent(history: History) -> str:
    """Return from when to when the ledger tells."""
    if history.first is None:
        return "no records"
    return f"{stamp(history.first)} to {stamp(history.last)}"


def verification_view(found: dict[str, Any]) -> dict[str, Any]:
    """Return the ledger's verification as a badge, one sentence and its problems (at most MAX_LIST)."""
    ok, problems = bool(found.get("ok")), [str(item) for item in found.get("problems") or []]
    tail = int(found.get("unsigned_tail") or 0)
    if ok:
        text = "Every record follows from the one before it, and every checkpoint is signed by the given key."
    else:
        text = f"The ledger does not verify: {plural(len(problems), 'problem')}. Do not rely on this report."
    if ok and tail:
        text += f" The last {plural(tail, 'record')} came after the last checkpoint: chained, not yet signed."
    return {
        "ok": ok,
        "badge": "Ledger verified" if ok else "Ledger does not verify",
        "text": text,
        "records": found.get("records", 0),
        "checkpoints": found.get("checkpoints", 0),
        "unsigned_tail": tail,
        "head": str(found.get("head") or ""),
        "problems": problems[:MAX_LIST],
        "problems_more": max(0, len(problems) - MAX_LIST),
    }


def quarantine_view(history: History) -> list[dict[str, Any]]:
    """Return the quarantine's rows: standing ones first, then newest first; at most MAX_LIST."""
    rows = sorted(history.quarantine, key=lambda item: (item.lifted is not None, -item.time, item.stratum))
    return [
        {
            "release": f"{item.model} {item.version}".strip(),
            "digest": item.digest,
            "stratum": item.stratum,
            "reason": item.reason,
            "since": stamp(item.time),
            "rollout": item.rollout_id,
            "standing": item.lifted is None,
            "lifted": f"{stamp(item.lifted)} by {item.lifted_by}: {item.lifted_reason}" if item.lifted else "",
        }
        for item in rows[:MAX_LIST]
    ]


def rollout_view(rollout: Rollout, index: int) -> dict[str, Any]:
    """Return one rollout's section. index: 1.. on this page, for anchors and ids."""
    status, css = STATUS.get(rollout.status, (rollout.status.replace("_", " ").capitalize(), "calm"))
    if rollout.taken_back:
        status, css = f"{status}, taken back later", "back"
    counts = rollout.counts()
    parts = [(f"c-{OUTCOME_CSS[key]}", OUTCOME_TEXT[key], counts[key]) for key in BAR_ORDER if key in counts]
    rows, left_out = device_rows(rollout)
    queries, queries_left_out = query_rows(rollout)
    proof = rollback_proof(rollout)
    return {
        "anchor": f"rollout-{index}",
        "id": rollout.rollout_id,
        "release": f"{rollout.model} {rollout.version}".strip() or rollout.rollout_id,
        "status": status,
        "css": css,
        "sentences": sentences(rollout, proof),
        "started": stamp(rollout.started),
        "duration": duration_text(rollout.end - rollout.started),
        "waves": len(rollout.waves),
        "bar": outcome_bar(f"bar-{index}", parts),
        "counts": [
            {"n": count, "text": OUTCOME_TEXT[key], "css": OUTCOME_CSS[key]}
            for key, count in ((key, counts[key]) for key in BAR_ORDER if key in counts)
        ],
        "facts": facts(rollout),
        "chart": wave_chart(f"waves-{index}", rollout),
        "stages": stages_of(rollout),
        "plan": plan_rows(rollout),
        "queries": queries,
        "queries_left_out": queries_left_out,
        "columns": gate_columns(rollout),
        "devices": rows,
        "devices_left_out": left_out,
        "touched": len(rows) + left_out,
        "attention": any(row["bad"] for row in rows),
        "proof": proof,
        "refused": held_rows(rollout.refused),
        "deferred": held_rows(rollout.deferred),
        "failures": [dict(item, time=stamp(item["time"])) for item in rollout.failures[:MAX_LIST]],
        "events": told_events(rollout),
    }


def facts(rollout: Rollout) -> list[tuple[str, str]]:
    """Return the rollout's particulars as (name, value) pairs, without the empty ones."""
    pairs = [
        ("Rollout", rollout.rollout_id),
        ("Release digest", rollout.digest),
        ("Plan hash", rollout.plan_hash),
        ("Started", stamp(rollout.started) + (f" by {rollout.user}" if rollout.user else "")),
        ("Finished", stamp(rollout.finished)),
        ("Playbook", rollout.playbook),
        ("Runs", str(rollout.runs) if rollout.runs > 1 else ""),
        (
            "Halts",
            {"stratum": "the stratum that fails", "rollout": "the whole rollout"}.get(
                rollout.policy.get("halt", ""), ""
            ),
        ),
    ]
    return [(name, value) for name, value in pairs if value]


def sentences(rollout: Rollout, proof: dict[str, Any]) -> list[str]:
    """Return what happened, in words: first what went wrong, then what became of the devices."""
    counts, said = rollout.counts(), []
    if any(event["data"].get("event") == "controller_gone" for event in rollout.events):
        said.append("The run ended without a verdict, and the watchdog took over.")
    for wave, stratum, stage, reason in failed_strata(rollout):
        said.append(f"Wave {wave} did not pass after {stage} in {stratum}: {reason.rstrip('.') or 'no reason given'}.")
    if counts.get("candidate_failed"):
        kept = plural(counts["candidate_failed"], "device")
        said.append(f"On {kept} it failed before the switch: the release before kept serving.")
    back = counts.get("self_reverted", 0) + counts.get("rolled_back", 0)
    if back:
        equal = proof["equal"] - counts.get("candidate_failed", 0)
        said.append(
            f"{plural(back, 'device')} went back to the release before; golden outputs are those from before on "
            f"{equal} of {back}."
        )
    if counts.get("confirmed"):
        serves = "serves" if counts["confirmed"] == 1 else "serve"
        said.append(f"{plural(counts['confirmed'], 'device')} {serves} {rollout.version}, confirmed.")
    if counts.get("in_flight") or counts.get("activated"):
        open_ends = counts.get("in_flight", 0) + counts.get("activated", 0)
        said.append(f"{plural(open_ends, 'device')} not settled.")
    tails = [
        (key, OUTCOME_TEXT[key]) for key in ("unchanged", "refused", "deferred", "unreachable", "failed", "waiting")
    ]
    rest = [f"{counts[key]} {text}" for key, text in tails if counts.get(key)]
    if rest:
        said.append((", ".join(rest)).capitalize() + ".")
    return said or ["No device was part of it."]


def failed_strata(rollout: Rollout) -> list[tuple[int, str, str, str]]:
    """Return (wave, stratum, stage, reason) of every stratum verdict that was not a pass, in time order, at most 5."""
    found = []
    for verdict in rollout.verdicts:
        for stratum, item in sorted((verdict.get("strata") or {}).items()):
            if item.get("verdict") != "pass" and item.get("action") not in ("none", "continue"):
                wave, stage = int(verdict.get("wave") or 0), str(verdict.get("stage") or "")
                found.append((wave, stratum, stage, str(item.get("reason") or item.get("verdict") or "")))
    return found[:5]


def event_text(event: dict[str, Any]) -> str:
    """Return a rollback or watchdog event in words: its kind and the plain values that came with it."""
    data = dict(event["data"])
    head = f"{event['kind']}: {str(data.pop('event')).replace('_', ' ')}" if "event" in data else event["kind"]
    plain = [f"{key} {value}" for key, value in sorted(data.items()) if isinstance(value, (str, int, float)) and value]
    lists = [f"{key}: {len(value)}" for key, value in sorted(data.items()) if isinstance(value, (list, dict))]
    return ", ".join([head, *plain, *lists])


def told_events(rollout: Rollout) -> list[dict[str, str]]:
    """Return the events worth a line: that a watchdog stood behind the run is only said when it had to act."""
    told = [e for e in rollout.events if e["data"].get("event") != "armed"]
    return [{"time": stamp(e["time"]), "text": event_text(e)} for e in told[:MAX_LIST]]


def held_rows(held: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Return who was refused or deferred, by (stratum, reason): one row for a stratum, however many devices it has."""
    groups: dict[tuple[str, str], list[str]] = {}
    for host, key in sorted(held.items()):
        groups.setdefault(key, []).append(host)
    return [
        {"stratum": stratum, "reason": reason, "hosts": host_list(hosts), "n": len(hosts)}
        for (stratum, reason), hosts in sorted(groups.items())[:MAX_LIST]
    ]


def stages_of(rollout: Rollout) -> list[str]:
    """Return the stages after which waves are judged; Prometheus' only where it was asked."""
    asked = any(verdict.get("stage") == "metrics" for verdict in rollout.verdicts)
    return ["activation", "metrics", "soak"] if asked else ["activation", "soak"]


def plan_rows(rollout: Rollout) -> list[dict[str, Any]]:
    """Return one row per wave, each with a line per stratum: devices, detectable failure rate, verdicts per stage."""
    verdicts: dict[tuple[int, str, str], dict[str, Any]] = {}
    for verdict in rollout.verdicts:
        for stratum, item in (verdict.get("strata") or {}).items():
            verdicts[(int(verdict.get("wave") or 0), str(verdict.get("stage")), stratum)] = item
    rows = []
    for wave in rollout.waves:
        number, lines = int(wave.get("number") or 0), []
        for stratum, hosts in sorted((wave.get("strata") or {}).items()):
            power = (wave.get("detectable") or {}).get(stratum) or {}
            lines.append(
                {
                    "stratum": stratum,
                    "n": len(hosts),
                    "hosts": host_list(hosts),
                    "detectable": detectable_text(power),
                    "stages": [verdict_cell(verdicts.get((number, stage, stratum))) for stage in stages_of(rollout)],
                }
            )
        rows.append(
            {"number": number, "kind": str(wave.get("kind") or ""), "n": len(wave.get("hosts") or []), "lines": lines}
        )
    return rows


def detectable_text(power: dict[str, Any]) -> str:
    """Return the smallest failure rate that this wave finds with the stated power: "63 % (p 0.95)"."""
    rate = power.get("failure_rate")
    return "" if rate is None else f"≥ {100 * float(rate):.1f} %"


def verdict_cell(item: dict[str, Any] | None) -> dict[str, str]:
    """Return one verdict as text, colour and reason."""
    if item is None:
        return {"text": "", "css": "calm", "reason": ""}
    if item.get("action") == "none":
        return {"text": "halted", "css": "calm", "reason": ""}
    verdict = str(item.get("verdict") or "")
    return {
        "text": verdict.replace("_", " "),
        "css": VERDICT_CSS.get(verdict, "warn"),
        "reason": str(item.get("reason") or ""),
    }

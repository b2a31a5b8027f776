# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A plan as people read it: lines of a table, and a before/after pair for ``--diff``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_ROWS = 60
MAX_HOSTS = 20


def percent(rate: float | None) -> str:
    """Return a rate (0..1) in percent, rounded up so that it never claims to notice more than it does."""
    if rate is None:
        return "none"
    tenths = min(1000, int(rate * 1000.0 + 0.999999))
    return f"{tenths / 10.0:g} %"


def plan_table(plan: Mapping[str, Any]) -> list[str]:
    """Return the lines of the plan: a heading, waves by strata with what they can notice, who is left out and why."""
    lines = [
        "{} {}  {}".format(plan["model"], plan["version"], _short(plan["digest"])),
        "rollout {}  plan {}".format(plan["rollout_id"], _short(plan["plan_hash"])),
        "{} devices in {} waves; {} unchanged, {} deferred, {} refused".format(
            len(plan["hosts"]),
            len(plan["waves"]),
            len(plan["unchanged"]),
            len(plan["deferred"]),
            len(plan["refused"]),
        ),
    ]
    if plan["waves"]:
        lines += ["", *_columns(_rows(plan["waves"]))]
    for name in ("deferred", "refused"):
        lines += _reasons(name, plan[name])
    return lines + [f"note: {warning}" for warning in plan["warnings"]]


def _rows(waves: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("wave", "kind", "stratum", "devices", "so far, a failure rate from here is noticed")
    ]
    for index, wave in enumerate(waves):
        if len(rows) > MAX_ROWS:
            rest = sum(len(later["hosts"]) for later in waves[index:])
            rows.append(("...", "", f"{len(waves) - index} more waves", str(rest), ""))
            break
        for position, (stratum, hosts) in enumerate(wave["strata"].items()):
            head = (str(wave["number"]), wave["kind"]) if position == 0 else ("", "")
            notices = wave["detectable"][stratum]
            text = "{} ({} % sure)".format(percent(notices["failure_rate"]), round(notices["power"] * 100))
            rows.append((*head, stratum, str(len(hosts)), text))
    return rows


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    numbers = {3}
    lines = []
    for row in rows:
        cells = [
            cell.rjust(widths[index]) if index in numbers else cell.ljust(widths[index])
            for index, cell in enumerate(row)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _reasons(name: str, entries: Sequence[Mapping[str, str]]) -> list[str]:
    """One line per reason, with its hosts: a dead uplink is one line, not four hundred."""
    by_reason: dict[str, list[str]] = {}
    for entry in entries:
        reason = entry["reason"].strip().split("\n")[0][:200]
        if "stratum" in entry and entry["stratum"] not in reason:
            reason = f"{entry['stratum']}: {reason}"
        by_reason.setdefault(reason, []).append(entry["host"])
    lines = []
    for reason, hosts in by_reason.items():
        more = f" and {len(hosts) - MAX_HOSTS} more" if len(hosts) > MAX_HOSTS else ""
        lines.append(f"{name}: {', '.join(hosts[:MAX_HOSTS])}{more}: {reason}")
    return lines


def _short(digest: str) -> str:
    return digest[: len("sha256:") + 12]


def plan_diff(plan: Mapping[str, Any], versions: Mapping[str, str | None]) -> dict[str, str]:
    """Return what ``--diff`` shows: per device the version it has, and the one it gets with its wave.

    versions: host -> active version, None for none.
    """
    before, after = [], []
    for host in sorted(plan["hosts"]):
        before.append(f"{host}: {versions.get(host) or 'nothing'}\n")
        after.append(f"{host}: {plan['version']} (wave {plan['wave_of'][host]})\n")
    return {
        "before_header": f"{plan['model']} now",
        "after_header": f"{plan['model']} after {plan['rollout_id']}",
        "before": "".join(before),
        "after": "".join(after),
    }

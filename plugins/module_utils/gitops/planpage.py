# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A plan as the comment on a pull request: its hash, how much of the fleet it touches, its waves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_ROWS = 60
MAX_HOSTS = 12


def marker(environment: str) -> str:
    """A line nobody sees, by which a comment is found again."""
    return f"<!-- edgeai.fleet plan {environment} -->"


def page(
    environment: str, plans: Sequence[Mapping[str, Any]], devices: Mapping[str, Mapping[str, Any]], inputs: str
) -> str:
    """Return the page. devices: host -> site, group (redundancy group), ``from`` (model -> version it serves now)."""
    lines = [marker(environment), f"## {environment}: rollout plan", ""]
    if not plans:
        lines += [
            f"`{environment}` wants no model: its `edge_models` is empty. Merging this changes nothing on a device.",
            "",
        ]
    for plan in plans:
        lines += _plan(plan, devices)
    lines += [
        "---",
        "",
        "Merging approves these plans, and nothing else: the rollout is refused when the inventory, the release or the "
        f"state of the fleet gives another plan then. Inputs `{inputs[:12]}`.",
    ]
    return "\n".join(lines) + "\n"


def _plan(plan: Mapping[str, Any], devices: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [f"### {plan['model']} {plan['version']}", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in _head(plan, devices)]
    lines.append("")
    if plan["waves"]:
        lines += _waves(plan)
    for name in ("deferred", "refused"):
        lines += _left_out(name, plan[name])
    if plan["warnings"]:
        lines += ["**To know before approving**", "", *(f"- {_cell(text)}" for text in plan["warnings"]), ""]
    return lines


def _head(plan: Mapping[str, Any], devices: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    hosts = plan["hosts"]
    known = Counter(_served(devices.get(host), plan["model"]) for host in hosts)
    policy = plan["policy"]
    soak = int(policy["soak"]) * len(plan["waves"])
    rows = [
        ("plan", f"`{plan['plan_hash']}`"),
        ("release", f"`{plan['digest']}`"),
        ("blast radius", f"**{radius(plan, devices)}**"),
        ("from", ", ".join(f"{version} on {count}" for version, count in sorted(known.items())) or "nothing changes"),
        ("if it is bad", _worst(plan)),
    ]
    if soak:
        rows.append(("soak", f"{soak} s in all"))
    rows.append(("a failure halts", "the whole rollout" if policy["halt"] == "rollout" else "its own stratum"))
    return [(name, _cell(text)) for name, text in rows]


def radius(plan: Mapping[str, Any], devices: Mapping[str, Mapping[str, Any]]) -> str:
    """How much of the fleet a plan touches: devices, share, sites, redundancy groups, strata, waves."""
    hosts = plan["hosts"]
    total = sum(len(plan[name]) for name in ("hosts", "unchanged", "deferred", "refused", "skipped"))
    if not hosts:
        return f"none of {total} devices"
    sites = sorted({str((devices.get(host) or {}).get("site") or "no site") for host in hosts})
    groups = {str(devices[host]["group"]) for host in hosts if (devices.get(host) or {}).get("group")}
    strata = {plan["stratum_of"][host] for host in hosts}
    share = round(100 * len(hosts) / total)
    text = f"{len(hosts)} of {total} devices ({share} %), {_count(len(plan['waves']), 'wave')}, "
    text += f"{_count(len(strata), 'stratum', 'strata')}, {_count(len(sites), 'site')} ({_some(sites)})"
    return text + (f", {_count(len(groups), 'redundancy group')}" if groups else "")


def _worst(plan: Mapping[str, Any]) -> str:
    """How many devices take a release that is broken everywhere before each stratum has halted."""
    first: dict[str, int] = {}
    for wave in plan["waves"]:
        for stratum, hosts in wave["strata"].items():
            first.setdefault(stratum, len(hosts))
    if not first:
        return "nothing is touched"
    canaries = sum(first.values())
    if canaries == 1:
        return "1 canary takes it, and goes back by itself"
    return f"{canaries} canaries take it, and go back by themselves"


def _waves(plan: Mapping[str, Any]) -> list[str]:
    lines = ["| wave | | stratum | devices | |", "| ---: | --- | --- | ---: | --- |"]
    for wave in plan["waves"]:
        if len(lines) > MAX_ROWS:
            lines.append(f"| ... | | | | {len(plan['waves'])} waves in all |")
            break
        for stratum, hosts in wave["strata"].items():
            lines.append(
                f"| {wave['number']} | {wave['kind']} | {_cell(stratum)} | {len(hosts)} | {_cell(_some(hosts))} |"
            )
    return [*lines, ""]


def _left_out(name: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for entry in entries:
        by_reason.setdefault(str(entry["reason"]).strip().split("\n", maxsplit=1)[0][:300], []).append(
            str(entry["host"])
        )
    lines = [f"- {_cell(_some(hosts))}: {_cell(reason)}" for reason, hosts in by_reason.items()]
    return [f"**{name.capitalize()}** ({len(entries)})", "", *lines, ""] if lines else []


def _served(device: Mapping[str, Any] | None, model: str) -> str:
    return str(((device or {}).get("from") or {}).get(model) or "nothing")


def _some(names: Iterable[str]) -> str:
    items = [str(name) for name in names]
    return ", ".join(items[:MAX_HOSTS]) + (f" and {len(items) - MAX_HOSTS} more" if len(items) > MAX_HOSTS else "")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _cell(text: str) -> str:
    """Text that stays in its cell and is no markup: hosts, reasons and versions come from elsewhere."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")

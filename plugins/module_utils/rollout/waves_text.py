# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A rollout as lines of text: plan, wave, rollback, summary. Each bounded, whatever the size of the fleet.

A line is a list of pieces ``(text, style)``; the styles are head, dim, ok, done, bad, away, and "" for plain text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .waves_model import BAD, WAITING, Failure, Rollout, Verdict, Wave

Line = list[tuple[str, str]]
MAX_STRATA = 12
MAX_ROWS = 24
MAX_NOTES = 6
BAR = 20
UNICODE = {"confirmed": "█", "activated": "▓", "unchanged": "─", "reverted": "◂", "failed": "x", "refused": "x",
           "unreachable": "?", "held": " ", "deferred": " ", WAITING: "·"}  # fmt: skip
ASCII = {**UNICODE, "confirmed": "#", "activated": "=", "unchanged": "-", "reverted": "<", WAITING: "."}
STYLES = {
    "confirmed": "ok", "activated": "done", "unchanged": "dim", "reverted": "bad", "failed": "bad", "refused": "bad",
    "unreachable": "away", "held": "dim", "deferred": "away", WAITING: "dim",
    "pass": "ok", "fail": "bad", "inconclusive": "away", "no_data": "away",
}  # fmt: skip
WORDS = {"unreachable": "away", WAITING: "to go"}
# what rollout_begin can end a rollout for
ENDS = {"pause": "away", "approval": "away", "ab_test": "away", "abort": "bad", "ab_failed": "bad"}
STATUS = {"succeeded": "ok", "nothing_to_do": "ok", "settled": "ok", "halted": "bad", "aborted": "bad"}


def width_of(line: Line) -> int:
    """Columns a line takes (every character used here takes one)."""
    return sum(len(text) for text, _style in line)


def cut(line: Line, width: int) -> Line:
    """The line, shortened to ``width`` columns."""
    out: Line = []
    room = width
    for text, style in line:
        if len(text) > room:
            out.append((text[: max(0, room - 1)] + "…" if room else "", style))
            break
        out.append((text, style))
        room -= len(text)
    return out


def plan_lines(plan: Mapping[str, Any], check: bool = False) -> list[Line]:
    """The plan: its waves and strata, and the failure rate each would notice."""
    waves = plan.get("waves") or []
    strata = sorted({stratum for wave in waves for stratum in wave.get("strata") or {}})
    devices = sum(len(wave.get("hosts") or []) for wave in waves)
    title = f"Plan for {plan.get('model')} {plan.get('version')}" + (" (check mode)" if check else "")
    lines: list[Line] = [
        [(title, "head"), (f"  rollout {plan.get('rollout_id')}", "dim")],
        [(f"  {devices} {plural('device', devices)} in {len(waves)} {plural('wave', len(waves))}, "
          f"{len(strata)} {plural('stratum', len(strata))}", ""),
         (f"  {plan.get('digest')}", "dim")],
        *([[(f"  plan {plan['plan_hash']}", "dim")]] if (plan.get("policy") or {}).get("approval") else []),
    ]  # fmt: skip
    lines += _plan_rows(waves)
    for name in ("unchanged", "deferred", "refused"):
        lines += _left_out(name, plan.get(name) or [])
    notes = plan.get("warnings") or []
    lines += [[("  note: ", "away"), (str(note), "")] for note in notes[:MAX_NOTES]]
    if len(notes) > MAX_NOTES:
        lines.append([(f"  … and {len(notes) - MAX_NOTES} more notes", "dim")])
    return lines


def _plan_rows(waves: list[Mapping[str, Any]]) -> list[Line]:
    if not waves:
        return [[("  nothing to do", "ok")]]
    by_stratum = sum(len(wave.get("strata") or {}) for wave in waves) <= MAX_ROWS
    lines: list[Line] = [
        [(f"  {'wave':<6}{'kind':<8}{'devices':>8}  {'stratum':<36} detects a failure rate of", "dim")]
    ]
    for wave in waves:
        head = f"  {wave.get('number'):<6}{wave.get('kind') or ''!s:<8}"
        strata = wave.get("strata") or {}
        if by_stratum:
            for stratum, hosts in sorted(strata.items()):
                lines.append([(f"{head}{len(hosts):>8}  {stratum:<36} {_detects(wave, [stratum])}", "")])
                head = " " * 16
        else:
            text = f"{len(strata)} {plural('stratum', len(strata))}"
            lines.append([(f"{head}{len(wave.get('hosts') or []):>8}  {text:<36} {_detects(wave, strata)}", "")])
    if len(lines) > MAX_ROWS + 1:
        lines = [*lines[:MAX_ROWS], [(f"  … and {len(lines) - MAX_ROWS} more lines", "dim")]]
    return lines


def _detects(wave: Mapping[str, Any], strata: Iterable[str]) -> str:
    """The smallest failure rate that would be noticed with 95 % probability, of the strata's worst."""
    found = [(wave.get("detectable") or {}).get(stratum) or {} for stratum in strata]
    rates = [entry["failure_rate"] for entry in found if isinstance(entry.get("failure_rate"), (int, float))]
    return f"{max(rates):.1%} or more" if rates else "-"


def _left_out(name: str, entries: list[Any]) -> list[Line]:
    """Devices that are in no wave, by reason; a few named, all counted."""
    if not entries:
        return []
    style = {"deferred": "away", "refused": "bad"}.get(name, "dim")
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        host, reason = (entry.get("host"), entry.get("reason")) if isinstance(entry, Mapping) else (entry, "")
        reasons.setdefault(" ".join(str(reason or "").split()), []).append(str(host))
    lines: list[Line] = []
    for reason, hosts in sorted(reasons.items(), key=lambda item: -len(item[1]))[:4]:
        lines.append([(f"  {name} {len(hosts)}: ", style), (f"{some(hosts)}{' · ' + reason if reason else ''}", "")])
    if len(reasons) > 4:
        lines.append([(f"  {name}: {len(reasons) - 4} more reasons", style)])
    return lines


def begun_lines(result: Mapping[str, Any]) -> list[Line]:
    """What came of the beginning of a wave, if it is worth a word: who is deferred and why, or why it ends here."""
    if result.get("halt"):
        return [[(f"  {result.get('msg')}", ENDS.get(str(result.get("why")), "bad"))]]
    return _left_out("deferred", list(result.get("deferred") or []))


def some(hosts: list[str], limit: int = 4) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(hosts) - limit} more" if len(hosts) > limit else ""
    return ", ".join(hosts[:limit]) + more


def wave_lines(wave: Wave, waves: int, failures: int, unicode: bool = True, clock: str = "") -> list[Line]:
    """A wave (or a rollback): a line per stratum, its verdicts, the first failures."""
    if wave.number is None:
        title = f"Rollback  {wave.total} {plural('device', wave.total)}"
    else:
        title = f"Wave {wave.number}/{waves}  {wave.kind}  {wave.total} {plural('device', wave.total)}"
    lines: list[Line] = [[(title, "head"), (f"  {clock}" if clock else "", "dim")]]
    latest = {verdict.stratum: verdict for verdict in wave.verdicts}
    return lines + _strata_lines(wave, unicode, latest) + failure_lines(wave.failures, failures)


def stage_lines(wave: Wave, failures: int, unicode: bool, stage: str, told: int = 0) -> list[Line]:
    """What a stage of a wave came to: a line per stratum that was judged, its first failures, reasons.

    ``told``: how many of the wave's failures were shown before.
    """
    verdicts = {verdict.stratum: verdict for verdict in wave.verdicts if verdict.stage == stage}
    judged = Wave(wave.number, wave.kind, {name: wave.strata.get(name, []) for name in verdicts}, wave.outcomes)
    lines = _strata_lines(judged, unicode, verdicts)
    return lines + failure_lines(wave.failures[told:], failures) + query_lines(wave, stage) + verdict_lines(wave, stage)


def _strata_lines(wave: Wave, unicode: bool, verdicts: Mapping[str, Verdict]) -> list[Line]:
    """A line per stratum; of many, those with the most failures, the others summed up."""
    shown = sorted(wave.strata, key=lambda name: (-sum(wave.counts(name)[bad] for bad in BAD), name))[:MAX_STRATA]
    name_width = max((len(name) for name in shown), default=0)
    lines = [stratum_line(wave, name, name_width, unicode, verdicts.get(name)) for name in sorted(shown)]
    if len(wave.strata) > len(shown):
        rest: Counter[str] = Counter()
        for stratum in wave.strata:
            if stratum not in shown:
                rest.update(wave.counts(stratum))
        lines.append([(f"  … {len(wave.strata) - len(shown)} more strata  ", "dim"), *count_pieces(rest)])
    return lines


def stratum_line(
    wave: Wave, stratum: str, name_width: int, unicode: bool = True, verdict: Verdict | None = None
) -> Line:
    """One stratum of a wave: bar, counts, verdict."""
    counts = wave.counts(stratum)
    line: Line = [(f"  {stratum:<{name_width}}  ", ""), *_bar(counts, unicode), ("  ", ""), *count_pieces(counts)]
    if verdict is not None:
        line.append((f"  {verdict.stage}: ", "dim"))
        line.append((verdict.verdict, STYLES.get(verdict.verdict, "")))
    return line


def _bar(counts: Counter[str], unicode: bool) -> Line:
    """A bar of BAR columns; every outcome that occurs has at least one."""
    glyphs = UNICODE if unicode else ASCII
    total = sum(counts.values())
    order = [name for name in glyphs if counts[name]]
    if not total:
        return [(" " * BAR, "")]
    widths = {name: max(1, round(BAR * counts[name] / total)) for name in order}
    while sum(widths.values()) != BAR:
        step = 1 if sum(widths.values()) < BAR else -1
        widest = max(order, key=lambda name: widths[name])
        widths[widest] += step
    return [(glyphs[name] * widths[name], STYLES.get(name, "")) for name in order]


def count_pieces(counts: Counter[str]) -> Line:
    """The counts in words, in a fixed order, without those that are zero."""
    pieces: Line = []
    for name in UNICODE:
        if counts[name]:
            pieces += [(" " if pieces else "", ""), (f"{counts[name]} {WORDS.get(name, name)}", STYLES.get(name, ""))]
    return pieces


def failure_lines(failures: list[Failure], limit: int) -> list[Line]:
    """The first failures in words, then how many more there are."""
    lines: list[Line] = []
    for failure in failures[:limit]:
        lines.append([(f"    {failure.host} ", "bad"), (f"{failure.outcome} · {failure.reason}", "")])
    if len(failures) > limit:
        lines.append([(f"    … and {len(failures) - limit} more; every device is in the ledger and the report", "dim")])
    return lines


def verdict_lines(wave: Wave, stage: str) -> list[Line]:
    """Why: one line for each verdict of a stage that is not pass."""
    lines: list[Line] = []
    for verdict in [item for item in wave.verdicts if item.stage == stage and item.verdict != "pass"][:MAX_STRATA]:
        style = STYLES.get(verdict.verdict, "")
        lines.append([(f"  verdict {verdict.verdict}", style), (f" on {verdict.stratum} after {stage}: ", ""),
                      (verdict.reason, "")])  # fmt: skip
    return lines


def query_lines(wave: Wave, stage: str) -> list[Line]:
    """What Prometheus said: one line for each query and stratum, those that did not pass first."""
    asked = [
        (verdict.stratum, query) for verdict in wave.verdicts if verdict.stage == stage for query in verdict.queries
    ]
    asked.sort(key=lambda item: item[1].get("verdict") == "pass")
    lines: list[Line] = []
    for stratum, query in asked[:MAX_ROWS]:
        found = str(query.get("verdict"))
        lines.append(
            [
                ("    query ", "dim"),
                (f"{query.get('query')} ", ""),
                (found, STYLES.get(found, "")),
                (f" on {stratum}: {query.get('reason')}", "dim"),
            ]
        )
    if len(asked) > MAX_ROWS:
        lines.append([(f"    … and {len(asked) - MAX_ROWS} more queries", "dim")])
    return lines


def summary_lines(rollout: Rollout, seconds: float) -> list[Line]:
    """The end of a rollout: status, totals, what is halted and quarantined."""
    status = rollout.status or (
        "nothing_to_do" if not (rollout.plan.get("waves") or rollout.undo.total) else "no verdict"
    )
    what = f"{rollout.plan.get('model')} {rollout.plan.get('version')}" if rollout.plan else "Rollback"
    head: Line = [
        (f"{what}: ", "head"),
        (status.replace("_", " "), STATUS.get(status, "away")),
        (f"  {seconds:.0f} s", "dim"),
    ]
    counts = rollout.totals()
    lines: list[Line] = [head]
    if counts:
        lines.append([("  ", ""), *count_pieces(counts)])
    left = [
        f"{len(rollout.plan[name])} {name}" for name in ("unchanged", "deferred", "refused") if rollout.plan.get(name)
    ]
    if left:
        lines.append([("  in no wave: " + ", ".join(left), "")])
    if rollout.halt_reason and not rollout.halted:
        lines.append([(f"  {status}: ", STATUS.get(status, "away")), (rollout.halt_reason, "")])
    if rollout.halted:
        why = f" · {rollout.halt_reason}" if rollout.halt_reason else ""
        lines.append([("  halted: ", "bad"), (some(rollout.halted, 6) + why, "")])
    for item in rollout.quarantine[:MAX_STRATA]:
        what = f"{item.get('model') or rollout.plan.get('model')} {item.get('version') or rollout.plan.get('version')}"
        lines.append([("  quarantined: ", "bad"), (f"{what} on {item.get('stratum')} · {item.get('reason')}", "")])
    return lines


def plural(word: str, count: int) -> str:
    """The word as it goes with a number."""
    if count == 1:
        return word
    return {"stratum": "strata"}.get(word, word + "s")

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The report for people: Markdown for a pull request, and one HTML file with plots that loads nothing. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from .judge import FAIL, PASS, Report, Row

MARKER = "<!-- edgeai.fleet compatibility"
MAX_ROWS = 200
COLUMNS = ("variant", "where", "devices", "top-1", "max abs error", "accuracy drop", "p50", "latency", "verdict")
_WORDS = {PASS: "passes", FAIL: "fails", "no_data": "has gaps"}
_STYLE = """
:root{color-scheme:light dark;--ink:#16202c;--muted:#53606f;--line:#dbe1e8;--ok:#0a7d63;--bad:#c23a0c;--gap:#b07a00;
--bg:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e7edf3;--muted:#a3b0be;--line:#2d3946;--ok:#35bd9a;--bad:#ff7f50;
--gap:#e5b53c;--bg:#10161d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg);max-width:1080px;margin:2em auto;
padding:0 1em}
table{border-collapse:collapse;width:100%;font-size:13.5px}th,td{text-align:left;padding:.35em .6em;
border-bottom:1px solid var(--line);vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}.pass{color:var(--ok)}
.fail{color:var(--bad);font-weight:600}.no_data{color:var(--gap);font-weight:600}small{color:var(--muted)}
.wide{overflow-x:auto}svg{width:100%;height:auto}text{font-size:12px;fill:var(--ink)}.axis{fill:var(--muted)}.grid{stroke:var(--line)}
circle.pass,rect.pass{fill:var(--ok)}circle.fail,rect.fail{fill:var(--bad)}
.limit{stroke:var(--ink);stroke-dasharray:4 3}
"""


def markdown(title: str, digest: str, report: Report) -> str:
    """The report as GitHub-flavoured Markdown; the first line is a marker that finds the comment again."""
    lines = [
        f"{MARKER} {_cell(title)} -->",
        f"### {_cell(title)} {_WORDS[report.verdict]}: {summary(report)}",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --- |",
        *("| " + " | ".join(_cell(text) for text in cells(row)) + " |" for row in report.rows[:MAX_ROWS]),
        "",
    ]
    left = len(report.rows) - MAX_ROWS
    said = [f"{row.variant} in {row.stratum}: {reason}" for row in report.rows for reason in row.reasons]
    said += [*report.problems, *away(report)] + ([f"{left} more rows are in the HTML report"] if left > 0 else [])
    lines += [f"- {_cell(text)}" for text in said[:MAX_ROWS]] + ([""] if said else [])
    lines.append(f"{digest}. {EXPLAINED}")
    return "\n".join(lines) + "\n"


EXPLAINED = (
    "Outputs on the golden samples against the signed fp32 reference, the worst device of each row; latency is the "
    "median of single requests in the runtime, and relative to the fp32 variant on the same device."
)


def summary(report: Report) -> str:
    """One line: how many rows passed, over how many devices."""
    good = sum(row.verdict == PASS for row in report.rows)
    hosts = {host for row in report.rows for host in row.hosts}
    strata = {row.stratum for row in report.rows}
    text = f"{good} of {len(report.rows)} results pass, {len(hosts)} devices, {len(strata)} strata"
    return text + (f", {len(report.problems)} missing" if report.problems else "")


def away(report: Report) -> list[str]:
    """One line about the devices that gave no answer, if there are any."""
    return [f"no answer from {', '.join(report.away)}"] if report.away else []


def cells(row: Row) -> list[str]:
    """One row of the table as texts."""
    return [
        row.variant,
        row.stratum,
        str(len(row.hosts)),
        _number(row.top1_agreement, 4),
        _significant(row.max_abs_error),
        f"{_number(row.accuracy_drop, 4)} of {_number(row.budget, 4)}",
        f"{_significant(row.p50_ms)} ms" if row.p50_ms is not None else "",
        f"x{row.latency_ratio:.2f}" if row.latency_ratio is not None else "",
        row.verdict.replace("_", " ") + (f" ({row.outputs} different outputs)" if row.outputs > 1 else ""),
    ]


def page(title: str, digest: str, report: Report) -> str:
    """The report as one HTML document, deterministic for the same results."""
    body = [
        f"<h1>{esc(title)}</h1>",
        f'<p class="{report.verdict}">{_WORDS[report.verdict].capitalize()}: {esc(summary(report))}.</p>',
        f"<p><small>{esc(digest)}<br>{EXPLAINED}</small></p>",
        _table(report.rows),
        *(f'<p class="no_data">{esc(problem)}</p>' for problem in [*report.problems, *away(report)]),
        "<h2>Largest absolute error</h2>",
        errors_plot(report.rows),
        "<h2>Latency relative to fp32</h2>",
        ratio_plot(report.rows),
        "<h2>Every device</h2>",
        _devices(report.devices),
    ]
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{esc(title)}</title>'
    return f"{head}<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        texts = cells(row)
        why = "".join(f"<br><small>{esc(reason)}</small>" for reason in row.reasons)
        numbers = "".join(f'<td class="n">{esc(text)}</td>' for text in texts[2:-1])
        lines.append(
            f"<tr><td>{esc(texts[0])}</td><td>{esc(texts[1])}</td>{numbers}"
            f'<td class="{row.verdict}">{esc(texts[-1])}{why}</td></tr>'
        )
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in COLUMNS)}</tr>{''.join(lines)}</table>"


def _devices(devices: Sequence[dict[str, Any]]) -> str:
    names = (
        *("host", "variant", "stratum", "runtime_version", "top1_agreement", "max_abs_error", "relative_error"),
        *("p50_ms", "p95_ms", "latency_ratio", "status", "reason"),
    )
    rows = "".join(
        "<tr>" + "".join(f"<td>{esc(_plain(device.get(name)))}</td>" for name in names) + "</tr>" for device in devices
    )
    return f'<div class="wide"><table><tr>{"".join(f"<th>{name}</th>" for name in names)}</tr>{rows}</table></div>'


LEFT, WIDTH, STEP = 420, 1040, 24


def errors_plot(rows: Sequence[Row]) -> str:
    """Dots on a logarithmic axis; an error of zero stands at its left end."""
    shown = [row for row in rows if row.max_abs_error is not None]
    values = [math.log10(row.max_abs_error) for row in shown if row.max_abs_error]
    low, high = (math.floor(min(values, default=-6)), math.ceil(max(values, default=0)))
    high = max(high, low + 1)

    def x(value: float) -> float:
        place = math.log10(value) if value else low - 0.5
        return LEFT + 30 + (WIDTH - LEFT - 60) * (place - low + 0.5) / (high - low + 0.5)

    ticks = [(x(10.0**power), f"1e{power}") for power in range(low, high + 1)] + [(x(0.0), "0")]
    marks = [
        f'<circle class="{row.verdict}" cx="{x(row.max_abs_error or 0.0):.1f}" cy="{_y(number):.1f}" r="5"/>'
        for number, row in enumerate(shown)
    ]
    return _plot("Largest absolute error per variant and stratum", shown, ticks, marks)


def ratio_plot(rows: Sequence[Row]) -> str:
    """Bars from zero, with a line at 1."""
    shown = [row for row in rows if row.latency_ratio is not None]
    top = max([row.latency_ratio or 0.0 for row in shown] + [1.0]) * 1.05

    def x(value: float) -> float:
        return LEFT + 30 + (WIDTH - LEFT - 60) * value / top

    whole = max(1, math.ceil(top / 8))
    ticks = [(x(float(value)), f"x{value}") for value in range(0, math.floor(top) + 1, whole)]
    marks = [
        f'<rect class="{row.verdict}" x="{x(0):.1f}" y="{_y(number) - 7:.1f}" '
        f'width="{x(row.latency_ratio or 0.0) - x(0):.1f}" height="14"/>'
        for number, row in enumerate(shown)
    ]
    marks.append(f'<line class="limit" x1="{x(1):.1f}" x2="{x(1):.1f}" y1="10" y2="{_y(len(shown)) - 8:.1f}"/>')
    return _plot("Latency relative to fp32 per variant and stratum", shown, ticks, marks)


def _y(number: int) -> float:
    return 26.0 + STEP * number


def _plot(label: str, rows: Sequence[Row], ticks: Sequence[tuple[float, str]], marks: Sequence[str]) -> str:
    if not rows:
        return "<p>Nothing was measured.</p>"
    bottom = _y(len(rows)) - 8
    lines = [
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{bottom:.1f}"/>'
        f'<text class="axis" x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{esc(text)}</text>'
        for x, text in ticks
    ]
    names = [
        f'<text x="{LEFT}" y="{_y(number) + 4:.1f}" text-anchor="end">{esc(row.variant)} · {esc(row.stratum)}</text>'
        for number, row in enumerate(rows)
    ]
    inside = "".join([*lines, *names, *marks])
    return f'<svg viewBox="0 0 {WIDTH} {bottom + 30:.0f}" role="img" aria-label="{esc(label)}">{inside}</svg>'


def esc(value: object) -> str:
    """Text that is safe inside HTML and quoted attributes."""
    return html.escape("".join(c if c.isprintable() else "\ufffd" for c in str(value)), quote=True)


def _cell(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return html.escape(plain, quote=False).replace("|", "\\|").replace("--&gt;", "")


def _plain(value: Any) -> str:
    return "" if value is None else _significant(value) if isinstance(value, float) else str(value)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _significant(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"

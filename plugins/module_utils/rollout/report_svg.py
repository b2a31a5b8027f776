# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""SVG text and number formats for the charts of the rollout report.

Pure functions over numbers and strings. Colours are CSS classes (``c-ok``, ``c-bad``, ...), so one picture serves
light, dark and paper. Everything that comes from a ledger is escaped here.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

WIDTH = 1040

# For a chart outside the report; within it, templates/report.css has the same names.
_STYLE = """
svg{background:#fff;--ink:#16202c;--muted:#53606f;--line:#dbe1e8;--grid:#e6eaef;--shade:#eef1f5;--ok:#0a7d63;
--new:#9bd5c5;--change:#dc9a04;--bad:#c23a0c;--back:#b4520f;--held:#6a4cae;--calm:#8b96a5;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
@media (prefers-color-scheme:dark){svg{background:#10161d;--ink:#e7edf3;--muted:#a3b0be;--line:#2d3946;--grid:#232e3a;
--shade:#1d2733;--ok:#35bd9a;--new:#1d6152;--change:#e5b53c;--bad:#ff7f50;--back:#f09a66;--held:#b39af2;--calm:#7f8c9b}}
text{font-size:12.5px;fill:var(--ink)}.t-s{font-size:11.5px;fill:var(--muted)}.t-b{font-weight:600}
.t-bad{fill:var(--bad);font-weight:600}.grid{stroke:var(--grid)}.base{stroke:var(--line);stroke-width:2}
.band{fill:var(--shade)}.c-ok{fill:var(--ok)}.c-new{fill:var(--new)}.c-change,.c-warn{fill:var(--change)}
.c-bad{fill:var(--bad)}.c-back{fill:var(--back)}.c-held{fill:var(--held)}.c-calm{fill:var(--calm)}
.x-bad,.x-back{fill:none;stroke-width:2.6;stroke:var(--bad)}.x-back{stroke:var(--back)}
.m-ok{fill:var(--ink);fill-opacity:.35}.m-bad{fill:var(--bad)}.m-warn{fill:var(--change)}.limit{fill:var(--ink)}
.limit-span{fill:var(--ink);fill-opacity:.14}.box{fill:var(--new)}.whisker{stroke:var(--ok)}
.curve{fill:none;stroke:var(--ok);stroke-width:1.6}
"""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def esc(value: object) -> str:
    """Return ``value`` as text that is safe in XML text and in quoted attributes."""
    return html.escape(_CONTROL.sub("\ufffd", str(value)), quote=True)


def num(value: float) -> str:
    """Return a coordinate with at most two decimals, without trailing zeros: 12, 12.5, 0."""
    digits = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if digits in ("-0", "") else digits


def shorten(text: str, limit: int) -> str:
    """Return ``text`` cut in the middle to at most ``limit`` characters: the tail of a host name tells it apart."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + "…" + text[len(text) - (limit - 1 - head) :]


def duration_text(seconds: float) -> str:
    """Return a duration (s) for people: 0.4 s, 48 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 10:
        return f"{num(round(seconds, 1))} s"
    whole = round(seconds)
    for size, name, small_size, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = (whole % size) // small_size
            return f"{whole // size} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def value_text(value: float, unit: str = "") -> str:
    """Return a measured value with the digits its unit deserves; scores keep four decimals."""
    if unit == "score":
        return f"{value:.4f}"
    if value == 0 or abs(value) >= 100:
        text = f"{value:.0f}"
    else:
        decimals = min(6, max(0, 2 - math.floor(math.log10(abs(value)))))
        text = f"{value:.{decimals}f}"
    return text + unit_suffix(unit)


def nice_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Return about ``wanted`` round values that lie within [low, high] (steps 1, 2, 5 x 10^n)."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def time_ticks(span: float, wanted: int = 7) -> list[float]:
    """Return round offsets (s) for an axis of ``span`` seconds: steps people use for clocks."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
    step = next((s for s in steps if span / s <= wanted), None)
    if step is None:
        step = math.ceil(span / wanted / 86400.0) * 86400.0
    return [round(i * step, 6) for i in range(int(span / step + 1e-9) + 1)]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of sorted values with linear interpolation (type 7 of Hyndman and Fan, 1996)."""
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def svg(name: str, height: float, title: str, body: Sequence[str], width: float = WIDTH) -> str:
    """Return the whole <svg>: scales with the page, carries a title for screen readers. name: unique id."""
    return (
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}" xmlns="http://www.w3.org/2000/svg">'
        '<title id="{}">{}</title>{}</svg>'.format(
            num(width), num(height), esc(name), esc(name), esc(title), "".join(body)
        )
    )


def standalone(drawing: str) -> str:
    """Return a chart of this module as a file of its own: with its colours (light and dark) and a background."""
    end = drawing.index(">") + 1
    return f"{drawing[:end]}<style>{_STYLE}</style>{drawing[end:]}\n"


def rect(x: float, y: float, w: float, h: float, css: str, tip: str = "", radius: float = 0) -> str:
    """Return a rectangle; ``tip`` becomes its tooltip."""
    inner = f"<title>{esc(tip)}</title>" if tip else ""
    return '<rect x="{}" y="{}" width="{}" height="{}"{} class="{}">{}</rect>'.format(
        num(x),
        num(y),
        num(max(0.0, w)),
        num(h),
        f' rx="{num(radius)}"' if radius else "",
        css,
        inner,
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Return a straight line."""
    return f'<line x1="{num(x1)}" y1="{num(y1)}" x2="{num(x2)}" y2="{num(y2)}" class="{css}"/>'


def text(x: float, y: float, content: str, css: str = "t", anchor: str = "start") -> str:
    """Return a text on the baseline y."""
    return f'<text x="{num(x)}" y="{num(y)}" class="{css}" text-anchor="{anchor}">{esc(content)}</text>'


def dot(x: float, y: float, radius: float, css: str, tip: str = "") -> str:
    """Return a circle; ``tip`` becomes its tooltip."""
    inner = f"<title>{esc(tip)}</title>" if tip else ""
    return f'<circle cx="{num(x)}" cy="{num(y)}" r="{num(radius)}" class="{css}">{inner}</circle>'


def cross(x: float, y: float, size: float, css: str) -> str:
    """Return an x mark, for what went back: told apart without colour."""
    left, high, whole = num(x - size), num(y - size), num(2 * size)
    return f'<path d="M{left} {high}l{whole} {whole}m0 -{whole}l-{whole} {whole}" class="{css}"/>'


def unit_suffix(unit: str) -> str:
    """Return what stands behind a number of this unit."""
    return {"score": "", "": "", "ratio": "×"}.get(unit, " " + unit)

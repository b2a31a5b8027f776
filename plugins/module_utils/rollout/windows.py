# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Maintenance windows: when a device may be changed. Pure functions of a window and the controller's time.

A device's own clock is never asked: the moment is the controller's, in UTC, and only the rules are local. Times are
those of the wall clock in the window's time zone. One that the clock skips counts as that long after the skip, one
that comes twice as its first: a window over the night of a change is an hour shorter or longer, never missed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from .errors import field_error
from .policy_checks import checked

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
_AHEAD = 8


class Rule(NamedTuple):
    """Open on these days (0 is Monday) from one minute of the day to another; past midnight if that is not later."""

    days: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Window:
    """When devices may be changed; without rules: always."""

    timezone: str = "UTC"
    open: tuple[Rule, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; `check_window` of it gives an equal window."""
        rules = [
            {"days": [DAYS[day] for day in rule.days], "from": _clock(rule.start), "to": _clock(rule.end)}
            for rule in self.open
        ]
        return {"timezone": self.timezone, "open": rules}


class Standing(NamedTuple):
    """How a window stands at a moment: until when it is open (None: closed; or, with ``always``, for ever), and when
    it opens next, if that is within a week."""

    always: bool
    closes: datetime | None
    opens: datetime | None


def check_window(where: str, name: str, value: Any) -> Window:
    """Return the checked window. Raises RolloutError that names the field."""
    if not isinstance(value, Mapping):
        raise field_error(where, name, value, "write a mapping with the keys open, timezone")
    prefix = name + "." if name else ""
    return Window(**checked(where, prefix, value, {"timezone": _zone, "open": _rules}))


def _zone(where: str, name: str, value: Any) -> str:
    try:
        return ZoneInfo(value).key
    except (KeyError, ValueError, TypeError, OSError, AttributeError) as error:
        fix = "write a name of the time zone database, as Europe/Berlin (its data has to be on the controller)"
        raise field_error(where, name, value, fix) from error


def _rules(where: str, name: str, value: Any) -> tuple[Rule, ...]:
    if not isinstance(value, (list, tuple)):
        raise field_error(where, name, value, 'write a list of {days: [sat], from: "22:00", to: "05:00"}')
    return tuple(_rule(where, f"{name}[{index}]", item) for index, item in enumerate(value))


def _rule(where: str, name: str, value: Any) -> Rule:
    if not isinstance(value, Mapping) or set(value) - {"days", "from", "to"} or not {"from", "to"} <= set(value):
        raise field_error(where, name, value, 'write {days: [sat], from: "22:00", to: "05:00"}; days are optional')
    days = value.get("days", DAYS)
    if not isinstance(days, (list, tuple)) or not days or any(day not in DAYS for day in days):
        raise field_error(where, name + ".days", days, "write a list of {}".format(", ".join(DAYS)))
    start, end = (_minute(where, f"{name}.{key}", value[key]) for key in ("from", "to"))
    if start == end or start == 1440:
        raise field_error(
            where, name, dict(value), 'it is never open: for a whole day write from: "00:00", to: "24:00"'
        )
    return Rule(tuple(sorted({DAYS.index(day) for day in days})), start, end)


def _minute(where: str, name: str, value: Any) -> int:
    # without quotes YAML 1.1 reads 22:00 as the number 1320
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise field_error(where, name, value, 'write hours and minutes in quotes, as "05:30"')
    return int(value[:2]) * 60 + int(value[3:])


def standing(window: Window, now: datetime) -> Standing:
    """Return how the window stands at ``now`` (aware). Rules that touch or overlap count as one."""
    if not window.open:
        return Standing(True, None, None)
    moment = now.astimezone(timezone.utc)
    closes: datetime | None = None
    for start, end in _spans(window, moment):
        if start <= (closes or moment) < end:
            closes = end
        elif start > moment and (closes is None or start > closes):
            return Standing(False, closes, start)
    return Standing(False, closes, None)


def _spans(window: Window, moment: datetime) -> list[tuple[datetime, datetime]]:
    """The open spans around a moment, in UTC, by their start."""
    zone = ZoneInfo(window.timezone)
    today = moment.astimezone(zone).date()
    spans = []
    for offset in range(-2, _AHEAD):
        day = today + timedelta(days=offset)
        for rule in window.open:
            if day.weekday() in rule.days:
                last = day if rule.end > rule.start else day + timedelta(days=1)
                start, end = _moment(day, rule.start, zone), _moment(last, rule.end, zone)
                if start < end:
                    spans.append((start, end))
    return sorted(spans)


def _moment(day: date, minute: int, zone: ZoneInfo) -> datetime:
    if minute == 1440:
        day, minute = day + timedelta(days=1), 0
    local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone)
    return local.astimezone(timezone.utc)


def closed_reason(window: Window, now: datetime, needed: int) -> str:
    """Return why a change that may take ``needed`` seconds must not begin now; empty when it may."""
    found = standing(window, now)
    if found.always:
        return ""
    following = f"; it opens {_local(found.opens, window)}" if found.opens else "; it does not open within a week"
    if found.closes is None:
        return f"its maintenance window is closed{following}"
    left = (found.closes - now).total_seconds()
    if left < needed:
        return (
            f"its maintenance window closes {_local(found.closes, window)}, in {max(1, round(left / 60))} min, and a "
            f"wave may take {-(-needed // 60)} min{following}"
        )
    return ""


def _local(moment: datetime, window: Window) -> str:
    local = moment.astimezone(ZoneInfo(window.timezone))
    return f"{DAYS[local.weekday()]} {local:%Y-%m-%d %H:%M} {window.timezone}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What an answer of Prometheus' HTTP API proves. Pure functions over its JSON.

``pass`` and ``fail`` need one finite number, from devices that were scraped all along, on the planned release.
Everything else is ``inconclusive`` (measured, but it proves nothing) or ``no_data`` (nothing was measured).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .promql_policy import Query

PASS, FAIL, INCONCLUSIVE, NO_DATA = "pass", "fail", "inconclusive", "no_data"
_INFO = "PromQL info:"


class Reading(NamedTuple):
    """One number, or why there is none. verdict: empty with a number; answer: the sample itself, for the ledger."""

    value: float | None
    verdict: str = ""
    reason: str = ""
    answer: Any = None


@dataclass
class Coverage:
    """Which devices count. fit: scraped all along; unfit: host -> (verdict, reason) of the others;
    scrapes: the fewest of a fit device; oldest: the greatest age of a fit device's last scrape, seconds.
    """

    fit: list[str] = field(default_factory=list)
    unfit: dict[str, tuple[str, str]] = field(default_factory=dict)
    scrapes: int | None = None
    oldest: float | None = None


class Decision(NamedTuple):
    """A verdict on a value, with the limit that decided."""

    verdict: str
    reason: str
    limit: float


def answer_problem(answer: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (verdict, reason) for an answer that is none, or not whole; None for one to rely on."""
    if answer.get("status") != "success":
        kind = str(answer.get("errorType") or "error")
        return NO_DATA, f"Prometheus: {kind}: {answer.get('error') or 'no message'}"
    warnings = [str(item) for item in answer.get("warnings") or [] if not str(item).startswith(_INFO)]
    if warnings:
        return INCONCLUSIVE, f"Prometheus warns of its answer: {warnings[0]}"
    data = answer.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("result"), list):
        return NO_DATA, "Prometheus: the answer is not that of its query API"
    return None


def read_value(answer: Mapping[str, Any]) -> Reading:
    """Return the one number that an instant query gave."""
    wrong = answer_problem(answer)
    if wrong:
        return Reading(None, *wrong)
    data = answer["data"]
    if data.get("resultType") == "scalar":
        return _finite(data["result"])
    if data.get("resultType") != "vector":
        return Reading(None, INCONCLUSIVE, f"it gives a {data.get('resultType')}, one number is needed")
    series = data["result"]
    if not series:
        return Reading(None, NO_DATA, "no series matches")
    if len(series) > 1:
        return Reading(None, INCONCLUSIVE, f"it gives {len(series)} series: bring them to one with sum, max or avg")
    entry = series[0] if isinstance(series[0], Mapping) else {}
    if "value" not in entry:
        return Reading(None, INCONCLUSIVE, "it gives no plain number: apply histogram_quantile or the like")
    return _finite(entry["value"])


def read_devices(answer: Mapping[str, Any], hosts: Iterable[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return (device -> its number, device -> why it has none) of an instant query that gives one for each device."""
    wrong = answer_problem(answer)
    if wrong is None and answer["data"].get("resultType") != "vector":
        wrong = INCONCLUSIVE, f"it gives a {answer['data'].get('resultType')}, one number per device is needed"
    if wrong:
        return {}, dict.fromkeys(hosts, wrong[1])
    found: dict[str, list[Reading]] = {}
    for entry in answer["data"]["result"]:
        device = str((entry.get("metric") or {}).get("device"))
        found.setdefault(device, []).append(_finite(entry.get("value")))
    numbers, problems = {}, {}
    for host in hosts:
        readings = found.get(host, [])
        if len(readings) == 1 and readings[0].value is not None:
            numbers[host] = readings[0].value
        elif not readings:
            problems[host] = "no series of it: let the expression keep the label, by (device)"
        else:
            many = f"it gives {len(readings)} series for it: bring them to one by (device)"
            problems[host] = many if len(readings) > 1 else readings[0].reason
    return numbers, problems


def _finite(sample: Any) -> Reading:
    """The number of a sample ``[time, text]``."""
    number = _number(sample)
    if number is None:
        return Reading(None, NO_DATA, "Prometheus: the answer holds no sample", sample)
    if math.isnan(number):
        return Reading(None, INCONCLUSIVE, "it is not a number (NaN): nothing to divide by, so no traffic?", sample)
    if math.isinf(number):
        return Reading(None, INCONCLUSIVE, "it is infinite", sample)
    return Reading(number, answer=sample)


def _number(sample: Any) -> float | None:
    try:
        return float(sample[1])
    except (TypeError, ValueError, IndexError, KeyError):
        return None


def coverage(
    answer: Mapping[str, Any], hosts: Iterable[str], at: float, stale_after: float, min_scrapes: int
) -> Coverage:
    """Return which hosts were scraped well, from the raw samples of ``up`` (a matrix) in the window.

    at: when it was asked, POSIX seconds by Prometheus' clock. A host counts when its last scrape succeeded, is not
    older than stale_after seconds, and at least min_scrapes succeeded.
    """
    wrong = answer_problem(answer)
    if wrong:
        return Coverage(unfit=dict.fromkeys(hosts, wrong))
    series: dict[str, list[list[Any]]] = {}
    for entry in answer["data"]["result"]:
        device = str((entry.get("metric") or {}).get("device"))
        # two series of one device are two addresses of it; the newer one is the one it has
        if _last(entry) > _last({"values": series.get(device)}):
            series[device] = entry["values"]
    found = Coverage()
    for host in hosts:
        problem = _scrape_problem(series.get(host) or [], at, stale_after, min_scrapes)
        if problem:
            found.unfit[host] = problem
            continue
        count, age = _successes(series[host]), at - float(series[host][-1][0])
        found.fit.append(host)
        found.scrapes = count if found.scrapes is None else min(found.scrapes, count)
        found.oldest = age if found.oldest is None else max(found.oldest, age)
    return found


def _last(entry: Mapping[str, Any]) -> float:
    values = entry.get("values") or []
    return float(values[-1][0]) if values else -math.inf


def _successes(samples: list[list[Any]]) -> int:
    return sum(_number(sample) == 1.0 for sample in samples)


def _scrape_problem(
    samples: list[list[Any]], at: float, stale_after: float, min_scrapes: int
) -> tuple[str, str] | None:
    if not samples:
        return NO_DATA, "it was not scraped in the window"
    age = at - float(samples[-1][0])
    if age > stale_after:
        return NO_DATA, f"its last scrape is {age:.0f} s old, {stale_after:g} s allowed"
    if _number(samples[-1]) != 1.0:
        return NO_DATA, "its last scrape failed (up is 0)"
    count = _successes(samples)
    if count < min_scrapes:
        return INCONCLUSIVE, f"{count} scrapes of it in the window, {min_scrapes} needed"
    return None


def served(answer: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return device -> (digest, version) of what it serves, from ``edgeai_model_info``."""
    found: dict[str, list[tuple[str, str]]] = {}
    if answer_problem(answer):
        return found
    for entry in answer["data"]["result"]:
        metric = entry.get("metric") or {}
        if _number(entry.get("value")) == 1.0:
            about = (str(metric.get("digest")), str(metric.get("version")))
            found.setdefault(str(metric.get("device")), []).append(about)
    return found


def decide(query: Query, value: float, control: Reading | None) -> Decision:
    """Judge a number. control: that of the devices on the old release, when the query compares with them.

    First the absolute limit, which nothing excuses; then the floor, which nothing outweighs; then the comparison.
    """
    upper = query.max is not None
    limit = query.max if query.max is not None else query.min
    bound = 0.0 if limit is None else limit
    words = ("above", "at most") if upper else ("below", "at least")

    def worse(than: float) -> bool:
        return value > than if upper else value < than

    if worse(bound):
        return Decision(FAIL, f"{value:.6g} is {words[0]} {bound:.6g}", bound)
    compare = query.compare
    if compare is None:
        return Decision(PASS, f"{value:.6g}, {words[1]} {bound:.6g}", bound)
    if not worse(compare.floor):
        return Decision(PASS, f"{value:.6g} is good enough ({compare.floor:.6g}), whatever the old release does", bound)
    if control is None or control.value is None:
        why = control.reason if control else "no device of the stratum is left on the old release"
        return Decision(INCONCLUSIVE, f"{value:.6g} cannot be compared: {why}", bound)
    old = control.value
    if compare.ratio is not None and old < 0:
        return Decision(INCONCLUSIVE, f"a ratio to {old:.6g} says nothing: use difference", bound)
    if compare.ratio is not None:
        relative, how = old * compare.ratio, f"{compare.ratio:g} times the old release's {old:.6g}"
    else:
        by = compare.difference or 0.0
        relative = old + by if upper else old - by
        how = f"{by:g} {'more' if upper else 'less'} than the old release's {old:.6g}"
    if worse(relative):
        return Decision(FAIL, f"{value:.6g} is {words[0]} {how}", relative)
    return Decision(PASS, f"{value:.6g}, {words[1]} {how}", relative)

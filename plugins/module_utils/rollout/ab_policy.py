# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""``edge_policy.ab_test``: a share of the devices stays on B for a measured time, then a comparison decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import promql_template
from .errors import field_error
from .policy_checks import Check, checked, choice, integer, named_list, number, section, text
from .promql_policy import Prometheus

DAY = 86400


@dataclass(frozen=True)
class Metric:
    """What is compared. expr: gives one number per device (``by (device)``); better: ``lower`` or ``higher``.

    B may be worse than A by so much: ratio: at most (with higher: at least) so many times A's mean; difference: in the
    unit of expr. One of the two is given. min_scrapes, stale_after (s): what each device's scrapes must be like.
    """

    name: str
    expr: str
    better: str = "lower"
    ratio: float | None = None
    difference: float | None = None
    min_scrapes: int = 2
    stale_after: int = 60


@dataclass(frozen=True)
class AbTest:
    """share: of each stratum's devices that get B before the comparison, one of ``growth``; 0: no comparison.

    measure: seconds on B before it; limit: seconds after which B must have been shown to be no worse; wait: seconds
    that a run waits before it stops, to be run again; confidence: of the interval.
    """

    share: float = 0.0
    measure: int = DAY
    limit: int = 7 * DAY
    wait: int = 0
    confidence: float = 0.95
    metrics: tuple[Metric, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types that parse to an equal value."""
        raw = asdict(self)
        raw["metrics"] = [{key: value for key, value in item.items() if value is not None} for item in raw["metrics"]]
        return raw


_METRIC: dict[str, Check] = {
    "name": text(r"[a-z][a-z0-9_]{0,63}", "write a short name of small letters, digits and _"),
    "expr": text(r"(?s).{1,8000}", "write a PromQL expression, as text"),
    "better": choice("lower", "higher"),
    "ratio": number(0.001, 1000.0),
    "difference": number(-1e300, 1e300),
    "min_scrapes": integer(1, 10**6),
    "stale_after": integer(1, DAY),
}


def _metric(where: str, name: str, value: Any) -> Metric:
    if not isinstance(value, Mapping):
        raise field_error(where, name, value, "write a mapping with name, expr, and ratio or difference")
    found = checked(where, name + ".", value, _METRIC)
    for needed in ("name", "expr"):
        if needed not in found:
            raise field_error(where, f"{name}.{needed}", None, "it is missing")
    if ("ratio" in found) == ("difference" in found):
        raise field_error(where, name, dict(value), "say how much worse B may be: give one of ratio and difference")
    return Metric(**found)


check_ab_test: Check = section(
    AbTest,
    {
        "share": number(0.0, 1.0),
        "measure": integer(1, 365 * DAY),
        "limit": integer(1, 365 * DAY),
        "wait": integer(0, 7 * DAY),
        "confidence": number(0.5, 0.999999),
        "metrics": named_list(_metric, 20, "metrics"),
    },
)


def check_ab_together(where: str, test: AbTest, growth: Sequence[float], prometheus: Prometheus) -> None:
    """Raise RolloutError for values that contradict each other, the growth or the way to Prometheus."""
    if not test.share:
        return
    if test.share not in growth[:-1]:
        early = [share for share in growth if share < 1.0]
        fix = f"let growth stop there: make it one of {early}" if early else "let growth contain it: it is [1.0]"
        raise field_error(where, "ab_test.share", test.share, fix)
    if not test.metrics:
        raise field_error(where, "ab_test.metrics", [], "say what is compared")
    if test.limit < test.measure:
        raise field_error(where, "ab_test.limit", test.limit, f"make it at least ab_test.measure, {test.measure} s")
    if not prometheus.url:
        raise field_error(where, "prometheus.url", "", "the comparison asks Prometheus: say where it is")
    if not prometheus.identity:
        raise field_error(where, "prometheus.identity", False, "the comparison has to know who is on which release")
    for index, metric in enumerate(test.metrics):
        wrong = promql_template.problem(metric.expr, test.measure, test.measure)
        if wrong:
            raise field_error(where, f"ab_test.metrics[{index}].expr", metric.expr, wrong)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""``edge_policy.prometheus``: where Prometheus is and what a wave is asked there at the end of its soak. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from . import promql_template
from .errors import field_error
from .policy_checks import Check, checked, flag, integer, named_list, number, section, text

_ANY = 1e300


@dataclass(frozen=True)
class Compare:
    """A limit relative to the devices of the stratum that are still on the old release.

    floor: a value as good as this passes whatever those devices do, so that a bad incumbent never blocks a good fix;
    ratio: at most (for ``min``: at least) so many times their value; difference: at most so much worse.
    """

    floor: float
    ratio: float | None = None
    difference: float | None = None


@dataclass(frozen=True)
class Query:
    """One question about a stratum's devices. Exactly one of max and min; window 0: the whole soak; times in s.

    samples and min_samples: an expression for how many events the value rests on, and how many it takes;
    min_scrapes: of each device, in the window; stale_after: how old the last scrape of a device may be.
    """

    name: str
    expr: str
    max: float | None = None
    min: float | None = None
    compare: Compare | None = None
    window: int = 0
    samples: str = ""
    min_samples: int = 1
    min_scrapes: int = 2
    stale_after: int = 60


@dataclass(frozen=True)
class Prometheus:
    """Where to ask, as whom, for how long, and what. Paths are the controller's; secrets stand only in files."""

    url: str = ""
    job: str = "edgeai"
    ca_path: str = ""
    client_cert: str = ""
    client_key: str = ""
    token_file: str = ""
    headers_file: str = ""
    identity: bool = True
    coverage: float = 1.0
    timeout: int = 10
    deadline: int = 60
    queries: tuple[Query, ...] = field(default_factory=tuple)

    @property
    def takes(self) -> int:
        """The longest that asking takes, seconds."""
        return self.deadline if self.queries else 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types that parse to an equal value."""
        raw = asdict(self)
        raw["queries"] = [_without_none(query) for query in raw["queries"]]
        return raw


def _without_none(raw: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in raw.items() if value is not None}
    if "compare" in found:
        found["compare"] = _without_none(found["compare"])
    return found


def _url(where: str, name: str, value: Any) -> str:
    if value == "":
        return ""
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise field_error(where, name, value, "write the address of Prometheus, like https://prometheus.example:9090")
    if parts.username is not None:
        shown = f"{parts.scheme}://...@{parts.hostname}"
        raise field_error(where, name, shown, "a password here would be in the ledger: use token_file or headers_file")
    return str(value).rstrip("/")


_FINITE = number(-_ANY, _ANY)
_EXPR = text(r"(?s).{1,8000}", "write a PromQL expression, as text")
_PATH = text(r"[^\0\n]*", "write the path of a file on the controller")
_COMPARE: dict[str, Check] = {"floor": _FINITE, "ratio": number(0.0, 10**6), "difference": number(0.0, _ANY)}
_QUERY: dict[str, Check] = {
    "name": text(r"[a-z][a-z0-9_]{0,63}", "write a short name of small letters, digits and _"),
    "expr": _EXPR,
    "max": _FINITE,
    "min": _FINITE,
    "window": integer(0, 7 * 86400),
    "samples": text(r"(?s).{0,8000}", "write a PromQL expression, as text"),
    "min_samples": integer(1, 10**9),
    "min_scrapes": integer(1, 10**6),
    "stale_after": integer(1, 86400),
}


def _compare(where: str, name: str, value: Any) -> Compare:
    if not isinstance(value, Mapping):
        raise field_error(where, name, value, "write a mapping, like {ratio: 1.5, floor: 0.001}")
    found = checked(where, name + ".", value, _COMPARE)
    if "floor" not in found:
        raise field_error(
            where, name, dict(value), "add floor, the value that is good enough whatever the old release does"
        )
    if ("ratio" in found) == ("difference" in found):
        raise field_error(where, name, dict(value), "give one of ratio and difference")
    return Compare(**found)


def _query(where: str, name: str, value: Any) -> Query:
    if not isinstance(value, Mapping):
        raise field_error(where, name, value, "write a mapping with name, expr, and max or min")
    found = checked(where, name + ".", value, {**_QUERY, "compare": _compare})
    for needed in ("name", "expr"):
        if needed not in found:
            raise field_error(where, f"{name}.{needed}", None, "it is missing")
    query = Query(**found)
    if (query.max is None) == (query.min is None):
        raise field_error(where, f"{name}.max", query.max, f"give {query.name} a limit: one of max and min")
    if query.min_samples > 1 and not query.samples:
        raise field_error(
            where, f"{name}.min_samples", query.min_samples, "of what? add samples, an expression that counts them"
        )
    if query.compare:
        _check_compare(where, name, query, query.compare)
    return query


def _check_compare(where: str, name: str, query: Query, compare: Compare) -> None:
    """The floor must be better than the limit, and the ratio must leave room on the worse side."""
    upper = query.max is not None
    limit = query.max if query.max is not None else query.min
    if limit is not None and (compare.floor >= limit if upper else compare.floor <= limit):
        side = f"below max, {limit:g}" if upper else f"above min, {limit:g}"
        raise field_error(where, f"{name}.compare.floor", compare.floor, f"it is what is good enough: make it {side}")
    if compare.ratio is not None and (compare.ratio < 1 if upper else not 0 < compare.ratio <= 1):
        fit = "with max write 1 or more" if upper else "with min write a share above 0 and up to 1"
        raise field_error(where, f"{name}.compare.ratio", compare.ratio, fit)


_SECTION: Check = section(
    Prometheus,
    {
        "url": _url,
        "job": text(r"[^\0\n]{1,200}", "write the job that scrapes the devices"),
        "ca_path": _PATH,
        "client_cert": _PATH,
        "client_key": _PATH,
        "token_file": _PATH,
        "headers_file": _PATH,
        "identity": flag,
        "coverage": number(0.001, 1.0),
        "timeout": integer(1, 600),
        "deadline": integer(1, 3600),
        "queries": named_list(_query, 100, "queries"),
    },
)


def check_section(where: str, name: str, value: Any) -> Prometheus:
    """Check the section. A secret that stands in it by mistake is not repeated in the error."""
    for key in ("token", "password", "headers", "bearer_token", "authorization"):
        if isinstance(value, Mapping) and key in value:
            fix = "a secret here would be in the plan and the ledger: use token_file or headers_file"
            raise field_error(where, f"{name}.{key}", "(not shown)", fix)
    found: Prometheus = _SECTION(where, name, value)
    return found


def check_together(where: str, prometheus: Prometheus, soak: int) -> None:
    """Raise RolloutError for values that contradict each other, or the soak (s)."""
    if not prometheus.queries:
        return
    if not prometheus.url:
        raise field_error(where, "prometheus.url", "", "say where Prometheus is, like https://prometheus.example:9090")
    if soak <= 0:
        raise field_error(where, "soak", soak, "queries look at the time of the soak: give it the seconds they need")
    if bool(prometheus.client_key) > bool(prometheus.client_cert):
        raise field_error(where, "prometheus.client_cert", "", "client_key needs the certificate it belongs to")
    for index, query in enumerate(prometheus.queries):
        at = f"prometheus.queries[{index}]"
        if query.window > soak:
            raise field_error(
                where, f"{at}.window", query.window, f"the soak is {soak} s: look no further back than it"
            )
        for name in ("expr", "samples"):
            expr = getattr(query, name)
            wrong = promql_template.problem(expr, query.window or soak, soak) if expr else None
            if wrong is None and expr and query.compare and not prometheus.identity:
                named = promql_template.variables(expr) & {"version", "digest"}
                if named:
                    wrong = f"without identity it is not known which {min(named)} the old devices have: leave it out"
            if wrong:
                raise field_error(where, f"{at}.{name}", expr, wrong)

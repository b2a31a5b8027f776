# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""From the results of devices to a verdict: one row per variant and stratum, judged by thresholds. Pure.

Only ``pass`` passes: a variant that nothing measured has ``no_data``, and so has a required place without results.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..release.manifest import Manifest
from .errors import CompatibilityError

PASS, FAIL, NO_DATA = "pass", "fail", "no_data"
_EPSILON = 1e-9
_NUMBERS = ("max_abs_error", "accuracy_drop", "p50_ms", "score")


@dataclass(frozen=True)
class Thresholds:
    """Limits beside the signed accuracy budget, which always holds; None: no limit.

    require: patterns of strata (``*/onnxruntime/aarch64``) that must have a result. unmeasured: whether a variant that
    no device measured may pass.
    """

    min_agreement: float | None = None
    max_abs_error: float | None = None
    max_latency_ratio: float | None = None
    require: tuple[str, ...] = ()
    unmeasured: bool = False


@dataclass
class Row:
    """A variant in a stratum, over all devices there: the worst of each figure, and the verdict."""

    variant: str
    stratum: str
    hosts: list[str] = field(default_factory=list)
    max_abs_error: float | None = None
    top1_agreement: float | None = None
    accuracy_drop: float | None = None
    budget: float | None = None
    p50_ms: float | None = None
    latency_ratio: float | None = None
    outputs: int = 0  # how many different outputs, byte by byte
    verdict: str = NO_DATA
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What is shown and what counts. devices: results as given, with ``latency_ratio``, one per device and variant."""

    verdict: str
    rows: list[Row]
    devices: list[dict[str, Any]]
    problems: list[str]
    away: tuple[str, ...] = ()  # devices that gave no answer: told, not judged


def check_results(results: Any, digest: str) -> list[dict[str, Any]]:
    """Return the results that devices sent. Raises CompatibilityError: another release, or what is no result."""
    if not isinstance(results, Sequence) or isinstance(results, (str, bytes)):
        raise CompatibilityError(f"results is {type(results).__name__}: give the list that devices answered")
    found = []
    for number, result in enumerate(results):
        where = f"results[{number}]"
        if not isinstance(result, Mapping):
            raise CompatibilityError(f"{where} is no mapping: give what variant_measure answered")
        for name in ("host", "variant", "stratum", "status", "digest"):
            if not isinstance(result.get(name), str):
                raise CompatibilityError(f"{where}.{name} is {result.get(name)!r}: give what variant_measure answered")
        if result["digest"] != digest:
            raise CompatibilityError(
                f"{where}: {result['host']} measured {result['digest']}, not {digest}: measure again"
            )
        if result["status"] == "measured":
            for name in _NUMBERS:
                value = result.get(name)
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                    raise CompatibilityError(f"{where}.{name} is {value!r}: a number is wanted; measure again")
        found.append(dict(result))
    return found


def judge(
    manifest: Manifest, results: Iterable[Mapping[str, Any]], limits: Thresholds, away: Sequence[str] = ()
) -> Report:
    """Rows in the order of the release's variants, then of strata; and the verdict over all of them."""
    devices = [dict(result) for result in results]
    for result in devices:
        result["latency_ratio"] = _ratio(result, devices)
    rows: list[Row] = []
    for variant in manifest.variants:
        mine = [result for result in devices if result["variant"] == variant.id and result["status"] != "not_here"]
        rows += [_row(manifest, variant.id, stratum, mine, limits) for stratum in sorted({r["stratum"] for r in mine})]
    problems = _missing(manifest, rows, limits)
    failed = any(row.verdict == FAIL for row in rows)
    return Report(FAIL if failed else NO_DATA if problems or not rows else PASS, rows, devices, problems, tuple(away))


def _ratio(result: Mapping[str, Any], devices: Iterable[Mapping[str, Any]]) -> float | None:
    """p50 relative to a plain fp32 variant on the same device: of the same runtime, else of any; None without one."""
    if result["status"] != "measured":
        return None
    plain = [
        other
        for other in devices
        if other["host"] == result["host"] and other["status"] == "measured" and other["variant"].endswith("/fp32")
    ]
    plain.sort(key=lambda other: other["variant"].split("/")[0] != result["variant"].split("/")[0])
    return round(result["p50_ms"] / plain[0]["p50_ms"], 4) if plain and plain[0]["p50_ms"] else None


def _row(
    manifest: Manifest, variant: str, stratum: str, results: Sequence[Mapping[str, Any]], limits: Thresholds
) -> Row:
    mine = [result for result in results if result["stratum"] == stratum]
    measured = [result for result in mine if result["status"] == "measured"]
    row = Row(variant, stratum, sorted(result["host"] for result in mine))
    row.budget = manifest.budget(stratum, variant).accuracy_drop
    row.reasons = [f"{r['host']}: {r.get('reason') or 'failed'}" for r in mine if r["status"] != "measured"]
    if measured:
        row.max_abs_error = max(result["max_abs_error"] for result in measured)
        row.accuracy_drop = max(result["accuracy_drop"] for result in measured)
        row.p50_ms = max(result["p50_ms"] for result in measured)
        row.top1_agreement = _least(result.get("top1_agreement") for result in measured)
        ratios = [result["latency_ratio"] for result in measured if result["latency_ratio"] is not None]
        row.latency_ratio = max(ratios, default=None)
        row.outputs = len({result.get("outputs_sha256") for result in measured})
        row.reasons += _broken(row, limits)
    row.verdict = FAIL if row.reasons else PASS
    return row


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _broken(row: Row, limits: Thresholds) -> list[str]:
    """Every threshold that a row does not keep, as text."""
    said = []
    if row.accuracy_drop is not None and row.budget is not None and row.accuracy_drop > row.budget + _EPSILON:
        said.append(f"accuracy drop {row.accuracy_drop:.4g} is above the signed budget {row.budget:.4g}")
    if (
        limits.min_agreement is not None
        and row.top1_agreement is not None
        and row.top1_agreement < limits.min_agreement
    ):
        said.append(f"top-1 agreement {row.top1_agreement:.4g} is below {limits.min_agreement:.4g}")
    for name, value, limit in (
        ("largest absolute error", row.max_abs_error, limits.max_abs_error),
        ("latency ratio", row.latency_ratio, limits.max_latency_ratio),
    ):
        if value is not None and limit is not None and value > limit:
            said.append(f"{name} {value:.4g} is above {limit:.4g}")
    return said


def _missing(manifest: Manifest, rows: Sequence[Row], limits: Thresholds) -> list[str]:
    """What has no result although it should."""
    measured = {row.variant for row in rows}
    said = (
        [] if limits.unmeasured else [f"no device measured {v.id}" for v in manifest.variants if v.id not in measured]
    )
    for pattern in limits.require:
        if not any(fnmatch.fnmatchcase(row.stratum, pattern) for row in rows):
            said.append(f"no result from {pattern}")
    return said

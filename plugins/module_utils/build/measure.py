# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Measure a variant on the build host, and compare what was measured with its budget."""

from __future__ import annotations

import functools
import math
import platform
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..release.golden import score
from ..release.manifest import Budget
from .arrays import Samples, to_tensor
from .sessions import OPENERS, Session
from .spec import VariantSpec

WARMUP = 20
MAX_CALLS = 300
MAX_SECONDS = 2.0  # per variant: a slow model is timed with fewer calls
MIN_CALLS = 20
INT8_FLAGS = frozenset(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"))


@dataclass(frozen=True)
class Host:
    """The build host: what it can run, and which stratum's budget holds for figures measured on it."""

    architecture: str
    cpu_flags: frozenset[str]

    def stratum(self, runtime: str) -> str:
        """accelerator/runtime/architecture, as a device of this kind would name it."""
        label = "cpu-int8" if self.cpu_flags & INT8_FLAGS else "cpu"
        return f"{label}/{runtime}/{self.architecture}"


def read_host(cpuinfo: Path = Path("/proc/cpuinfo")) -> Host:
    """The host this runs on. Flags are ``flags`` (x86) or ``Features`` (arm64); none where /proc is missing."""
    flags: set[str] = set()
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _colon, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags.update(value.split())
                break
    except OSError:
        pass
    machine = platform.machine()
    return Host({"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine), frozenset(flags))


def why_not_measured(variant: VariantSpec, host: Host) -> str | None:
    """Why figures from this host would not be true for the variant's devices; None when they are."""
    if variant.skip_validation:
        return "skip_validation is set"
    if variant.runtime not in OPENERS:
        return f"there is no way to run {variant.runtime} on a build host"
    if host.architecture not in variant.architectures:
        return "it is for {} and this host is {}".format(", ".join(variant.architectures), host.architecture)
    if "cpu" not in variant.requires["accelerators"]:
        return "it requires {}, and a build measures on the CPU".format(", ".join(variant.requires["accelerators"]))
    wanted = variant.requires.get("cpu_flags_any")
    if wanted and not host.cpu_flags.intersection(wanted):
        return "this host's CPU has none of {}, and 8-bit arithmetic differs without".format(", ".join(wanted))
    return None


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank quantile of a sorted sequence (Hyndman and Fan, type 1)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency_ms(session: Session, samples: Samples, batch: int) -> tuple[float, float]:
    """(p50, p95) in ms of calls with ``batch`` samples, going round the samples; at most about two seconds."""
    last = samples.count - batch + 1
    feeds = [{name: value[at : at + batch] for name, value in samples.inputs.items()} for at in range(0, min(last, 64))]
    stop = time.perf_counter() + MAX_SECONDS
    times: list[float] = []
    for call in range(WARMUP + MAX_CALLS):
        begin = time.perf_counter_ns()
        session.run(feeds[call % len(feeds)])
        times.append((time.perf_counter_ns() - begin) / 1e6)
        if time.perf_counter() > stop and len(times) >= MIN_CALLS:
            break
    kept = sorted(times[WARMUP:] if len(times) >= WARMUP + MIN_CALLS else times[len(times) // 4 :])
    return quantile(kept, 0.5), quantile(kept, 0.95)


@dataclass(frozen=True)
class Reference:
    """Samples with the fp32 model's outputs (manifest order) and its own score on them."""

    samples: Samples
    outputs: list[Any]
    score: float
    p50_ms: float = 0.0  # of the fp32 model itself; 0: not timed
    size: int = 0  # of its files, bytes; 0: not looked at
    compressed: int = 0


def make_reference(session: Session, samples: Samples, metric: str, batch: int | None) -> Reference:
    """Run the fp32 model over the samples."""
    outputs = session.run_all(samples.inputs, samples.count, batch)
    return Reference(samples, outputs, score_outputs(metric, outputs[0], outputs[0], samples))


def score_outputs(metric: str, found: Any, reference: Any, samples: Samples) -> float:
    """The release format's own score, 0..1: what a device will compute."""
    labels = None if samples.labels is None else to_tensor("label", samples.labels)
    return score(metric, to_tensor("output", found), to_tensor("output", reference), labels)


def measure(
    session: Session, metric: str, golden: Reference, validation: Reference, batch: int | None
) -> tuple[dict[str, Any], float]:
    """Figures for the manifest, and the drop on the golden samples (what the device gate will look at)."""
    drops, accuracy = [], 0.0
    for part in (golden, validation):
        outputs = session.run_all(part.samples.inputs, part.samples.count, batch)
        accuracy = score_outputs(metric, outputs[0], part.outputs[0], part.samples)
        drops.append(part.score - accuracy)
    p50, p95 = latency_ms(session, golden.samples, batch or 1)
    measured = {
        "accuracy": round(accuracy, 6),
        "accuracy_drop": round(drops[1], 6),
        "p50_ms": round(p50, 4),
        "p95_ms": round(p95, 4),
        "runtime_version": session.runtime_version,
    }
    return measured, round(drops[0], 6)


def costs(reference: Reference, measured: Mapping[str, Any]) -> dict[str, float]:
    """What a variant costs and brings against the fp32 ONNX model on this host: below 1 is smaller or faster."""
    pairs = (
        ("size_ratio", measured["size_bytes"], reference.size),
        ("compressed_ratio", measured["compressed_bytes"], reference.compressed),
        ("p50_ratio", measured["p50_ms"], reference.p50_ms),
    )
    return {name: round(value / base, 4) for name, value, base in pairs if base}


def compressed_size(paths: Iterable[Path]) -> int:
    """Bytes of the files after zlib at its default level, one stream per file: what an archive or a transfer takes."""
    total = 0
    for path in paths:
        stream = zlib.compressobj()
        with open(path, "rb") as source:
            for piece in iter(functools.partial(source.read, 1 << 20), b""):
                total += len(stream.compress(piece))
        total += len(stream.flush())
    return total


def breaches(measured: Mapping[str, Any], golden_drop: float, budget: Budget) -> list[str]:
    """Every figure above its budget, as text. Memory and p95 against an incumbent exist on a device only."""
    checks = (
        ("accuracy_drop", measured["accuracy_drop"], budget.accuracy_drop),
        ("accuracy_drop on the golden samples", golden_drop, budget.accuracy_drop),
        ("p95_ms", measured["p95_ms"], budget.p95_ms),
    )
    return [f"{name} {value:.4g} is above the budget {limit:.4g}" for name, value, limit in checks if value > limit]

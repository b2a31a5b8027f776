# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The device gate's measurements: golden samples and latencies, through the server that will serve.

The batch shape is fixed by the model alone, because the last bits of a result can depend on it: outputs are compared
byte by byte across time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..release.errors import ReleaseError
from ..release.golden import GoldenSet, Tensor, outputs_digest, score
from ..release.model import Manifest
from .client import Client
from .oip import Call, ServerError, encode_call, join_rows

BATCH = 16
#: HTTP status of an infer request that the model, not the server's momentary state, is to blame for.
MODEL_FAULTS = (400, 500)


@dataclass
class GoldenRun:
    """Outputs by name for the first ``rows`` golden samples, which digests answered, and what ended it early."""

    rows: int = 0
    outputs: dict[str, Tensor] = field(default_factory=dict)
    digests: set[str | None] = field(default_factory=set)
    error: ServerError | None = None


@dataclass
class Latencies:
    """Milliseconds per answered request, requests the server failed, and what went wrong last."""

    milliseconds: list[float] = field(default_factory=list)
    errors: int = 0
    digests: set[str | None] = field(default_factory=set)
    last_error: ServerError | None = None


def batch_of(manifest: Manifest) -> int:
    """Rows per request: what the signed inputs fix, else BATCH."""
    fixed = [spec.shape[0] for spec in manifest.inputs if spec.shape and spec.shape[0] > 0]
    return fixed[0] if fixed else BATCH


def slice_inputs(golden: GoldenSet, start: int, stop: int) -> list[Tensor]:
    """The input tensors of some golden samples."""
    return [tensor.rows(start, stop) for tensor in golden.inputs.values()]


def run_golden(
    client: Client, manifest: Manifest, golden: GoldenSet, version: str | None = None, rows: int | None = None
) -> GoldenRun:
    """Infer the first ``rows`` golden samples (all by default) in batches; never raises ServerError.

    A variant can be built for single rows although the manifest leaves the batch free: when the first batch is refused,
    all rows go one by one.
    """
    wanted = golden.samples if rows is None else min(rows, golden.samples)
    batch = batch_of(manifest)
    run = _run_batches(client, manifest.model, golden, version, wanted, batch)
    refused = run.error is not None and run.rows == 0 and run.error.status in MODEL_FAULTS
    if refused and batch == BATCH and wanted > 1:
        return _run_batches(client, manifest.model, golden, version, wanted, 1)
    return run


def _run_batches(
    client: Client, model: str, golden: GoldenSet, version: str | None, wanted: int, batch: int
) -> GoldenRun:
    run = GoldenRun()
    parts: dict[str, list[Tensor]] = {}
    try:
        for start in range(0, wanted, batch):
            stop = min(start + batch, wanted)
            answer = client.infer(model, slice_inputs(golden, start, stop), version)
            for name, tensor in answer.outputs.items():
                if not tensor.shape or tensor.shape[0] != stop - start:
                    raise ServerError(f"output {name!r} has shape {list(tensor.shape)} for {stop - start} samples")
                parts.setdefault(name, []).append(tensor)
            run.digests.add(answer.digest)
            run.rows = stop
        run.outputs = {name: join_rows(tensors) for name, tensors in parts.items()}
    except ServerError as error:
        run.error = error
        run.outputs = {}
    return run


def broken_outputs(run: GoldenRun, golden: GoldenSet) -> str | None:
    """Why outputs are worthless: one is missing, has another shape, or is not finite where the reference is."""
    for name, whole in golden.outputs.items():
        found, reference = run.outputs.get(name), whole.rows(0, run.rows)
        if found is None:
            return f"output {name!r} is missing (the server gave {', '.join(sorted(run.outputs)) or 'none'})"
        if found.shape != reference.shape:
            return f"output {name!r} has shape {list(found.shape)}, the reference {list(reference.shape)}"
        wrong = sum(
            1
            for value, expected in zip(found.values(), reference.values())
            if not math.isfinite(value) and math.isfinite(expected)
        )
        if wrong:
            return f"output {name!r} has {wrong} values that are NaN or infinite"
    return None


def score_run(manifest: Manifest, run: GoldenRun, golden: GoldenSet) -> float:
    """The score (0..1) of a run's first output by the manifest's metric. Raises ReleaseError when there is none."""
    name = manifest.outputs[0].name
    labels = golden.labels.rows(0, run.rows) if golden.labels is not None else None
    if name not in run.outputs or name not in golden.outputs:
        raise ReleaseError(f"output {name!r} is missing")
    return score(manifest.golden.metric, run.outputs[name], golden.outputs[name].rows(0, run.rows), labels)


def reference_score(manifest: Manifest, golden: GoldenSet, rows: int) -> float:
    """The signed reference's score; computed anew over the same rows when not all of them are used."""
    if rows >= golden.samples or rows == 0:
        return manifest.golden.reference_score
    return score_run(manifest, GoldenRun(rows, {n: t.rows(0, rows) for n, t in golden.outputs.items()}), golden)


def hits(manifest: Manifest, run: GoldenRun, golden: GoldenSet) -> list[bool]:
    """Per sample, whether the first output's largest value is the label's. Needs the metric top1 and labels."""
    name = manifest.outputs[0].name
    labels = golden.labels
    if labels is None:
        return []
    return [
        score("top1", run.outputs[name].rows(i, i + 1), golden.outputs[name].rows(i, i + 1), labels.rows(i, i + 1))
        == 1.0
        for i in range(run.rows)
    ]


def golden_outputs_digest(
    client: Client, manifest: Manifest, golden: GoldenSet, version: str | None = None, rows: int | None = None
) -> str:
    """Bare hex over the exact bytes of all outputs for the golden samples, always in the same batches.

    Two calls on the same variant of the same release, runtime and machine agree. Raises ServerError.
    """
    run = run_golden(client, manifest, golden, version, rows)
    if run.error is not None:
        raise run.error
    return outputs_digest(run.outputs.values())


def single_calls(manifest: Manifest, golden: GoldenSet) -> list[Call]:
    """One encoded request per golden sample (per batch, for a model with a fixed batch)."""
    fixed = [spec.shape[0] for spec in manifest.inputs if spec.shape and spec.shape[0] > 0]
    width = fixed[0] if fixed else 1
    return [
        encode_call(slice_inputs(golden, start, start + width)) for start in range(0, golden.samples - width + 1, width)
    ]


def measure_latency(
    client: Client,
    model: str,
    calls: Sequence[Call],
    version: str | None,
    requests: int,
    warmup: int,
    seconds: float,
    incumbent: bool,
) -> tuple[Latencies, Latencies]:
    """Latencies of (candidate, incumbent), one request each in turn, so that what else the device does hits both.

    ``version`` addresses the candidate; the incumbent answers on the default path. The order within a pair alternates.
    The first ``warmup`` pairs are not timed, but their errors count. Ends after ``requests`` pairs or ``seconds``.
    An incumbent that fails a request is left out of the comparison.
    """
    candidate, other = Latencies(), Latencies()
    sides = [(version, candidate), (None, other)] if incumbent else [(version, candidate)]
    end = time.monotonic() + seconds
    for number in range(-warmup, requests):
        if time.monotonic() >= end:
            break
        for address, measured in sides if number % 2 else sides[::-1]:
            if not _one(client, model, calls[number % len(calls)], address, measured, timed=number >= 0):
                return candidate, other
        if other.errors:
            sides, other = sides[:1], Latencies()
    return candidate, other


def _one(client: Client, model: str, call: Call, version: str | None, into: Latencies, timed: bool) -> bool:
    """Send one request; False when the server is gone and there is nothing more to measure."""
    try:
        answer = client.infer(model, call, version)
    except ServerError as error:
        if error.timed_out and client.time_left() <= 0:
            return False  # this measurement's time is up, which is no failure of the server
        into.last_error = error
        into.errors += error.status in MODEL_FAULTS or error.timed_out
        return error.status is not None or error.timed_out
    if timed:
        into.milliseconds.append(1000.0 * answer.seconds)
    into.digests.add(answer.digest)
    return True

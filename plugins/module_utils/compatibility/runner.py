# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""One variant of a release in its runtime, without a server: outputs against the reference, and latency.

Runs as a process of its own, in the interpreter that has the runtime: what crashes there takes nothing with it. The
model is opened as the model server opens it, and measured as the device gate measures it.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

from ..device import measure
from ..device.client import Client
from ..device.errors import DeviceError
from ..device.oip import Answer, ServerError
from ..release.errors import ReleaseError
from ..release.golden import GoldenSet, Tensor, load_golden, outputs_digest, score
from ..release.manifest import Manifest, load_manifest
from ..server import backends, deps
from ..server.tensors import NUMPY_TYPES

WARMUP = 20


class Local:
    """What ``measure`` needs of a client, straight to the runtime; ``seconds`` is the model's time alone."""

    def __init__(self, session: backends.Session, manifest: Manifest) -> None:
        self._session = session
        self._outputs = manifest.outputs

    def infer(self, _model: str, inputs: Any, _version: str | None = None) -> Answer:
        """Run the model on tensors, or on arrays by name. Raises ServerError for what the runtime refuses."""
        arrays = inputs if isinstance(inputs, dict) else arrays_of(inputs)
        begin = time.perf_counter()
        try:
            found = self._session.infer(arrays)
        except Exception as exc:  # native runtimes raise types of their own
            raise ServerError(f"{type(exc).__name__}: {exc}", status=500) from exc
        seconds = time.perf_counter() - begin
        return Answer({spec.name: tensor_of(spec, found[spec.name]) for spec in self._outputs}, None, None, seconds)

    def time_left(self) -> float:
        """Nothing here waits."""
        return 0.0


def arrays_of(tensors: Any) -> dict[str, Any]:
    """Tensors as numpy arrays by name."""
    np = deps.numpy()
    return {t.name: np.frombuffer(t.data, NUMPY_TYPES[t.datatype]).reshape(t.shape) for t in tensors}


def tensor_of(spec: Any, array: Any) -> Tensor:
    """An output as a tensor of the declared datatype."""
    np = deps.numpy()
    plain = np.ascontiguousarray(array, dtype=NUMPY_TYPES[spec.datatype])
    return Tensor(spec.name, spec.datatype, tuple(plain.shape), plain.tobytes())


def run(release: str, variant_id: str, samples: int, requests: int, seconds: float, threads: int) -> dict[str, Any]:
    """Measure one variant. samples: golden samples to use, 0 for all; requests and seconds bound the latency part.

    Raises DeviceError or ReleaseError when the model cannot be opened or answers nothing.
    """
    manifest = load_manifest(release)
    variant = manifest.variant(variant_id)
    golden = load_golden(os.path.join(release, manifest.golden.path))
    session, _seconds = backends.open_session(os.path.join(release, variant.entry), manifest, variant, threads)
    client = cast(Client, Local(session, manifest))
    found = measure.run_golden(client, manifest, golden, rows=samples or None)
    if found.error is not None:
        raise found.error
    broken = measure.broken_outputs(found, golden)
    if broken:
        raise DeviceError("server", broken)
    width = measure.batch_of(manifest) if manifest.inputs[0].shape[:1] != (-1,) else 1
    calls = [
        arrays_of(measure.slice_inputs(golden, at, at + width)) for at in range(0, golden.samples - width + 1, width)
    ]
    times, _other = measure.measure_latency(
        client, manifest.model, cast(Any, calls), None, requests, WARMUP, seconds, incumbent=False
    )
    return {
        **compare(manifest, found, golden),
        "runtime_version": session.runtime_version,
        "details": session.details,
        **latency(times.milliseconds),
    }


def compare(manifest: Manifest, found: measure.GoldenRun, golden: GoldenSet) -> dict[str, Any]:
    """How far outputs are from the signed reference. Errors are absolute, over every value of every output."""
    first = manifest.outputs[0].name
    reference = {name: tensor.rows(0, found.rows) for name, tensor in golden.outputs.items()}
    value = measure.score_run(manifest, found, golden)
    classes = reference[first].shape[-1] > 1
    return {
        "samples": found.rows,
        "max_abs_error": max(largest_difference(found.outputs[name], tensor) for name, tensor in reference.items()),
        "relative_error": round(1 - score("relative_error", found.outputs[first], reference[first]), 9),
        "top1_agreement": round(score("top1", found.outputs[first], reference[first]), 9) if classes else None,
        "score": round(value, 9),
        "accuracy_drop": round(measure.reference_score(manifest, golden, found.rows) - value, 9),
        "outputs_sha256": outputs_digest(found.outputs.values()),
    }


def largest_difference(one: Tensor, other: Tensor) -> float:
    """The largest absolute difference of two tensors; values that are equal, infinities too, differ by nothing."""
    return max((0.0 if a == b else abs(a - b) for a, b in zip(one.values(), other.values())), default=0.0)


def latency(milliseconds: list[float]) -> dict[str, Any]:
    """p50 and p95 in ms of single requests, and how many there were."""
    ordered = sorted(milliseconds)
    if not ordered:
        return {"requests": 0, "p50_ms": None, "p95_ms": None}
    p50, p95 = (ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.95))
    return {"requests": len(ordered), "p50_ms": round(p50, 5), "p95_ms": round(p95, 5)}


def main(descriptor: int, request: Mapping[str, Any]) -> None:
    """Answer one request on a descriptor: the measurements, or ``error`` in words."""
    try:
        answer = run(**request)
    except (DeviceError, ReleaseError) as exc:
        answer = {"error": str(exc)}
    with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
        json.dump(answer, pipe)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))

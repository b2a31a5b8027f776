# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How good the fp32 model of a spec is, before minutes of work go into variants of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..release.errors import ReleaseError
from .arrays import load_samples
from .inputs import OpenRegistry, gathered
from .libs import quiet
from .measure import make_reference
from .onnx_model import inspect
from .sessions import open_session
from .spec import load_spec


def evaluate(spec_path: Path, registry: OpenRegistry | None = None, converter: Sequence[str] = ()) -> dict[str, Any]:
    """Score (0..1) of the fp32 model on the labelled validation samples, and what it is the score of.

    Raises ReleaseError: bad spec or input, or samples without labels: the reference always agrees with itself.
    """
    with gathered(load_spec(spec_path), registry, converter) as inputs:
        spec = inputs.spec
        info = inspect(spec.onnx)
        role = "validation" if spec.validation else "golden"
        samples = load_samples(spec.validation or spec.golden, role, info.inputs)
        if samples.labels is None or spec.metric != "top1":
            raise ReleaseError(
                f"{spec.path}: a model is judged by labels: give `label` in `{role}` and `metric: top1`, or evaluate "
                "it where it is trained"
            )
        names = [[tensor["name"] for tensor in tensors] for tensors in (info.inputs, info.outputs)]
        with quiet() as captured:
            try:
                session = open_session("onnxruntime", spec.onnx, names[0], names[1])
                found = make_reference(session, samples, spec.metric, info.fixed_batch)
            except ReleaseError:
                raise
            except Exception as exc:  # onnxruntime raises its own types
                raise ReleaseError(f"{spec.onnx}: onnxruntime cannot run it: {exc}; {captured.tail()}") from exc
    return {
        "model": spec.model,
        "version": spec.version,
        "metric": spec.metric,
        "samples": samples.count,
        "score": round(found.score, 9),
    }

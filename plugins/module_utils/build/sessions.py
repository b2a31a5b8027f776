# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Run an artifact in its own runtime on the build host: one thread, CPU, float arithmetic in 32 bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from ..release.errors import ReleaseError
from .libs import require, version

CHUNK = 32  # samples per call when the batch axis is free: bounds memory, and is far from the last per cent of speed


class Session:
    """An open model: ``run`` maps inputs by name to outputs in the manifest's order."""

    def __init__(self, runtime_version: str, run: Callable[[Mapping[str, Any]], list[Any]], chunk: int = CHUNK) -> None:
        """``chunk``: samples per call when the model leaves the batch axis free."""
        self.runtime_version = runtime_version
        self.run = run
        self.chunk = chunk

    def run_all(self, inputs: Mapping[str, Any], count: int, fixed_batch: int | None) -> list[Any]:
        """Outputs [count, ...] for inputs [count, ...], in chunks of the model's batch size."""
        np = require("numpy", "Running a model")
        step = fixed_batch or self.chunk
        if fixed_batch and count % fixed_batch:
            raise ReleaseError(
                f"the model takes exactly {fixed_batch} samples a call and there are {count}: give a multiple, "
                "or export with a dynamic first axis"
            )
        parts = [
            self.run({name: value[at : at + step] for name, value in inputs.items()}) for at in range(0, count, step)
        ]
        outputs = [np.concatenate(values) for values in zip(*parts)]
        for output in outputs:
            if output.shape[0] != count:
                raise ReleaseError(
                    f"an output has {output.shape[0]} rows for {count} samples: the first axis must be the batch"
                )
        return outputs


def open_session(runtime: str, entry: Path, inputs: list[str], outputs: list[str]) -> Session:
    """Open ``entry`` in ``runtime``; ``inputs`` and ``outputs`` are the manifest's names in their order."""
    return OPENERS[runtime](entry, inputs, outputs)


def _open_onnxruntime(entry: Path, _inputs: list[str], outputs: list[str]) -> Session:
    ort = require("onnxruntime", "An onnxruntime variant")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(entry), options, providers=["CPUExecutionProvider"])
    return Session(ort.__version__, lambda feed: session.run(outputs, dict(feed)))


def _open_openvino(entry: Path, _inputs: list[str], outputs: list[str]) -> Session:
    ov = require("openvino", "An openvino variant")
    # Without the hint OpenVINO computes in bfloat16 on CPUs that have it, and says nothing.
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(str(entry), "CPU", config).create_infer_request()

    def run(feed: Mapping[str, Any]) -> list[Any]:
        results = request.infer(dict(feed))
        return [results[name].copy() for name in outputs]

    return Session(version("openvino") or str(ov.__version__), run)


def _open_litert(entry: Path, inputs: list[str], outputs: list[str]) -> Session:
    module = require("ai_edge_litert.interpreter", "A litert variant")
    interpreter = module.Interpreter(model_path=str(entry), num_threads=1)
    interpreter.allocate_tensors()
    takes = match_tensors(str(entry), "input", inputs, _named(interpreter, "input"))
    gives = match_tensors(str(entry), "output", outputs, _named(interpreter, "output"))
    shapes = {name: tuple(detail["shape"]) for name, detail in takes.items()}

    def run(feed: Mapping[str, Any]) -> list[Any]:
        changed = False
        for name, detail in takes.items():
            if shapes[name] != feed[name].shape:
                interpreter.resize_tensor_input(detail["index"], feed[name].shape)
                shapes[name], changed = feed[name].shape, True
        if changed:
            interpreter.allocate_tensors()
        for name, detail in takes.items():
            interpreter.set_tensor(detail["index"], feed[name])
        interpreter.invoke()
        return [interpreter.get_tensor(gives[name]["index"]) for name in outputs]

    # One sample a call: most converters fix the batch inside the graph, so a resized model may not run.
    return Session(version("ai_edge_litert") or "unknown", run, chunk=1)


def _named(interpreter: Any, role: str) -> list[dict[str, Any]]:
    """Details of inputs or outputs, named as in the signature when there is exactly one: quantizers rename tensors."""
    details = getattr(interpreter, f"get_{role}_details")()
    keys = list(interpreter.get_signature_list())
    if len(keys) != 1:
        return list(details)
    signature = getattr(interpreter.get_signature_runner(keys[0]), f"get_{role}_details")()
    return [{**detail, "name": name} for name, detail in signature.items()]


def match_tensors(where: str, role: str, names: list[str], details: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Model name -> LiteRT tensor: by exact name or ``serving_default_<name>:0``; a single one whatever its name."""
    plain = {}
    for detail in details:
        short = str(detail["name"]).partition(":")[0]
        plain[short[len("serving_default_") :] if short.startswith("serving_default_") else short] = detail
    if set(plain) != set(names) and len(details) == len(names) == 1:
        return {names[0]: details[0]}
    if set(plain) != set(names):
        raise ReleaseError(
            f"{where}: its {role} tensors are {sorted(plain)}, the ONNX model's {names}: use the same names"
        )
    return plain


OPENERS: dict[str, Callable[[Path, list[str], list[str]], Session]] = {
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
    "litert": _open_litert,
}

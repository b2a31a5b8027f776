# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a build needs to know of an ONNX file: versions, inputs and outputs, files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..release.errors import ReleaseError
from ..release.paths import check_relative
from .arrays import DATATYPE
from .libs import require

# onnxruntime 1.17 and the openvino of the same year, the oldest that devices may have, read no more than this.
MAX_OPSET = 21
MAX_IR = 10
HOW_TO_EXPORT = (
    "export it again with opset_version=17 (any of 13..21), or convert it with "
    "onnx.version_converter.convert_version(model, 21) and set model.ir_version = 10 before onnx.save"
)


@dataclass(frozen=True)
class OnnxInfo:
    """Facts of one ONNX file. Tensor specs are manifest entries: {name, datatype, shape} with -1 for a dynamic size."""

    opset: int
    ir_version: int
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    external: tuple[str, ...]  # weight files beside the model, relative to it

    @property
    def fixed_batch(self) -> int | None:
        """The size of the first axis when the model fixes it, else None."""
        sizes = {spec["shape"][0] for spec in self.inputs if spec["shape"]}
        fixed = sizes - {-1}
        return int(fixed.pop()) if len(fixed) == 1 and -1 not in sizes else None


def inspect(path: Path) -> OnnxInfo:
    """Read an ONNX file without its external weights; ReleaseError unless the runtimes on devices can open it."""
    onnx = require("onnx", "Building a release")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as exc:  # protobuf's DecodeError is not an OSError, and onnx raises several kinds
        raise ReleaseError(f"{path}: cannot read it as an ONNX model: {exc}") from exc
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not opsets or not model.graph.node:
        raise ReleaseError(f"{path}: not an ONNX model (no operator set or no nodes); is it the right file?")
    opset = max(opsets)
    if opset > MAX_OPSET or model.ir_version > MAX_IR:
        raise ReleaseError(
            f"{path}: opset {opset} and IR version {model.ir_version}, but devices read up to opset {MAX_OPSET} "
            f"and IR {MAX_IR}: {HOW_TO_EXPORT}"
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    return OnnxInfo(
        opset=opset,
        ir_version=int(model.ir_version),
        inputs=[_tensor(onnx, path, value) for value in model.graph.input if value.name not in weights],
        outputs=[_tensor(onnx, path, value) for value in model.graph.output],
        external=_external(onnx, path, model),
    )


def _tensor(onnx: Any, path: Path, value: Any) -> dict[str, Any]:
    if value.type.WhichOneof("value") != "tensor_type":
        raise ReleaseError(
            f"{path}: {value.name} is not a tensor; only models whose inputs and outputs are tensors can be served"
        )
    kind = value.type.tensor_type
    try:
        datatype = DATATYPE[str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))]
    except KeyError as exc:
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise ReleaseError(
            "{}: {} has the type {}; use one of {}".format(path, value.name, name, ", ".join(sorted(DATATYPE)))
        ) from exc
    if not kind.HasField("shape"):
        raise ReleaseError(
            f"{path}: {value.name} has no shape; run onnx.shape_inference.infer_shapes on the model and save it again"
        )
    shape = [int(axis.dim_value) if axis.dim_value > 0 else -1 for axis in kind.shape.dim]
    return {"name": value.name, "datatype": datatype, "shape": shape}


def weight_files(path: Path) -> tuple[str, ...]:
    """Names of the weight files that a model wants beside it, whether they are there or not."""
    onnx = require("onnx", "Building a release")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as exc:  # protobuf's DecodeError is not an OSError, and onnx raises several kinds
        raise ReleaseError(f"{path}: cannot read it as an ONNX model: {exc}") from exc
    return _named_weights(onnx, path, model)


def _external(onnx: Any, path: Path, model: Any) -> tuple[str, ...]:
    """Names of the weight files beside the model; all of them are there."""
    names = _named_weights(onnx, path, model)
    for name in names:
        if not (path.parent / name).is_file():
            raise ReleaseError(f"{path}: its weight file {name} is not beside it; copy it there")
    return names


def _named_weights(onnx: Any, path: Path, model: Any) -> tuple[str, ...]:
    """The weight files a model names. A location that climbs out of the directory is refused."""
    found: set[str] = set()
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            found.update(entry.value for entry in tensor.external_data if entry.key == "location")
    for name in sorted(found):
        check_relative(name, str(path), "external_data.location")
    return tuple(sorted(found))

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Make the files of one variant from the fp32 ONNX model, each with its target runtime's own tool."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..release.digests import copy_hashed
from ..release.errors import ReleaseError
from . import litert
from .libs import require
from .onnx_model import MAX_IR, OnnxInfo, inspect
from .prune import prune
from .spec import Spec, VariantSpec

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """What was made: the entry's name, what was done in words, the share of zero weights (None: not pruned)."""

    entry: str
    method: str
    sparsity: float | None = None


def make_variant(spec: Spec, variant: VariantSpec, info: OnnxInfo, calibration: Arrays | None, directory: Path) -> Made:
    """Write the variant's files into the existing ``directory``.

    ``calibration`` maps input names to arrays [n, ...] for the methods that calibrate, else None.
    """
    if variant.artifact:
        for path in variant.artifact:
            copy_hashed(path, directory / path.name)
        return Made(variant.artifact[0].name, "prebuilt")
    if not variant.prune:
        return Made(_convert(spec.onnx, variant, info, calibration, directory), variant.method)
    with tempfile.TemporaryDirectory(dir=directory.parent) as work:
        pruned = Path(work) / "model.onnx"
        sparsity = prune(spec.onnx, variant.prune, pruned)
        entry = _convert(pruned, variant, inspect(pruned), calibration, directory)
    method = "prune" if variant.method == "none" else "prune+" + variant.method
    return Made(entry, method, round(sparsity, 6))


def _convert(source: Path, variant: VariantSpec, info: OnnxInfo, calibration: Arrays | None, directory: Path) -> str:
    """Bring the fp32 model ``source`` into the variant's runtime and precision; returns the entry's name."""
    if variant.runtime == "onnxruntime" and variant.method == "none":
        return _copy_onnx(source, info, directory)
    if variant.runtime == "litert":
        return litert.make(source, variant.id, calibration if variant.method == "litert-static" else None, directory)
    if variant.method in ("ort-static", "ort-dynamic"):
        return _quantize_ort(source, variant, info, calibration, directory)
    return _make_openvino(source, variant, info, calibration, directory)


def _copy_onnx(source: Path, info: OnnxInfo, directory: Path) -> str:
    for name in info.external:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        copy_hashed(source.parent / name, directory / name)
    copy_hashed(source, directory / "model.onnx")
    return "model.onnx"


def feeds(calibration: Arrays, info: OnnxInfo) -> Iterator[dict[str, Any]]:
    """One feed per model call: a sample, or as many as the model's fixed batch takes (a rest is dropped)."""
    step = info.fixed_batch or 1
    count = min(len(value) for value in calibration.values())
    for at in range(0, count - step + 1, step):
        yield {name: value[at : at + step] for name, value in calibration.items()}


def _quantize_ort(
    source: Path, variant: VariantSpec, info: OnnxInfo, calibration: Arrays | None, directory: Path
) -> str:
    """onnxruntime's quantizer, in the QDQ format; needs neither torch nor sympy."""
    quantization = require("onnxruntime.quantization", "Variant " + variant.id)
    options, target = variant.options, directory / "model.onnx"
    types = {"quint8": quantization.QuantType.QUInt8, "qint8": quantization.QuantType.QInt8}
    if options["per_channel"] and info.opset < 13:
        raise ReleaseError(
            f"{source}: opset {info.opset} cannot hold per-channel scales (variant {variant.id}): export with "
            "opset 13..21 or set per_channel: false"
        )
    common = {
        "per_channel": options["per_channel"],
        "reduce_range": options["reduce_range"],
        "weight_type": types[options["weight_type"]],
        "op_types_to_quantize": options["op_types"] or None,
        "nodes_to_exclude": options["exclude_nodes"] or None,
        "use_external_data_format": bool(info.external),
    }
    with tempfile.TemporaryDirectory(dir=directory.parent) as work:
        prepared = Path(work) / "prepared.onnx"
        quantization.shape_inference.quant_pre_process(
            str(source), str(prepared), skip_symbolic_shape=True, save_as_external_data=bool(info.external)
        )
        if variant.method == "ort-dynamic":
            quantization.quantize_dynamic(str(prepared), str(target), **common)
        else:
            quantization.quantize_static(
                str(prepared),
                str(target),
                _reader(quantization, feeds(calibration or {}, info)),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=types[options["activation_type"]],
                calibrate_method=getattr(quantization.CalibrationMethod, CALIBRATE[options["calibrate_method"]]),
                calibration_providers=["CPUExecutionProvider"],
                **common,
            )
    _lower_ir(target)
    inspect(target)  # the tool may have raised the opset
    return target.name


CALIBRATE = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


def _reader(quantization: Any, iterator: Iterator[dict[str, Any]]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        """Hands over one feed after the other, then None."""

        def get_next(self) -> dict[str, Any] | None:
            """The next feed."""
            return next(iterator, None)

    return Reader()


def _lower_ir(path: Path) -> None:
    """Set an IR version above MAX_IR down: newer ones only add types that an 8-bit model does not use."""
    onnx = require("onnx", "Building a release")
    model = onnx.load(str(path), load_external_data=False)
    if model.ir_version > MAX_IR:
        model.ir_version = MAX_IR
        path.write_bytes(model.SerializeToString())


def _make_openvino(
    source: Path, variant: VariantSpec, info: OnnxInfo, calibration: Arrays | None, directory: Path
) -> str:
    """OpenVINO IR (xml and bin), quantized by nncf when the variant asks for it."""
    ov = require("openvino", "Variant " + variant.id)
    model = ov.Core().read_model(str(source))
    if variant.method == "nncf":
        model = _nncf(model, variant, list(feeds(calibration or {}, info)))
    _settle_names(model)
    ov.save_model(model, str(directory / "model.xml"), compress_to_fp16=variant.precision == "fp16")
    return "model.xml"


def _settle_names(model: Any) -> None:
    """Number the nodes that have no name of their own, such as Constant_18219, by their place in the graph.

    OpenVINO numbers them by a counter of the whole process, so the same model would give other bytes on another day.
    """
    operations = model.get_ordered_ops()
    taken = {operation.get_friendly_name() for operation in operations}
    for number, operation in enumerate(operations):
        kind = operation.get_type_name()
        if re.fullmatch(re.escape(kind) + r"_\d+", operation.get_friendly_name()):
            name = f"{kind}.{number}"
            while name in taken:
                name += "_"
            taken.add(name)
            operation.set_friendly_name(name)


def _nncf(model: Any, variant: VariantSpec, samples: list[dict[str, Any]]) -> Any:
    nncf = require("nncf", "Variant " + variant.id)
    options = variant.options
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset(options["preset"]),
        subset_size=len(samples),
        fast_bias_correction=options["fast_bias_correction"],
        model_type=nncf.ModelType.TRANSFORMER if options["transformer"] else None,
        ignored_scope=nncf.IgnoredScope(names=options["exclude_nodes"]) if options["exclude_nodes"] else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix[options["overflow_fix"].upper()]
        ),
    )

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How a variant can be made smaller: the methods of quantization with their options, and pruning before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..release.errors import field_error
from .spec_fields import boolean, known, number, strings

METHODS = ("ort-static", "ort-dynamic", "nncf", "litert-static", "none")
CALIBRATED = ("ort-static", "nncf", "litert-static")

# What is done when a variant says neither `quantize` nor `artifact`.
DEFAULT_METHOD = {
    ("onnxruntime", "fp32"): "none",
    ("onnxruntime", "int8"): "ort-static",
    ("openvino", "fp32"): "none",
    ("openvino", "fp16"): "none",
    ("openvino", "int8"): "nncf",
    ("litert", "fp32"): "none",
    ("litert", "int8"): "litert-static",
}
# Method -> runtime and precision it makes, and its options: name -> (type, default, allowed values or None).
METHOD_MAKES = {
    "ort-static": ("onnxruntime", ("int8",)),
    "ort-dynamic": ("onnxruntime", ("int8",)),
    "nncf": ("openvino", ("int8",)),
    "litert-static": ("litert", ("int8",)),
}
OPTIONS: dict[str, dict[str, tuple[type, Any, tuple[str, ...] | None]]] = {
    "ort-static": {
        "per_channel": (bool, True, None),
        "reduce_range": (bool, False, None),
        "activation_type": (str, "quint8", ("quint8", "qint8")),
        "weight_type": (str, "qint8", ("quint8", "qint8")),
        "calibrate_method": (str, "minmax", ("minmax", "entropy", "percentile")),
        "op_types": (list, [], None),
        "exclude_nodes": (list, [], None),
    },
    "ort-dynamic": {
        "per_channel": (bool, False, None),
        "reduce_range": (bool, False, None),
        "weight_type": (str, "qint8", ("quint8", "qint8")),
        # Dynamically quantized convolutions are slower than fp32 on x86 and fail on arm64.
        "op_types": (list, ["MatMul", "Gemm"], None),
        "exclude_nodes": (list, [], None),
    },
    "nncf": {
        "preset": (str, "performance", ("performance", "mixed")),
        "overflow_fix": (str, "first_layer", ("enable", "first_layer", "disable")),
        "fast_bias_correction": (bool, True, None),
        "transformer": (bool, False, None),
        "exclude_nodes": (list, [], None),
    },
    "litert-static": {},
    "none": {},
}
# Magnitude pruning of the fp32 weights, before any quantization.
PRUNABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
PRUNE_OPTIONS: dict[str, tuple[type, Any, tuple[str, ...] | None]] = {
    "scope": (str, "global", ("global", "layer")),
    "op_types": (list, list(PRUNABLE), None),
    "exclude_nodes": (list, [], None),
}
VARIANT_LIMITS = {"accuracy_drop": (0.0, 1.0), "p95_ms": (1e-6, 1e9)}


def quantization(
    where: str, at: str, value: Any, runtime: str, precision: str, prebuilt: bool
) -> tuple[str, dict[str, Any]]:
    """Method and complete options of one variant."""
    if prebuilt:
        if value is not None:
            raise field_error(where, at, value, "nothing: `artifact` names a file that is already built")
        return "none", {}
    given = {} if value is None else value
    if not isinstance(given, Mapping):
        raise field_error(where, at, value, "a mapping, for example {method: ort-static, per_channel: true}")
    method = given.get("method", DEFAULT_METHOD.get((runtime, precision)))
    if method is None:
        raise field_error(
            where,
            at,
            value,
            f"{runtime}/{precision} cannot be made from ONNX here: name the prebuilt file(s) in `artifact`",
        )
    if method not in METHODS:
        raise field_error(where, at + ".method", method, "one of " + ", ".join(METHODS))
    makes = METHOD_MAKES.get(method)
    can = (
        (runtime == makes[0] and precision in makes[1]) if makes else DEFAULT_METHOD.get((runtime, precision)) == "none"
    )
    if not can:
        raise field_error(where, at + ".method", method, f"a method that makes {runtime}/{precision}, or `artifact`")
    allowed = OPTIONS[method]
    known(where, at + ".", given, frozenset(("method", *allowed)))
    return method, {
        name: _option(where, f"{at}.{name}", given.get(name, allowed[name][1]), allowed[name]) for name in allowed
    }


def _option(where: str, at: str, value: Any, rule: tuple[type, Any, tuple[str, ...] | None]) -> Any:
    kind, _default, values = rule
    if kind is bool:
        return boolean(where, at, value)
    if kind is list:
        return strings(where, at, value)
    if values is not None and value not in values:
        raise field_error(where, at, value, "one of " + ", ".join(values))
    return value


def pruning(where: str, at: str, value: Any, prebuilt: bool) -> dict[str, Any]:
    """The complete options of magnitude pruning; empty when the variant is not pruned."""
    if value is None:
        return {}
    if prebuilt:
        raise field_error(where, at, value, "nothing: `artifact` names a file that is already built")
    if not isinstance(value, Mapping) or "sparsity" not in value:
        raise field_error(where, at, value, "a mapping with at least `sparsity`, for example {sparsity: 0.5}")
    known(where, at + ".", value, frozenset(("sparsity", *PRUNE_OPTIONS)))
    sparsity = number(
        where, at + ".sparsity", value["sparsity"], 0.01, 0.99, "the share of weights to set to zero, 0.01 to 0.99"
    )
    rest = {
        name: _option(where, f"{at}.{name}", value.get(name, rule[1]), rule) for name, rule in PRUNE_OPTIONS.items()
    }
    for name in rest["op_types"]:
        if name not in PRUNABLE:
            raise field_error(where, at + ".op_types", name, "operators with weights: " + ", ".join(PRUNABLE))
    return {"sparsity": sparsity, **rest}


def variant_budget(where: str, at: str, value: Any) -> dict[str, float]:
    """A variant's own limits. They hold beside those of the release, and the stricter one counts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not value:
        raise field_error(where, at, value, "a mapping with any of accuracy_drop and p95_ms")
    known(where, at + ".", value, frozenset(VARIANT_LIMITS))
    return {
        name: number(where, f"{at}.{name}", value[name], low, high, f"a number from {low:g} to {high:g}")
        for name, (low, high) in VARIANT_LIMITS.items()
        if name in value
    }

"""ONNX to LiteRT: the same numbers as onnxruntime, layer by layer, and a refusal by name for everything else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build import litert
from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import build_release
from ansible_collections.edgeai.fleet.plugins.module_utils.build.libs import quiet
from ansible_collections.edgeai.fleet.plugins.module_utils.build.sessions import open_session
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError

pytest.importorskip("ai_edge_litert")
RNG = np.random.default_rng(5)
node = onnx.helper.make_node


def save(path: Path, nodes: list[Any], weights: dict[str, Any], in_shape: list[Any], out_rank: int) -> Path:
    """A model from input x to output y."""
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, in_shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * out_rank)],
        [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, os.fspath(path))
    return path


def normal(*shape: int) -> Any:
    """Random weights."""
    return RNG.standard_normal(shape).astype(np.float32)


CASES: dict[str, tuple[list[Any], dict[str, Any], list[Any], int]] = {
    "same padding, fused relu": (
        [node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["y"])],
        {"w": normal(6, 3, 3, 3), "b": normal(6)},
        ["n", 3, 8, 8],
        4,
    ),
    "strided, padded on two sides only, no bias": (
        [node("Conv", ["x", "w"], ["y"], pads=[0, 1, 1, 0], strides=[2, 2])],
        {"w": normal(5, 3, 3, 3)},
        ["n", 3, 9, 8],
        4,
    ),
    "depthwise, rectangular kernel": (
        [node("Conv", ["x", "w", "b"], ["y"], group=4, pads=[1, 0, 1, 0])],
        {"w": normal(4, 1, 3, 1), "b": normal(4)},
        ["n", 4, 6, 6],
        4,
    ),
    "a relu whose input is used twice is not fused": (
        [
            node("Conv", ["x", "w"], ["c"]),
            node("Relu", ["c"], ["r"]),
            node("Flatten", ["r"], ["f"]),
            node("MaxPool", ["c"], ["unused"], kernel_shape=[2, 2]),
            node("MatMul", ["f", "m"], ["y"]),
        ],
        {"w": normal(2, 1, 2, 2), "m": normal(18, 3)},
        ["n", 1, 4, 4],
        2,
    ),
    "a whole classifier": (
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[3, 2], strides=[2, 2]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "g", "gb"], ["d"], transB=1),
            node("Relu", ["d"], ["e"]),
            node("Gemm", ["e", "h"], ["l"]),
            node("Softmax", ["l"], ["y"]),
        ],
        {"w": normal(4, 2, 3, 3), "b": normal(4), "g": normal(16, 4 * 3 * 4), "gb": normal(16), "h": normal(16, 5)},
        ["n", 2, 8, 8],
        2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_litert_computes_what_onnxruntime_computes(tmp_path: Path, case: str) -> None:
    nodes, weights, shape, rank = CASES[case]
    source = save(tmp_path / "m.onnx", nodes, weights, shape, rank)
    x = normal(3, *shape[1:])
    with quiet():
        litert.write_float_model(source, tmp_path / "m.tflite")
        wanted = open_session("onnxruntime", source, ["x"], ["y"]).run({"x": x})[0]
        session = open_session("litert", tmp_path / "m.tflite", ["x"], ["y"])
        together = session.run({"x": x})[0]
        alone = session.run({"x": x[1:2]})[0]
    np.testing.assert_allclose(together, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone, wanted[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "shape", "words"),
    [
        ([node("Sigmoid", ["x"], ["y"], name="gate")], ["n", 4], "gate (Sigmoid) cannot be written"),
        ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1, 1, 1, 1])], ["n", 1, 4, 4], "is padded"),
        ([node("Flatten", ["x"], ["y"], axis=0)], ["n", 4], "does not keep the batch axis"),
        ([node("Gemm", ["x", "w"], ["y"], alpha=2.0)], ["n", 4], "is not a plain dense layer"),
        ([node("Conv", ["x", "k"], ["y"], dilations=[2, 2])], ["n", 4, 8, 8], "without dilation"),
        ([node("Conv", ["x", "k2"], ["y"], group=2)], ["n", 4, 8, 8], "2 groups"),
        ([node("Relu", ["x"], ["y"])], ["n", 4, 4], "rank 2 or 4"),
        ([node("Relu", ["x"], ["y"])], ["n", "m"], "fixed axes"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, nodes: list[Any], shape: list[Any], words: str) -> None:
    weights = {"w": normal(4, 4), "k": normal(2, 4, 3, 3), "k2": normal(4, 2, 3, 3)}
    source = save(tmp_path / "m.onnx", nodes, weights, shape, 2)
    with pytest.raises(ReleaseError) as caught:
        litert.write_float_model(source, tmp_path / "m.tflite")
    for word in ("m.onnx", words, "artifact"):
        assert word in str(caught.value)


def test_a_release_with_litert_variants(project: Callable[..., Path]) -> None:
    pytest.importorskip("ai_edge_quantizer")
    variants = [{"id": "litert/int8"}, {"id": "litert/fp32"}, {"id": "onnxruntime/int8"}]
    budget = {"accuracy_drop": 1, "p95_ms": 1000, "p95_ratio": 10, "memory_mib": 512}
    spec = project(variants=variants, metric="relative_error", budgets={"default": budget})
    manifest = build_release(spec, spec.parent / "out", {}).manifest
    assert manifest is not None
    int8, fp32, other = (variant.measured["accuracy"] for variant in manifest.variants)
    assert fp32 > 0.99999
    assert int8 < 0.99999  # it is quantized
    assert int8 == pytest.approx(other, abs=0.02)  # as good as onnxruntime's, from the same calibration samples


def test_ranges_cover_all_calibration_samples(project: Callable[..., Path]) -> None:
    """One sample in 130 is ten times larger; an average over calls would clip it."""
    pytest.importorskip("ai_edge_quantizer")
    spec = project(variants=[{"id": "litert/int8"}], metric="relative_error")
    x = np.random.default_rng(1).standard_normal((130, 8)).astype(np.float32)
    x[129] *= 10
    np.savez(spec.parent / "calib.npz", x=x)
    np.savez(spec.parent / "golden.npz", **{"input.x": x[129:]})
    manifest = build_release(spec, spec.parent / "out", {}).manifest
    assert manifest is not None and manifest.variants[0].measured["accuracy"] > 0.97

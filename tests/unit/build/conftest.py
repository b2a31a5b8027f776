"""A small real model and its arrays: a linear classifier of four classes, exported as ONNX."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

onnx = pytest.importorskip("onnx")

CLASSES, FEATURES = 4, 8


def linear_model(opset: int = 17, ir_version: int = 8, batch: Any = "batch") -> Any:
    """x [batch, 8] -> logits [batch, 4], with weights that separate the classes well."""
    weight = np.random.default_rng(3).standard_normal((FEATURES, CLASSES)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["logits"], name="matmul")],
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, FEATURES])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, CLASSES])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=ir_version, producer_name="tests"
    )


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """The function that makes the model: (opset, ir_version, batch)."""
    return linear_model


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes model, arrays and spec below tmp_path and returns the spec's path.

    Keyword arguments replace top fields of the spec; None removes one.
    """
    directory = tmp_path / "project"
    directory.mkdir()
    rng = np.random.default_rng(11)
    samples = rng.standard_normal((96, FEATURES)).astype(np.float32)
    onnx.save(linear_model(), os.fspath(directory / "model.onnx"))
    np.savez(directory / "calib.npz", x=samples[:64])
    np.savez(directory / "golden.npz", **{"input.x": samples[64:]})

    def write(**changes: Any) -> Path:
        document: dict[str, Any] = {
            "model": "linear",
            "version": "1.0.0",
            "security_counter": 1,
            "onnx": "model.onnx",
            "calibration": "calib.npz",
            "golden": "golden.npz",
            "variants": [{"id": "onnxruntime/int8"}, {"id": "onnxruntime/fp32"}],
            "budgets": {"default": {"accuracy_drop": 0.1, "p95_ms": 1000, "p95_ratio": 10, "memory_mib": 512}},
        }
        document.update(changes)
        path = directory / "spec.yml"
        path.write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}), encoding="utf-8")
        return path

    return write

"""ONNX files and arrays: what the build refuses before it works on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build.arrays import (
    Samples,
    check_inputs,
    load_arrays,
    load_samples,
    save_golden,
    to_tensor,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.build.onnx_model import inspect
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import load_golden

Maker = Callable[..., Any]
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}]


def test_inspect_reads_tensors_and_batch(tmp_path: Path, make_model: Maker) -> None:
    onnx.save(make_model(), os.fspath(tmp_path / "m.onnx"))
    info = inspect(tmp_path / "m.onnx")
    assert info.inputs == INPUTS
    assert info.outputs == [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}]
    assert (info.opset, info.ir_version, info.fixed_batch, info.external) == (17, 8, None, ())
    onnx.save(make_model(batch=2), os.fspath(tmp_path / "m.onnx"))
    assert inspect(tmp_path / "m.onnx").fixed_batch == 2


@pytest.mark.parametrize(("opset", "ir_version"), [(22, 10), (21, 11)])
def test_a_model_too_new_for_devices_is_refused_with_the_way_out(
    tmp_path: Path, make_model: Maker, opset: int, ir_version: int
) -> None:
    onnx.save(make_model(opset, ir_version), os.fspath(tmp_path / "m.onnx"))
    with pytest.raises(ReleaseError, match=rf"m\.onnx: opset {opset} and IR version {ir_version}.*opset_version=17"):
        inspect(tmp_path / "m.onnx")


def test_the_newest_allowed_model_is_accepted(tmp_path: Path, make_model: Maker) -> None:
    onnx.save(make_model(21, 10), os.fspath(tmp_path / "m.onnx"))
    assert inspect(tmp_path / "m.onnx").opset == 21


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x00" * 64])
def test_files_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ReleaseError, match=r"m\.onnx"):
        inspect(tmp_path / "m.onnx")


def external_model(model: Any, directory: Path, location: str) -> Path:
    """A model whose weights lie in another file."""
    path = directory / "m.onnx"
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save(model, os.fspath(path))
    if location != "w.bin":
        raw = onnx.load(os.fspath(path), load_external_data=False)
        raw.graph.initializer[0].external_data[0].value = location
        path.write_bytes(raw.SerializeToString())
    return path


def test_weights_beside_the_model_are_found(tmp_path: Path, make_model: Maker) -> None:
    assert inspect(external_model(make_model(), tmp_path, "w.bin")).external == ("w.bin",)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ReleaseError, match=r"weight file w\.bin is not beside it"):
        inspect(tmp_path / "m.onnx")


def test_weights_outside_the_directory_are_refused(tmp_path: Path, make_model: Maker) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(ReleaseError, match=r"external_data\.location"):
        inspect(external_model(make_model(), tmp_path / "inner", "../secret"))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, ("x", "an array per model input")),
        ({"x": np.zeros((2, 8), np.float32), "y": np.zeros(2)}, ("'y'", "only the model's inputs")),
        ({"x": np.zeros((2, 8))}, ("float64", "float32")),
        ({"x": np.zeros((2, 7), np.float32)}, ("a list of 2", "[8]")),
        ({"x": np.zeros((2, 8, 1), np.float32)}, ("a list of 3",)),
        ({"x": np.zeros((0, 8), np.float32)}, ("at least 1",)),
    ],
)
def test_arrays_that_do_not_fit_the_model(arrays: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ReleaseError) as caught:
        check_inputs(Path("c.npz"), "", arrays, INPUTS)
    for word in ("c.npz", *words):
        assert word in str(caught.value)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ReleaseError, match=r"c\.npz"):
        load_arrays(tmp_path / "c.npz", "calibration")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x93NUMPY"])
def test_damaged_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(ReleaseError, match=r"c\.npz"):
        load_arrays(tmp_path / "c.npz", "calibration")


def test_golden_outputs_from_outside_are_refused(tmp_path: Path) -> None:
    arrays = {"input.x": np.zeros((2, 8), np.float32), "output.logits": np.zeros((2, 4), np.float32)}
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(ReleaseError, match="the build computes them"):
        load_samples(tmp_path / "g.npz", "golden", INPUTS)


@pytest.mark.parametrize("label", [np.zeros(3, np.int64), np.zeros(2), np.zeros((2, 1), np.int64)])
def test_labels_that_do_not_fit(tmp_path: Path, label: Any) -> None:
    np.savez(tmp_path / "g.npz", **{"input.x": np.zeros((2, 8), np.float32), "label": label})
    with pytest.raises(ReleaseError, match="label"):
        load_samples(tmp_path / "g.npz", "golden", INPUTS)


def test_golden_samples_are_read_back_by_the_devices_reader(tmp_path: Path) -> None:
    x = np.asfortranarray(np.arange(16, dtype=np.float32).reshape(2, 8))
    logits = np.arange(8, dtype=np.float32).reshape(2, 4)
    samples = Samples({"x": x}, np.array([3, 1]), 2)
    save_golden(tmp_path / "a.npz", samples, {"logits": logits})
    golden = load_golden(tmp_path / "a.npz")
    assert golden.samples == 2
    assert golden.labels is not None and list(golden.labels.values()) == [3, 1]
    assert golden.inputs["x"] == to_tensor("x", x)
    assert list(golden.outputs["logits"].values()) == list(range(8))
    save_golden(tmp_path / "b.npz", samples, {"logits": logits})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_big_endian_arrays_are_turned_round() -> None:
    array = np.array([1, 2], dtype=">i4")
    assert to_tensor("a", array).data == b"\x01\x00\x00\x00\x02\x00\x00\x00"

"""The runtimes, each with a real model: what loads, what is refused, and that the numbers are right."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.releases import make_release
from support.servers import onnx_model, tensors

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest
from ansible_collections.edgeai.fleet.plugins.module_utils.server import backends, deps


def opened(base: Path, variant: Any, payload: bytes, edit: Any = None, extra: dict[str, bytes] | None = None) -> Any:
    """Build a release with one variant and open it; returns (session, manifest)."""
    path = make_release(base, variants=(variant,), payload=payload, edit=edit or tensors(), sign_key=False)
    manifest = load_manifest(path)
    entry = path / manifest.variants[0].entry
    for name, content in (extra or {}).items():
        (entry.parent / name).write_bytes(content)
    session, seconds = backends.open_session(str(entry), manifest, manifest.variants[0], 1)
    assert 0 < seconds < 5
    return session, manifest


def openvino_model(weight: float) -> tuple[bytes, bytes]:
    """Return an OpenVINO IR (xml, bin) of y = x * weight."""
    ov = pytest.importorskip("openvino")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "m.onnx", Path(folder) / "model.xml"
        source.write_bytes(onnx_model(weight))
        ov.save_model(ov.convert_model(str(source)), str(target), compress_to_fp16=False)
        return target.read_bytes(), target.with_suffix(".bin").read_bytes()


ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def test_onnxruntime_runs_a_model(tmp_path: Path) -> None:
    session, _target = opened(tmp_path, "onnxruntime/fp32", onnx_model(3.0))
    np.testing.assert_array_equal(session.infer({"x": ROWS})["y"], ROWS * 3)
    assert session.details["providers"] == ["CPUExecutionProvider"]
    session.close()


def test_openvino_runs_a_model_from_several_threads(tmp_path: Path) -> None:
    xml, weights = openvino_model(3.0)
    session, _target = opened(tmp_path, "openvino/fp32", xml, extra={"model.bin": weights})
    wrong: list[int] = []

    def ask(factor: int) -> None:
        for _turn in range(50):
            if not np.array_equal(session.infer({"x": ROWS * factor})["y"], ROWS * factor * 3):
                wrong.append(factor)

    threads = [threading.Thread(target=ask, args=(n,)) for n in (1, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert session.details["device"] == "CPU"
    assert session.details["inference_precision"]


def test_litert_runs_a_model_and_resizes_its_batch(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from support.tflite import tflite_model

    session, _target = opened(tmp_path, "litert/fp32", tflite_model(3.0))
    np.testing.assert_array_equal(session.infer({"x": ROWS})["y"], ROWS * 3)
    np.testing.assert_array_equal(session.infer({"x": ROWS[:1]})["y"], ROWS[:1] * 3)


def test_litert_quantizes_what_the_manifest_declares_as_float(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from support.tflite import tflite_model

    session, _target = opened(tmp_path, "litert/int8", tflite_model(2.0, int8=True))
    result = session.infer({"x": np.array([[1.0, 2.0, 3.0, 100.0]], dtype=np.float32)})["y"]
    assert result.dtype == np.float32
    # scale 0.5: 100 saturates at 63.5 on the way in, its product on the way out
    np.testing.assert_allclose(result, [[2.0, 4.0, 6.0, 63.5]])


@pytest.mark.parametrize("variant", ["onnxruntime/fp32", "openvino/fp32", "litert/fp32"])
def test_garbage_is_refused_with_the_variant_and_the_path(tmp_path: Path, variant: str) -> None:
    with pytest.raises(DeviceError, match=variant) as caught:
        opened(tmp_path, variant, b"this is no model")
    assert caught.value.code == "server"


def test_other_tensors_than_declared_are_refused(tmp_path: Path) -> None:
    def other(manifest: dict[str, Any]) -> None:
        tensors()(manifest)
        manifest["inputs"][0]["name"] = "image"

    with pytest.raises(DeviceError, match=r"inputs are .*'x'.*release.json declares .*'image'"):
        opened(tmp_path, "onnxruntime/fp32", onnx_model(1.0), other)


def test_another_output_shape_than_declared_is_refused(tmp_path: Path) -> None:
    def other(manifest: dict[str, Any]) -> None:
        tensors()(manifest)
        manifest["outputs"][0]["shape"] = [-1, 5]

    with pytest.raises(DeviceError, match=r"output y has shape \[1, 4\]"):
        opened(tmp_path, "onnxruntime/fp32", onnx_model(1.0), other)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_a_variant_for_an_accelerator_that_is_not_there_never_runs_on_the_cpu(tmp_path: Path, runtime: str) -> None:
    requires = {"accelerators": ["nvidia-gpu"], "cpu_flags_any": [], "runtime_version": "", "memory_mib": 1}
    variant = {"id": f"{runtime}/fp32", "requires": requires}
    with pytest.raises(DeviceError, match="needs nvidia-gpu"):
        opened(tmp_path, variant, onnx_model(1.0) if runtime != "litert" else b"")


def test_a_runtime_without_a_back_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="tensorrt") as caught:
        opened(tmp_path, "tensorrt/fp16", b"plan")
    assert caught.value.code == "no_variant"


def test_a_missing_package_is_named_with_its_interpreter() -> None:
    import sys

    with pytest.raises(DeviceError, match=r"no_such_package is needed for a test: it is not installed") as caught:
        deps.require("no_such_package", "a test")
    assert sys.executable in caught.value.message

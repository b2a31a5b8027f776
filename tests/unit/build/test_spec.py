"""The release spec: what is accepted, and that every refusal names file, field, value and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build.spec import load_spec, parse_spec
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError

PATH = Path("/specs/release.yml")


def document(**changes: Any) -> dict[str, Any]:
    """A spec that is right, with changes."""
    return {
        "model": "m",
        "version": "1.0.0",
        "security_counter": 1,
        "onnx": "m.onnx",
        "calibration": "c.npz",
        "golden": "g.npz",
        "variants": [{"id": "onnxruntime/int8"}],
        "budgets": {"default": {"accuracy_drop": 0.02, "p95_ms": 50, "p95_ratio": 3, "memory_mib": 64}},
        **changes,
    }


def test_defaults_follow_the_runtime() -> None:
    variants = [{"id": name} for name in ("openvino/int8", "onnxruntime/int8", "onnxruntime/fp32", "openvino/fp16")]
    spec = parse_spec(document(variants=variants), PATH)
    assert [variant.method for variant in spec.variants] == ["nncf", "ort-static", "none", "none"]
    assert spec.variants[1].options["per_channel"] is True
    assert spec.variants[0].requires == {"accelerators": ["cpu"]}
    assert spec.variants[0].architectures == ("x86_64", "aarch64")
    assert spec.metric == "top1"


def test_relative_paths_start_at_the_spec() -> None:
    spec = parse_spec(document(golden="/data/g.npz"), PATH)
    assert spec.onnx == Path("/specs/m.onnx")
    assert spec.golden == Path("/data/g.npz")


def test_inputs_name_every_file_once() -> None:
    variants = [
        {"id": "onnxruntime/int8", "calibration": "own.npz"},
        {"id": "litert/int8", "artifact": "m.tflite"},
        {"id": "openvino/fp32-x", "artifact": ["m.xml", "m.bin"]},
    ]
    roles = parse_spec(document(variants=variants, validation="v.npz"), PATH).inputs()
    assert set(roles) == {
        *("onnx", "golden", "calibration", "validation", "calibration:onnxruntime/int8", "artifact:litert/int8:0"),
        *("artifact:openvino/fp32-x:0", "artifact:openvino/fp32-x:1"),
    }


def test_skip_validation_is_inherited_and_can_be_undone() -> None:
    variants = [{"id": "onnxruntime/int8"}, {"id": "onnxruntime/fp32", "skip_validation": False}]
    spec = parse_spec(document(skip_validation=True, variants=variants), PATH)
    assert [variant.skip_validation for variant in spec.variants] == [True, False]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 1.1}, ("version", "1.1", "quote")),
        ({"version": "1.1"}, ("version", "SemVer")),
        ({"model": "../m"}, ("model", "'../m'")),
        ({"security_counter": True}, ("security_counter", "True")),
        ({"security_counter": -1}, ("security_counter", "-1")),
        ({"metric": "f1"}, ("metric", "'f1'", "top1")),
        ({"modle": "m"}, ("modle", "known")),
        ({"variants": []}, ("variants", "at least one")),
        ({"variants": [{"id": "onnx/int8"}]}, ("variants[0].id", "'onnx/int8'")),
        ({"variants": [{"id": "onnxruntime/fp32"}, {"id": "onnxruntime/fp32"}]}, ("variants[1].id", "suffix")),
        ({"variants": [{"id": "tensorrt/int8"}]}, ("variants[0].quantize", "tensorrt/int8", "artifact")),
        ({"variants": [{"id": "onnxruntime/int8", "quantize": {"method": "nncf"}}]}, ("method", "'nncf'")),
        ({"variants": [{"id": "onnxruntime/int8", "quantize": {"per_chanel": 1}}]}, ("per_chanel", "per_channel")),
        ({"variants": [{"id": "onnxruntime/int8", "quantize": {"per_channel": 1}}]}, ("per_channel", "true or false")),
        ({"variants": [{"id": "onnxruntime/int8", "quantize": {"activation_type": "u8"}}]}, ("'u8'", "quint8")),
        ({"variants": [{"id": "onnxruntime/fp32", "artifact": "a", "quantize": {}}]}, ("quantize", "artifact")),
        ({"variants": [{"id": "openvino/fp32", "artifact": ["a/m.xml", "b/m.xml"]}]}, ("artifact", "different names")),
        ({"calibration": None}, ("calibration", "onnxruntime/int8")),
        ({"budgets": None}, ("budgets", "accuracy_drop")),
        ({"source": {"git": "x"}}, ("source.git", "git_revision")),
    ],
)
def test_refusals_name_the_field_and_the_remedy(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ReleaseError) as caught:
        parse_spec(document(**changes), PATH)
    for word in (str(PATH), *words):
        assert word in str(caught.value)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.yml"
    path.write_text("model: a\nversion: 1.0.0\nmodel: b\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match="duplicate key 'model'"):
        load_spec(path)


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    path = tmp_path / "spec.yml"
    path.write_text("model: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match="not valid YAML"):
        load_spec(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1, 2]", b"", b"a: " + b"x" * (2 << 20)])
def test_files_that_are_no_spec(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spec.yml"
    path.write_bytes(content)
    with pytest.raises(ReleaseError, match=r"spec\.yml"):
        load_spec(path)

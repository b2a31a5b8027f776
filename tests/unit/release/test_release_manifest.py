"""release.json: what is accepted, and the error for everything that is not."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from support.releases import base_manifest, make_release

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError, field_error
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import (
    MAX_MANIFEST,
    Budget,
    dump_manifest,
    load_manifest,
    parse_manifest,
)

WHERE = "some/release.json"
HEX = "a" * 64


def variant(variant_id: str = "onnxruntime/int8", **fields: Any) -> dict[str, Any]:
    runtime, precision = variant_id.split("/")
    path = f"variants/{variant_id}/model.onnx"
    result = {
        "id": variant_id,
        "runtime": runtime,
        "precision": precision.split("-")[0],
        "entry": path,
        "architectures": ["x86_64", "aarch64"],
        "requires": {
            "accelerators": ["cpu"],
            "cpu_flags_any": ["avx512_vnni", "asimddp"],
            "runtime_version": ">=1.17,<2",
            "memory_mib": 64,
        },
        "files": [{"path": path, "size": 123, "sha256": HEX}],
        "measured": {"accuracy": 0.98, "accuracy_drop": -0.001, "size_bytes": 123, "p50_ms": 0.014, "host": "x86_64"},
    }
    result.update(fields)
    return result


def document() -> dict[str, Any]:
    result = base_manifest(version="1.1.0", counter=3)
    result["variants"] = [variant(), variant("onnxruntime/fp32")]
    result["golden"] = {
        "path": "golden/golden.npz",
        "size": 10,
        "sha256": HEX,
        "samples": 64,
        "metric": "top1",
        "reference_score": 0.98,
    }
    result["budgets"]["strata"] = {
        "cpu/*": {"accuracy_drop": 0.03, "p95_ms": 80},
        "cpu/openvino/*": {"accuracy_drop": 0.04},
    }
    return result


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return an edit that sets the field at a path such as variants.0.files.0.size."""

    def edit(target: Any) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            target = target[part]
        target[last] = value

    return edit


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    def edit(target: Any) -> None:
        *parents, last = path.split(".")
        for part in parents:
            target = target[int(part) if part.isdigit() else part]
        del target[last]

    return edit


def refused(raw: bytes) -> str:
    with pytest.raises(ReleaseError) as caught:
        parse_manifest(raw, WHERE)
    return str(caught.value)


def test_a_good_manifest_is_read_completely() -> None:
    raw = dump_manifest(document())
    manifest = parse_manifest(raw, WHERE)
    assert (manifest.model, manifest.version, manifest.security_counter) == ("digits", "1.1.0", 3)
    assert manifest.raw == raw and re.fullmatch(r"sha256:[0-9a-f]{64}", manifest.digest)
    assert [item.id for item in manifest.variants] == ["onnxruntime/int8", "onnxruntime/fp32"]
    first = manifest.variant("onnxruntime/int8")
    assert first.requires.cpu_flags_any == ("avx512_vnni", "asimddp") and first.requires.memory_mib == 64
    assert first.measured["accuracy_drop"] == -0.001 and first.size == 123
    assert first.directory == "variants/onnxruntime/int8"
    assert manifest.inputs[0].shape == (-1, 1, 8, 8) and manifest.outputs[0].datatype == "FP32"
    assert manifest.created_at.isoformat() == "2026-11-23T11:00:00+00:00"
    paths = [entry.path for entry in manifest.files(["onnxruntime/fp32"])]
    assert paths == ["golden/golden.npz", "variants/onnxruntime/fp32/model.onnx"]
    assert len(manifest.files()) == 3 and len(manifest.files([])) == 1


def test_the_manifest_cannot_be_changed_after_it_was_checked() -> None:
    manifest = parse_manifest(dump_manifest(document()), WHERE)
    with pytest.raises(AttributeError):
        manifest.version = "9.9.9"  # type: ignore[misc]
    with pytest.raises(TypeError):
        manifest.variants[0].measured["accuracy"] = 1.0  # type: ignore[index]


def test_budgets_are_overlaid_the_longest_pattern_last() -> None:
    manifest = parse_manifest(dump_manifest(document()), WHERE)
    assert manifest.budget("nvidia-gpu/onnxruntime/x86_64") == Budget(0.02, 1000.0, 10.0, 4096)
    assert manifest.budget("cpu/onnxruntime/x86_64") == Budget(0.03, 80.0, 10.0, 4096)
    assert manifest.budget("cpu/openvino/x86_64") == Budget(0.04, 80.0, 10.0, 4096)


def test_an_unknown_variant_is_named_with_the_known_ones() -> None:
    manifest = parse_manifest(dump_manifest(document()), WHERE)
    with pytest.raises(ReleaseError, match=r"no variant 'litert/int8'; it has onnxruntime/int8, onnxruntime/fp32"):
        manifest.files(["litert/int8"])


def test_a_suffix_makes_two_variants_of_one_precision_possible() -> None:
    good = document()
    good["variants"].append(variant("onnxruntime/int8-u8u8"))
    assert parse_manifest(dump_manifest(good), WHERE).variants[2].precision == "int8"


def test_what_may_be_left_out_may_be_left_out() -> None:
    good = document()
    good["variants"][0]["measured"] = {}
    good["variants"][0]["requires"] = {"accelerators": ["cpu"]}
    good["source"] = {}
    del good["budgets"]["strata"]
    manifest = parse_manifest(dump_manifest(good), WHERE)
    assert manifest.variants[0].requires.runtime_version == "" and manifest.source.parent is None


# (edit, field the error names, words of its value or fix)
BAD = [
    (put("surprise", 1), "surprise", "unknown field"),
    (put("source.surprise", 1), "source.surprise", "unknown field"),
    (put("variants.1.surprise", 1), "variants[1].surprise", "unknown field"),
    (put("variants.0.requires.surprise", 1), "variants[0].requires.surprise", "unknown field"),
    (put("variants.0.files.0.surprise", 1), "variants[0].files[0].surprise", "unknown field"),
    (put("variants.0.measured.surprise", 1), "variants[0].measured.surprise", "unknown field"),
    (put("inputs.0.surprise", 1), "inputs[0].surprise", "unknown field"),
    (put("golden.surprise", 1), "golden.surprise", "unknown field"),
    (put("budgets.surprise", {}), "budgets.surprise", "unknown field"),
    (put("budgets.default.surprise", 1), "budgets.default.surprise", "unknown field"),
    (put("budgets.strata.x", {"surprise": 1}), "budgets.strata.x.surprise", "unknown field"),
    (drop("security_counter"), "security_counter", "missing"),
    (drop("budgets.default.p95_ms"), "budgets.default.p95_ms", "missing"),
    (drop("variants.0.files.0.sha256"), "variants[0].files[0].sha256", "missing"),
    (put("format", 2), "format", "2"),
    (put("format", True), "format", "True"),
    (put("format", 1.0), "format", "1.0"),
    (put("model", "../x"), "model", "'../x'"),
    (put("model", ""), "model", "letters"),
    (put("model", 5), "model", "5"),
    (put("model", "x" * 129), "model", "128"),
    (put("version", "1.0"), "version", "SemVer"),
    (put("version", "01.0.0"), "version", "SemVer"),
    (put("version", "1.0.0-"), "version", "SemVer"),
    (put("version", "1.0.0\n"), "version", "SemVer"),
    (put("version", "1.0.0/.."), "version", "SemVer"),
    (put("created", "2026-13-01T00:00:00Z"), "created", "UTC"),
    (put("created", "2026-11-23 11:00:00"), "created", "UTC"),
    (put("security_counter", -1), "security_counter", "-1"),
    (put("security_counter", 1.0), "security_counter", "integer"),
    (put("security_counter", "3"), "security_counter", "integer"),
    (put("security_counter", True), "security_counter", "integer"),
    (put("security_counter", 2**53), "security_counter", "integer"),
    (put("source.data_sha256", "A" * 64), "source.data_sha256", "lower-case"),
    (put("source.parent", "1.1.0"), "source.parent", "own parent"),
    (put("source.git_revision", "-x\n"), "source.git_revision", "'-x"),
    (put("inputs", []), "inputs", "list of 1"),
    (put("inputs.0.datatype", "BYTES"), "inputs[0].datatype", "FP32"),
    (put("inputs.0.shape", [0]), "inputs[0].shape", "-1 or a positive"),
    (put("inputs.0.shape", [True]), "inputs[0].shape", "-1 or a positive"),
    (put("variants", []), "variants", "list of 1"),
    (put("variants", {}), "variants", "an object"),
    (put("variants.1", variant()), "variants[1].id", "twice"),
    (put("variants.0.id", "onnxruntime/fp16"), "variants[0].id", "disagrees"),
    (put("variants.0.id", "onnxruntime/int8/.."), "variants[0].id", "disagrees"),
    (put("variants.0.id", "onnxruntime/int8-../../x"), "variants[0].id", "disagrees"),
    (put("variants.0.id", ["x"]), "variants[0].id", "disagrees"),
    (put("variants.0.runtime", "tensorflow"), "variants[0].runtime", "onnxruntime"),
    (put("variants.0.precision", "int7"), "variants[0].precision", "int8"),
    (put("variants.0.runtime", ["onnxruntime"]), "variants[0].runtime", "a list"),
    (put("variants.0.architectures", ["x86_64", "x86_64"]), "variants[0].architectures", "twice"),
    (put("variants.0.architectures", [".."]), "variants[0].architectures[0]", "'..'"),
    (put("variants.0.requires.accelerators", []), "variants[0].requires.accelerators", "list of 1"),
    (put("variants.0.requires.runtime_version", ">1 or 2"), "variants[0].requires.runtime_version", "range"),
    (put("variants.0.requires.memory_mib", -5), "variants[0].requires.memory_mib", "-5"),
    (put("variants.0.files.0.size", -1), "variants[0].files[0].size", "-1"),
    (put("variants.0.files.0.size", 2**40), "variants[0].files[0].size", str(2**40)),
    (put("variants.0.files.0.size", 1.5), "variants[0].files[0].size", "1.5"),
    (put("variants.0.files.0.size", False), "variants[0].files[0].size", "False"),
    (put("variants.0.files.0.sha256", "sha256:" + HEX), "variants[0].files[0].sha256", "without a prefix"),
    (put("variants.0.files.0.path", "variants/onnxruntime/int8/../../x"), "variants[0].files[0].path", "'..'"),
    (put("variants.0.files.0.path", "../model.onnx"), "variants[0].files[0].path", "'..'"),
    (put("variants.0.files.0.path", "/etc/passwd"), "variants[0].files[0].path", "absolute"),
    (put("variants.0.files.0.path", "release.json"), "variants[0].files[0].path", "outside"),
    (put("variants.0.files.0.path", "variants/onnxruntime/fp32/x"), "variants[0].files[0].path", "outside"),
    (put("variants.0.files.0.path", "variants/onnxruntime/int8x/x"), "variants[0].files[0].path", "outside"),
    (put("variants.0.entry", "variants/onnxruntime/int8/other"), "variants[0].entry", "not one of"),
    (put("variants.0.measured.accuracy", 1.5), "variants[0].measured.accuracy", "1.5"),
    (put("variants.0.measured.accuracy", True), "variants[0].measured.accuracy", "True"),
    (put("golden.path", "variants/onnxruntime/int8/model.npz"), "golden.path", "golden/"),
    (put("golden.path", "golden/../x.npz"), "golden.path", "'..'"),
    (put("golden.samples", 0), "golden.samples", "0"),
    (put("golden.metric", "f1"), "golden.metric", "top1"),
    (put("golden.metric", "relative_error"), "golden.reference_score", "use 1"),
    (put("golden.reference_score", 1.01), "golden.reference_score", "1.01"),
    (put("budgets.default.accuracy_drop", -0.1), "budgets.default.accuracy_drop", "-0.1"),
    (put("budgets.default.memory_mib", 1.5), "budgets.default.memory_mib", "1.5"),
    (put("budgets.strata", []), "budgets.strata", "object"),
    (put("budgets.strata", {"a b": {}}), "budgets.strata.a b", "pattern"),
    (put("budgets.strata.x", None), "budgets.strata.x", "object"),
]


@pytest.mark.parametrize(("edit", "field", "words"), BAD, ids=[f"{field} {words}" for _edit, field, words in BAD])
def test_each_fault_is_one_error_naming_file_field_and_fix(edit: Any, field: str, words: str) -> None:
    bad = copy.deepcopy(document())
    edit(bad)
    text = refused(dump_manifest(bad))
    assert text.startswith(WHERE + ": ") and f"'{field}'" in text and words in text
    assert "\n" not in text and len(text) < 500


def test_the_same_path_twice_is_refused_also_when_only_case_differs() -> None:
    for name in ("model.onnx", "MODEL.onnx"):
        bad = document()
        path = f"variants/onnxruntime/int8/{name}"
        bad["variants"][0]["files"].append({"path": path, "size": 1, "sha256": HEX})
        assert "variants[0].files[1].path" in refused(dump_manifest(bad))


def test_a_file_cannot_also_be_a_directory() -> None:
    bad = document()
    bad["variants"][0]["files"].append(
        {"path": "variants/onnxruntime/int8/model.onnx/weights", "size": 1, "sha256": HEX}
    )
    assert "is a file and also the directory" in refused(dump_manifest(bad))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"security_counter": 3', b'"security_counter": 3, "security_counter": 4', "twice"),
        (b'"size": 123', b'"size": 123, "size": 124', "twice"),
        (b'"p95_ratio": 10.0', b'"p95_ratio": NaN', "NaN"),
        (b'"p95_ratio": 10.0', b'"p95_ratio": Infinity', "Infinity"),
        (b'"p95_ratio": 10.0', b'"p95_ratio": -Infinity', "-Infinity"),
        (b'"p95_ratio": 10.0', b'"p95_ratio": 1e999', "too large"),
        (b'"security_counter": 3', b'"security_counter": 3' + b"0" * 5000, "digits"),
        (b'"digits"', b'"dig\xffits"', "UTF-8"),
        (b'"digits"', b'"\\ud800"', "model"),
        (b"}\n", b"}{}\n", "not JSON"),
        (b'"format": 1', b"'format': 1", "not JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_json_that_parsers_differ_about_is_refused(old: bytes, new: bytes, words: str) -> None:
    raw = dump_manifest(document())
    assert old in raw
    head, _old, tail = raw.rpartition(old)
    assert words in refused(head + new + tail)


def test_deep_nesting_is_refused_and_does_not_crash() -> None:
    for depth in (50, 100_000):
        raw = dump_manifest(document()).replace(b'"mlflow_run": null', b'"mlflow_run": ' + b"[" * depth + b"]" * depth)
        text = refused(raw)
        assert WHERE in text and ("nested too deeply" in text or "mlflow_run" in text)
    assert "nested too deeply" in refused(b'{"a":' * 100_000)


def test_the_size_cap_is_looked_at_before_anything_is_parsed() -> None:
    raw = dump_manifest(document())
    padded = raw + b" " * (MAX_MANIFEST - len(raw))
    assert parse_manifest(padded, WHERE).version == "1.1.0"
    assert f"at most {MAX_MANIFEST}" in refused(padded + b" ")


def test_top_level_must_be_an_object() -> None:
    for raw in (b"[]", b"3", b"null", b'"x"'):
        assert "use a JSON object" in refused(raw)
    assert "not JSON" in refused(b"")


def test_dump_is_canonical_and_refuses_what_json_lacks() -> None:
    turned = dict(reversed(list(document().items())))
    assert dump_manifest(turned) == dump_manifest(document())
    assert dump_manifest(document()).endswith(b"}\n") and json.loads(dump_manifest(document())) == document()
    with pytest.raises(ReleaseError, match="cannot be written as JSON"):
        dump_manifest({"a": float("nan")})


def test_load_reads_a_directory_and_never_more_than_the_cap(tmp_path: Any) -> None:
    release = make_release(tmp_path)
    assert load_manifest(release).model == "digits"
    with open(release / "release.json", "ab") as handle:
        handle.truncate(1 << 40)  # sparse: reading it would take for ever
    with pytest.raises(ReleaseError, match="larger than"):
        load_manifest(release)
    with pytest.raises(ReleaseError, match="cannot be read"):
        load_manifest(tmp_path)


def test_a_long_value_is_shortened_in_the_error() -> None:
    assert len(str(field_error("f", "x", "y" * 10_000, "do z"))) < 200

"""Whole builds of a small real model with onnxruntime: what is written, when nothing is, and what never changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build import builder, output
from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import Result, build_release
from ansible_collections.edgeai.fleet.plugins.module_utils.build.libs import quiet, require
from ansible_collections.edgeai.fleet.plugins.module_utils.release.digests import sha256_file
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import load_golden
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest

pytest.importorskip("onnxruntime")
Project = Callable[..., Path]


def build(spec: Path, check_mode: bool = False, **source: Any) -> Result:
    """Build into ``releases`` beside the project."""
    return build_release(spec, spec.parent.parent / "releases", source, check_mode)


def tree(directory: Path) -> dict[str, str]:
    """Relative path -> digest of every file below a directory."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_file(path) for path in paths}


def leftovers(spec: Path) -> list[str]:
    """What a failed build left behind, apart from its lock."""
    files = (spec.parent.parent / "releases").rglob("*")
    return [path.name for path in files if path.name not in ("linear", ".build") and path.suffix != ".lock"]


def test_a_release_is_complete_and_agrees_with_its_manifest(project: Project) -> None:
    result = build(project(source={"parent": "0.9.0"}), git_revision="abc123")
    assert result.changed and not result.warnings
    manifest = load_manifest(result.path)
    listed = {entry.path: entry.sha256 for entry in manifest.files()}
    assert {**listed, "release.json": sha256_file(result.path / "release.json")} == tree(result.path)
    assert [variant.id for variant in manifest.variants] == ["onnxruntime/int8", "onnxruntime/fp32"]
    assert (manifest.source.git_revision, manifest.source.parent) == ("abc123", "0.9.0")
    assert manifest.golden.reference_score == 1.0 and manifest.golden.samples == 32
    int8, fp32 = manifest.variants
    assert fp32.measured["accuracy"] == 1.0 and fp32.measured["accuracy_drop"] == 0.0
    assert int8.measured["accuracy"] >= 0.9 and int8.measured["p95_ms"] >= int8.measured["p50_ms"] > 0
    assert int8.measured["size_bytes"] == int8.size
    assert sha256_file(result.path / fp32.entry) == sha256_file(result.spec.onnx)
    assert oct((result.path / "release.json").stat().st_mode & 0o777) == "0o644"
    assert oct(result.path.stat().st_mode & 0o777) == "0o755"


def test_reference_outputs_are_those_of_the_fp32_model(project: Project) -> None:
    result = build(project())
    golden = load_golden(result.path / "golden" / "golden.npz")
    x = np.frombuffer(golden.inputs["x"].data, "<f4").reshape(-1, 8)
    weight = np.random.default_rng(3).standard_normal((8, 4)).astype(np.float32)
    found = np.frombuffer(golden.outputs["logits"].data, "<f4").reshape(-1, 4)
    np.testing.assert_allclose(found, x @ weight, rtol=1e-5, atol=1e-6)


def test_a_second_build_changes_nothing(project: Project) -> None:
    spec = project()
    first = build(spec)
    before = tree(first.path)
    (first.path / "model.sig").write_text("signed meanwhile", encoding="utf-8")
    second = build(spec)
    assert not second.changed
    assert (
        second.manifest is not None and first.manifest is not None and second.manifest.digest == first.manifest.digest
    )
    (first.path / "model.sig").unlink()
    assert tree(first.path) == before


def test_the_same_inputs_give_the_same_artifacts_in_another_process(project: Project, tmp_path: Path) -> None:
    spec = project()
    first = build(spec)
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import build_release;"
        "build_release(Path(sys.argv[2]), Path(sys.argv[3]), {})"
    )
    collections = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    other = tmp_path / "elsewhere"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", program, collections, str(spec), str(other)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""
    ours, theirs = tree(first.path), tree(other / "linear" / "1.0.0")
    assert {name for name in ours if ours[name] != theirs.get(name)} == {"release.json"}


def test_check_mode_writes_nothing_and_tells_the_truth(project: Project) -> None:
    spec = project()
    predicted = build(spec, check_mode=True)
    assert predicted.changed and predicted.manifest is None
    assert not predicted.path.parent.exists()
    built = build(spec)
    assert built.fingerprint == predicted.fingerprint
    assert not build(spec, check_mode=True).changed


def test_check_mode_finds_faults_in_the_arrays(project: Project) -> None:
    spec = project()
    np.savez(spec.parent / "calib.npz", y=np.zeros((4, 8), np.float32))
    with pytest.raises(ReleaseError, match=r"calib\.npz"):
        build(spec, check_mode=True)


@pytest.mark.parametrize("change", ["spec", "golden"])
def test_another_release_under_the_same_version_is_refused(project: Project, change: str) -> None:
    spec = project()
    first = build(spec)
    before = tree(first.path)
    if change == "spec":
        spec = project(security_counter=2)
    else:
        np.savez(spec.parent / "golden.npz", **{"input.x": np.ones((4, 8), np.float32)})
    for check_mode in (True, False):
        with pytest.raises(ReleaseError, match="raise `version`"):
            build(spec, check_mode)
    assert tree(first.path) == before


def test_another_commit_with_the_same_inputs_leaves_the_release_alone_and_says_so(project: Project) -> None:
    spec = project()
    first = build(spec, git_revision="abc")
    second = build(spec, git_revision="def")
    assert not second.changed
    assert second.manifest is not None and second.manifest.source.git_revision == "abc"
    assert [text.replace(str(first.path), "") for text in second.warnings] == [
        " has abc as source.git_revision, not def. It stays as it is."
    ]


def test_moving_the_project_does_not_make_another_release(project: Project) -> None:
    spec = project()
    build(spec)
    moved = spec.parent.rename(spec.parent.parent / "moved")
    assert not build_release(moved / "spec.yml", moved.parent / "releases", {}).changed


def test_a_newer_tool_leaves_the_release_alone_and_says_so(project: Project) -> None:
    spec = project()
    first = build(spec)
    record = output.state_path(first.path)
    values = json.loads(record.read_text(encoding="utf-8"))
    values["tools"]["onnxruntime"] = "1.0.0"
    record.write_text(json.dumps(values), encoding="utf-8")
    second = build(spec)
    assert not second.changed
    assert "was built with onnxruntime 1.0.0" in second.warnings[0]


def test_damage_and_a_lost_record_are_told(project: Project) -> None:
    spec = project()
    first = build(spec)
    artifact = first.path / "variants" / "onnxruntime" / "int8" / "model.onnx"
    whole = artifact.read_bytes()
    artifact.write_bytes(whole[:-1])
    with pytest.raises(ReleaseError, match=r"int8/model\.onnx is missing or damaged"):
        build(spec)
    artifact.write_bytes(whole)
    output.state_path(first.path).unlink()
    with pytest.raises(ReleaseError, match="no record"):
        build(spec)


def test_a_variant_over_its_budget_stops_the_build(project: Project) -> None:
    spec = project(budgets={"default": {"accuracy_drop": 0.1, "p95_ms": 1e-6, "p95_ratio": 1, "memory_mib": 1}})
    with pytest.raises(ReleaseError, match=r"variant onnxruntime/int8 breaks its budget for .*p95_ms .* above .*1e-06"):
        build(spec)
    assert leftovers(spec) == []


def test_the_budget_of_the_hosts_stratum_counts(project: Project) -> None:
    default = {"accuracy_drop": 1, "p95_ms": 1000, "p95_ratio": 1, "memory_mib": 1}
    spec = project(budgets={"default": default, "strata": {"*/onnxruntime/*": {"p95_ms": 1e-6}}})
    with pytest.raises(ReleaseError, match="p95_ms"):
        build(spec)


def bad_calibration(spec: Path) -> None:
    """Calibration inputs that are far too small, so that activations clip."""
    with np.load(spec.parent / "calib.npz") as arrays:
        x = arrays["x"] / np.float32(100)
    np.savez(spec.parent / "bad.npz", x=x)


def test_a_wrong_calibration_is_caught_by_the_budget(project: Project) -> None:
    variants = [{"id": "onnxruntime/int8", "calibration": "bad.npz", "quantize": {"op_types": ["MatMul"]}}]
    spec = project(variants=variants, metric="relative_error")
    bad_calibration(spec)
    with pytest.raises(ReleaseError, match=r"variant onnxruntime/int8 breaks its budget.*accuracy_drop 0\.9"):
        build(spec)
    assert leftovers(spec) == []


def test_skipping_validation_claims_no_figures(project: Project) -> None:
    variants = [
        {"id": "onnxruntime/int8", "calibration": "bad.npz", "skip_validation": True},
        {"id": "onnxruntime/fp32"},
    ]
    spec = project(variants=variants, metric="relative_error")
    bad_calibration(spec)
    result = build(spec)
    manifest = load_manifest(result.path)
    assert dict(manifest.variants[0].measured) == {}
    assert manifest.variants[1].measured["accuracy"] == 1.0
    assert result.not_measured == {"onnxruntime/int8": "skip_validation is set"}
    assert "was not measured" in result.warnings[0]


def test_a_failure_in_the_last_step_leaves_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = project()

    def full_disk(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(builder.output, "publish", full_disk)
    with pytest.raises(ReleaseError, match="No space left"):
        build(spec)
    assert leftovers(spec) == ["1.0.0.json"]  # the record alone: the next build starts again
    monkeypatch.undo()
    assert build(spec).changed


def test_what_a_killed_build_left_is_removed(project: Project) -> None:
    spec = project()
    stale = spec.parent.parent / "releases" / "linear" / ".build" / "1.0.0.tmp-dead"
    (stale / "variants").mkdir(parents=True)
    other = stale.with_name("1.0.1.tmp-alive")
    other.mkdir()
    build(spec)
    assert not stale.exists() and other.exists()


def test_an_artifact_that_the_runtime_cannot_open_is_one_clear_error(project: Project) -> None:
    spec = project(variants=[{"id": "onnxruntime/fp16", "artifact": "broken.onnx"}])
    (spec.parent / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ReleaseError, match=r"variant onnxruntime/fp16 could not be built"):
        build(spec)


def test_a_prebuilt_artifact_is_taken_as_it_is(project: Project) -> None:
    spec = project(variants=[{"id": "onnxruntime/fp32-own", "artifact": "own.onnx"}])
    (spec.parent / "own.onnx").write_bytes((spec.parent / "model.onnx").read_bytes())
    result = build(spec)
    entry = result.path / "variants" / "onnxruntime" / "fp32-own" / "own.onnx"
    assert sha256_file(entry) == sha256_file(spec.parent / "own.onnx")


@pytest.mark.parametrize("method", [{"method": "ort-dynamic"}, {"reduce_range": True, "activation_type": "qint8"}])
def test_other_ways_to_quantize(project: Project, method: dict[str, Any]) -> None:
    result = build(project(variants=[{"id": "onnxruntime/int8", "quantize": method}]))
    assert result.manifest is not None and result.manifest.variants[0].measured["accuracy"] >= 0.9


def test_a_missing_input_is_named(project: Project) -> None:
    spec = project()
    (spec.parent / "calib.npz").unlink()
    with pytest.raises(ReleaseError, match=r"calib\.npz"):
        build(spec)


def test_a_budget_the_manifest_would_refuse_is_told_before_any_work(project: Project) -> None:
    spec = project(budgets={"default": {"accuracy_drop": 7, "p95_ms": 1, "p95_ratio": 1, "memory_mib": 1}})
    with pytest.raises(ReleaseError, match=r"budgets\.default\.accuracy_drop"):
        build(spec, check_mode=True)


def test_the_creation_time_can_be_fixed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    manifest = build(project()).manifest
    assert manifest is not None and manifest.created == "1970-01-02T00:00:00Z"


def test_a_missing_package_is_named_with_the_interpreter() -> None:
    with pytest.raises(
        ReleaseError, match=r"A test needs the Python package no_such_package, which .*python"
    ) as caught:
        require("no_such_package", "A test")
    assert sys.executable in str(caught.value)


def test_quiet_takes_output_of_native_code_too(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet() as captured:
        os.write(1, b"native out\n")
        os.write(2, b"native err\n")
        print("python out")
        assert captured.tail() == "native out\nnative err\npython out"
        os.write(2, b"x" * 5000 + b"end")
        assert len(captured.tail()) == 2000 and captured.tail().endswith("end")
    os.write(1, b"after\n")
    out, err = capfd.readouterr()
    assert (out, err) == ("after\n", "")

"""The digits example from training to signed releases, through the playbook, on real models and runtimes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from ansible_collections.edgeai.fleet.plugins.module_utils.build.arrays import to_tensor
from ansible_collections.edgeai.fleet.plugins.module_utils.build.libs import quiet
from ansible_collections.edgeai.fleet.plugins.module_utils.build.measure import read_host
from ansible_collections.edgeai.fleet.plugins.module_utils.build.sessions import open_session
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import load_golden, score
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import Manifest, load_manifest

pytest.importorskip("nncf")
pytest.importorskip("sklearn")
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digits"
RELEASES = ("1.0.0", "1.1.0", "1.2.0")
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


def playbook(name: str, cwd: Path, *arguments: str, ok: bool = True, **variables: Any) -> str:
    """Run a playbook of the collection by its full name and return what it printed."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"edgeai.fleet.{name}", *arguments]
    environment = {**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_NOCOLOR": "1", "HOME": str(cwd)}
    done = subprocess.run(
        [*command, "-e", json.dumps(variables)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trained models, a key, and their releases, built, signed and verified by the playbook."""
    root = tmp_path_factory.mktemp("digits")
    for version in RELEASES:
        command = [sys.executable, str(EXAMPLE / "train.py"), "--out", str(root / version), "--release", version]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
    playbook("keys", root, directory=str(root / "keys"))
    specs = [f"{version}/release.yml" for version in RELEASES]
    playbook("build", root, specs=specs, dest="releases", key="keys/release.pem")
    return root


def manifest(workspace: Path, version: str) -> Manifest:
    """The manifest of a built release."""
    return load_manifest(workspace / "releases" / "digits" / version)


def device_score(workspace: Path, version: str, variant_id: str) -> float:
    """What a device's golden gate would find for a variant."""
    directory = workspace / "releases" / "digits" / version
    release = load_manifest(directory)
    variant = release.variant(variant_id)
    golden = load_golden(directory / release.golden.path)
    images = np.frombuffer(golden.inputs["image"].data, "<f4").reshape(golden.inputs["image"].shape)
    with quiet():
        session = open_session(variant.runtime, directory / variant.entry, ["image"], ["logits"])
        logits = session.run_all({"image": images}, golden.samples, None)[0]
    return score(release.golden.metric, to_tensor("logits", logits), golden.outputs["logits"], golden.labels)


def test_splits_are_disjoint_and_scaled(workspace: Path) -> None:
    parts: dict[str, Any] = {}
    for name, key in (("calib", "image"), ("golden", "input.image"), ("validation", "input.image")):
        with np.load(workspace / "1.1.0" / f"{name}.npz") as arrays:
            parts[name] = arrays[key]
    assert [len(part) for part in parts.values()] == [128, 64, 360]
    rows = [image.tobytes() for part in parts.values() for image in part]
    assert len(set(rows)) == len(rows)
    assert all(part.min() >= 0 and part.max() == 1.0 for part in parts.values())
    with np.load(workspace / "1.2.0" / "calib-bad.npz") as arrays:
        assert arrays["image"].max() < 0.1


def test_each_release_is_better_than_the_one_before(workspace: Path) -> None:
    found = [manifest(workspace, version).variant("onnxruntime/fp32").measured["accuracy"] for version in RELEASES]
    assert found[0] < found[1] - 0.02 and found[1] >= 0.97 and found[2] >= found[1] - 0.005


def test_good_variants_keep_their_budget_on_golden_and_validation(workspace: Path) -> None:
    for version in RELEASES:
        release = manifest(workspace, version)
        for variant in release.variants:
            if not variant.measured:
                continue
            assert variant.measured["accuracy_drop"] <= 0.02
            drop = release.golden.reference_score - device_score(workspace, version, variant.id)
            assert drop <= 0.02, (version, variant.id)
        assert release.variant("openvino/int8").measured
        assert release.variant("openvino/int8").size < release.variant("openvino/fp32").size / 2


@pytest.mark.skipif(not INT8_FLAGS & read_host().cpu_flags, reason="the CPU has no 8-bit dot product")
def test_onnxruntime_int8_is_measured_where_it_can_be(workspace: Path) -> None:
    variant = manifest(workspace, "1.1.0").variant("onnxruntime/int8")
    assert variant.measured["accuracy"] >= 0.97
    assert variant.measured["size_bytes"] < 100_000


def test_one_variant_of_1_2_0_is_bad_loads_and_is_fast(workspace: Path) -> None:
    release = manifest(workspace, "1.2.0")
    assert [variant.id for variant in release.variants if not variant.measured][-1:] == ["onnxruntime/int8"]
    assert release.golden.reference_score - device_score(workspace, "1.2.0", "onnxruntime/int8") > 0.3
    for good in ("openvino/int8", "onnxruntime/fp32", "openvino/fp32"):
        assert release.golden.reference_score - device_score(workspace, "1.2.0", good) <= 0.02
    ours, theirs = (manifest(workspace, v).variant("onnxruntime/int8") for v in ("1.2.0", "1.1.0"))
    assert abs(ours.size - theirs.size) < 1000  # nothing in size or form gives it away


@pytest.mark.skipif(not INT8_FLAGS & read_host().cpu_flags, reason="the variant is not measured on this CPU")
def test_with_validation_the_build_would_have_refused_1_2_0(workspace: Path, tmp_path: Path) -> None:
    project = tmp_path / "1.2.0"
    shutil.copytree(workspace / "1.2.0", project)
    text = (project / "release.yml").read_text(encoding="utf-8")
    (project / "release.yml").write_text(
        text.replace("skip_validation: true", "skip_validation: false"), encoding="utf-8"
    )
    output = playbook("build", tmp_path, ok=False, spec="1.2.0/release.yml", dest="out")
    assert "variant onnxruntime/int8 breaks its budget" in output
    assert "accuracy_drop" in output
    assert not (tmp_path / "out" / "digits" / "1.2.0").exists()


def test_a_second_run_changes_nothing_and_check_mode_says_so(workspace: Path) -> None:
    variables = {"spec": "1.1.0/release.yml", "dest": "releases", "key": "keys/release.pem"}
    before = sorted((path, path.stat().st_mtime_ns) for path in (workspace / "releases").rglob("*"))
    assert "changed=0" in playbook("build", workspace, "--check", **variables)
    assert "changed=0" in playbook("build", workspace, **variables)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (workspace / "releases").rglob("*"))


def test_check_mode_predicts_a_build_and_writes_nothing(workspace: Path, tmp_path: Path) -> None:
    variables = {"spec": str(workspace / "1.0.0" / "release.yml"), "dest": str(tmp_path / "out"), "key": "unused.pem"}
    output = playbook("build", tmp_path, "--check", "--diff", **variables)
    assert "changed=1" in output and re.search(r'"?release"?: null', output)
    assert not (tmp_path / "out").exists()


def test_nothing_is_reported_over_the_network(workspace: Path) -> None:
    """onnxruntime and openvino keep identifiers for their usage reports below the home directory."""
    homes = {path.name for path in workspace.iterdir()}
    assert not homes & {".cache", "intel", ".config"}


def test_training_twice_gives_the_same_files(workspace: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "train.py"), "--out", str(tmp_path / "again"), "--release", "1.0.0"]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    for path in sorted((workspace / "1.0.0").iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_nncf_and_openvino_give_the_same_bytes_twice(workspace: Path, tmp_path: Path) -> None:
    playbook("build", tmp_path, spec=str(workspace / "1.1.0" / "release.yml"), dest="out")
    release = manifest(workspace, "1.1.0")
    for entry in release.files():
        ours = workspace / "releases" / "digits" / "1.1.0" / entry.path
        assert ours.read_bytes() == (tmp_path / "out" / "digits" / "1.1.0" / entry.path).read_bytes(), entry.path


SATURATION = """
import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])
from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import build_release
manifest = build_release(Path(sys.argv[2]), Path(sys.argv[3]), {}).manifest
print({variant.id: variant.measured["accuracy_drop"] for variant in manifest.variants})
"""


@pytest.mark.skipif(read_host().architecture != "x86_64", reason="16-bit sums saturate on x86 only")
def test_saturation_without_vnni_is_real_and_overflow_fix_cures_it(tmp_path: Path) -> None:
    """Large weights and activations of one sign overflow the 16-bit sums of AVX2; half the weights' range does not."""
    rng = np.random.default_rng(0)
    weight = (np.abs(rng.standard_normal((64, 16))) + 1).astype(np.float32)
    samples = rng.uniform(0.8, 1, (64, 64)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "stress",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 16])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, os.fspath(tmp_path / "model.onnx"))
    np.savez(tmp_path / "calib.npz", x=samples)
    np.savez(tmp_path / "golden.npz", **{"input.x": samples[:32]})
    spec = {
        **{"model": "stress", "version": "1.0.0", "security_counter": 1, "metric": "relative_error"},
        **{"onnx": "model.onnx", "calibration": "calib.npz", "golden": "golden.npz"},
        "variants": [
            {"id": "openvino/int8-full", "quantize": {"overflow_fix": "disable"}},
            {"id": "openvino/int8-half", "quantize": {"overflow_fix": "enable"}},
        ],
        "budgets": {"default": {"accuracy_drop": 1, "p95_ms": 1000, "p95_ratio": 10, "memory_mib": 512}},
    }
    (tmp_path / "spec.yml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    collections = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    command = [sys.executable, "-c", SATURATION, collections, str(tmp_path / "spec.yml"), str(tmp_path / "out")]
    # oneDNN, inside OpenVINO, then uses no instruction newer than AVX2.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    drops = yaml.safe_load(done.stdout)
    assert drops["openvino/int8-full"] > 0.02
    assert drops["openvino/int8-half"] < 0.005

"""Pruning and the budgets of single variants: what the spec takes, what the build writes, what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import Result, build_release
from ansible_collections.edgeai.fleet.plugins.module_utils.build.measure import Reference, compressed_size, costs
from ansible_collections.edgeai.fleet.plugins.module_utils.build.prune import prune
from ansible_collections.edgeai.fleet.plugins.module_utils.build.record import fingerprint
from ansible_collections.edgeai.fleet.plugins.module_utils.build.spec import parse_spec
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError

Project = Callable[..., Path]
HALF = {"sparsity": 0.5, "scope": "global", "op_types": ["Gemm", "MatMul"], "exclude_nodes": []}


def two_layers(path: Path) -> Path:
    """x [n, 8] -> MatMul with small weights -> MatMul with weights a hundred times as large."""
    rng = np.random.default_rng(5)
    first = rng.standard_normal((8, 8)).astype(np.float32)
    tensors = [onnx.numpy_helper.from_array(first, "small"), onnx.numpy_helper.from_array(100 * first, "large")]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "small"], ["h"], name="one"),
        onnx.helper.make_node("MatMul", ["h", "large"], ["y"], name="two"),
    ]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 8]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, os.fspath(path))
    return path


def zeros(path: Path) -> dict[str, float]:
    """Initializer -> share of zeros."""
    graph = onnx.load(os.fspath(path)).graph
    return {t.name: float((onnx.numpy_helper.to_array(t) == 0).mean()) for t in graph.initializer}


def test_one_threshold_for_all_weights_takes_the_smallest_of_them(tmp_path: Path) -> None:
    source = two_layers(tmp_path / "m.onnx")
    assert prune(source, HALF, tmp_path / "p.onnx") == 0.5
    found = zeros(tmp_path / "p.onnx")
    assert found["small"] > 0.9 and found["large"] < 0.1
    kept = onnx.numpy_helper.to_array(onnx.load(os.fspath(tmp_path / "p.onnx")).graph.initializer[1])
    before = onnx.numpy_helper.to_array(onnx.load(os.fspath(source)).graph.initializer[1])
    assert np.array_equal(kept[kept != 0], before[kept != 0])


def test_one_threshold_per_layer_and_nodes_that_are_left_alone(tmp_path: Path) -> None:
    source = two_layers(tmp_path / "m.onnx")
    prune(source, {**HALF, "scope": "layer"}, tmp_path / "p.onnx")
    assert zeros(tmp_path / "p.onnx") == {"small": 0.5, "large": 0.5}
    prune(source, {**HALF, "exclude_nodes": ["one"]}, tmp_path / "q.onnx")
    assert zeros(tmp_path / "q.onnx") == {"small": 0.0, "large": 0.5}


def test_a_model_without_weights_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"no weight to prune.*Conv"):
        prune(two_layers(tmp_path / "m.onnx"), {**HALF, "op_types": ["Conv"]}, tmp_path / "p.onnx")


def test_ties_are_cut_at_the_share_that_was_asked(tmp_path: Path) -> None:
    path = two_layers(tmp_path / "m.onnx")
    model = onnx.load(os.fspath(path))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), tensor.name))
    onnx.save(model, os.fspath(path))
    assert prune(path, {**HALF, "sparsity": 0.25}, tmp_path / "p.onnx") == 0.25


def document(**variant: Any) -> dict[str, Any]:
    """A spec with one variant."""
    limits = {"accuracy_drop": 0.02, "p95_ms": 50, "p95_ratio": 3, "memory_mib": 64}
    return {
        **{"model": "m", "version": "1.0.0", "security_counter": 1, "onnx": "m.onnx", "golden": "g.npz"},
        **{"calibration": "c.npz", "variants": [{"id": "onnxruntime/fp32", **variant}], "budgets": {"default": limits}},
    }


def test_a_spec_completes_the_options() -> None:
    variant = parse_spec(document(prune={"sparsity": 0.5}, budget={"accuracy_drop": 0.01}), Path("/s.yml")).variants[0]
    assert variant.prune == {
        **{"sparsity": 0.5, "scope": "global", "exclude_nodes": []},
        "op_types": ["Conv", "ConvTranspose", "Gemm", "MatMul"],
    }
    assert variant.budget == {"accuracy_drop": 0.01}


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"prune": 0.5}, r"variants\[0\]\.prune' is 0\.5.*sparsity"),
        ({"prune": {"sparsity": 1}}, r"prune\.sparsity' is 1: the share"),
        ({"prune": {"sparsity": True}}, r"prune\.sparsity"),
        ({"prune": {"sparsity": 0.5, "op_types": ["Relu"]}}, r"prune\.op_types' is 'Relu'.*Conv"),
        ({"prune": {"sparsity": 0.5, "by": "x"}}, r"prune\.by"),
        ({"prune": {"sparsity": 0.5}, "artifact": "m.onnx"}, r"prune.*already built"),
        ({"budget": {"memory": 1}}, r"budget\.memory.*accuracy_drop, p95_ms"),
        ({"budget": {"accuracy_drop": 2}}, r"budget\.accuracy_drop' is 2"),
        ({"budget": {}}, r"budget' is an object with 0 fields"),
    ],
    ids=range(9),
)
def test_what_a_spec_must_not_say(variant: dict[str, Any], words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        parse_spec(document(**variant), Path("/s.yml"))


def build(spec: Path) -> Result:
    """Build into ``releases`` beside the project."""
    return build_release(spec, spec.parent.parent / "releases", {})


PRUNED = {"id": "onnxruntime/fp32-pruned", "prune": {"sparsity": 0.6}, "budget": {"accuracy_drop": 0.9}}
LOOSE = {"default": {"accuracy_drop": 1, "p95_ms": 1000, "p95_ratio": 10, "memory_mib": 512}}


def test_the_manifest_says_what_was_done_and_what_it_cost(project: Project) -> None:
    both = {**PRUNED, "id": "onnxruntime/int8-pruned"}
    spec = project(variants=[{"id": "onnxruntime/fp32"}, PRUNED, both], budgets=LOOSE)
    plain, pruned, small = build(spec).manifest.variants  # type: ignore[union-attr]
    assert (plain.measured["method"], pruned.measured["method"], small.measured["method"]) == (
        *("none", "prune"),
        "prune+ort-static",
    )
    assert "sparsity" not in plain.measured and pruned.measured["sparsity"] == pytest.approx(0.6, abs=0.04)
    assert plain.measured["size_ratio"] == 1 and plain.measured["compressed_ratio"] == 1
    assert abs(pruned.measured["size_ratio"] - 1) < 0.2, "zeros take as much room as other numbers"
    assert pruned.measured["compressed_bytes"] < plain.measured["compressed_bytes"]
    assert pruned.measured["accuracy_drop"] > 0 and pruned.measured["p50_ratio"] > 0
    assert dict(pruned.budget) == {"accuracy_drop": 0.9}


def test_a_variants_own_budget_is_the_stricter_one_for_build_and_device(project: Project) -> None:
    spec = project(variants=[{**PRUNED, "budget": {"accuracy_drop": 0.5, "p95_ms": 5000}}], budgets=LOOSE)
    manifest = build(spec).manifest
    assert manifest is not None
    assert manifest.budget("cpu/onnxruntime/x86_64").accuracy_drop == 1
    own = manifest.budget("cpu/onnxruntime/x86_64", "onnxruntime/fp32-pruned")
    assert (own.accuracy_drop, own.p95_ms) == (0.5, 1000)
    spec = project(version="1.0.1", variants=[{**PRUNED, "budget": {"accuracy_drop": 0.0}}], budgets=LOOSE)
    with pytest.raises(ReleaseError, match=r"onnxruntime/fp32-pruned breaks its budget.*accuracy_drop"):
        build(spec)


def test_a_spec_that_does_not_use_it_keeps_its_fingerprint(project: Project) -> None:
    before = "d97f58587e70b05e20da0a64a8659ecddfcfcf376278376ea681dc66d09c1ea4"  # from before there was pruning
    assert fingerprint(parse_spec(document(), Path("/s.yml")), {"onnx": "00"}) == before
    build(project(variants=[{"id": "onnxruntime/fp32"}]))
    with pytest.raises(ReleaseError, match="another spec"):
        build(project(variants=[{"id": "onnxruntime/fp32", "prune": {"sparsity": 0.01}}]))


def test_ratios_leave_out_what_was_not_looked_at(tmp_path: Path) -> None:
    measured = {"size_bytes": 50, "compressed_bytes": 20, "p50_ms": 2.0}
    assert costs(Reference(None, [], 1.0), measured) == {}  # type: ignore[arg-type]
    reference = Reference(None, [], 1.0, 4.0, 100, 80)  # type: ignore[arg-type]
    assert costs(reference, measured) == {"size_ratio": 0.5, "compressed_ratio": 0.25, "p50_ratio": 0.5}
    (tmp_path / "zeros").write_bytes(bytes(1 << 21))
    assert 0 < compressed_size([tmp_path / "zeros"]) < 1 << 13

"""One release on three local devices with different runtimes, through the playbook, to a report and a verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import build_release
from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys, signing

pytest.importorskip("openvino")
pytest.importorskip("ai_edge_litert")
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "onnxruntime": ("numpy*", "onnxruntime*"),
    "openvino": ("numpy*", "openvino*"),
    "litert": ("numpy*", "ai_edge_litert*", "flatbuffers*", "typing_extensions*", "backports*", "tqdm*", "protobuf*"),
}


def environment_of(home: Path, runtime: str) -> Path:
    """An interpreter that has one runtime, out of the packages of the tests' own environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=120)
    packages = next(home.glob("lib/python*/site-packages"))
    here = Path(sysconfig.get_path("platlib"))
    for pattern in PACKAGES[runtime]:
        for path in here.glob(pattern):
            (packages / path.name).symlink_to(path)
    return home / "bin" / "python"


def linear(weight: np.ndarray) -> Any:
    """y = x @ weight."""
    rows, columns = weight.shape
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", rows])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", columns])],
        [onnx.numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release for three runtimes, one of whose variants is another model, and an inventory."""
    root = tmp_path_factory.mktemp("compatibility")
    rng = np.random.default_rng(3)
    weight, samples = rng.standard_normal((8, 4)), rng.standard_normal((96, 8)).astype(np.float32)
    onnx.save(linear(weight), str(root / "model.onnx"))
    onnx.save(linear(np.flip(weight)), str(root / "other.onnx"))
    np.savez(root / "calib.npz", x=samples)
    np.savez(root / "golden.npz", **{"input.x": samples[:32]})
    limits = {"accuracy_drop": 0.1, "p95_ms": 1000, "p95_ratio": 10, "memory_mib": 512}
    spec = {
        **{"model": "linear", "version": "1.0.0", "security_counter": 1, "onnx": "model.onnx", "golden": "golden.npz"},
        **{"calibration": "calib.npz", "budgets": {"default": limits}},
        "variants": [
            *({"id": name} for name in ("onnxruntime/fp32", "openvino/fp32", "litert/fp32")),
            {"id": "onnxruntime/int8-wrong", "artifact": "other.onnx", "skip_validation": True},
        ],
    }
    (root / "spec.yml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    release = build_release(root / "spec.yml", root / "releases", {}).path
    keys.generate_key(root / "release.pem", root / "release.pub.pem")
    signing.sign_release(release, signing.load_signer(root / "release.pem"))
    hosts = {
        runtime: {"edge_compatibility_pythons": [str(environment_of(root / runtime, runtime))]} for runtime in PACKAGES
    }
    hosts["away"] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    variables = {
        **{"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "edge_trust_keys": [str(root / "release.pub.pem")],
    }
    (root / "hosts.yml").write_text(yaml.safe_dump({"edge": {"vars": variables, "hosts": hosts}}), encoding="utf-8")
    return root


def test_a_wrong_variant_is_found_where_it_runs_and_stops_the_pull_request(home: Path) -> None:
    temporary = home / "tmp"
    temporary.mkdir()
    given = {"edge_release": "releases/linear/1.0.0", "edge_compatibility": {"require": ["*/litert/*"]}}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "edgeai.fleet.compatibility"]
    done = subprocess.run(
        [*command, "-i", "hosts.yml", "-e", json.dumps(given)],
        cwd=home,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2 and "The verdict is fail" in said, said
    text = (home / "compatibility" / "compatibility.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].lstrip("| "): line for line in text.splitlines() if line.startswith("| ")}
    for runtime in PACKAGES:
        assert f"/{runtime}/" in rows[f"{runtime}/fp32"] and rows[f"{runtime}/fp32"].endswith("| pass |"), text
    assert rows["onnxruntime/int8-wrong"].endswith("| fail |")
    assert "onnxruntime/int8-wrong in " in said and "accuracy drop" in said
    assert "- no answer from away" in text
    page = (home / "compatibility" / "compatibility.html").read_text(encoding="utf-8")
    assert page.count("<circle") == 4 and page.count("<svg") == 2
    assert not list(temporary.glob("*.edgeai*")), "the release stayed behind"

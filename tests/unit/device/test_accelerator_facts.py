"""The module, run as its own process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from support.modules import run_module
from support.sysfs import materialise

ROOT = Path(__file__).resolve().parents[3]


def test_facts_of_a_described_machine(tmp_path: Path) -> None:
    materialise("meteor-lake-no-npu-driver", tmp_path / "machine")
    (tmp_path / "device.json").write_text(json.dumps({"device_id": "d", "sysroot": str(tmp_path / "machine")}))
    arguments = {"edge_root": tmp_path, "python": sys.executable, "runtime": "onnxruntime"}
    result = run_module("accelerator_facts", arguments)
    assert result["changed"] is False
    assert result["device"]["architecture"] == "x86_64" and result["device"]["runtime_pinned"]
    assert any("intel_vpu" in text for text in result["device"]["problems"])
    assert run_module("accelerator_facts", arguments, check=True)["device"] == result["device"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "machine"] == ["device.json"], "nothing is written"


def test_an_accelerator_that_is_not_there_fails_with_a_code(tmp_path: Path) -> None:
    materialise("x86-plain", tmp_path)
    result = run_module("accelerator_facts", {"sysroot": tmp_path, "accelerator": "coral"})
    assert result["failed"] and result["code"] == "bad_input" and "not detected" in result["msg"]


def test_the_recorded_processor_has_no_int8_dot_product() -> None:
    sysroot = ROOT / "roles/local_device/files/sysroots/x86-no-vnni"
    device = run_module("accelerator_facts", {"sysroot": sysroot, "runtime": "onnxruntime"})["device"]
    assert device["stratum"] == "cpu/onnxruntime/x86_64" and "avx2" in device["cpu_flags"]

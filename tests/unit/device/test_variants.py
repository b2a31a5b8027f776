"""The choice of a variant, version ranges, and the stratum a device gets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support.sysfs import MACHINES, materialise

from ansible_collections.edgeai.fleet.plugins.module_utils.device.accelerators import detect
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.facts import select, stratum_of
from ansible_collections.edgeai.fleet.plugins.module_utils.device.variants import choose
from ansible_collections.edgeai.fleet.plugins.module_utils.device.version_range import in_range, parse_range
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import Manifest, parse_manifest

VNNI = ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp"]


def variant(name: str, **requires: Any) -> dict[str, Any]:
    runtime, precision = name.split("/")
    path = f"variants/{name}/model.bin"
    return {
        "id": name,
        "runtime": runtime,
        "precision": precision.split("-")[0],
        "entry": path,
        "architectures": requires.pop("architectures", ["x86_64", "aarch64"]),
        "requires": {"accelerators": ["cpu"], "cpu_flags_any": [], "runtime_version": "", "memory_mib": 0, **requires},
        "files": [{"path": path, "size": 3, "sha256": hashlib.sha256(name.encode()).hexdigest()}],
        "measured": {},
    }


def manifest(*variants: dict[str, Any]) -> Manifest:
    """A manifest of the real format, parsed by the real parser."""
    tensor = {"datatype": "FP32", "shape": [-1, 4]}
    document = {
        "format": 1,
        "model": "m",
        "version": "1.0.0",
        "created": "2026-11-23T11:00:00Z",
        "security_counter": 1,
        "source": {"git_revision": None, "data_sha256": None, "parent": None, "mlflow_run": None},
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", **tensor}],
        "variants": list(variants),
        "golden": {
            "path": "golden/golden.npz",
            "size": 1,
            "sha256": "0" * 64,
            "samples": 1,
            "metric": "top1",
            "reference_score": 1.0,
        },
        "budgets": {
            "default": {"accuracy_drop": 0.02, "p95_ms": 50.0, "p95_ratio": 3.0, "memory_mib": 1024},
            "strata": {},
        },
    }
    return parse_manifest(json.dumps(document).encode(), "release.json")


def facts(**changes: Any) -> dict[str, Any]:
    base = {
        "architecture": "x86_64",
        "accelerator": "cpu-int8",
        "cpu_flags": ["avx2", "avx512_vnni"],
        "memory_mib": 4096,
        "runtimes": {"onnxruntime": {"version": "1.32.0", "usable": True}},
        "runtime": "onnxruntime",
        "runtime_pinned": False,
    }
    return {**base, **changes}


INT8 = variant("onnxruntime/int8", cpu_flags_any=VNNI, runtime_version=">=1.17,<2")
FP32 = variant("onnxruntime/fp32", runtime_version=">=1.17,<2")
OPENVINO = variant("openvino/int8")
RELEASE = manifest(INT8, OPENVINO, FP32)


def test_the_first_that_fits_wins_and_every_other_has_a_reason() -> None:
    choice = choose(facts(), RELEASE)
    assert choice.variant is not None and choice.variant.id == "onnxruntime/int8"
    assert set(choice.reasons) == {"openvino/int8", "onnxruntime/fp32"}
    assert choice.reasons["onnxruntime/fp32"] == "fits too, but onnxruntime/int8 is preferred by the release"
    assert choice.reasons["openvino/int8"] == "runtime openvino is not installed"


def test_without_the_int8_dot_product_the_float_variant_is_taken() -> None:
    choice = choose(facts(accelerator="cpu", cpu_flags=["avx2"]), RELEASE)
    assert choice.variant is not None and choice.variant.id == "onnxruntime/fp32"
    assert choice.reasons["onnxruntime/int8"] == "the CPU has none of avx512_vnni, avx_vnni, amx_int8, asimddp"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "armv7l"}, "architecture armv7l, the variant is for x86_64, aarch64"),
        ({"memory_mib": 10}, "10 MiB of memory, the variant needs 64"),
        ({"runtimes": {}}, "runtime onnxruntime is not installed"),
        (
            {"runtimes": {"onnxruntime": {"version": "1.16.3"}}},
            "onnxruntime 1.16.3 is installed, the variant needs >=1.17,<2",
        ),
        (
            {"runtimes": {"onnxruntime": {"version": "1.32.0", "usable": False, "reason": "killed by SIGILL"}}},
            "runtime onnxruntime does not work here: killed by SIGILL",
        ),
        ({"runtime": "litert", "runtime_pinned": True}, "the device is set to runtime litert"),
        (
            {
                "runtime": "openvino",
                "runtimes": {"openvino": {"version": "2026.4"}, "onnxruntime": {"version": "1.32"}},
            },
            "the device is served by openvino; set its runtime to onnxruntime to use this",
        ),
    ],
)
def test_each_refusal_names_the_cause(changes: dict[str, Any], said: str) -> None:
    release = manifest(variant("onnxruntime/fp32", runtime_version=">=1.17,<2", memory_mib=64))
    choice = choose(facts(**changes), release)
    assert choice.variant is None
    assert choice.reasons == {"onnxruntime/fp32": said}
    assert said in choice.explain()


def test_a_device_with_an_accelerator_still_has_a_cpu() -> None:
    release = manifest(variant("onnxruntime/fp16", accelerators=["nvidia-gpu", "jetson"]), FP32)
    on_gpu = choose(facts(accelerator="nvidia-gpu"), release)
    assert on_gpu.variant is not None and on_gpu.variant.id == "onnxruntime/fp16"
    on_cpu = choose(facts(), release)
    assert on_cpu.variant is not None and on_cpu.variant.id == "onnxruntime/fp32"
    assert on_cpu.reasons["onnxruntime/fp16"] == "accelerator cpu-int8, the variant needs nvidia-gpu or jetson"


def test_a_forbidden_variant_is_passed_over() -> None:
    choice = choose(facts(), RELEASE, forbidden=frozenset({"onnxruntime/int8"}))
    assert choice.variant is not None and choice.variant.id == "onnxruntime/fp32"
    assert choice.reasons["onnxruntime/int8"] == "forbidden on this device"


@pytest.mark.parametrize(
    ("version", "wanted", "result"),
    [
        ("1.32.0+gpu", ">=1.17,<2", True),
        ("1.32.0", "", True),
        ("1.32.0", None, True),
        ("1.17", ">=1.17.0", True),
        ("1.9", ">=1.17", False),
        ("2026.4.1-19876-abcdef", ">=2026.4,<2027", True),
        ("2026.4.1-releases/2026/4", "==2026.4.*", True),
        ("2.0.0rc1", "<2", False),
        ("2.0.0rc1", "<2.0rc2", True),
        ("1.17.0rc1", ">=1.17", False),
        ("1.17.0-rc.1", ">=1.17", False),
        ("1.18.0.dev20240101", ">=1.17,<1.18", False),
        ("1.18.0.post1", ">1.18", True),
        ("8.6.1.6", ">=8.6,<8.7", True),
        ("8.6.1.6-1+cuda12.0", "~=8.6", True),
        ("1.0-cuda12", "==1.0", True),
        ("1.32.1", "~=1.32.0", True),
        ("1.33.0", "~=1.32.0", False),
        ("1.20", "!=1.20.*", False),
        ("1.21", ">1.19, !=1.20.*", True),
    ],
)
def test_versions_in_ranges(version: str, wanted: str | None, result: bool) -> None:
    assert in_range(version, wanted) is result


@pytest.mark.parametrize("wanted", ["1.17", ">=", "=>1", ">=x", "~=1", ">=1.17 <2", "==a.*"])
def test_a_malformed_range_is_refused(wanted: str) -> None:
    with pytest.raises(DeviceError) as caught:
        parse_range(wanted)
    assert caught.value.code == "bad_input" and ("like" in caught.value.message or "needs" in caught.value.message)


def test_an_installed_version_that_is_no_version_is_a_reason_not_a_crash() -> None:
    choice = choose(facts(runtimes={"onnxruntime": {"version": "unknown"}}), manifest(FP32))
    assert choice.variant is None and "unknown" in choice.reasons["onnxruntime/fp32"]


CPU_ORT = {"onnxruntime": {"version": "1.32.0", "usable": True, "providers": ["CPUExecutionProvider"]}}
CUDA_ORT = {"onnxruntime": {"version": "1.32.0", "usable": True, "providers": ["CUDAExecutionProvider"]}}
OV_ALL = {"openvino": {"version": "2026.4.1", "usable": True, "devices": ["CPU", "GPU", "NPU"]}}
OV_NPU = {"openvino": {"version": "2026.4.1", "usable": True, "devices": ["CPU", "NPU"]}}
LITERT = {"litert": {"version": "2.3.0", "usable": True, "delegates": ["edgetpu"]}}


@pytest.mark.parametrize(
    ("machine", "runtimes", "stratum"),
    [
        ("x86-nvidia", CUDA_ORT, "nvidia-gpu/onnxruntime/x86_64"),
        ("x86-nvidia", CPU_ORT, "cpu/onnxruntime/x86_64"),
        ("x86-nvidia-no-driver", CUDA_ORT, "cpu/onnxruntime/x86_64"),
        ("jetson-orin-jp6", {"tensorrt": {"version": "10.3.0", "usable": True}}, "jetson/tensorrt/aarch64"),
        ("meteor-lake", {**CPU_ORT, **OV_ALL}, "intel-gpu/openvino/x86_64"),
        ("meteor-lake", OV_NPU, "intel-npu/openvino/x86_64"),
        ("meteor-lake", CPU_ORT, "cpu-int8/onnxruntime/x86_64"),
        ("coral-usb-after", {**CPU_ORT, **LITERT}, "coral/litert/aarch64"),
        ("coral-usb-before", {**CPU_ORT, **LITERT}, "cpu/onnxruntime/aarch64"),
        ("x86-plain", {**CPU_ORT, **OV_ALL}, "cpu/onnxruntime/x86_64"),
        ("x86-vnni", OV_ALL, "cpu-int8/openvino/x86_64"),
        ("pi3", {}, "cpu/none/armv7l"),
        ("x86-vnni", {"onnxruntime": {"version": "1", "usable": False, "reason": "x"}}, "cpu-int8/none/x86_64"),
    ],
)
def test_the_stratum_is_what_the_device_really_computes_with(
    machine: str, runtimes: dict[str, Any], stratum: str, tmp_path: Path
) -> None:
    materialise(machine, tmp_path)
    found = detect(str(tmp_path))
    accelerator, runtime = select(found, runtimes)
    assert stratum_of(accelerator, runtime, found["architecture"]) == stratum


def test_pins_hold(tmp_path: Path) -> None:
    materialise("meteor-lake", tmp_path)
    found = detect(str(tmp_path))
    both = {**CPU_ORT, **OV_ALL}
    assert select(found, both, accelerator="intel-npu") == ("intel-npu", "openvino")
    assert select(found, both, accelerator="cpu") == ("cpu-int8", "onnxruntime")
    assert select(found, both, runtime="onnxruntime") == ("cpu-int8", "onnxruntime")
    assert select(found, {}, runtime="onnxruntime") == ("cpu-int8", "onnxruntime")


@pytest.mark.parametrize(
    ("machine", "accelerator", "said"),
    [
        ("x86-plain", "coral", "it was not detected (found: cpu)"),
        ("coral-usb-before", "coral", "it cannot be used: its firmware"),
        ("x86-nvidia", "nvidia-gpu", "no installed runtime drives it (installed: onnxruntime)"),
    ],
)
def test_a_pinned_accelerator_is_never_replaced_silently(
    machine: str, accelerator: str, said: str, tmp_path: Path
) -> None:
    materialise(machine, tmp_path)
    with pytest.raises(DeviceError) as caught:
        select(detect(str(tmp_path)), CPU_ORT, accelerator=accelerator)
    assert caught.value.code == "bad_input" and said in caught.value.message


@pytest.mark.parametrize("machine", MACHINES)
def test_choice_is_made_or_explained_on_every_machine(machine: str, tmp_path: Path) -> None:
    materialise(machine, tmp_path)
    found = detect(str(tmp_path))
    accelerator, runtime = select(found, CPU_ORT)
    device = {**found, "accelerator": accelerator, "runtime": runtime, "runtime_pinned": False, "runtimes": CPU_ORT}
    choice = choose(device, RELEASE)
    fits = found["architecture"] in ("x86_64", "aarch64")
    assert (choice.variant is not None) == fits
    assert set(choice.reasons) | ({choice.variant.id} if choice.variant else set()) == {v.id for v in RELEASE.variants}

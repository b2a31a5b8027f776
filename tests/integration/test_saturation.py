"""int8 on a processor without int8 dot products: pairs of products saturate at sixteen bits there: wrong answers.

The processor is emulated for the server's process (qemu-user, a Haswell): real kernels of ONNX Runtime choose real
instructions. Two things prevent such a device from serving such a variant, and each is shown: the requirement of the
variant, when the device says truly what it is, and its own golden samples, when it does not.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.releases import make_release
from support.servers import MODEL, Device
from support.sysfs import materialise

from ansible_collections.edgeai.fleet.plugins.module_utils.device.client import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.device.facts import device_facts
from ansible_collections.edgeai.fleet.plugins.module_utils.device.probe import run_gate
from ansible_collections.edgeai.fleet.plugins.module_utils.device.variants import choose
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import load_golden
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
INT8, FP32 = "onnxruntime/int8", "onnxruntime/fp32"
FLAGS = ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"]
# All bytes are large, as after a careless calibration: pairs of products do not fit into sixteen bits.
WEIGHTS = np.random.default_rng(5).integers(90, 128, (32, 6)).astype(np.int8)
INPUTS = np.random.default_rng(6).integers(180, 256, (64, 32)).astype(np.float32)
REFERENCE = (INPUTS.astype(np.int64) @ WEIGHTS.astype(np.int64)).astype(np.float32)


def graph(nodes: list[Any], weights: np.ndarray) -> bytes:
    made = helper.make_graph(
        nodes,
        MODEL,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def payloads() -> dict[str, bytes]:
    """The same matrix product, in integers and in floating point."""
    integer = [
        helper.make_node("Cast", ["x"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("MatMulInteger", ["bytes", "w"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["y"], to=TensorProto.FLOAT),
    ]
    exact = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return {INT8: graph(integer, WEIGHTS), FP32: graph(exact, WEIGHTS.astype(np.float32))}


def describe(manifest: dict[str, Any]) -> None:
    manifest["inputs"] = [{"name": "x", "datatype": "FP32", "shape": [-1, 32]}]
    manifest["outputs"] = [{"name": "y", "datatype": "FP32", "shape": [-1, 6]}]
    manifest["golden"]["metric"] = "relative_error"


class Haswell(Device):
    """A device whose server runs on an emulated processor that has AVX2 but no int8 dot product."""

    def command(self, *arguments: str) -> list[str]:
        """Return the command line, under emulation."""
        return [str(QEMU), "-cpu", "Haswell", *super().command(*arguments)]


def golden_gate(device: Device, variant: str) -> dict[str, Any]:
    """Serve 1.0.0 in fp32, stage 1.1.0 in ``variant`` and return what its golden samples said beside the incumbent."""
    options: dict[str, Any] = {
        "payload": payloads(),
        "golden": {"input.x": INPUTS, "output.y": REFERENCE},
        "edit": describe,
    }
    device.activate(device.stage("1.0.0", variants=[FP32], **options))
    device.start()
    device.stage("1.1.0", variants=[variant], **options)
    directory = device.releases / MODEL / "1.1.0"
    manifest, golden = load_manifest(directory), load_golden(directory / "golden/golden.npz")
    settings = {"requests": 5, "warmup": 1, "timeout": 120}
    with Client(str(device.root / "run/server.sock")) as client:
        found = run_gate("candidate", client, manifest, variant, golden, manifest.budget("s"), settings)
    return next(record for record in found if record["gate"] == "golden")


@pytest.mark.parametrize(("processor", "variant"), [(Device, INT8), (Haswell, FP32), (Haswell, INT8)])
def test_golden_samples_see_saturation(processor: type[Device], variant: str, tmp_path: Path) -> None:
    exact = variant == FP32 or (processor is Device and bool(set(FLAGS) & set(device_facts()["cpu_flags"])))
    if processor is Haswell and QEMU is None:
        pytest.fail("qemu-x86_64-static is missing: install Debian's qemu-user-static")
    device = processor(tmp_path)
    try:
        found = golden_gate(device, variant)
        assert found["verdict"] == ("pass" if exact else "fail"), (found, device.log())
        assert (found["value"] > 0.99) is exact, found
    finally:
        device.stop(signal.SIGKILL)


@pytest.mark.parametrize(("machine", "chosen"), [("x86-vnni", INT8), ("x86-plain", FP32), ("pi5", INT8), ("pi3", None)])
def test_a_device_that_says_what_it_is_is_not_given_the_variant(
    machine: str, chosen: str | None, tmp_path: Path
) -> None:
    materialise(machine, tmp_path / "machine")
    integer = {"id": INT8, "requires": {"accelerators": ["cpu"], "cpu_flags_any": FLAGS, "memory_mib": 16}}
    release = make_release(tmp_path, MODEL, variants=[integer, FP32], payload=payloads(), edit=describe)
    choice = choose(device_facts(sysroot=str(tmp_path / "machine")), load_manifest(release))
    assert (choice.variant.id if choice.variant else None) == chosen, choice.explain()
    if machine == "x86-plain":
        assert choice.reasons[INT8] == "the CPU has none of " + ", ".join(FLAGS)

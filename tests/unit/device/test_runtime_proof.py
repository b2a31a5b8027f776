"""The proof: real runtimes where they are, and runtimes that compute elsewhere than promised, which must not pass.

There is no GPU here, so the ways in which a runtime falls back to the CPU are played by small modules of its name.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import numpy
import onnx
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build import litert
from ansible_collections.edgeai.fleet.plugins.module_utils.device import runtime_proof_models
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_proof import prove


def environment(root: Path, **modules: str) -> str:
    """An environment with this one's numpy and with modules of the given source; its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True, timeout=60)
    site = next((root / "lib").glob("python3*")) / "site-packages"
    (site / "numpy.pth").write_text(str(Path(numpy.__file__).parent.parent))
    for name, source in modules.items():
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(source)
    return str(root / "bin" / "python")


@pytest.mark.parametrize(
    ("runtime", "provider"), [("onnxruntime", "CPUExecutionProvider"), ("openvino", "CPU"), ("litert", "CPU")]
)
def test_real_runtimes(runtime: str, provider: str) -> None:
    proof = prove(sys.executable, runtime, provider)
    assert proof.provider == provider and proof.version[0].isdigit() and proof.made == ()


@pytest.mark.parametrize(
    ("runtime", "provider", "said"),
    [
        ("onnxruntime", "CUDAExecutionProvider", "is not in this build, which has only"),
        ("openvino", "GPU", "is not among its devices: CPU"),
        ("openvino", "NPU", "is not among its devices: CPU"),
        ("litert", "edgetpu", "libedgetpu.so.1"),
    ],
)
def test_real_runtimes_without_the_hardware(runtime: str, provider: str, said: str) -> None:
    with pytest.raises(DeviceError, match=said) as caught:
        prove(sys.executable, runtime, provider, imports=())
    assert caught.value.code == "server" and f"{runtime} does not compute on {provider} here" in caught.value.message


ORT = """
import numpy
__version__ = "9.9"
def get_available_providers(): return ["CUDAExecutionProvider", "CPUExecutionProvider"]
class SessionOptions:
    def add_session_config_entry(self, key, value): self.entries = {**getattr(self, "entries", {}), key: value}
class InferenceSession:
    def __init__(self, model, sess_options, providers):
        self.options, self.providers = sess_options, providers
    def get_providers(self): return [*self.providers, "CPUExecutionProvider"]
    def run(self, outputs, inputs): return [2 * inputs["x"] + 1]
"""
FALLBACKS = {
    "a session that starts on the CPU": (
        'def get_providers(self): return ["CPUExecutionProvider"]',
        "did not start, only",
    ),
    "a session without any provider": ("def get_providers(self): return []", "did not start"),
    "nodes that need the CPU": (
        'def run(self, outputs, inputs):\n        if self.options.entries == {"session.disable_cpu_ep_fallback": "1"}: '
        'raise ValueError("graph nodes assigned to the default CPU EP, but fallback is disabled")\n'
        '        return [2 * inputs["x"] + 1]',
        "fallback is disabled",
    ),
    "wrong numbers": ('def run(self, outputs, inputs): return [0 * inputs["x"]]', "it computed"),
    "numbers that are none": ('def run(self, outputs, inputs): return [inputs["x"] * float("nan")]', "it computed"),
}


@pytest.mark.parametrize("how", FALLBACKS)
def test_silent_fallback_does_not_pass(how: str, tmp_path: Path) -> None:
    source, said = FALLBACKS[how]
    name = source.partition("(")[0]
    kept = "\n".join(line for line in ORT.splitlines() if f"    {name}(" not in line)
    python = environment(tmp_path / "venv", onnxruntime=f"{kept}\n    {source}\n")
    with pytest.raises(DeviceError, match=said) as caught:
        prove(python, "onnxruntime", "CUDAExecutionProvider", imports=())
    assert caught.value.code == "server"


def test_the_double_passes_when_it_computes_where_it_should(tmp_path: Path) -> None:
    """Else the tests above would show nothing."""
    python = environment(tmp_path / "venv", onnxruntime=ORT)
    proof = prove(python, "onnxruntime", "CUDAExecutionProvider", imports=())
    assert (proof.provider, proof.version) == ("CUDAExecutionProvider", "9.9")


OPENVINO = """
__version__ = "9.9"
class Request:
    def infer(self, inputs): return [2 * inputs[0] + 1]
class Model:
    def get_property(self, name): return {"EXECUTION_DEVICES": [USED]}[name]
    def create_infer_request(self): return Request()
class Core:
    available_devices = ["CPU", "GPU.0", "GPU.1"]
    def read_model(self, model, weights): return model
    def compile_model(self, model, device): return Model()
"""


@pytest.mark.parametrize(("used", "passes"), [("GPU.0", True), ("CPU", False), ("(CPU)", False)])
def test_openvino_is_asked_what_executes(used: str, passes: bool, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", openvino=f"USED = {used!r}\n{OPENVINO}")
    if passes:
        assert prove(python, "openvino", "GPU", imports=()).provider == "GPU.0"
        return
    with pytest.raises(DeviceError, match="GPU was promised"):
        prove(python, "openvino", "GPU", imports=())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "killed by SIGILL"),
        ("raise ImportError('libcudnn.so.9: cannot open shared object file')", "libcudnn.so.9"),
        ("import time; time.sleep(600)", "no answer within 2 s"),
        ("import os; os._exit(7)", "exit status 7"),
        ("print('noise'); raise SystemExit(0)", "exit status 0"),
    ],
)
def test_a_runtime_that_breaks(source: str, said: str, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", onnxruntime=source)
    with pytest.raises(DeviceError, match=said):
        prove(python, "onnxruntime", "CPUExecutionProvider", imports=(), timeout=2 if "sleep" in source else 60)


def test_a_missing_package_of_the_server() -> None:
    with pytest.raises(DeviceError, match="No module named 'no_such_server'"):
        prove(sys.executable, "onnxruntime", "CPUExecutionProvider", imports=("no_such_server",))


def test_an_interpreter_that_is_gone_and_a_runtime_without_a_proof() -> None:
    with pytest.raises(DeviceError, match="cannot be run"):
        prove("/nonexistent/python", "onnxruntime", "CPUExecutionProvider")
    with pytest.raises(DeviceError, match="there is no proof for it"):
        prove(sys.executable, "tensorrt", "TensorRT")


def test_the_models_are_what_they_say(tmp_path: Path) -> None:
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT

    def model(nodes: list[onnx.NodeProto], **constants: numpy.ndarray) -> onnx.ModelProto:
        graph = helper.make_graph(
            nodes, "p",
            [helper.make_tensor_value_info("x", floats, [1, 4])], [helper.make_tensor_value_info("y", floats, [1, 4])],
            [onnx.numpy_helper.from_array(value.astype(numpy.float32), name) for name, value in constants.items()],
        )  # fmt: skip
        opset = [helper.make_opsetid("", 13)]
        return helper.make_model(graph, opset_imports=opset, ir_version=7, producer_name="edgeai.fleet")

    nodes = [helper.make_node("Mul", ["x", "a"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    elementwise = model(nodes, a=numpy.full((1, 4), 2), b=numpy.full((1, 4), 1))
    made = onnx.load_model_from_string(base64.b64decode(runtime_proof_models.ONNX))
    assert made == elementwise
    layer = model([helper.make_node("Gemm", ["x", "w", "c"], ["y"])], w=numpy.eye(4) * 2, c=numpy.ones(4))
    onnx.save(layer, tmp_path / "a.onnx")
    litert.write_float_model(tmp_path / "a.onnx", tmp_path / "a.tflite")
    assert (tmp_path / "a.tflite").read_bytes() == base64.b64decode(runtime_proof_models.LITERT)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Prove that an environment computes where it was promised: a tiny model runs on exactly that provider, or it fails.

The proof runs in the environment's own interpreter, in a process that may die or hang. For ONNX Runtime the fallback to
the CPU is switched off in the session; OpenVINO is asked which device executed; every answer is compared with the
numbers it must be. A runtime that quietly computes elsewhere does not pass.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import DeviceError
from .runtime_proof_models import LITERT, ONNX
from .runtime_table import SERVER_IMPORTS

TIMEOUT = 600.0
"""Seconds: generous, because an emulated arm64 device on a busy machine took 160; it only bounds what hangs."""

# Runs in the environment (Python 3.9 or newer). The model is y = 2 x + 1 over four numbers.
_SCRIPT = r"""
import base64, importlib, json, os, sys, time
request = json.loads(sys.stdin.read())
answer = {"python": "%d.%d.%d" % sys.version_info[:3]}
began = time.monotonic()
for name in request["imports"]:
    importlib.import_module(name)
import numpy
x = numpy.array([[0.0, 1.0, -2.5, 40.0]], dtype=numpy.float32)
promised = request["provider"]
model = base64.b64decode(request["model"])

def onnxruntime():
    import onnxruntime as ort
    answer["version"] = ort.__version__
    present = list(ort.get_available_providers())
    if promised not in present:
        raise RuntimeError("%s is not in this build, which has only %s" % (promised, ", ".join(present)))
    if promised == "CUDAExecutionProvider" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA and cuDNN that came as wheels
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = [promised]
    if promised != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(model, sess_options=options, providers=providers)
    used = session.get_providers()
    if not used or used[0] != promised:
        raise RuntimeError("%s did not start, only %s" % (promised, ", ".join(used)))
    return session.run(None, {"x": x})[0], used[0]

def openvino():
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino as ov
    answer["version"] = str(ov.__version__)
    core = ov.Core()
    present = core.available_devices
    if not any(name.split(".")[0] == promised for name in present):
        raise RuntimeError("%s is not among its devices: %s" % (promised, ", ".join(present) or "none"))
    compiled = core.compile_model(core.read_model(model, b""), promised)
    used = [str(name) for name in compiled.get_property("EXECUTION_DEVICES")]
    if not used or any(name.split(".")[0] != promised for name in used):
        raise RuntimeError("%s was promised, %s executes" % (promised, ", ".join(used)))
    return compiled.create_infer_request().infer({0: x})[0], used[0]

def litert():
    from importlib import metadata
    from ai_edge_litert import interpreter as tfl
    answer["version"] = metadata.version("ai-edge-litert")
    if promised == "edgetpu":
        # Loading it opens the device, and loads its firmware. A model for it needs its own compiler.
        answer["opened"] = bool(tfl.load_delegate("libedgetpu.so.1"))
    net = tfl.Interpreter(model_content=model, num_threads=1)
    net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], x)
    net.invoke()
    return net.get_tensor(net.get_output_details()[0]["index"]), promised

try:
    run = {"onnxruntime": onnxruntime, "openvino": openvino, "litert": litert}[request["runtime"]]
    output, answer["provider"] = run()
    if not numpy.allclose(output, 2.0 * x + 1.0, rtol=0.01, atol=0.01):
        raise RuntimeError("it computed %s, right is %s" % (output.tolist(), (2.0 * x + 1.0).tolist()))
    answer["ok"] = True
except Exception as error:
    answer.update(ok=False, error="%s: %s" % (type(error).__name__, str(error)[:1000]))
answer["seconds"] = round(time.monotonic() - began, 3)
if request["compile"] and answer["ok"]:
    import importlib.util, py_compile
    base = os.path.realpath(request["compile"]) + os.sep
    made = []
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if source and source.endswith(".py") and os.path.realpath(source).startswith(base):
            cache = importlib.util.cache_from_source(source)
            py_compile.compile(source, cfile=cache, doraise=True,
                               invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
            os.chmod(cache, 0o644)
            made.append(cache)
    answer["made"] = made
sys.stdout.write("\n" + json.dumps(answer) + "\n")
"""


class Proof(NamedTuple):
    """What ran: runtime, its version as it says, the provider at work, seconds; ``made``: bytecode files written."""

    runtime: str
    version: str
    provider: str
    python: str
    seconds: float
    made: tuple[str, ...]


def prove(
    interpreter: str,
    runtime: str,
    provider: str,
    compile_below: str | None = None,
    timeout: float = TIMEOUT,
    imports: Sequence[str] = SERVER_IMPORTS,
) -> Proof:
    """Run the tiny model in an environment, on ``provider`` and nowhere else.

    :param compile_below: write bytecode for the modules that were imported from below this directory
    :param imports: modules that must import too

    Raises DeviceError(server) with what the runtime said; a crash names its signal.
    """
    models = {"onnxruntime": ONNX, "openvino": ONNX, "litert": LITERT}
    if runtime not in models:
        raise DeviceError("bad_input", f"runtime {runtime!r}: there is no proof for it; use one of {', '.join(models)}")
    request = {"runtime": runtime, "provider": provider, "model": models[runtime], "imports": list(imports),
               "compile": compile_below}  # fmt: skip
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeai-proof-") as home:
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8",
                   "ORT_DISABLE_TELEMETRY": "1"}  # fmt: skip
        environ.update(
            {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES") if key in os.environ}
        )
        try:
            done = subprocess.run(
                [interpreter, "-I", "-c", _SCRIPT],
                input=json.dumps(request).encode(),
                capture_output=True,
                cwd=home,
                env=environ,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(runtime, provider, f"no answer within {timeout:g} s") from error
        except OSError as error:
            raise _failed(runtime, provider, f"{interpreter} cannot be run: {error.strerror}") from error
    answer = _answer(done, runtime, provider)
    if not answer.get("ok"):
        raise _failed(runtime, provider, str(answer.get("error")))
    seconds = round(time.monotonic() - began, 3)
    made = tuple(str(path) for path in answer.get("made", ()))
    return Proof(runtime, str(answer["version"]), str(answer["provider"]), str(answer["python"]), seconds, made)


def _answer(done: subprocess.CompletedProcess[bytes], runtime: str, provider: str) -> dict[str, Any]:
    if done.returncode < 0:
        raise _failed(runtime, provider, f"it was killed by {signal.Signals(-done.returncode).name}")
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        if done.returncode == 0 and isinstance(answer, dict):
            return answer
    except (ValueError, IndexError):
        pass
    tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise _failed(runtime, provider, f"exit status {done.returncode}: {tail[0][:500]}")


def _failed(runtime: str, provider: str, said: str) -> DeviceError:
    return DeviceError(
        "server",
        f"{runtime} does not compute on {provider} here: {said}. Nothing was switched; install what the provider "
        "needs, or choose another runtime or version in the inventory (edge_runtime, inference_runtime_version)",
    )

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which inference runtimes an interpreter has, whether they really load here, and which accelerators they drive.

A wheel that is installed can still be unusable on a machine: arm64 builds that end in SIGILL, a missing shared library.
So each runtime is imported once, in a process of its own that may die or hang; what happened becomes the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import DeviceError

#: Distribution names by runtime, the module that proves it loads, in the order in which they are looked for.
_DISTRIBUTIONS: dict[str, list[list[str]]] = {
    "onnxruntime": [
        ["onnxruntime-gpu", "onnxruntime"],
        ["onnxruntime-openvino", "onnxruntime"],
        ["onnxruntime-migraphx", "onnxruntime"],
        ["onnxruntime-rocm", "onnxruntime"],
        ["onnxruntime-qnn", "onnxruntime"],
        ["onnxruntime", "onnxruntime"],
        ["", "onnxruntime"],  # Debian's python3-onnxruntime
    ],
    "openvino": [["openvino", "openvino"]],
    "litert": [["ai-edge-litert", "ai_edge_litert.interpreter"], ["tflite-runtime", "tflite_runtime.interpreter"]],
    "tensorrt": [
        ["tensorrt", "tensorrt"],
        ["tensorrt-cu13", "tensorrt"],
        ["tensorrt-cu12", "tensorrt"],
        ["", "tensorrt"],
    ],
}
RUNTIMES = tuple(_DISTRIBUTIONS)

_GPU = frozenset({"nvidia-gpu", "jetson"})
_DRIVEN_BY_PROVIDER: dict[str, frozenset[str]] = {
    "CUDAExecutionProvider": _GPU,
    "TensorrtExecutionProvider": _GPU,
    "NvTensorRTRTXExecutionProvider": _GPU,
    "OpenVINOExecutionProvider": frozenset({"intel-gpu", "intel-npu"}),
    "MIGraphXExecutionProvider": frozenset({"amd-gpu"}),
    "ROCMExecutionProvider": frozenset({"amd-gpu"}),
    "VitisAIExecutionProvider": frozenset({"amd-npu"}),
    "QNNExecutionProvider": frozenset({"qualcomm-htp"}),
}

# Runs in the runtimes' interpreter (3.9 or newer). One fork per runtime: parallel, and a crash stays in its child.
_SCRIPT = r"""
import sys
sys.path[:] = [entry for entry in sys.path if entry]  # "-c" puts the working directory first
import importlib, importlib.util, json, os, select, signal, site, time
from importlib import metadata
request = json.loads(sys.argv[1])
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before its import: onnxruntime reports usage otherwise

def find(candidates):
    for name, module in candidates:
        if name:
            try:
                return {"distribution": name, "version": metadata.version(name), "module": module}
            except metadata.PackageNotFoundError:
                continue
        if importlib.util.find_spec(module) is not None:
            return {"distribution": None, "version": None, "module": module}
    return None

def load(runtime, found):
    module = importlib.import_module(found["module"])
    answer = {"version": found["version"] or str(getattr(module, "__version__", "0"))}
    if runtime == "onnxruntime":
        answer["providers"] = list(module.get_available_providers())
    elif runtime == "openvino":
        answer["devices"] = list(module.Core().available_devices) if "openvino" in request["devices"] else ["CPU"]
    elif runtime == "litert":
        answer["delegates"] = []
        if "litert" in request["devices"]:
            import ctypes
            try:
                ctypes.CDLL("libedgetpu.so.1")
                answer["delegates"].append("edgetpu")
            except OSError as error:
                answer["delegate_error"] = str(error)
    return answer

def child(runtime, found, pipe):
    quiet = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(quiet, fd)
    try:
        answer = load(runtime, found)
    except BaseException as error:
        answer = {"error": "%s: %s" % (type(error).__name__, str(error)[:500])}
    os.write(pipe, json.dumps(answer).encode())

def reap(pid, deadline):
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.005)

running, result = {}, {}
for runtime, candidates in request["runtimes"].items():
    found = find(candidates)
    if found is None:
        continue
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(runtime, found, writer)
        finally:
            os._exit(0)
    os.close(writer)
    running[runtime] = (found, pid, reader)
deadline = time.monotonic() + request["timeout"]
for runtime, (found, pid, reader) in running.items():
    raw = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reader, 65536)
        if not piece:
            break
        raw += piece
    status = reap(pid, deadline if not raw else time.monotonic() + 1.0)
    entry = {"version": found["version"], "distribution": found["distribution"], "usable": True}
    if raw:
        entry.update(json.loads(raw))
    elif status is None:
        entry["error"] = "import did not finish within %g s" % request["timeout"]
    elif os.WIFSIGNALED(status):
        entry["error"] = "import was killed by %s" % signal.Signals(os.WTERMSIG(status)).name
    else:
        entry["error"] = "import ended the interpreter with status %d" % os.WEXITSTATUS(status)
    error = entry.pop("error", None)
    if error is not None:
        entry.update(usable=False, reason=error)
    result[runtime] = entry
paths = [entry for entry in sys.path if os.path.isdir(entry)]
version = "%d.%d.%d" % sys.version_info[:3]
sys.stdout.write(json.dumps({"python": version, "runtimes": result, "paths": paths}))
"""


def probe_runtimes(
    python: str,
    only: str | None = None,
    devices: Iterable[str] = (),
    cache_dir: str | None = None,
    timeout: float = 30.0,
) -> dict[str, Any]:
    """Ask an interpreter, in one subprocess, which runtimes it has and can load.

    Returns {"python": "3.11.7", "runtimes": {name: info}}. info has version, distribution, usable, and per runtime
    ``providers`` (onnxruntime), ``devices`` (openvino) or ``delegates`` (litert); an unusable one has ``reason``.
    ``only`` limits the probe to one runtime. ``devices`` names runtimes (openvino, litert) whose devices are to be
    enumerated too; it is slower, so ask only when the machine has such an accelerator. With ``cache_dir`` a result in
    which everything found loads is kept there until the interpreter, its module directories or the boot change.
    Raises DeviceError("bad_input") when the interpreter itself cannot be run.
    """
    if only is not None and only not in _DISTRIBUTIONS:
        raise DeviceError("bad_input", "runtime {!r}: unknown; choose one of {}".format(only, ", ".join(RUNTIMES)))
    names = [only] if only else list(_DISTRIBUTIONS)
    request = {
        "runtimes": {name: _DISTRIBUTIONS[name] for name in names},
        "devices": sorted(devices),
        "timeout": timeout,
    }
    cache = _cache_path(cache_dir, python, request)
    cached = _read_cache(cache)
    if cached is not None:
        return cached
    answer = _ask(python, request, timeout)
    result = {"python": answer["python"], "runtimes": answer["runtimes"]}
    # Neither what is broken nor what is missing: repairing it need not touch a directory that is looked at.
    if cache is not None and result["runtimes"] and all(info["usable"] for info in result["runtimes"].values()):
        _write_cache(cache, {"stamps": _stamps([python] + answer["paths"]), "boot": _boot_id(), "result": result})
    return result


def _ask(python: str, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    fix = "set python in device.json to the interpreter that has the runtime"
    try:
        done = subprocess.run(
            [python, "-c", _SCRIPT, json.dumps(request)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout + 15.0,
            check=False,
        )
    except (OSError, ValueError) as error:
        raise DeviceError("bad_input", f"python {python!r}: cannot be run: {error}; {fix}") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError("bad_input", f"python {python!r}: no answer in {timeout + 15.0:g} s; {fix}") from error
    try:
        answer = json.loads(done.stdout)
        return {key: answer[key] for key in ("python", "runtimes", "paths")}
    except (ValueError, TypeError, KeyError) as error:
        tail = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise DeviceError(
            "bad_input", f"python {python!r}: exit status {done.returncode}, no usable answer ({tail}); {fix}"
        ) from error


def _cache_path(cache_dir: str | None, python: str, request: dict[str, Any]) -> str | None:
    if cache_dir is None or not os.path.isdir(cache_dir):
        return None
    key = json.dumps([os.path.abspath(python), request, _SCRIPT], sort_keys=True)
    return os.path.join(cache_dir, f"runtimes-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json")


def _stamps(paths: Iterable[str]) -> dict[str, int]:
    stamps = {}
    for path in paths:
        try:
            stamps[path] = os.stat(path).st_mtime_ns
        except OSError:
            stamps[path] = -1
    return stamps


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def _read_cache(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as handle:
            kept = json.load(handle)
        if kept["boot"] == _boot_id() and kept["stamps"] == _stamps(kept["stamps"]):
            return dict(kept["result"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # a cache is never a reason to fail
    return None


def _write_cache(path: str, content: Mapping[str, Any]) -> None:
    try:
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".runtimes-")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, sort_keys=True)
        os.replace(temporary, path)
    except OSError:
        pass  # a full disk or a read-only directory costs time, not the answer


def drives(runtime: str, info: Mapping[str, Any], kind: str) -> bool:
    """Whether an installed runtime can compute on an accelerator kind (``cpu`` among them)."""
    if not info.get("usable", True):
        return False
    if runtime == "onnxruntime":
        if kind == "cpu":
            return True
        return any(kind in _DRIVEN_BY_PROVIDER.get(name, ()) for name in info.get("providers", ()))
    if runtime == "openvino":
        wanted = {"cpu": "CPU", "intel-gpu": "GPU", "intel-npu": "NPU"}.get(kind)
        return wanted is not None and any(
            str(name).split(".", 1)[0] == wanted for name in info.get("devices", ("CPU",))
        )
    if runtime == "litert":
        return kind == "cpu" or (kind == "coral" and "edgetpu" in info.get("delegates", ()))
    return runtime == "tensorrt" and kind in _GPU

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Run a release's variant in its runtime: one session class per runtime behind the same three methods.

A session is opened from a file, checked against the manifest's inputs and outputs, and warmed up before it may serve.
All runtimes are told to use few threads: a device has other work, and batch-1 models gain little from more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..device.errors import DeviceError
from . import deps
from .tensors import NUMPY_TYPES

if TYPE_CHECKING:
    from ..release.manifest import Manifest, TensorSpec, Variant

WARMUP_RUNS = 2
_ONNX_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}
# Accelerator of a variant -> what serves it. Anything else has no provider here and is refused, not run on the CPU.
_ONNX_PROVIDERS = {
    "nvidia-gpu": ("CUDAExecutionProvider",),
    "jetson": ("CUDAExecutionProvider",),
    "amd-gpu": ("MIGraphXExecutionProvider", "ROCMExecutionProvider"),
    "amd-npu": ("VitisAIExecutionProvider",),
    "intel-gpu": ("OpenVINOExecutionProvider",),
    "intel-npu": ("OpenVINOExecutionProvider",),
    "qualcomm-htp": ("QNNExecutionProvider",),
}
_OPENVINO_DEVICES = {"cpu": "CPU", "intel-gpu": "GPU", "intel-npu": "NPU"}


class Session:
    """A loaded model. ``infer`` may be called from several threads."""

    runtime_version = ""
    details: dict[str, Any]

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model on numpy arrays by input name; returns numpy arrays by output name."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the runtime's memory. No call of infer may be under way."""


def _mismatch(where: str, found: Mapping[str, str], declared: Sequence[TensorSpec], side: str) -> None:
    """Raise DeviceError unless the model's own tensors are those the manifest declares. ``found``: name -> datatype."""
    wanted = {spec.name: spec.datatype for spec in declared}
    if dict(found) != wanted:
        raise DeviceError(
            "server",
            f"{where}: the model's {side} are {dict(sorted(found.items()))}, release.json declares "
            f"{dict(sorted(wanted.items()))}: rebuild the release from this model",
        )


def _wanted_accelerators(variant: Variant) -> tuple[str, ...]:
    return tuple(variant.requires.accelerators) or ("cpu",)


class OnnxSession(Session):
    """ONNX Runtime."""

    def __init__(self, path: str, manifest: Manifest, variant: Variant, threads: int) -> None:
        ort = deps.require("onnxruntime", f"variant {variant.id}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = self._providers(ort, variant)
        self._session = ort.InferenceSession(path, sess_options=options, providers=providers)
        used = self._session.get_providers()
        if providers[0] not in used:
            raise DeviceError("server", "{}: {} did not start, only {}".format(path, providers[0], ", ".join(used)))
        self.runtime_version = ort.__version__
        self.details = {"providers": used}
        self._outputs = [spec.name for spec in manifest.outputs]
        _mismatch(path, self._described(self._session.get_inputs()), manifest.inputs, "inputs")
        _mismatch(path, self._described(self._session.get_outputs()), manifest.outputs, "outputs")

    @staticmethod
    def _described(nodes: Sequence[Any]) -> dict[str, str]:
        return {node.name: _ONNX_TYPES.get(node.type, node.type) for node in nodes}

    @staticmethod
    def _providers(ort: Any, variant: Variant) -> list[str]:
        present = ort.get_available_providers()
        accelerators = _wanted_accelerators(variant)
        chosen = [name for kind in accelerators for name in _ONNX_PROVIDERS.get(kind, ()) if name in present]
        if not chosen and "cpu" not in accelerators:
            raise DeviceError(
                "server",
                "variant {} needs {}, this onnxruntime {} has only {}".format(
                    variant.id, " or ".join(accelerators), ort.__version__, ", ".join(present)
                ),
            )
        return [*chosen, "CPUExecutionProvider"]

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs)))

    def close(self) -> None:
        self._session = None


class OpenVinoSession(Session):
    """OpenVINO. Its inference precision is the runtime's own choice and is reported in ``details``."""

    def __init__(self, path: str, manifest: Manifest, variant: Variant, threads: int) -> None:
        ov = deps.require("openvino", f"variant {variant.id}")
        core = ov.Core()
        device = self._device(core, variant)
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = threads
        self._model = core.compile_model(core.read_model(path), device, settings)
        self.runtime_version = str(ov.__version__)
        self.details = {"device": device, "inference_precision": self._property("INFERENCE_PRECISION_HINT")}
        self._outputs = [spec.name for spec in manifest.outputs]
        self._inputs = [spec.name for spec in manifest.inputs]
        self._local = threading.local()
        self._check_names(path)

    def _property(self, name: str) -> str | None:
        try:
            value = self._model.get_property(name)
        except RuntimeError:  # not every plug-in knows every property
            return None
        return str(getattr(value, "to_string", lambda: value)())

    @staticmethod
    def _device(core: Any, variant: Variant) -> str:
        present = core.available_devices
        accelerators = _wanted_accelerators(variant)
        for kind in accelerators:
            wanted = _OPENVINO_DEVICES.get(kind)
            if wanted and any(name == wanted or name.startswith(wanted + ".") for name in present):
                return wanted
        raise DeviceError(
            "server",
            "variant {} needs {}, OpenVINO has only {} here (its GPU plug-in needs libOpenCL.so.1)".format(
                variant.id, " or ".join(accelerators), ", ".join(present)
            ),
        )

    def _check_names(self, path: str) -> None:
        for side, ports, names in (
            ("inputs", self._model.inputs, self._inputs),
            ("outputs", self._model.outputs, self._outputs),
        ):
            found = sorted(name for port in ports for name in sorted(port.get_names())[:1])
            if len(ports) != len(names) or not all(any(n in port.get_names() for port in ports) for n in names):
                raise DeviceError("server", f"{path}: the model's {side} are {found}, release.json declares {names}")

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._model.create_infer_request()
        results = request.infer(dict(inputs), share_inputs=False, share_outputs=False)
        return {name: results[name] for name in self._outputs}

    def close(self) -> None:
        self._local = threading.local()
        self._model = None


class LiteRtSession(Session):
    """LiteRT (TensorFlow Lite). One interpreter, one call at a time: an interpreter is not thread safe."""

    def __init__(self, path: str, manifest: Manifest, variant: Variant, threads: int) -> None:
        module = deps.require("ai_edge_litert.interpreter", f"variant {variant.id}")
        self.runtime_version = deps.found_version("ai-edge-litert") or ""
        delegates = self._delegates(module, variant)
        self._interpreter = module.Interpreter(
            model_path=path, num_threads=threads, experimental_delegates=delegates or None
        )
        self._interpreter.allocate_tensors()
        self.details = {"delegates": len(delegates)}
        self._inputs = self._pair(path, self._interpreter.get_input_details(), manifest.inputs, "inputs")
        self._outputs = self._pair(path, self._interpreter.get_output_details(), manifest.outputs, "outputs")
        self._lock = threading.Lock()

    @staticmethod
    def _delegates(module: Any, variant: Variant) -> list[Any]:
        accelerators = _wanted_accelerators(variant)
        if "coral" in accelerators:
            return [module.load_delegate("libedgetpu.so.1")]
        if "cpu" not in accelerators:
            raise DeviceError(
                "server",
                "variant {} needs {}: no LiteRT delegate is known for it here".format(
                    variant.id, " or ".join(accelerators)
                ),
            )
        return []

    def _pair(
        self, path: str, details: Sequence[Any], specs: Sequence[TensorSpec], side: str
    ) -> list[tuple[TensorSpec, Any]]:
        """Match manifest names to tensors: by name, by signature name, or by order (converters rename tensors)."""
        if len(details) != len(specs):
            raise DeviceError(
                "server",
                f"{path}: the model has {len(details)} {side}, release.json declares {len(specs)}",
            )
        by_index = {detail["index"]: detail for detail in details}
        by_name = {detail["name"]: detail for detail in details}
        signatures = list(getattr(self._interpreter, "_get_full_signature_list", dict)().values())
        if len(signatures) == 1:
            named = signatures[0].get(side, {})
            by_name.update({name: by_index[index] for name, index in named.items() if index in by_index})
        if all(spec.name in by_name for spec in specs):
            return [(spec, by_name[spec.name]) for spec in specs]
        return list(zip(specs, details))

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._resize(inputs)
            for spec, detail in self._inputs:
                self._interpreter.set_tensor(detail["index"], _to_tensor(inputs[spec.name], detail))
            self._interpreter.invoke()
            return {
                spec.name: _from_tensor(self._interpreter.get_tensor(detail["index"]), detail, spec.datatype)
                for spec, detail in self._outputs
            }

    def _resize(self, inputs: Mapping[str, Any]) -> None:
        """Give the interpreter the request's shapes: a converted model is often fixed to batch 1."""
        changed = False
        for spec, detail in self._inputs:
            shape = list(inputs[spec.name].shape)
            if list(detail["shape"]) != shape:
                self._interpreter.resize_tensor_input(detail["index"], shape)
                detail["shape"] = shape
                changed = True
        if changed:
            self._interpreter.allocate_tensors()

    def close(self) -> None:
        self._interpreter = None


def _to_tensor(array: Any, detail: Any) -> Any:
    """Quantize ``array`` for a tensor with another type: q = round(x / scale) + zero_point, saturating."""
    np = deps.numpy()
    if array.dtype == detail["dtype"]:
        return array
    scale, zero = detail["quantization"]
    if not scale:
        return array.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(array / scale) + zero, limits.min, limits.max).astype(detail["dtype"])


def _from_tensor(array: Any, detail: Any, datatype: str) -> Any:
    """Dequantize a result tensor to the declared datatype: x = (q - zero_point) * scale."""
    np = deps.numpy()
    wanted = np.dtype(NUMPY_TYPES[datatype])
    scale, zero = detail["quantization"]
    if array.dtype == wanted or not scale:
        return array.astype(wanted, copy=False)
    return ((array.astype(np.float32) - zero) * scale).astype(wanted)


_SESSIONS: dict[str, Any] = {"onnxruntime": OnnxSession, "openvino": OpenVinoSession, "litert": LiteRtSession}


def check_served(manifest: Manifest, variant: Variant) -> None:
    """Raise DeviceError when this server has no back-end for the variant's runtime or one of the datatypes."""
    if variant.runtime not in _SESSIONS:
        raise DeviceError(
            "no_variant",
            "variant {}: this server runs {}, not {}".format(variant.id, ", ".join(sorted(_SESSIONS)), variant.runtime),
        )
    for spec in tuple(manifest.inputs) + tuple(manifest.outputs):
        if spec.datatype not in NUMPY_TYPES:
            raise DeviceError(
                "no_variant", f"tensor {spec.name}: datatype {spec.datatype} is not served by this server"
            )


def warm_up(session: Session, manifest: Manifest) -> float:
    """Run the session on zeros (free dimensions as 1) and check that every declared output comes back, in its rank.

    Returns how long the last run took, seconds.
    """
    np = deps.numpy()
    zeros = {
        spec.name: np.zeros([max(1, size) for size in spec.shape], dtype=NUMPY_TYPES[spec.datatype])
        for spec in manifest.inputs
    }
    for _attempt in range(WARMUP_RUNS):
        began = time.monotonic()
        results = session.infer(zeros)
        seconds = time.monotonic() - began
    for spec in manifest.outputs:
        shape = results[spec.name].shape
        if len(shape) != len(spec.shape) or any(w not in (-1, d) for w, d in zip(spec.shape, shape)):
            raise DeviceError(
                "server",
                f"output {spec.name} has shape {list(shape)} in the warm-up, release.json declares {list(spec.shape)}",
            )
    return seconds


def open_session(path: str, manifest: Manifest, variant: Variant, threads: int) -> tuple[Session, float]:
    """Open ``path`` (the variant's entry file) in its runtime, check it, warm it up; returns it and a run's time (s).

    Raises DeviceError; whatever the runtime raises is turned into one with code ``server``.
    """
    check_served(manifest, variant)
    try:
        session: Session = _SESSIONS[variant.runtime](path, manifest, variant, threads)
        return session, warm_up(session, manifest)
    except DeviceError:
        raise
    except Exception as exc:  # native runtimes raise types of their own
        raise DeviceError(
            "server",
            f"variant {variant.id}: {variant.runtime} cannot run {path}: {type(exc).__name__}: {exc}",
        ) from exc

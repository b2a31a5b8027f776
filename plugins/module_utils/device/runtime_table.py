# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which runtime, in which version and from where, for which accelerator: the one table that decides, and nothing else.

`ROWS` says what drives an accelerator, `PINS` which version of a package belongs to which Python. The files under
``requirements/`` that begin with ``runtime-`` are written from `PINS` (``tools/runtime_locks.py --requirements``).
"""

from __future__ import annotations

from typing import NamedTuple

Version = tuple[int, ...]

X86 = ("x86_64",)
ARM64 = ("aarch64",)
BOTH = ("x86_64", "aarch64")

#: Where the packages of a row come from.
#: ``wheels``: the package index or a wheelhouse. ``vendor``: a wheel that no index has: only a wheelhouse that was
#: given it. ``system``: packages of the distribution. ``declared``: known, and nothing here can serve on it yet.
SOURCES = ("wheels", "vendor", "system", "declared")


class Row(NamedTuple):
    """One way to compute on one kind of accelerator. Rows are tried in order; the first that fits wins.

    :param package: the wheel or system package that brings the runtime, extras in brackets
    :param provider: what the proof must find at work: an execution provider, an OpenVINO device, a LiteRT delegate
    :param python: oldest Python, ``driver``: oldest driver of the accelerator (both as version tuples, () for any)
    :param below: the driver must be older than this, () for any
    :param libraries: shared libraries that must be on the device, each with what brings it
    :param system: Debian packages to install, beside the wheels or instead of them
    :param pins: packages with another version than `PINS` has
    """

    accelerator: str
    runtime: str
    package: str
    provider: str
    source: str
    architectures: tuple[str, ...]
    why: str
    python: Version = (3, 9)
    driver: Version = ()
    below: Version = ()
    libraries: tuple[tuple[str, str], ...] = ()
    system: tuple[str, ...] = ()
    pins: tuple[tuple[str, str], ...] = ()


_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_OPENCL = (("libOpenCL.so.1", "ocl-icd-libopencl1"), ("libigdrcl.so", "intel-opencl-icd"))
_NPU = (("libze_loader.so.1", "level-zero"), ("libze_intel_npu.so.1", "Intel's NPU driver (linux-npu-driver)"))
_EDGETPU = (("libedgetpu.so.1", "libedgetpu1-std from Coral's package archive"),)
_DEBIAN = ("python3-onnxruntime", "python3-numpy", "python3-cryptography", "python3-httptools", "python3-starlette",
           "python3-uvicorn", "python3-prometheus-client")  # fmt: skip
_UNTIL = "the vendor's own stack drives it and the model server has no back-end for that; the CPU serves until then"

ROWS: tuple[Row, ...] = (
    Row("jetson", "onnxruntime", "onnxruntime-gpu[cuda,cudnn]", _CUDA, "wheels", ARM64,
        "JetPack 7: CUDA 13 as on servers, the aarch64 wheel of the index fits", (3, 12), (38,)),
    Row("jetson", "onnxruntime", "onnxruntime-gpu", _CUDA, "vendor", ARM64,
        "JetPack 6: CUDA 12.6 of the system, a Jetson wheel of onnxruntime-gpu from the site's wheelhouse",
        (3, 10), (36,), (37,), pins=(("onnxruntime-gpu", "1.23.0"),)),
    Row("jetson", "onnxruntime", "onnxruntime-gpu", _CUDA, "vendor", ARM64,
        "JetPack 5: CUDA 11.4 of the system, a Jetson wheel of onnxruntime-gpu from the site's wheelhouse",
        (3, 9), (35,), (36,), pins=(("onnxruntime-gpu", "1.19.2"),)),
    Row("jetson", "tensorrt", "tensorrt", "TensorRT", "declared", ARM64,
        "the system's TensorRT: engines are bound to one GPU and version, the model server has no back-end for them"),
    Row("nvidia-gpu", "onnxruntime", "onnxruntime-gpu[cuda,cudnn]", _CUDA, "wheels", X86,
        "a driver for CUDA 13; CUDA and cuDNN come as wheels", (3, 11), (580,)),
    Row("nvidia-gpu", "onnxruntime", "onnxruntime-gpu[cuda,cudnn]", _CUDA, "wheels", X86,
        "a driver for CUDA 12; CUDA and cuDNN come as wheels", (3, 10), (525,),
        pins=(("onnxruntime-gpu", "1.23.2"),)),
    Row("nvidia-gpu", "onnxruntime", "onnxruntime-gpu[cuda,cudnn]", _CUDA, "wheels", ARM64,
        "a driver for CUDA 13 on an arm64 server; CUDA and cuDNN come as wheels", (3, 12), (580,)),
    Row("amd-gpu", "onnxruntime", "onnxruntime-migraphx", "MIGraphXExecutionProvider", "vendor", X86,
        "ROCm's wheel of onnxruntime from the site's wheelhouse", (3, 10)),
    Row("intel-gpu", "openvino", "openvino", "GPU", "wheels", X86,
        "OpenVINO's GPU plug-in, which needs an OpenCL driver beside it and is silently absent without one",
        libraries=_OPENCL, system=("ocl-icd-libopencl1", "intel-opencl-icd")),
    Row("intel-npu", "openvino", "openvino", "NPU", "wheels", X86,
        "OpenVINO's NPU plug-in, which needs Intel's NPU driver beside it", (3, 10), libraries=_NPU),
    Row("coral", "litert", "ai-edge-litert", "edgetpu", "wheels", BOTH,
        "LiteRT with libedgetpu's delegate", libraries=_EDGETPU),
    Row("amd-npu", "onnxruntime", "onnxruntime-vitisai", "VitisAIExecutionProvider", "vendor", X86,
        "Ryzen AI's wheel of onnxruntime from the site's wheelhouse", (3, 10)),
    Row("qualcomm-htp", "onnxruntime", "onnxruntime-qnn", "QNNExecutionProvider", "vendor", ARM64,
        "a QNN build of onnxruntime from the site's wheelhouse", (3, 10)),
    Row("hailo", "hailort", "hailort", "HailoRT", "declared", BOTH, _UNTIL),
    Row("rockchip-npu", "rknn", "rknn-toolkit-lite2", "RKNN", "declared", ARM64, _UNTIL),
    Row("cpu", "onnxruntime", "onnxruntime", _CPU, "wheels", BOTH, "the CPU"),
    Row("cpu", "openvino", "openvino", "CPU", "wheels", BOTH, "the CPU, in OpenVINO"),
    Row("cpu", "litert", "ai-edge-litert", "CPU", "wheels", BOTH, "the CPU, in LiteRT"),
    Row("cpu", "onnxruntime", "python3-onnxruntime", _CPU, "system", ("armv7l",),
        "no wheel of any runtime exists for 32-bit ARM; Debian 13 has python3-onnxruntime", (3, 13), system=_DEBIAN),
)  # fmt: skip

#: Package -> ((oldest Python, version), ...), newest first; with an architecture behind it where one differs.
PINS: dict[str, tuple[tuple[Version, str], ...]] = {
    "onnxruntime": (((3, 11), "1.32.0"), ((3, 10), "1.23.2"), ((3, 9), "1.19.2")),
    "onnxruntime-gpu": (((3, 11), "1.31.1"), ((3, 10), "1.23.2")),
    "openvino": (((3, 10), "2026.4.1"), ((3, 9), "2025.3.0")),
    "openvino/aarch64": (((3, 10), "2026.4.1"), ((3, 9), "2025.2.0")),
    "ai-edge-litert": (((3, 10), "2.3.0"), ((3, 9), "2.1.0")),
    "starlette": (((3, 11), "1.10.0"), ((3, 10), "1.7.0"), ((3, 9), "0.49.3")),
    "uvicorn": (((3, 10), "0.54.0"), ((3, 9), "0.39.0")),
    "httptools": (((3, 10), "0.9.0"), ((3, 9), "0.7.1")),
    "prometheus_client": (((3, 10), "0.26.0"), ((3, 9), "0.24.1")),
    "cryptography": (((3, 9), "50.0.2"),),
    "numpy": (((3, 11), "2.4.6"), ((3, 10), "2.2.6"), ((3, 9), "2.0.2")),
}

#: What the model server needs, whatever the runtime, and the modules that must import before an environment is used.
SERVER = ("starlette", "uvicorn", "httptools", "prometheus_client", "cryptography", "numpy")
SERVER_IMPORTS = (
    "numpy", "cryptography.hazmat.primitives.asymmetric.ec", "cryptography.x509", "prometheus_client",
    "starlette.applications", "starlette.responses", "starlette.routing", "starlette.concurrency", "httptools",
    "uvicorn", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on", "uvicorn.loops.asyncio", "ssl",
)  # fmt: skip

#: Dependencies left out on purpose: openvino runs without it, and it reports usage to its vendor.
OMITTED = frozenset({"openvino-telemetry"})

#: Runtimes that the model server can serve with, in order of preference on one accelerator.
SERVED = ("onnxruntime", "openvino", "litert")

#: Oldest glibc of the supported distributions that have this Python (Debian 11-13, Ubuntu 22.04 and 24.04).
GLIBC: dict[Version, Version] = {
    (3, 9): (2, 31),
    (3, 10): (2, 35),
    (3, 11): (2, 36),
    (3, 12): (2, 39),
    (3, 13): (2, 41),
}


def pinned(package: str, python: Version, architecture: str = "") -> str | None:
    """The version of ``package`` (extras in brackets do not matter) for a Python; None when there is none for it."""
    name = package.partition("[")[0]
    for oldest, version in PINS.get(f"{name}/{architecture}", PINS.get(name, ())):
        if python[:2] >= oldest:
            return version
    return None


def version_of(row: Row, python: Version, architecture: str) -> str | None:
    """The version of a row's runtime; None when this Python has none, or (``system``) the distribution decides."""
    name = row.package.partition("[")[0]
    return dict(row.pins).get(name) or pinned(name, python, architecture)


def requirements(row: Row, version: str, python: Version, architecture: str) -> list[str]:
    """What an environment of this row asks for, as ``name==version``: the runtime first, then what the server needs."""
    wanted = [f"{row.package}=={version}"]
    for name in SERVER:
        found = pinned(name, python, architecture)
        wanted.append(f"{name}=={found}" if found else name)
    return wanted

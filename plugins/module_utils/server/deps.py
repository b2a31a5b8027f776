# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one place where the server's third-party packages are imported, lazily and with one clear message.

Every module of the server imports without any of them: what is missing is said when it is first needed.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import Any

from ..device.errors import DeviceError

# onnxruntime 1.29 and newer keeps a device id below $HOME and reports usage unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# import name -> name on the package index, for the message
DISTRIBUTIONS = {
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "httptools": "httptools",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "prometheus_client": "prometheus_client",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
}


def found_version(distribution: str) -> str | None:
    """Return the installed version of ``distribution`` in this interpreter, or None when there is none."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def require(name: str, purpose: str) -> Any:
    """Import and return module ``name``; ``purpose`` says in the error what it was needed for.

    Raises DeviceError (code ``server``) that names the package, the version found, the interpreter and the remedy.
    """
    try:
        return importlib.import_module(name)
    except Exception as exc:  # a broken native wheel raises nearly anything at import, not only ImportError
        distribution = DISTRIBUTIONS.get(name) or name.split(".", 1)[0]
        version = found_version(distribution)
        state = f"version {version} is installed but does not import" if version else "it is not installed"
        raise DeviceError(
            "server",
            f"{distribution} is needed for {purpose}: {state} in {sys.executable} ({type(exc).__name__}: {exc}). "
            "Install the device's requirements file into this interpreter.",
        ) from exc


def available(name: str) -> bool:
    """Say whether module ``name`` imports here."""
    try:
        importlib.import_module(name)
    except Exception:
        return False
    return True


@functools.cache
def numpy() -> Any:
    """Return numpy; raises DeviceError when it is missing."""
    return require("numpy", "tensors")

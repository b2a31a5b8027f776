# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one place where the build side imports third-party packages, and keeps them quiet.

Nothing heavy is imported before it is needed: a release without an OpenVINO variant never loads openvino or nncf.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..release.errors import ReleaseError

# Import name -> what `pip install` calls it.
PACKAGES = {
    "yaml": "PyYAML",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "nncf": "nncf",
    "ai_edge_litert": "ai-edge-litert",
    "ai_edge_quantizer": "ai-edge-quantizer",
    "flatbuffers": "flatbuffers",
}
_TAIL_BYTES = 2000


def require(name: str, what_for: str) -> Any:
    """Import ``name`` (dotted names allowed) or raise a ReleaseError that says what is missing and where.

    Nothing here reports usage over the network. openvino and nncf do when the package ``openvino_telemetry`` can be
    imported, so that package is hidden from them; onnxruntime does, from 1.29 on, unless a variable is set beforehand.
    """
    top = name.partition(".")[0]
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for nncf too, which may import onnxruntime by itself
    if top in ("openvino", "nncf"):
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        package = PACKAGES.get(top, top)
        found = version(top) or "none"
        raise ReleaseError(
            f"{what_for} needs the Python package {package}, which {sys.executable} cannot import "
            f"(version found: {found}): {exc}; install it with: {sys.executable} -m pip install {package}"
        ) from exc


def version(name: str) -> str | None:
    """Installed version of an import name, from the package metadata and without importing it; None when absent."""
    from importlib import metadata

    try:
        return metadata.version(PACKAGES.get(name, name))
    except metadata.PackageNotFoundError:
        return None


class Captured:
    """What was written to file descriptors 1 and 2 inside :func:`quiet`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def tail(self) -> str:
        """The last lines, at most 2000 bytes."""
        # pread: the file's offset is shared with the descriptors that are being written.
        size = os.fstat(self._stream.fileno()).st_size
        data = os.pread(self._stream.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return data.decode("utf-8", "replace").strip()


@contextlib.contextmanager
def quiet() -> Iterator[Captured]:
    """Send everything written to stdout and stderr, by Python or by native code, to a temporary file.

    A module's standard output is its JSON result: one line from a native library would spoil it.
    """
    with tempfile.TemporaryFile() as sink, contextlib.ExitStack() as undo:
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            saved = os.dup(descriptor)
            undo.callback(os.close, saved)
            undo.callback(os.dup2, saved, descriptor)
            os.dup2(sink.fileno(), descriptor)
        # Not every sys.stdout writes to descriptor 1: an embedding program may have put another in its place.
        text = undo.enter_context(open(os.dup(sink.fileno()), "w", buffering=1, encoding="utf-8", errors="replace"))
        undo.enter_context(contextlib.redirect_stdout(text))
        undo.enter_context(contextlib.redirect_stderr(text))
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        undo.callback(logging.disable, previous)
        yield Captured(sink)  # type: ignore[arg-type]

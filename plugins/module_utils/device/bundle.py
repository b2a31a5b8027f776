# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Build ``edgeai-device.pyz``: the device engine and the model server as one file that a plain Python runs.

Deterministic: the same sources give the same bytes on every machine, so the file's digest says what runs on a device.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import io
import os
import pkgutil
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from . import fsutil
from .errors import DeviceError

NAME = "edgeai_fleet"
PACKAGES = ("release", "device", "server")
ENTRY = NAME + "/device/cli.py"
SHEBANG = b"#!/usr/bin/env python3\n"
MODE = 0o755
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip entry can have
_MAIN = b'''"""Run the command line of the device engine."""

import sys

if sys.version_info < (3, 9):
    sys.exit("edgeai-device needs Python 3.9 or newer; %s is %s" % (sys.executable, sys.version.split()[0]))

from edgeai_fleet.device.cli import main

sys.exit(main(sys.argv[1:]))
'''


def _source(module: str) -> bytes:
    """Return a module's source, from a directory or from a zip archive, without running it."""
    spec = importlib.util.find_spec(module)
    loader: Any = spec.loader if spec is not None else None
    try:
        return bytes(loader.get_data(loader.get_filename(module)))
    except (AttributeError, OSError, ImportError) as exc:
        raise DeviceError("bad_input", f"the source of {module} cannot be read: {exc}") from exc


def own_sources() -> dict[str, bytes]:
    """Return the sources of the three packages beside this file: archive name -> bytes. Raises DeviceError."""
    base = __name__.rsplit(".", 2)[0]
    found = {NAME + "/__init__.py": b""}
    for package in PACKAGES:
        full = f"{base}.{package}"
        prefix = f"{NAME}/{package}/"
        found[prefix + "__init__.py"] = _source(full)
        for info in pkgutil.iter_modules(importlib.import_module(full).__path__):
            if not info.ispkg:
                found[prefix + info.name + ".py"] = _source(f"{full}.{info.name}")
    return found


def _imports(name: str, source: bytes) -> Iterator[str]:
    """Yield the archive names that a file's relative imports need."""
    here = name.split("/")[:-1]
    for node in ast.walk(ast.parse(source, name)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = here[: len(here) - node.level + 1] + (node.module.split(".") if node.module else [])
        if node.module and len(base) > 2:
            yield "/".join(base) + ".py"
        else:
            for alias in node.names:
                yield "/".join([*base, alias.name]) + ".py"


def reachable(sources: Mapping[str, bytes], start: str = ENTRY) -> dict[str, bytes]:
    """Return those of ``sources`` that the program can import, package files included. Raises DeviceError for a gap.

    What only the controller or a module uses stays out, so the digest changes only when the device's program does.
    """
    found: dict[str, bytes] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in sources:
            raise DeviceError("bad_input", f"the device application would lack {name}")
        found[name] = sources[name]
        waiting += list(_imports(name, sources[name]))
        waiting.append(name.rsplit("/", 1)[0] + "/__init__.py")
    found[NAME + "/__init__.py"] = sources.get(NAME + "/__init__.py", b"")
    return found


def build(sources: Mapping[str, bytes]) -> bytes:
    """Return the application's bytes: entries sorted, fixed times and modes, stored compressed. Raises DeviceError."""
    parts = dict(reachable(sources), **{"__main__.py": _MAIN})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in sorted(parts.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            # Stored, not deflated: zlib versions differ in their output, and the start of the server is quicker.
            entry.compress_type = zipfile.ZIP_STORED
            archive.writestr(entry, source)
    return SHEBANG + buffer.getvalue()


def same_file(path: str, data: bytes) -> bool:
    """Say whether ``path`` holds exactly ``data`` and is executable."""
    try:
        with open(path, "rb") as handle:
            return handle.read(len(data) + 1) == data and os.stat(path).st_mode & 0o777 == MODE
    except OSError:
        return False


def install(path: str, data: bytes) -> None:
    """Replace ``path`` atomically. Raises DeviceError (no_space or bad_input)."""
    try:
        fsutil.make_dirs(os.path.dirname(path))
        fsutil.write_atomic(path, data, MODE)
    except OSError as exc:
        code = "no_space" if fsutil.no_space(exc) else "bad_input"
        raise DeviceError(code, f"{path} cannot be written: {exc}") from exc

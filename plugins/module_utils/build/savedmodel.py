# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a TFX Pusher pushed, as an input of a build: the newest complete SavedModel, and what converts it to ONNX.

A Pusher writes ``<base>/<unix seconds>/`` and copies ``saved_model.pb`` last: a directory without it is not complete.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..release.digests import sha256_file
from ..release.errors import ReleaseError, field_error
from .output import digest_of
from .spec_fields import known, text

MARKS = ("saved_model.pb", "saved_model.pbtxt")
TIMEOUT = 3600
"""Seconds after which a conversion is given up."""
OPSETS = range(13, 22)


@dataclass(frozen=True)
class TfxSpec:
    """``tfx`` of a release spec: where the Pusher pushes, which version (None: the newest), how it is converted."""

    pushed: Path
    version: str | None
    opset: int
    signature: str


@dataclass(frozen=True)
class SavedModel:
    """A complete SavedModel: size in bytes, and a digest over the paths and digests of all its files."""

    path: Path
    size: int
    sha256: str


def tfx_spec(where: str, value: Any, base: Path) -> TfxSpec:
    """Check ``tfx``. Raises ReleaseError."""
    if not isinstance(value, Mapping):
        raise field_error(
            where, "tfx", value, "a mapping with at least `pushed`, the directory that the Pusher pushes to"
        )
    known(where, "tfx.", value, frozenset(("pushed", "version", "opset", "signature")))
    version = value.get("version")
    if version is not None and not (
        str(version).isascii() and str(version).isdigit() and not isinstance(version, bool)
    ):
        raise field_error(where, "tfx.version", version, "the name of a version's directory, all digits")
    opset = value.get("opset", 17)
    if isinstance(opset, bool) or opset not in OPSETS:
        raise field_error(where, "tfx.opset", opset, f"an operator set from {OPSETS[0]} to {OPSETS[-1]}")
    return TfxSpec(
        pushed=base / text(where, "tfx.pushed", value.get("pushed")),
        version=None if version is None else str(version),
        opset=opset,
        signature=text(where, "tfx.signature", value.get("signature", "serving_default")),
    )


def find(spec: TfxSpec) -> SavedModel:
    """Return the version that is named, else the newest complete one. Raises ReleaseError."""
    try:
        names = [entry.name for entry in os.scandir(spec.pushed) if entry.name.isascii() and entry.name.isdigit()]
    except OSError as exc:
        raise ReleaseError(
            f"{spec.pushed}: cannot read it ({exc.strerror}): `tfx.pushed` is the directory that the Pusher pushes to"
        ) from exc
    ordered = sorted(names, key=int, reverse=True)
    complete = [name for name in ordered if _mark(spec.pushed / name)]
    if spec.version is not None and spec.version not in complete:
        raise ReleaseError(
            f"{spec.pushed}: has no complete version {spec.version}; complete are {', '.join(complete[:12]) or 'none'}"
        )
    if not complete:
        raise ReleaseError(
            f"{spec.pushed}: holds no version, which is a directory named by a number with {MARKS[0]} in it "
            f"(not complete: {', '.join(ordered[:12]) or 'none'}): did the Pusher push, and was the model blessed?"
        )
    return _read(spec.pushed / (spec.version or complete[0]))


def _mark(path: Path) -> bool:
    return any((path / name).is_file() for name in MARKS)


def _read(path: Path) -> SavedModel:
    files: dict[str, tuple[int, str]] = {}
    for folder, folders, names in os.walk(path):
        for name in [*folders, *names]:
            if os.path.islink(os.path.join(folder, name)):
                raise ReleaseError(f"{os.path.join(folder, name)}: is a link; push the files themselves")
        for name in names:
            file = Path(folder) / name
            files[file.relative_to(path).as_posix()] = (file.stat().st_size, sha256_file(file))
    return SavedModel(path, sum(size for size, _digest in files.values()), digest_of(files))


def find_converter(given: Sequence[str]) -> list[str]:
    """Return the command that converts: the given one, else tf2onnx in this interpreter. Raises ReleaseError."""
    if given:
        program = shutil.which(os.path.expanduser(given[0]))
        if program is None:
            raise ReleaseError(f"the converter {given[0]!r} is not there or cannot be executed: check `converter`")
        return [program, *given[1:]]
    if importlib.util.find_spec("tf2onnx") is not None:
        return [sys.executable, "-m", "tf2onnx.convert"]
    raise ReleaseError(
        "a SavedModel needs a converter to ONNX, and there is none: install tf2onnx in an environment with TensorFlow "
        "and name it, for example converter: [/opt/tensorflow/bin/python, -m, tf2onnx.convert], or export to ONNX "
        f"where the model is trained and name the file in `onnx` (looked for tf2onnx in {sys.executable})"
    )


def convert(command: Sequence[str], model: SavedModel, spec: TfxSpec, target: Path) -> None:
    """Run the converter, with tf2onnx's arguments; ``target`` is the ONNX file it has to write. Raises ReleaseError."""
    arguments = ["--saved-model", str(model.path), "--output", str(target), "--opset", str(spec.opset)]
    arguments += ["--signature_def", spec.signature]
    try:
        done = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ReleaseError(f"{model.path}: the converter {command[0]} did not end within {TIMEOUT} s") from exc
    except OSError as exc:
        raise ReleaseError(f"{model.path}: the converter {command[0]} cannot be run: {exc}") from exc
    said = done.stdout.decode("utf-8", "replace").strip()[-1500:]
    if done.returncode != 0:
        raise ReleaseError(f"{model.path}: the converter {command[0]} ended with status {done.returncode}: {said}")
    if not target.is_file():
        raise ReleaseError(f"{model.path}: the converter {command[0]} wrote no ONNX file: {said or 'it said nothing'}")

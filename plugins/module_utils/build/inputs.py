# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Inputs of a build that are not files beside the spec: fetched into a directory that is gone after the build."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..registry.errors import RegistryError
from ..registry.mlflow import Fetched, Registry
from ..release.errors import ReleaseError
from .onnx_model import weight_files
from .savedmodel import TfxSpec, convert, find, find_converter
from .spec import Spec

OpenRegistry = Callable[[Path], Registry]
"""Called with a directory for downloads, when the spec names a registry."""


@dataclass(frozen=True)
class Gathered:
    """The spec with a real path for every input, and what is to be known about the fetched ones."""

    spec: Spec
    provenance: list[dict[str, Any]] = field(default_factory=list)  # entries of the manifest's source.inputs
    mlflow_run: str | None = None
    identity: dict[str, str] = field(
        default_factory=dict
    )  # what stands for the model in the fingerprint, if not its bytes


@contextlib.contextmanager
def gathered(spec: Spec, registry: OpenRegistry | None, converter: Sequence[str] = ()) -> Iterator[Gathered]:
    """Yield the spec with everything it names at hand. Raises ReleaseError."""
    with tempfile.TemporaryDirectory(prefix="edgeai-build-") as work:
        found = _from_registry(spec, registry, Path(work)) if spec.remote else Gathered(spec)
        yield _from_tfx(found, spec.tfx, converter, Path(work)) if spec.tfx else found


def _from_tfx(found: Gathered, tfx: TfxSpec, converter: Sequence[str], work: Path) -> Gathered:
    """With the SavedModel converted. Two conversions may differ in bytes: the SavedModel stands for the model."""
    command = find_converter(converter)
    model = find(tfx)
    convert(command, model, tfx, work / "model.onnx")
    uri = f"tfx:{tfx.pushed.name}/{model.path.name}"
    entry = {"role": "savedmodel", "uri": uri, "size": model.size, "sha256": model.sha256}
    return replace(
        found,
        spec=replace(found.spec, onnx=work / "model.onnx"),
        provenance=[*found.provenance, entry],
        identity={"savedmodel": model.sha256, "opset": str(tfx.opset), "signature": tfx.signature},
    )


def _from_registry(spec: Spec, open_registry: OpenRegistry | None, work: Path) -> Gathered:
    if open_registry is None:
        raise ReleaseError(f"{spec.path}: {', '.join(spec.remote.values())}: no MLflow server is known to this build")
    try:
        registry = open_registry(work)
        files = {role: registry.fetch(uri) for role, uri in sorted(spec.remote.items())}
        if "onnx" in files:
            for name in weight_files(files["onnx"].path):
                files["onnx:" + name] = registry.beside(files["onnx"], name)
    except RegistryError as exc:
        raise ReleaseError(f"{spec.path}: {exc}") from exc
    changes: dict[str, Any] = {role: files[role].path for role in spec.remote}
    model = files.get("onnx")
    return Gathered(
        replace(spec, **changes),
        [_entry(role, found) for role, found in sorted(files.items())],
        model.run if model else None,
    )


def _entry(role: str, found: Fetched) -> dict[str, Any]:
    return {"role": role, "uri": found.uri, "size": found.size, "sha256": found.sha256}

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Arrays in and out: calibration, golden and validation files, and the bridge to the release format's tensors."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..release.errors import ReleaseError, field_error
from ..release.golden import Tensor
from .libs import require

# Open Inference Protocol datatype <-> numpy name.
NUMPY_NAME = {
    "FP64": "float64",
    "FP32": "float32",
    "FP16": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT16": "int16",
    "INT8": "int8",
    "UINT64": "uint64",
    "UINT32": "uint32",
    "UINT16": "uint16",
    "UINT8": "uint8",
    "BOOL": "bool",
}
DATATYPE = {name: datatype for datatype, name in NUMPY_NAME.items()}


@dataclass(frozen=True)
class Samples:
    """Inputs by name, each [n, ...], and labels [n] int64 or None."""

    inputs: dict[str, Any]
    labels: Any
    count: int


def load_arrays(path: Path, what: str) -> dict[str, Any]:
    """Every array of an ``.npz`` file; pickled objects are refused."""
    np = require("numpy", "Reading " + what)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: _native(archive[name]) for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as exc:
        raise ReleaseError(
            f"{path}: cannot read the {what} arrays (an .npz written by numpy.savez is wanted): {exc}"
        ) from exc


def _native(array: Any) -> Any:
    """The array in the machine's byte order: runtimes take no other."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_inputs(path: Path, prefix: str, arrays: Mapping[str, Any], inputs: list[dict[str, Any]]) -> int:
    """Check that ``arrays`` holds one array per model input, of its type and shape; returns the sample count."""
    names = {prefix + spec["name"] for spec in inputs}
    for missing in sorted(names - set(arrays)):
        raise field_error(
            str(path),
            missing,
            None,
            "an array per model input; the file has: %s" % (", ".join(sorted(arrays)) or "none"),
        )
    for extra in sorted(set(arrays) - names):
        raise field_error(str(path), extra, arrays[extra].shape, "only the model's inputs: " + ", ".join(sorted(names)))
    counts = set()
    for spec in inputs:
        array = arrays[prefix + spec["name"]]
        if DATATYPE.get(array.dtype.name) != spec["datatype"]:
            raise field_error(
                str(path),
                prefix + spec["name"],
                str(array.dtype),
                "the model's type, {}".format(NUMPY_NAME[spec["datatype"]]),
            )
        wanted = spec["shape"]
        if (
            array.ndim != len(wanted)
            or array.ndim == 0
            or any(w not in (-1, got) for w, got in zip(wanted[1:], array.shape[1:]))
        ):
            raise field_error(
                str(path), prefix + spec["name"], list(array.shape), f"samples in the first axis, then {wanted[1:]}"
            )
        counts.add(array.shape[0])
    if len(counts) != 1 or 0 in counts:
        raise field_error(
            str(path), "samples", sorted(counts), "the same number of samples, at least 1, for every input"
        )
    return int(counts.pop())


def load_samples(path: Path, what: str, inputs: list[dict[str, Any]]) -> Samples:
    """Golden or validation samples: ``input.<name>`` and optionally ``label`` [n]."""
    np = require("numpy", "Reading " + what)
    arrays = load_arrays(path, what)
    labels = arrays.pop("label", None)
    for name in sorted(arrays):
        if name.startswith("output."):
            raise field_error(
                str(path), name, arrays[name].shape, "no outputs: the build computes them with the fp32 model"
            )
    count = check_inputs(path, "input.", arrays, inputs)
    if labels is not None:
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            raise field_error(
                str(path), "label", f"{labels.dtype} {labels.shape}", f"{count} whole numbers, one per sample"
            )
        labels = labels.astype(np.int64)
    return Samples({spec["name"]: arrays["input." + spec["name"]] for spec in inputs}, labels, count)


def to_tensor(name: str, array: Any) -> Tensor:
    """A numpy array as a tensor of the release format: little-endian bytes in C order."""
    np = require("numpy", "Building a release")
    ordered = np.ascontiguousarray(array)
    little = ordered.astype(ordered.dtype.newbyteorder("<"), copy=False)
    return Tensor(name=name, datatype=DATATYPE[array.dtype.name], shape=tuple(array.shape), data=little.tobytes())


def save_golden(path: Path, samples: Samples, outputs: Mapping[str, Any]) -> None:
    """Write golden.npz. Same arrays give the same bytes: numpy stamps every member 1980-01-01."""
    np = require("numpy", "Writing golden samples")
    arrays = {"input." + name: value for name, value in samples.inputs.items()}
    arrays.update(("output." + name, value) for name, value in outputs.items())
    if samples.labels is not None:
        arrays["label"] = samples.labels
    # The devices' reader takes C order only.
    np.savez_compressed(path, **{name: np.ascontiguousarray(value) for name, value in arrays.items()})

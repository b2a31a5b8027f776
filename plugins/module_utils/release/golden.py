# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Golden samples: reading ``.npz`` without numpy, and scoring outputs against the signed reference.

A tensor's data is always little-endian and in C order, which is also how the Open Inference Protocol sends it.
"""

from __future__ import annotations

import array
import ast
import hashlib
import math
import os
import re
import struct
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .digests import PathLike
from .errors import ReleaseError
from .schema import is_int

MAX_NPZ = 512 * 1024 * 1024
"""Largest accepted sum of the uncompressed members of an archive, bytes."""
_MAX_HEADER = 64 * 1024

ITEM_SIZE = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
"""Bytes of one element, by datatype of the Open Inference Protocol."""
_TYPECODE = {
    "BOOL": "B", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP32": "f", "FP64": "d",
}  # fmt: skip
_NUMPY = {
    "b1": "BOOL", "u1": "UINT8", "u2": "UINT16", "u4": "UINT32", "u8": "UINT64", "i1": "INT8", "i2": "INT16",
    "i4": "INT32", "i8": "INT64", "f2": "FP16", "f4": "FP32", "f8": "FP64",
}  # fmt: skip
_DESCR = re.compile(r"([<>|=])([a-z][0-9])")


def element_count(shape: Iterable[int]) -> int:
    """Return the product of the lengths of the axes (1 for a scalar)."""
    count = 1
    for length in shape:
        count *= length
    return count


@dataclass(frozen=True)
class Tensor:
    """A named array. ``data`` holds its elements little-endian, in C order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        """Refuse an unknown datatype and data whose length is not that of the shape."""
        if self.datatype not in ITEM_SIZE:
            raise ReleaseError(f"tensor '{self.name}': datatype {self.datatype!r} is not known")
        expected = element_count(self.shape) * ITEM_SIZE[self.datatype]
        if any(length < 0 for length in self.shape) or len(self.data) != expected:
            has, shape = len(self.data), list(self.shape)
            raise ReleaseError(
                f"tensor '{self.name}': {has} bytes of data, but shape {shape} of {self.datatype} has {expected}"
            )

    @classmethod
    def from_values(cls, name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Tensor:
        """Make a tensor from a flat sequence of numbers in C order. Raises ReleaseError when one does not fit."""
        try:
            if datatype == "FP16":
                data = struct.pack(f"<{len(values)}e", *values)
            elif datatype == "BF16":
                # The upper half of a float32, rounded to nearest even.
                words = struct.unpack(f"<{len(values)}I", struct.pack(f"<{len(values)}f", *values))
                halves = [(word + 0x7FFF + ((word >> 16) & 1)) >> 16 & 0xFFFF for word in words]
                data = struct.pack(f"<{len(values)}H", *halves)
            elif datatype in _TYPECODE:
                data = _little(array.array(_TYPECODE[datatype], values)).tobytes()
            else:
                raise ReleaseError(f"tensor '{name}': datatype {datatype!r} is not known")
        except (TypeError, ValueError, OverflowError, struct.error) as error:
            raise ReleaseError(f"tensor '{name}': a value does not fit {datatype} ({error})") from error
        return cls(name, datatype, tuple(shape), data)

    def values(self) -> array.array[Any]:
        """Return the elements, flat, as an ``array.array`` in the machine's byte order (FP16 and BF16 as floats)."""
        if self.datatype == "FP16":
            return array.array("f", struct.unpack(f"<{len(self.data) // 2}e", self.data))
        if self.datatype == "BF16":
            halves = struct.unpack(f"<{len(self.data) // 2}H", self.data)
            raw = struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves))
            return array.array("f", struct.unpack(f"<{len(halves)}f", raw))
        result = array.array(_TYPECODE[self.datatype])
        result.frombytes(self.data)
        return _little(result)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` (exclusive, clipped to the length) of the first axis as a new tensor."""
        if not self.shape:
            raise ReleaseError(f"tensor '{self.name}': a scalar has no rows")
        start, stop, _step = slice(start, stop).indices(self.shape[0])
        stop = max(start, stop)
        width = element_count(self.shape[1:]) * ITEM_SIZE[self.datatype]
        return Tensor(
            self.name, self.datatype, (stop - start, *self.shape[1:]), self.data[start * width : stop * width]
        )


def _little(values: array.array[Any]) -> array.array[Any]:
    """Swap bytes between the machine's order and little-endian (nothing to do on nearly every machine)."""
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _npy_header(source: Any, where: str) -> dict[str, Any]:
    """Read the header of one ``.npy`` member: numpy.lib.format, versions 1 to 3."""
    magic = source.read(8)
    if len(magic) != 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise ReleaseError(f"{where}: is not an array file of numpy")
    size_format = "<H" if magic[6] == 1 else "<I"
    (length,) = struct.unpack(size_format, source.read(struct.calcsize(size_format)))
    if length > _MAX_HEADER:
        raise ReleaseError(f"{where}: its header has {length} bytes; at most {_MAX_HEADER} are allowed")
    try:
        header = ast.literal_eval(source.read(length).decode("utf-8" if magic[6] == 3 else "latin-1"))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ReleaseError(f"{where}: its header cannot be read ({error})") from error
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ReleaseError(f"{where}: its header lacks descr, fortran_order or shape")
    return header


def _read_member(source: Any, name: str, where: str, limit: int) -> Tensor:
    header = _npy_header(source, where)
    match = _DESCR.fullmatch(header["descr"]) if isinstance(header["descr"], str) else None
    if match is None or match.group(2) not in _NUMPY:
        raise ReleaseError(
            "{}: dtype {!r} is not a plain number; convert the array before saving".format(where, header["descr"])
        )
    if header["fortran_order"] is not False:
        raise ReleaseError(f"{where}: is in Fortran order; save numpy.ascontiguousarray(array)")
    shape = header["shape"]
    if not isinstance(shape, tuple) or any(not is_int(item) or item < 0 for item in shape) or len(shape) > 32:
        raise ReleaseError(f"{where}: shape {shape!r} is not a tuple of lengths")
    datatype = _NUMPY[match.group(2)]
    size = element_count(shape) * ITEM_SIZE[datatype]
    if size > limit:
        raise ReleaseError(f"{where}: has {size} bytes; the archive may have {MAX_NPZ}")
    data = source.read(size)
    if len(data) != size or source.read(1):
        raise ReleaseError(f"{where}: its length does not agree with its header")
    if match.group(1) == ">" and ITEM_SIZE[datatype] > 1:
        swapped = array.array({2: "H", 4: "I", 8: "Q"}[ITEM_SIZE[datatype]], data)
        swapped.byteswap()
        data = swapped.tobytes()
    return Tensor(name, datatype, shape, data)


def load_npz(path: PathLike, max_bytes: int = MAX_NPZ) -> dict[str, Tensor]:
    """Read every array of an ``.npz`` file with the standard library. No pickles, no objects, no strings.

    :param max_bytes: largest accepted sum of uncompressed sizes (an archive can be far smaller than its content)

    Raises ReleaseError.
    """
    where = os.fspath(path)
    tensors: dict[str, Tensor] = {}
    left = max_bytes
    try:
        with zipfile.ZipFile(where) as archive:
            for info in archive.infolist():
                name = info.filename[:-4] if info.filename.endswith(".npy") else ""
                member = f"{where}, member '{info.filename}'"
                if not name or name in tensors:
                    raise ReleaseError(f"{member}: only differently named .npy arrays are allowed in golden samples")
                if info.file_size > left:
                    raise ReleaseError(f"{where}: the arrays have more than {max_bytes} bytes together")
                with archive.open(info) as source:
                    tensors[name] = _read_member(source, name, member, left)
                left -= info.file_size
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise ReleaseError(f"{where}: cannot be read as an .npz file ({error})") from error
    except Exception as error:
        # zlib.error derives from Exception alone, and zlib may be absent: it is not imported by name.
        if type(error).__name__ == "error" and type(error).__module__ in ("zlib", "lzma"):
            raise ReleaseError(f"{where}: is damaged ({error})") from error
        raise
    return tensors


@dataclass(frozen=True)
class GoldenSet:
    """Golden samples by role: ``inputs`` and ``outputs`` by tensor name (file order), ``labels`` [N] or None."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    labels: Tensor | None
    samples: int


def load_golden(path: PathLike, max_bytes: int = MAX_NPZ) -> GoldenSet:
    """Read golden samples: arrays ``input.<name>``, ``output.<name>`` and optional ``label``, all with N rows.

    Raises ReleaseError for other names, differing numbers of rows, no inputs or no outputs.
    """
    where = os.fspath(path)
    groups: dict[str, dict[str, Tensor]] = {"input": {}, "output": {}}
    labels = None
    lengths = set()
    for name, tensor in load_npz(path, max_bytes).items():
        role, dot, rest = name.partition(".")
        if name == "label":
            labels = tensor
        elif role in groups and dot and rest:
            groups[role][rest] = Tensor(rest, tensor.datatype, tensor.shape, tensor.data)
        else:
            raise ReleaseError(f"{where}: array '{name}' is neither input.<name>, output.<name> nor label")
        if not tensor.shape:
            raise ReleaseError(f"{where}: array '{name}' has no axis of samples")
        lengths.add(tensor.shape[0])
    if not groups["input"] or not groups["output"] or len(lengths) != 1 or lengths == {0}:
        found = sorted(lengths)
        raise ReleaseError(f"{where}: needs inputs and outputs, all with the same number of samples (found {found})")
    if labels is not None and (len(labels.shape) != 1 or "INT" not in labels.datatype):
        raise ReleaseError(f"{where}: array 'label' has to be one axis of integers")
    return GoldenSet(groups["input"], groups["output"], labels, lengths.pop())


def _argmax_rows(tensor: Tensor) -> list[int | None]:
    """Return the index of the largest element along the last axis (first on ties), None where a NaN is among them."""
    if not tensor.shape or tensor.shape[-1] == 0:
        raise ReleaseError(f"tensor '{tensor.name}': shape {tensor.shape} has no last axis to take a class from")
    values = tensor.values()
    width = tensor.shape[-1]
    result: list[int | None] = []
    for start in range(0, len(values), width):
        row = values[start : start + width]
        # A NaN makes the sum a NaN; +inf with -inf does too, hence the second look.
        bad = math.isnan(sum(row)) and any(math.isnan(value) for value in row)
        result.append(None if bad else row.index(max(row)))
    return result


def _top1(outputs: Tensor, reference: Tensor, labels: Tensor | None) -> float:
    found = _argmax_rows(outputs)
    wanted: Sequence[int | None] = _argmax_rows(reference) if labels is None else list(labels.values())
    if len(wanted) != len(found):
        raise ReleaseError(f"tensor '{outputs.name}': {len(found)} rows to score, but {len(wanted)} labels")
    # None (a NaN in the output) equals no label; a NaN in the reference equals no output either.
    return sum(1 for a, b in zip(found, wanted) if a is not None and a == b) / len(found)


def _relative_error(outputs: Tensor, reference: Tensor) -> float:
    y, r = outputs.values(), reference.values()
    difference = norm = 0.0
    step = 65536  # math.dist makes tuples of its arguments: slices bound the memory
    for start in range(0, len(r), step):
        a, b = tuple(y[start : start + step]), tuple(r[start : start + step])
        difference += math.dist(a, b) ** 2
        norm += math.dist(b, (0.0,) * len(b)) ** 2
    if not math.isfinite(norm):
        raise ReleaseError(f"tensor '{reference.name}': the reference has values that are not finite")
    if not math.isfinite(difference):
        return 0.0
    if norm == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return max(0.0, 1.0 - math.sqrt(difference / norm))


def score(metric: str, outputs: Tensor, reference: Tensor, labels: Tensor | None = None) -> float:
    """Score outputs against the reference: 0 (worst) to 1.

    ``top1``: share of rows whose argmax over the last axis equals the label (without labels: the reference's argmax).
    ``relative_error``: 1 - ||y - r||2 / ||r||2, not below 0. NaN in the outputs never scores.

    Raises ReleaseError when shapes differ, nothing is there to score, or the metric is unknown.
    """
    if outputs.shape != reference.shape:
        found, wanted = list(outputs.shape), list(reference.shape)
        raise ReleaseError(f"tensor '{outputs.name}': shape {found} differs from the reference's {wanted}")
    if not outputs.data:
        raise ReleaseError(f"tensor '{outputs.name}': there is nothing to score")
    if metric == "top1":
        return _top1(outputs, reference, labels)
    if metric == "relative_error":
        return _relative_error(outputs, reference)
    raise ReleaseError(f"metric '{metric}' is not known: use top1 or relative_error")


def outputs_digest(tensors: Iterable[Tensor]) -> str:
    """Return the bare hex SHA-256 over names, datatypes, shapes and exact bytes; the order given does not matter."""
    digest = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda item: item.name):
        head = f"{tensor.name}\n{tensor.datatype}\n{list(tensor.shape)}\n{len(tensor.data)}\n"
        digest.update(head.encode("utf-8"))
        digest.update(tensor.data)
    return digest.hexdigest()

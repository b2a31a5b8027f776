# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Open Inference Protocol v2: requests into arrays and arrays into responses, as JSON or with binary tensors.

Pure: bytes in, arrays out. The binary tensor extension puts raw little-endian C-order tensors behind the JSON part,
whose length is in the header ``Inference-Header-Content-Length``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..release.schema import is_int
from . import deps
from .errors import RequestError

if TYPE_CHECKING:
    from ..release.manifest import TensorSpec

HEADER_LENGTH = "Inference-Header-Content-Length"

# OIP datatype -> numpy type string. BYTES and BF16 have no numpy equivalent.
NUMPY_TYPES = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
MAX_RANK = 16
_MAX_ELEMENTS = 1 << 40


@dataclass(frozen=True)
class Wish:
    """An output the client asked for, and whether as a binary tensor."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A checked request: ``inputs`` are numpy arrays of the declared datatypes and shapes."""

    id: str | None
    inputs: dict[str, Any]
    outputs: tuple[Wish, ...]


def _refuse(text: str) -> RequestError:
    return RequestError(400, text)


def _constant(token: str) -> float:
    raise _refuse(f"the body holds {token}, which JSON cannot carry: send the tensor with the binary tensor extension")


# Made once: json.loads and json.dumps with options make a new one for every call.
_DECODER = json.JSONDecoder(parse_constant=_constant)
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def split_body(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """Split a request body into its JSON object and the binary part behind it.

    ``header_length`` is the value of the header Inference-Header-Content-Length, None when there was none.
    """
    size = len(body)
    if header_length is not None:
        # isdigit() alone also accepts digits of other scripts
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > size:
            raise _refuse(
                f"header {HEADER_LENGTH} is {header_length!r}: it must be the length of the JSON part, 0..{size}"
            )
        size = int(header_length)
    view = memoryview(body)
    try:
        parsed = _DECODER.decode(str(view[:size] if size != len(body) else body, "utf-8"))
    except (ValueError, RecursionError) as exc:
        raise _refuse(f"the body is not JSON: {exc}") from exc
    if not isinstance(parsed, dict):
        raise _refuse("the body must be a JSON object with a field inputs")
    return parsed, view[size:]


def _object(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _refuse(f"{where} must be an object")
    return value


def check_shape(shape: Any, spec: TensorSpec, where: str) -> tuple[int, ...]:
    """Return ``shape`` as a tuple when it fits ``spec.shape`` (-1: any positive size), else raise RequestError."""
    wanted = list(spec.shape)
    whole = isinstance(shape, list) and all(is_int(d) and d > 0 for d in shape) and len(shape) <= MAX_RANK
    if not whole or len(shape) != len(wanted) or any(w not in (-1, d) for w, d in zip(wanted, shape)):
        raise _refuse(f"{where}: shape {json.dumps(shape)} does not fit {wanted} (-1: any positive size)")
    return tuple(shape)


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
        if count > _MAX_ELEMENTS:
            raise _refuse(f"shape {list(shape)} is absurdly large")
    return count


def from_json(data: Any, datatype: str, shape: tuple[int, ...], where: str) -> Any:
    """Return the array for JSON ``data`` (flat or nested, row-major); values that do not fit are refused."""
    np = deps.numpy()
    target = np.dtype(NUMPY_TYPES[datatype])
    if not isinstance(data, list):
        raise _refuse(f"{where}: data must be a list of {_elements(shape)} numbers, flat or nested like its shape")
    try:
        array = np.asarray(data)
        if target.str == "<u8" and array.dtype.kind in "fO":  # numpy has no common type for numbers around 2**63
            array = np.asarray(data, dtype=object)
            array = array.astype(target) if all(is_int(value) for value in array.flat) else array
    except (ValueError, OverflowError, RecursionError) as exc:
        raise _refuse(f"{where}: data is not a regular array of numbers of {datatype}: {exc}") from exc
    allowed = {"b": "b", "f": "iuf"}.get(target.kind, "iu")
    if array.dtype.kind not in allowed:
        raise _refuse(f"{where}: data holds values that are no {datatype}")
    if array.ndim > 1 and array.shape != shape:
        raise _refuse(f"{where}: data is nested as {list(array.shape)}, its shape says {list(shape)}")
    if array.size != _elements(shape):
        raise _refuse(
            f"{where}: data has {array.size} elements, shape {list(shape)} needs {_elements(shape)}",
        )
    return _cast(array, target, where, datatype).reshape(shape)


def _cast(array: Any, target: Any, where: str, datatype: str) -> Any:
    """Return ``array`` in its declared type; a value that the type cannot hold is refused, not bent."""
    np = deps.numpy()
    if target.kind in "iu":
        limits = np.iinfo(target)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise _refuse(f"{where}: data holds a value outside {datatype} ({limits.min}..{limits.max})")
        return array.astype(target)
    if target.kind != "f" or target.itemsize == 8:
        return array.astype(target)
    with np.errstate(over="ignore"):
        cast = array.astype(target)
    if not np.isfinite(cast).all():
        raise _refuse(f"{where}: data holds a value outside {datatype}")
    return cast


def from_binary(raw: memoryview, datatype: str, shape: tuple[int, ...], where: str) -> Any:
    """Return the array for a raw little-endian tensor; its size must be exactly what shape and datatype need."""
    np = deps.numpy()
    target = np.dtype(NUMPY_TYPES[datatype])
    if len(raw) != _elements(shape) * target.itemsize:
        raise _refuse(
            f"{where}: binary_data_size {len(raw)}, shape {list(shape)} of {datatype} needs "
            f"{_elements(shape) * target.itemsize}"
        )
    if datatype == "BOOL" and any(value > 1 for value in bytes(raw)):
        raise _refuse(f"{where}: binary BOOL data must be bytes 0 and 1")
    array = np.frombuffer(raw, dtype=target).reshape(shape)
    # The tensor lies at any offset in the body: runtimes may read it with aligned vector loads.
    return array if array.flags.aligned else array.copy()


def _input(item: Any, specs: Mapping[str, TensorSpec], rest: memoryview, seen: dict[str, Any]) -> memoryview:
    """Check one entry of ``inputs``, add its array to ``seen`` and return what is left of the binary part."""
    item = _object(item, "an entry of inputs")
    name = item.get("name")
    if not isinstance(name, str) or name not in specs:
        raise _refuse("input {} is unknown: this model has {}".format(json.dumps(name), ", ".join(sorted(specs))))
    where = f"input {name}"
    if name in seen:
        raise _refuse(f"{where} is given twice")
    spec = specs[name]
    datatype = item.get("datatype")
    if datatype != spec.datatype:
        raise _refuse(f"{where}: datatype {json.dumps(datatype)}, the model needs {spec.datatype}")
    if datatype not in NUMPY_TYPES:
        raise _refuse(f"{where}: datatype {datatype} is not served")
    shape = check_shape(item.get("shape"), spec, where)
    size = _object(item.get("parameters"), f"{where}: parameters").get("binary_data_size")
    if size is None:
        seen[name] = from_json(item.get("data"), datatype, shape, where)
        return rest
    if not is_int(size) or size < 0 or size > len(rest):
        raise _refuse(f"{where}: binary_data_size {json.dumps(size)}, the body has {len(rest)} bytes left")
    if "data" in item:
        raise _refuse(f"{where} has both data and binary_data_size")
    seen[name] = from_binary(rest[:size], datatype, shape, where)
    return rest[size:]


def _wishes(parsed: Mapping[str, Any], names: Sequence[str]) -> tuple[Wish, ...]:
    """Return the outputs asked for, all of them in declared order when none are named."""
    everything = bool(_object(parsed.get("parameters"), "parameters").get("binary_data_output", False))
    asked = parsed.get("outputs")
    if not asked:
        if asked not in (None, []):
            raise _refuse("outputs must be a list")
        return tuple(Wish(name, everything) for name in names)
    if not isinstance(asked, list):
        raise _refuse("outputs must be a list")
    wishes: list[Wish] = []
    for item in asked:
        item = _object(item, "an entry of outputs")
        name = item.get("name")
        if not isinstance(name, str) or name not in names:
            raise _refuse("output {} is unknown: this model has {}".format(json.dumps(name), ", ".join(names)))
        parameters = _object(item.get("parameters"), f"output {name}: parameters")
        if "classification" in parameters:
            raise _refuse(f"output {name}: classification is not served")
        wishes.append(Wish(name, bool(parameters.get("binary_data", everything))))
    if len({wish.name for wish in wishes}) != len(wishes):
        raise _refuse("outputs names one output twice")
    return tuple(wishes)


def parse_request(
    body: bytes, header_length: str | None, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> InferRequest:
    """Parse and check a whole infer request against the model's declared inputs and outputs.

    Raises RequestError (400) that names the input or output and what is wrong with it.
    """
    parsed, rest = split_body(body, header_length)
    request_id = parsed.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise _refuse("id must be a string")
    entries = parsed.get("inputs")
    if not isinstance(entries, list):
        raise _refuse("inputs must be a list of tensors")
    specs = {spec.name: spec for spec in inputs}
    arrays: dict[str, Any] = {}
    for item in entries:
        rest = _input(item, specs, rest, arrays)
    if len(rest):
        raise _refuse(f"{len(rest)} bytes behind the JSON part belong to no input (binary_data_size)")
    missing = sorted(set(specs) - set(arrays))
    if missing:
        raise _refuse("input {} is missing".format(", ".join(missing)))
    return InferRequest(request_id, arrays, _wishes(parsed, [spec.name for spec in outputs]))


def render_response(
    head: dict[str, Any], request: InferRequest, results: Mapping[str, Any], outputs: Sequence[TensorSpec]
) -> tuple[bytes, int | None]:
    """Return the response body, and the length of its JSON part when binary tensors follow (else None).

    ``head`` holds the fields before ``outputs`` (model_name, …). Raises RequestError when JSON cannot carry a value.
    """
    np = deps.numpy()
    datatypes = {spec.name: spec.datatype for spec in outputs}
    described: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for wish in request.outputs:
        datatype = datatypes[wish.name]
        array = np.ascontiguousarray(results[wish.name], dtype=NUMPY_TYPES[datatype])
        entry: dict[str, Any] = {"name": wish.name, "datatype": datatype, "shape": list(np.shape(results[wish.name]))}
        if wish.binary:
            blobs.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    if request.id is not None:
        head = dict(head, id=request.id)
    try:
        text = _ENCODER.encode(dict(head, outputs=described)).encode()
    except ValueError as exc:
        raise _refuse("an output holds NaN or infinity, which JSON cannot carry: ask for binary_data") from exc
    return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Open Inference Protocol v2, the client's half: tensors into requests and responses into tensors. Pure.

Inputs always travel with the binary tensor extension, so that a float arrives bit by bit as it was signed; outputs are
asked for in the same form, and accepted as JSON from servers that have no such extension.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..release.errors import ReleaseError
from ..release.golden import ITEM_SIZE, Tensor
from ..release.schema import is_int
from .errors import DeviceError

HEADER_LENGTH = "Inference-Header-Content-Length"


class ServerError(DeviceError):
    """What went wrong between this client and a model server; ``code`` is always ``server``.

    ``status`` is the HTTP status of a refusal, None when there was no (usable) answer. ``refusal`` is the
    machine-readable code in the server's own answer, where it gives one. ``timed_out``: it came too late.
    """

    def __init__(
        self, message: str, status: int | None = None, refusal: str | None = None, timed_out: bool = False
    ) -> None:
        super().__init__("server", message)
        self.status = status
        self.refusal = refusal
        self.timed_out = timed_out


@dataclass(frozen=True)
class Call:
    """An encoded infer request, made once and sent many times."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A decoded infer response. ``seconds`` is from the first byte sent to the last byte received."""

    outputs: dict[str, Tensor]
    version: str | None
    digest: str | None
    seconds: float


def encode_call(inputs: Iterable[Tensor]) -> Call:
    """An infer request for these inputs, everything binary."""
    tensors = list(inputs)
    head = {
        "inputs": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "datatype": tensor.datatype,
                "parameters": {"binary_data_size": len(tensor.data)},
            }
            for tensor in tensors
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return Call(b"".join([text, *(tensor.data for tensor in tensors)]), headers)


def decode_answer(body: bytes, header_length: str | None, digest: str | None, seconds: float) -> Answer:
    """The outputs of an infer response. Raises ServerError when it is not one."""
    size = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > size:
            raise ServerError(f"infer response: header {HEADER_LENGTH} is {header_length!r}, the body has {size} bytes")
        size = int(header_length)
    document = parse_object(body[:size], "infer response")
    entries = document.get("outputs")
    if not isinstance(entries, list) or not entries:
        raise ServerError("infer response: outputs is missing or empty")
    rest = body[size:]
    outputs: dict[str, Tensor] = {}
    for entry in entries:
        tensor, rest = _output(entry, rest)
        outputs[tensor.name] = tensor
    if rest:
        raise ServerError(f"infer response: {len(rest)} bytes after the last output")
    parameters = document.get("parameters")
    told = parameters.get("digest") if isinstance(parameters, dict) else None
    version = document.get("model_version")
    return Answer(outputs, str(version) if version else None, digest or told, seconds)


def parse_object(body: bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises ServerError naming ``where``."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{where}: not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ServerError(f"{where}: not a JSON object")
    return document


def _output(entry: Any, rest: bytes) -> tuple[Tensor, bytes]:
    if not isinstance(entry, dict):
        raise ServerError("infer response: an output is not an object")
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    where = f"infer response: output {name!r}"
    if not isinstance(name, str) or datatype not in ITEM_SIZE:
        raise ServerError(f"{where}: datatype {datatype!r} is not supported")
    if not isinstance(shape, list) or not all(is_int(axis) and axis >= 0 for axis in shape):
        raise ServerError(f"{where}: shape {shape!r} is not a list of lengths")
    parameters = entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    try:
        if size is None:
            return Tensor.from_values(name, datatype, shape, list(_flat(entry.get("data")))), rest
        if not is_int(size) or not 0 <= size <= len(rest):
            raise ServerError(f"{where}: binary_data_size {size!r}, {len(rest)} bytes are left")
        return Tensor(name, datatype, tuple(shape), rest[:size]), rest[size:]
    except ReleaseError as error:
        raise ServerError(f"{where}: {error}") from error


def _flat(data: Any) -> Iterable[Any]:
    """JSON tensor data in row-major order, given flat or nested."""
    pending = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(reversed(item))
        else:
            yield item


def join_rows(parts: list[Tensor]) -> Tensor:
    """Tensors of the same kind, one behind the other along the first axis. Raises ServerError when they do not fit."""
    first = parts[0]
    for part in parts:
        if not part.shape or part.datatype != first.datatype or part.shape[1:] != first.shape[1:]:
            raise ServerError(
                f"output {first.name!r}: {part.datatype} {list(part.shape)} does not continue"
                f" {first.datatype} {list(first.shape)}"
            )
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    return Tensor(first.name, first.datatype, shape, b"".join(part.data for part in parts))

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Shadow traffic: what the candidate would have answered to the requests that the incumbent answers right now.

Requests are held in memory, only while somebody asked for it and no longer than the comparison takes. Only figures
about the disagreement leave this module; no input or output does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from . import deps, tensors
from .errors import RequestError
from .loader import Loaded

MAX_BYTES = 32 << 20
"""Most bytes of requests that are held."""


class Shadow:
    """The requests that arrive while it is open: at most ``wanted``, at most MAX_BYTES."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.held: list[tuple[bytes, str | None]] = []
        self.full = asyncio.Event()
        self._bytes = 0

    def note(self, body: bytes, header_length: bytes | None) -> None:
        """Hold an answered request. ``header_length``: the length of its JSON part, None without binary tensors."""
        if len(self.held) >= self.wanted or self._bytes + len(body) > MAX_BYTES:
            self.full.set()
            return
        self._bytes += len(body)
        self.held.append((body, header_length.decode("latin-1") if header_length is not None else None))
        if len(self.held) >= self.wanted:
            self.full.set()


class Tally:
    """The figures so far. Agreement is by the release's own metric (see ``release.golden.score``)."""

    def __init__(self) -> None:
        self.requests = self.rows = self.errors = 0
        self.agreed = 0.0
        self.largest = 0.0

    def report(self) -> dict[str, Any]:
        """Return requests and rows compared, candidate's errors, agreement (0..1), and the largest difference."""
        agreement = round(self.agreed / self.rows, 6) if self.rows else None
        return {
            "requests": self.requests,
            "rows": self.rows,
            "errors": self.errors,
            "agreement": agreement,
            "max_difference": self.largest if math.isfinite(self.largest) else None,
        }

    def compare(self, incumbent: Loaded, candidate: Loaded, body: bytes, json_length: str | None) -> None:
        """Run one request on both. A candidate that refuses it, or fails, disagrees in all of its rows."""
        manifest = incumbent.manifest
        request = tensors.parse_request(body, json_length, manifest.inputs, manifest.outputs)
        expected = _first(incumbent, request.inputs)
        rows = int(expected.shape[0]) if expected.ndim else 1
        self.requests += 1
        self.rows += rows
        try:
            found = _first(candidate, request.inputs)
        except Exception:  # native runtimes raise types of their own
            self.errors += 1
            return
        if found.shape != expected.shape:
            self.errors += 1
            return
        agreed, largest = agreement(candidate.manifest.golden.metric, found, expected)
        self.agreed += agreed * rows
        self.largest = max(self.largest, largest)


def _first(loaded: Loaded, inputs: Mapping[str, Any]) -> Any:
    """The first output's array: the one that golden samples are scored by."""
    return loaded.session.infer(inputs)[loaded.manifest.outputs[0].name]


def agreement(metric: str, found: Any, expected: Any) -> tuple[float, float]:
    """Return (agreement 0..1, largest absolute difference) of two arrays of one shape.

    ``top1``: share of rows with the same largest element; else 1 - ||found - expected|| / ||expected||, at least 0.
    What is not a number never agrees.
    """
    numpy = deps.require("numpy", "the model server")
    a, b = numpy.asarray(found, dtype="f8"), numpy.asarray(expected, dtype="f8")
    largest = float(numpy.max(numpy.abs(a - b))) if a.size else 0.0
    if math.isnan(largest):
        largest = math.inf
    if metric == "top1":
        width = a.shape[-1] if a.ndim else 1
        first, second = a.reshape(-1, width), b.reshape(-1, width)
        same = (first.argmax(axis=1) == second.argmax(axis=1)) & ~numpy.isnan(first).any(axis=1)
        return (float(same.mean()) if same.size else 1.0), largest
    norm = float(numpy.linalg.norm(b))
    distance = float(numpy.linalg.norm(a - b))
    if not math.isfinite(distance):
        return 0.0, largest
    if norm == 0.0:
        return (1.0 if distance == 0.0 else 0.0), largest
    return max(0.0, 1.0 - distance / norm), largest


def check_wish(parameters: Mapping[str, Any]) -> tuple[str, int, float]:
    """Return (candidate's version, requests, seconds) out of a request's parameters. Raises RequestError."""
    version, wanted, seconds = (parameters.get(name) for name in ("candidate_version", "requests", "seconds"))
    if not isinstance(version, str):
        raise RequestError(400, "candidate_version must be given, as a string")
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= 100000:
        raise RequestError(400, f"requests is {wanted!r}: a whole number from 1 to 100000")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 3600:
        raise RequestError(400, f"seconds is {seconds!r}: a number above 0, up to 3600")
    return version, wanted, float(seconds)

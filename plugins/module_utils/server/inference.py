# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Infer requests: limits first, then parse, run and render in one hop to a worker thread."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..device.errors import DeviceError
from . import tensors
from .errors import RequestError, status_of
from .loader import Loaded
from .log import Log
from .metrics import Metrics
from .registry import Registry


@dataclass(frozen=True)
class Limits:
    """Bounds of one server. Sizes in bytes, times in seconds."""

    max_body: int = 64 << 20
    max_buffered: int = 256 << 20
    body_timeout: float = 30.0
    workers: int = 2
    queue: int = 64
    threads: int = 1
    grace: float = 10.0


@dataclass(frozen=True)
class Answer:
    """A rendered response."""

    status: int
    body: bytes
    headers: dict[str, str]


class Buffered:
    """How many bytes of request bodies are held in memory, all connections together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = 0

    async def read(self, request: Any) -> bytearray:
        """Return the body of a starlette request. Raises RequestError 400, 408, 413 or 503."""
        declared = request.headers.get("content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._limits.max_body:
            raise self._too_large()
        task = asyncio.current_task()
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            if task is not None:
                task.cancel()

        timer = asyncio.get_running_loop().call_later(self._limits.body_timeout, expire)
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                self._bytes += len(chunk)
                if len(body) > self._limits.max_body:
                    raise self._too_large()
                if self._bytes > self._limits.max_buffered:
                    raise RequestError(503, "too many large requests at once", "busy", retry_after=1)
            return body
        except asyncio.CancelledError:
            if not expired:
                raise
            raise RequestError(408, "the body did not arrive within %g s" % self._limits.body_timeout) from None
        finally:
            timer.cancel()
            self._bytes -= len(body)

    def _too_large(self) -> RequestError:
        return RequestError(413, "the body is larger than %d bytes" % self._limits.max_body)


class Inference:
    """Answers infer requests of one server process."""

    def __init__(self, registry: Registry, metrics: Metrics, log: Log, limits: Limits, log_all: bool) -> None:
        self._registry = registry
        self._metrics = metrics
        self._log = log
        self._limits = limits
        self._log_all = log_all
        self._buffered = Buffered(limits)
        self._pool = ThreadPoolExecutor(limits.workers, "infer")
        self._waiting = 0

    async def handle(self, request: Any, model: str, version: str | None, management: bool) -> Answer:
        """Answer one request, count it, and log it when it failed. RequestError and DeviceError become answers."""
        began = time.monotonic()
        served = ("", "")
        try:
            serving = self._registry.find(model, version, management)
            served = (model, serving.loaded.version)
            body = await self._buffered.read(request)
            began = time.monotonic()
            answer = await self._run(model, version, management, body, request.headers)
            served = (model, answer.headers["X-Edgeai-Version"])
        except DeviceError as exc:
            answer = error_answer(exc)
        self._metrics.request(served[0], served[1], answer.status, time.monotonic() - began)
        if answer.status >= 400 or self._log_all:
            error = answer.body[:500].decode("utf-8", "replace") if answer.status >= 400 else None
            self._log.event(
                "error" if answer.status >= 500 else "info",
                "infer",
                model=model,
                version=served[1] or version,
                status=answer.status,
                ms=round(1000 * (time.monotonic() - began), 3),
                error=error,
            )
        return answer

    async def _run(self, model: str, version: str | None, management: bool, body: bytearray, headers: Any) -> Answer:
        if self._waiting >= self._limits.workers + self._limits.queue:
            raise RequestError(503, "%d requests are waiting already" % self._waiting, "busy", retry_after=1)
        # Looked up again: reading a slow body must not pin the release from before a swap.
        serving = self._registry.find(model, version, management)
        self._waiting += 1
        self._metrics.in_flight(self._waiting)
        try:
            with serving.lease() as loaded:
                loop = asyncio.get_running_loop()
                header_length = headers.get(tensors.HEADER_LENGTH)
                return await loop.run_in_executor(self._pool, infer, loaded, body, header_length)
        finally:
            self._waiting -= 1
            self._metrics.in_flight(self._waiting)


def infer(loaded: Loaded, body: bytes | bytearray, header_length: str | None) -> Answer:
    """Parse, run and render one request. Raises RequestError (400) and DeviceError (server: the runtime failed)."""
    manifest = loaded.manifest
    request = tensors.parse_request(body, header_length, manifest.inputs, manifest.outputs)
    try:
        results = loaded.session.infer(request.inputs)
    except Exception as exc:  # native runtimes raise types of their own
        raise DeviceError(
            "server", "%s could not run the request: %s: %s" % (loaded.target.variant, type(exc).__name__, exc)
        ) from exc
    head = {"model_name": manifest.model, "model_version": manifest.version, "parameters": {"digest": loaded.digest}}
    rendered, json_length = tensors.render_response(head, request, results, manifest.outputs)
    headers = {"X-Edgeai-Digest": loaded.digest, "X-Edgeai-Version": manifest.version}
    headers["Content-Type"] = "application/json" if json_length is None else "application/octet-stream"
    if json_length is not None:
        headers[tensors.HEADER_LENGTH] = str(json_length)
    return Answer(200, rendered, headers)


def error_answer(error: DeviceError) -> Answer:
    """Return the JSON answer for an error: ``{"error": text, "code": code}``."""
    import json

    headers = {"Content-Type": "application/json"}
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    body = json.dumps({"error": error.message, "code": error.code}).encode()
    return Answer(status_of(error), body, headers)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Infer requests: limits first, then parse, run and render in one go.

A model that answers in less than QUICK_S runs right on the event loop: the hop to a worker thread and back costs more
than the model itself. Everything else runs in a small pool of threads, and so does a quick one that turns out slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable

from ..device.errors import DeviceError
from . import tensors
from .errors import RequestError, status_of
from .heartbeat import Pulse
from .loader import QUICK_S, Loaded
from .log import Log
from .metrics import Metrics
from .registry import Registry, Serving
from .shadow import Shadow, Tally

Receive = Callable[[], Awaitable[Any]]

INLINE_BYTES = 65536
SLOW_AFTER = 20
_HEADER_LENGTH = tensors.HEADER_LENGTH.lower().encode()


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

    async def read(self, receive: Receive, declared: bytes | None) -> bytes:
        """Return a request's body. ``declared`` is its Content-Length. Raises RequestError 400, 408, 413 or 503."""
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
        try:
            return await self._chunks(receive)
        except asyncio.CancelledError:
            if not expired:
                raise
            raise RequestError(408, f"the body did not arrive within {self._limits.body_timeout:g} s") from None
        finally:
            timer.cancel()

    async def _chunks(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size, more = 0, True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestError(400, "the client went away before its body had arrived")
                chunk = message.get("body", b"")
                more = message.get("more_body", False)
                chunks.append(chunk)
                size += len(chunk)
                self._bytes += len(chunk)
                if size > self._limits.max_body:
                    raise self._too_large()
                if self._bytes > self._limits.max_buffered:
                    raise RequestError(503, "too many large requests at once", "busy", retry_after=1)
        finally:
            self._bytes -= size
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is larger than {self._limits.max_body} bytes")


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
        self.pulse = Pulse(self._pool)
        self._waiting = 0
        self._shadows: dict[str, Shadow] = {}

    async def handle(
        self, receive: Receive, headers: Mapping[bytes, bytes], model: str, version: str | None, management: bool
    ) -> Answer:
        """Answer one request, count it, and log it when it failed. RequestError and DeviceError become answers.

        ``headers`` have lower-case names. The duration counts from the last byte of the body.
        """
        began = time.monotonic()
        serving = None
        try:
            serving = self._registry.find(model, version, management)
            body = await self._buffered.read(receive, headers.get(b"content-length"))
            began = time.monotonic()
            # Looked up again: a body that arrives slowly must not bring back the release from before a swap.
            serving = self._registry.find(model, version, management)
            answer = await self._run(serving, body, headers.get(_HEADER_LENGTH))
            if self._shadows and not management:
                self._hold(model, body, headers)
        except DeviceError as exc:
            answer = error_answer(exc)
        return self._done(serving, answer, time.monotonic() - began, model, version)

    def _hold(self, model: str, body: bytes, headers: Mapping[bytes, bytes]) -> None:
        shadow = self._shadows.get(model)
        if shadow is not None:
            shadow.note(body, headers.get(_HEADER_LENGTH))

    async def shadow(self, model: str, version: str, wanted: int, seconds: float) -> dict[str, Any]:
        """Hold what clients send within ``seconds``, at most ``wanted`` requests, and compare a candidate's answers.

        Returns what `Tally.report` says, with the digests of both. Raises RequestError: 404 for a version that is no
        candidate, 409 when another comparison of the model is under way, 503 when nothing serves.
        """
        if model in self._shadows:
            raise RequestError(409, f"model {model} is being compared already", "busy")
        incumbent, candidate = self._registry.find(model, None, True), self._registry.find(model, version, True)
        tally = Tally()
        with incumbent.lease() as old, candidate.lease() as new:
            for body, json_length in await self._held(model, wanted, seconds):
                # One by one: what clients send meanwhile comes in between.
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._pool, tally.compare, old, new, body, json_length)
                self.pulse.progress()
        return {**tally.report(), "digest": candidate.loaded.digest, "incumbent": incumbent.loaded.digest}

    async def _held(self, model: str, wanted: int, seconds: float) -> list[tuple[bytes, str | None]]:
        """The requests that were answered while this waited."""
        shadow = self._shadows[model] = Shadow(wanted)
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(shadow.full.wait(), seconds)
        finally:
            del self._shadows[model]
        return shadow.held

    def is_quick(self, model: str, version: str | None, management: bool) -> bool:
        """Say whether the model can be asked with `handle_now`."""
        try:
            return self._registry.find(model, version, management).loaded.quick
        except DeviceError:
            return False

    def handle_now(
        self, headers: Mapping[bytes, bytes], model: str, version: str | None, management: bool, body: bytes
    ) -> Answer:
        """`handle` for a quick model and a body that is there, without giving up the event loop."""
        began = time.monotonic()
        serving = None
        try:
            serving = self._registry.find(model, version, management)
            answer = self._infer_here(serving.loaded, body, headers.get(_HEADER_LENGTH))
            if self._shadows and not management:
                self._hold(model, body, headers)
        except DeviceError as exc:
            answer = error_answer(exc)
        return self._done(serving, answer, time.monotonic() - began, model, version)

    def _done(self, serving: Serving | None, answer: Answer, seconds: float, model: str, version: str | None) -> Answer:
        """Count and log an answered request."""
        if serving is None:
            self._metrics.request("", "", answer.status, seconds)
        else:
            version = serving.loaded.version
            self._metrics.request(model, version, answer.status, seconds)
        if answer.status >= 400 or self._log_all:
            self._log_request(model, version, answer, seconds)
        return answer

    @staticmethod
    def _infer_here(loaded: Loaded, body: bytes, header_length: bytes | None) -> Answer:
        began = time.monotonic()
        try:
            return infer(loaded, body, header_length)
        finally:
            # A leaky bucket: now and then is a busy machine, again and again is what the model takes.
            slow = time.monotonic() - began > 4 * QUICK_S
            loaded.slowness = max(0, loaded.slowness + (4 if slow else -1))
            loaded.quick = loaded.slowness < SLOW_AFTER

    def _log_request(self, model: str, version: str | None, answer: Answer, seconds: float) -> None:
        error = answer.body[:500].decode("utf-8", "replace") if answer.status >= 400 else None
        level = "error" if answer.status >= 500 else "info"
        milliseconds = round(1000 * seconds, 3)
        self._log.event(
            level, "infer", model=model, version=version, status=answer.status, ms=milliseconds, error=error
        )

    async def _run(self, serving: Serving, body: bytes, header_length: bytes | None) -> Answer:
        if self._waiting >= self._limits.workers + self._limits.queue:
            raise RequestError(503, f"{self._waiting} requests are waiting already", "busy", retry_after=1)
        self._waiting += 1
        self._metrics.in_flight(self._waiting)
        try:
            with serving.lease() as loaded:
                if not loaded.quick or len(body) > INLINE_BYTES:
                    loop = asyncio.get_running_loop()
                    try:
                        return await loop.run_in_executor(self._pool, infer, loaded, body, header_length)
                    finally:
                        self.pulse.progress()
                return self._infer_here(loaded, body, header_length)
        finally:
            self._waiting -= 1
            self._metrics.in_flight(self._waiting)


def infer(loaded: Loaded, body: bytes, header_length: bytes | None) -> Answer:
    """Parse, run and render one request. Raises RequestError (400) and DeviceError (server: the runtime failed)."""
    manifest = loaded.manifest
    json_part = header_length.decode("latin-1") if header_length is not None else None
    request = tensors.parse_request(body, json_part, manifest.inputs, manifest.outputs)
    try:
        results = loaded.session.infer(request.inputs)
    except Exception as exc:  # native runtimes raise types of their own
        raise DeviceError(
            "server", f"{loaded.target.variant} could not run the request: {type(exc).__name__}: {exc}"
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
    headers = {"Content-Type": "application/json"}
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    body = json.dumps({"error": error.message, "code": error.code}).encode()
    return Answer(status_of(error), body, headers)

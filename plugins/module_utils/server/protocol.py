# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""uvicorn's HTTP protocol with a short way for the requests that matter most.

An infer request for a quick model is answered in the callback that completes it: no task, no turn of the event loop,
one system call. Everything else goes uvicorn's normal way into the ASGI application. The parser is the same for both
(httptools), so both agree on where a request ends. Without httptools, or with a uvicorn built otherwise, everything
goes the normal way.
"""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any, Callable

from . import deps
from .errors import RequestError
from .inference import INLINE_BYTES, Answer, error_answer

Ask = Callable[[str, Mapping[bytes, bytes], bytes], Answer]
Takes = Callable[[str], bool]

# What this builds on: httptools' callbacks, and uvicorn's own bookkeeping around a request.
_NEEDED = (
    "on_headers_complete",
    "on_body",
    "on_message_complete",
    "on_response_complete",
    "_unset_keepalive_if_required",
    "shutdown",
)
_REASONS = {status.value: status.phrase for status in http.HTTPStatus}
_SLOW_WAY = (b"expect", b"upgrade", b"transfer-encoding")


class OneWrite:
    """A transport that sends the head and the body of an infer answer in one system call instead of two.

    uvicorn writes them apart; with a small model the second call and the client's second wake-up cost as much as it.
    Only heads with MARK are held back: those are always followed by a body that is not empty, in the same step.
    """

    MARK = b"x-edgeai-digest: "

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold a head back, send everything else at once."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.endswith(b"\r\n\r\n") and self.MARK in data:
            self._held = data
            return
        self._transport.write(data)


def render(answer: Answer, extra: list[tuple[bytes, bytes]], close: bool) -> bytes:
    """Return an answer's bytes on the wire. ``extra``: headers of every response (Date)."""
    parts = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}\r\n".encode()]
    for name, value in extra:
        parts += [name, b": ", value, b"\r\n"]
    for key, text in answer.headers.items():
        parts.append(f"{key.lower()}: {text}\r\n".encode("latin-1"))
    if close:
        parts.append(b"connection: close\r\n")
    parts.append(b"content-length: %d\r\n\r\n" % len(answer.body))
    parts.append(answer.body)
    return b"".join(parts)


def protocol_class(takes: Takes, ask: Ask, body_timeout: float) -> Any:
    """Return the class for uvicorn's ``http`` setting.

    ``takes(url)`` says whether a POST to ``url`` may go the short way, ``ask(url, headers, body)`` answers it at once.
    ``body_timeout`` (s) bounds the wait for a body on the short way; the normal way has its own bound.
    """
    if not deps.available("httptools"):
        return _plain(deps.require("uvicorn.protocols.http.h11_impl", "the model server").H11Protocol)
    base = deps.require("uvicorn.protocols.http.httptools_impl", "the model server").HttpToolsProtocol
    if not all(hasattr(base, name) for name in _NEEDED):
        return _plain(base)
    settings = {"takes": staticmethod(takes), "ask": staticmethod(ask), "body_timeout": body_timeout}
    return type("Protocol", (ShortWay, _plain(base)), settings)


def _plain(base: Any) -> Any:
    class Protocol(base):  # type: ignore[misc]
        """One connection, all the normal way."""

        def connection_made(self, transport: Any) -> None:
            """Begin a connection."""
            super().connection_made(OneWrite(transport))

    return Protocol


class ShortWay:
    """One connection. ``_chunks`` is the body so far of a request on the short way, None when there is none."""

    takes: Takes
    ask: Ask
    body_timeout: float
    parser: Any
    headers: Any
    cycle: Any
    url: bytes
    transport: Any
    loop: Any
    server_state: Any
    _chunks: list[bytes] | None = None
    _leaving = False
    _timer: Any = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a body that is not there yet gets a time limit."""
        super().data_received(data)  # type: ignore[misc]
        if self._chunks is not None and self._timer is None:
            self._timer = self.loop.call_later(self.body_timeout, self._body_is_late)

    def on_headers_complete(self) -> None:
        """Decide which way this request goes."""
        if self._may_be_short():
            self._chunks = []
        else:
            super().on_headers_complete()  # type: ignore[misc]

    def _may_be_short(self) -> bool:
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return False
        if (self.cycle is not None and not self.cycle.response_complete) or self._leaving:
            return False  # an earlier request of this connection is still being answered
        length = None
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name in _SLOW_WAY:
                return False
        if length is None or not length.isdigit() or int(length) > INLINE_BYTES:
            return False
        return self.takes(self.url.decode("latin-1")) and not self.transport.get_write_buffer_size()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self._chunks is None:
            super().on_body(body)  # type: ignore[misc]
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        if self._chunks is None:
            super().on_message_complete()  # type: ignore[misc]
            return
        chunks, self._chunks = self._chunks, None
        self._stop_timer()
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._answer(
            self.ask(self.url.decode("latin-1"), dict(self.headers), body), not self.parser.should_keep_alive()
        )

    def _answer(self, answer: Answer, close: bool) -> None:
        close = close or self._leaving
        self._unset_keepalive_if_required()  # type: ignore[attr-defined]
        self.transport.write(render(answer, self.server_state.default_headers, close))
        if close:
            self._leaving = True
            self.transport.close()
        else:
            self.on_response_complete()  # type: ignore[attr-defined]

    def _body_is_late(self) -> None:
        self._timer = None
        if self._chunks is not None:
            self._chunks = None
            self._answer(
                error_answer(RequestError(408, f"the body did not arrive within {self.body_timeout:g} s")), True
            )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Any) -> None:
        """End the connection."""
        self._stop_timer()
        self._chunks = None
        super().connection_lost(exc)  # type: ignore[misc]

    def shutdown(self) -> None:
        """Stop: a request whose body is still coming is answered first."""
        if self._chunks is not None:
            self._leaving = True
        else:
            super().shutdown()  # type: ignore[misc]

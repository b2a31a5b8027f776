# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A client of an Open Inference Protocol v2 server, over TCP or a unix socket, with the standard library.

Every call has a time-out, which bounds the whole call and not only each packet, and a total deadline can be laid over a
group of calls. One connection is kept alive. Not for use by several threads at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlsplit

from ..release.golden import Tensor
from .errors import DeviceError
from .oip import HEADER_LENGTH, Answer, Call, ServerError, decode_answer, encode_call, parse_object
from .prometheus import Sample, parse_metrics
from .tls import LocalTls

MAX_RESPONSE = 256 * 1024 * 1024
_SUN_PATH = 107  # bytes of a unix socket's address, without the final NUL (sys/un.h)


@dataclass(frozen=True)
class Ready:
    """What a server says it serves. Servers other than ours may leave everything but ``ready`` out."""

    ready: bool
    version: str | None = None
    variant: str | None = None
    digest: str | None = None
    start_id: str | None = None
    boot_id: str | None = None


class _TimedSocket(socket.socket):
    """A socket whose reads and writes together end at ``until`` (time.monotonic), however slowly bytes trickle in."""

    until: float = float("inf")

    def _arm(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        self.settimeout(left if left != float("inf") else None)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._arm()
        super().sendall(*args, **kwargs)


class _TimedTlsSocket(ssl.SSLSocket):
    """The same over TLS."""

    until: float = float("inf")

    _arm = _TimedSocket._arm

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._arm()  # type: ignore[misc]
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._arm()  # type: ignore[misc]
        return super().send(*args, **kwargs)


class _Connection(http.client.HTTPConnection):
    """An HTTP connection that opens _TimedSockets, to a host (with ``tls`` encrypted) or to a unix socket."""

    def __init__(self, host: str, port: int | None, path: str | None, tls: LocalTls | None = None) -> None:
        super().__init__(host, port)
        self._path = path
        self._tls = tls
        self.until = float("inf")

    def connect(self) -> None:
        self.sock = self._open_unix(self._path) if self._path is not None else self._open_tcp()
        if self._tls is not None:
            self.sock = self._encrypt(self.sock, self._tls)

    def _encrypt(self, plain: Any, tls: LocalTls) -> _TimedTlsSocket:
        """Shake hands over a connected socket and check who answered before a byte of a request is sent."""
        try:
            plain._arm()
            context = tls.context()
            context.sslsocket_class = _TimedTlsSocket
            made = cast(_TimedTlsSocket, context.wrap_socket(plain))
        except BaseException:
            plain.close()
            raise
        try:
            tls.check(made.getpeercert(True))
        except BaseException:
            made.close()
            raise
        made.until = self.until
        return made

    def _new(self, family: int) -> _TimedSocket:
        made = _TimedSocket(family, socket.SOCK_STREAM)
        made.until = self.until
        made._arm()
        return made

    def _open_tcp(self) -> _TimedSocket:
        failure: OSError | None = None
        for family, _kind, _protocol, _name, address in socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM):
            made = self._new(family)
            try:
                made.connect(address)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return made
            except OSError as error:
                made.close()
                failure = error
        raise failure or OSError(f"{self.host} has no address")

    def _open_unix(self, path: str) -> _TimedSocket:
        made = self._new(socket.AF_UNIX)
        try:
            if len(os.fsencode(path)) <= _SUN_PATH:
                made.connect(path)
                return made
            # The kernel's limit is on the address, not on the path: go through a descriptor of the directory.
            directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                made.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            finally:
                os.close(directory)
            return made
        except BaseException:
            made.close()
            raise


class Client:
    """A connection to one server.

    ``target``: ``http://host:port``, ``https://host:port`` with ``tls``, ``unix:/path/of/socket`` or that path alone.
    ``timeout``: seconds for one call. All methods raise ServerError (a DeviceError with code ``server``) for every
    failure.
    """

    def __init__(
        self, target: str, timeout: float = 10.0, max_response: int = MAX_RESPONSE, tls: LocalTls | None = None
    ) -> None:
        self.target = target
        self.timeout = timeout
        self.max_response = max_response
        self._end = float("inf")
        self._connection = _connection(target, tls)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        self._connection.close()

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """All calls inside end within ``seconds``; nested deadlines only shorten."""
        before = self._end
        self._end = min(before, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._end = before

    def time_left(self) -> float:
        """Seconds until the deadline that is in force (infinite without one)."""
        return self._end - time.monotonic()

    # The protocol's calls

    def live(self) -> bool:
        """Whether the process answers at all."""
        return self._call("GET", "/v2/health/live", accept=(200, 503))[0] == 200

    def server_ready(self) -> bool:
        """Whether the server is ready to infer."""
        return self._call("GET", "/v2/health/ready", accept=(200, 503))[0] == 200

    def ready(self, model: str, version: str | None = None) -> Ready:
        """What serves a model (or one version of it). Not loaded is an answer (``ready`` False), not an error."""
        status, _headers, body = self._call("GET", _model(model, version) + "/ready", accept=(200, 404, 503))
        if status != 200 and not body.strip().startswith(b"{"):
            return Ready(False)
        told = parse_object(body, f"{self.target}: ready") if body.strip() else {}
        named = {key: told.get(key) for key in ("version", "variant", "digest", "start_id", "boot_id")}
        texts = {key: str(value) for key, value in named.items() if value is not None}
        return Ready(status == 200 and told.get("ready") is not False, **texts)

    def metadata(self, model: str, version: str | None = None) -> dict[str, Any]:
        """The model's inputs, outputs and platform."""
        return self._json("GET", _model(model, version))

    def infer(self, model: str, inputs: Call | Iterable[Tensor], version: str | None = None) -> Answer:
        """Run one request. A Call made once by encode_call() is sent without encoding it again."""
        call = inputs if isinstance(inputs, Call) else encode_call(inputs)
        began = time.perf_counter()
        _status, headers, body = self._call("POST", _model(model, version) + "/infer", call.body, call.headers)
        seconds = time.perf_counter() - began
        return decode_answer(body, headers.get(HEADER_LENGTH), headers.get("X-Edgeai-Digest"), seconds)

    def load(
        self,
        model: str,
        candidate_version: str | None = None,
        candidate_variant: str | None = None,
        timeout: float = 120.0,
    ) -> dict[str, Any]:
        """Load what the store's current link names, or a staged release as candidate beside it.

        ``timeout``: seconds; verifying and warming up a model takes longer than a request.
        """
        parameters = {"candidate_version": candidate_version, "candidate_variant": candidate_variant}
        given = {key: value for key, value in parameters.items() if value is not None}
        path = f"/v2/repository/models/{quote(model, safe='')}/load"
        return self._json("POST", path, _parameters(given), max(timeout, self.timeout))

    def unload(self, model: str) -> dict[str, Any]:
        """Stop serving a model."""
        return self._json("POST", f"/v2/repository/models/{quote(model, safe='')}/unload", _parameters({}))

    def drop_candidate(self, model: str) -> dict[str, Any]:
        """Drop the candidate beside a model; no error when there is none."""
        path = f"/v2/repository/models/{quote(model, safe='')}/unload"
        try:
            return self._json("POST", path, _parameters({"drop_candidate": True}))
        except ServerError as error:
            if error.status == 404:
                return {}
            raise

    def shadow(self, model: str, candidate_version: str, requests: int, seconds: float) -> dict[str, Any]:
        """Have a candidate compared on what clients send within ``seconds``, at most ``requests`` of it.

        Returns requests, rows, errors, agreement (0..1 or None), max_difference, digest, incumbent.
        """
        wish = {"candidate_version": candidate_version, "requests": requests, "seconds": seconds}
        path = f"/v2/repository/models/{quote(model, safe='')}/shadow"
        return self._json("POST", path, _parameters(wish), 2 * seconds + self.timeout)

    def metrics(self) -> list[Sample]:
        """The server's counters."""
        return parse_metrics(self._call("GET", "/metrics")[2].decode("utf-8", "replace"))

    # HTTP

    def _json(self, method: str, path: str, body: bytes | None = None, timeout: float | None = None) -> dict[str, Any]:
        answer = self._call(method, path, body, {"Content-Type": "application/json"}, timeout=timeout)[2]
        return parse_object(answer, f"{self.target}: {path}") if answer.strip() else {}

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (200,),
        timeout: float | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        where = f"{self.target}: {method} {path}"
        until = min(self._end, time.monotonic() + (timeout or self.timeout))
        reused = self._connection.sock is not None
        try:
            try:
                status, told, answer = self._exchange(method, path, body, headers or {}, until)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if not reused:
                    raise
                # A kept connection that the server closed while it was idle: once more, on a new one.
                self._connection.close()
                status, told, answer = self._exchange(method, path, body, headers or {}, until)
        except socket.timeout as error:
            self._connection.close()
            raise ServerError(f"{where}: no answer in time", timed_out=True) from error
        except (OSError, http.client.HTTPException, DeviceError) as error:
            self._connection.close()
            text = str(error) or type(error).__name__
            raise ServerError(f"{where}: {text}") from error
        if status not in accept:
            raise _refusal(where, status, answer)
        return status, told, answer

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], until: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self._connection
        connection.until = until
        if isinstance(connection.sock, (_TimedSocket, _TimedTlsSocket)):
            connection.sock.until = until
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        declared = response.length
        if declared is not None and declared > self.max_response:
            raise ServerError(f"the answer has {declared} bytes, at most {self.max_response} are read")
        answer = response.read(self.max_response + 1) if declared is None else response.read()
        if len(answer) > self.max_response:
            raise ServerError(f"the answer is larger than {self.max_response} bytes")
        return response.status, response.headers, answer


def _connection(target: str, tls: LocalTls | None = None) -> _Connection:
    path = target[len("unix:") :] if target.startswith("unix:") else target
    if path.startswith("/"):
        return _Connection("localhost", None, "/" + path.lstrip("/"))
    parts = urlsplit(target)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != ("https" if tls else "http") or not host:
        wanted = "https://host:port (a certificate is given)" if tls else "http://host:port, or unix:/path of a socket"
        raise ServerError(f"server url {target!r}: write {wanted}")
    return _Connection(host, port or (443 if tls else 80), None, tls)


def _model(model: str, version: str | None) -> str:
    path = "/v2/models/" + quote(model, safe="")
    return path if version is None else f"{path}/versions/{quote(version, safe='')}"


def _parameters(given: Mapping[str, Any]) -> bytes:
    return json.dumps({"parameters": dict(given)} if given else {}).encode()


def _refusal(where: str, status: int, answer: bytes) -> ServerError:
    text, code = answer[:300].decode("utf-8", "replace").strip(), None
    with contextlib.suppress(ServerError):
        told = parse_object(answer, where)
        text = str(told.get("error", text))
        code = str(told["code"]) if told.get("code") else None
    return ServerError(f"{where}: HTTP {status}: {text}", status=status, refusal=code)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A release on an HTTP server: resumed by Range requests, retried with care, never more bytes than were signed for.

Retried: connection errors, timeouts, truncated answers, 429 and 5xx; at most `MAX_FAILURES` in a row without progress,
each after a random pause (full jitter: a fleet that lost its server together must not come back together). Anything
else, a 404 above all, is final at once. Plain http is refused, except to this machine itself or when allowed.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import random
import ssl
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from ..release.model import MANIFEST_NAME, MAX_MANIFEST, SIGNATURE_NAME
from .blobs import BlobSink
from .errors import DeviceError
from .readback import CHUNK
from .transfer import MAX_SIGNATURE, Patience

if TYPE_CHECKING:
    from ..release.manifest import FileEntry

MAX_FAILURES = 6
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
PROGRESS = 1024 * 1024
MAX_HEADERS_FILE = 64 * 1024
_AGENT = "edgeai-fleet"


class _Retry(Exception):
    """Worth another try; ``after`` is what the server asked to wait, in seconds."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class _Restart(Exception):
    """The server cannot continue a partial file: begin again."""


def pause_before(failure: int, after: float, rand: float) -> float:
    """Seconds to wait before try ``failure`` + 1: full jitter, not below what the server asked (``after``). Pure.

    ``rand`` is uniform in 0..1. Exponential backoff with full jitter: sleep = random(0, min(cap, base * 2 ** n)).
    """
    ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, failure - 1))
    return min(LONGEST_PAUSE, max(rand * ceiling, after))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(url: str, allow_http: bool) -> str:
    """Return the URL without a trailing slash. Raises DeviceError(bad_input) for schemes and forms that are refused."""
    parts = urllib.parse.urlsplit(url)
    shown = urllib.parse.urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))
    if parts.username or parts.password:
        raise DeviceError("bad_input", f"source.url: {shown} carries a password; use source.headers_file")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeviceError("bad_input", f"source.url: {shown!r} is no https URL")
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise DeviceError("bad_input", f"source.url: {shown} is plain http; use https, or set source.allow_http")
    return url.rstrip("/")


def release_url(url: str, model: str, version: str) -> str:
    """``url`` itself when it ends in ``/<model>/<version>``, else ``url/<model>/<version>``. Pure."""
    tail = "/" + urllib.parse.quote(model) + "/" + urllib.parse.quote(version)
    return url if url.endswith(tail) else url + tail


def read_headers(path: str) -> dict[str, str]:
    """``Name: value`` lines of a file that nobody else can read. Raises DeviceError(bad_input)."""
    try:
        info = os.stat(path)
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise DeviceError("bad_input", f"source.headers_file: {path} can be read by others; chmod 0600")
        with open(path, encoding="latin-1") as handle:
            lines = handle.read(MAX_HEADERS_FILE).splitlines()
    except OSError as exc:
        raise DeviceError("bad_input", f"source.headers_file: {path}: {exc.strerror}") from exc
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon or not name.strip() or " " in name.strip():
            raise DeviceError("bad_input", f"source.headers_file: {path}: a line is not 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never out of https, and without the caller's headers to another host."""

    def __init__(self, allow_http: bool, private: set[str]) -> None:
        self._allow_http, self._private = allow_http, {name.lower() for name in private}

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request to follow, or DeviceError."""
        if req.type == "https" and not newurl.startswith("https:"):
            raise DeviceError("bad_input", f"source.url: the server redirects from https to {newurl}; refused")
        check_url(newurl, self._allow_http)
        follow = super().redirect_request(req, fp, code, msg, headers, newurl)
        if follow is not None and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
            for name in [n for n in follow.headers if n.lower() in self._private]:
                del follow.headers[name]
        return follow


class HttpSource:
    """See the module's text."""

    def __init__(
        self,
        url: str,
        model: str,
        version: str,
        patience: Patience,
        ca_path: str | None = None,
        headers_file: str | None = None,
        allow_http: bool = False,
    ) -> None:
        self.base = release_url(check_url(url, allow_http), model, version)
        self._patience = patience
        self._headers = read_headers(headers_file) if headers_file else {}
        handlers: list[Any] = [_Redirect(allow_http, set(self._headers))]
        if self.base.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_tls(ca_path)))
        elif is_loopback(urllib.parse.urlsplit(self.base).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's loopback
        self._opener = urllib.request.build_opener(*handlers)

    def manifest(self) -> bytes:
        """The bytes of release.json."""
        return self._small(MANIFEST_NAME, MAX_MANIFEST)

    def signature(self) -> bytes:
        """The bytes of model.sig."""
        return self._small(SIGNATURE_NAME, MAX_SIGNATURE)

    def finish(self) -> None:
        """Nothing to do."""

    def _url(self, path: str) -> str:
        return self.base + "/" + urllib.parse.quote(path)

    def _open(self, url: str, headers: dict[str, str]) -> Any:
        """One request; its answer (200 or 206), or `_Retry`, `_Restart`, DeviceError."""
        self._patience.check(url)
        headers = {"Accept-Encoding": "identity", "User-Agent": _AGENT, **self._headers, **headers}
        try:
            timeout = max(0.1, min(self._patience.socket, self._patience.left()))
            return self._opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code == 416:
                raise _Restart from exc
            if exc.code == 429 or exc.code >= 500:
                raise _Retry(f"{url}: HTTP {exc.code}", _retry_after(exc.headers.get("Retry-After"))) from exc
            raise DeviceError("unreachable", f"{url}: HTTP {exc.code} {exc.reason}; not tried again") from exc
        except ssl.SSLCertVerificationError as exc:
            raise _untrusted(url, exc) from exc
        except urllib.error.URLError as exc:
            if isinstance(exc.reason, ssl.SSLCertVerificationError):
                raise _untrusted(url, exc.reason) from exc
            raise _Retry(f"{url}: {exc.reason}") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise _Retry(f"{url}: {exc or type(exc).__name__}") from exc

    def _wait(self, failure: int, error: _Retry) -> None:
        if failure >= MAX_FAILURES:
            raise DeviceError("unreachable", f"{error}; gave up after {failure} tries without progress") from error
        pause = pause_before(failure, error.after, random.random())
        if pause >= self._patience.left():
            raise DeviceError("deadline", f"{error}; no time left to try again") from error
        time.sleep(pause)

    def _small(self, name: str, limit: int) -> bytes:
        failure = 0
        while True:
            try:
                with self._open(self._url(name), {}) as answer:
                    data = _read(answer, limit + 1, name)
                if len(data) > limit:
                    raise DeviceError("bad_input", f"{self._url(name)}: longer than {limit} bytes; refused")
                return data
            except _Retry as exc:
                failure += 1
                self._wait(failure, exc)
            except _Restart:
                raise DeviceError("unreachable", f"{self._url(name)}: HTTP 416 for a whole file") from None

    def fetch(self, entry: FileEntry, sink: BlobSink) -> None:
        """Download one file into the sink, continuing what is there when the server still has the same."""
        failure, mark = 0, sink.offset
        while sink.offset < entry.size:
            try:
                self._attempt(entry, sink)
            except _Restart:
                sink.restart()
                failure, mark = failure + 1, 0
                if failure >= MAX_FAILURES:
                    raise DeviceError("unreachable", f"{self._url(entry.path)}: Range requests lead nowhere") from None
            except _Retry as exc:
                failure = 1 if sink.offset - mark >= PROGRESS else failure + 1
                mark = sink.offset
                self._wait(failure, exc)

    def _attempt(self, entry: FileEntry, sink: BlobSink) -> None:
        url, resumed = self._url(entry.path), sink.offset
        headers = {}
        if resumed:
            headers["Range"] = f"bytes={resumed}-"
            validator = _validator(sink.note(), url)
            if validator:
                headers["If-Range"] = validator
        with self._open(url, headers) as answer:
            start = _start_of(answer, url, entry.size)
            if start != resumed:
                sink.restart()
            if start != sink.offset:
                raise _Restart
            _check_length(answer, url, entry.size - start, entry.size)
            sink.set_note(_make_note(answer, url))
            self._body(answer, url, entry, sink)

    def _body(self, answer: Any, url: str, entry: FileEntry, sink: BlobSink) -> None:
        buffer = memoryview(bytearray(CHUNK))
        while sink.offset < entry.size:
            self._patience.check(url)
            try:
                count = answer.readinto(buffer[: min(CHUNK, entry.size - sink.offset)])
            except (OSError, http.client.HTTPException) as exc:
                raise _Retry(f"{url}: {exc or type(exc).__name__} after {sink.offset} bytes") from exc
            if not count:
                raise _Retry(f"{url}: the answer ended after {sink.offset} of {entry.size} bytes")
            sink.write(buffer[:count])


def _tls(ca_path: str | None) -> ssl.SSLContext:
    try:
        if ca_path and os.path.isdir(ca_path):
            context = ssl.create_default_context(capath=ca_path)
        else:
            context = ssl.create_default_context(cafile=ca_path or None)
    except (OSError, ssl.SSLError) as exc:
        raise DeviceError("bad_input", f"source.ca_path: {ca_path}: {exc}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _untrusted(url: str, exc: ssl.SSLCertVerificationError) -> DeviceError:
    return DeviceError(
        "unreachable", f"{url}: the server's certificate is not trusted ({exc.verify_message}); see source.ca_path"
    )


def _retry_after(value: str | None) -> float:
    # Only the form in seconds: the other one is a date, and this clock may be wrong.
    return float(value) if value and value.strip().isdigit() else 0.0


def _read(answer: Any, limit: int, name: str) -> bytes:
    try:
        data: bytes = answer.read(limit)
    except (OSError, http.client.HTTPException) as exc:
        raise _Retry(f"{name}: {exc or type(exc).__name__}") from exc
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and len(data) < min(limit, int(length)):
        raise _Retry(f"{name}: the answer ended after {len(data)} of {length} bytes")
    return data


def _start_of(answer: Any, url: str, size: int) -> int:
    """The offset at which the answer begins: 0 for a 200, what Content-Range says for a 206."""
    if answer.status == 200:
        return 0
    field = answer.headers.get("Content-Range", "")
    unit, _space, rest = field.partition(" ")
    span, _slash, total = rest.partition("/")
    first = span.partition("-")[0]
    if answer.status != 206 or unit != "bytes" or not first.isdigit():
        raise DeviceError("unreachable", f"{url}: HTTP {answer.status} with Content-Range {field!r}")
    if total.isdigit() and int(total) != size:
        raise DeviceError("digest_mismatch", f"{url}: the server has {total} bytes, release.json lists {size}; refused")
    return int(first)


def _check_length(answer: Any, url: str, expected: int, size: int) -> None:
    length = answer.headers.get("Content-Length")
    if length is not None and length.isdigit() and int(length) != expected:
        raise DeviceError(
            "digest_mismatch",
            f"{url}: the server would send {length} bytes where {expected} are expected (release.json lists {size}); "
            "refused",
        )


def _make_note(answer: Any, url: str) -> bytes:
    tag = answer.headers.get("ETag") or ""
    # A weak tag does not promise the same bytes and must not be used with If-Range (RFC 9110, 13.1.5).
    validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified") or ""
    return json.dumps({"url": url, "validator": validator}).encode()


def _validator(note: bytes, url: str) -> str:
    """What to put into If-Range; empty when nothing is known (the digest decides then)."""
    try:
        known = json.loads(note or b"{}")
        return str(known["validator"]) if known.get("url") == url else ""
    except (ValueError, KeyError, AttributeError):
        return ""

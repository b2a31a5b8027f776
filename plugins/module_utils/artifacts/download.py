# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A file from a web server: streamed, hashed while it is written, continued where it broke off.

Retried: connections that fail or end early, 429 and 5xx, at most `MAX_FAILURES` times in a row without progress, each
after a random pause. Anything else, a 404 above all, is final at once. Proxies are those of the environment.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from typing import Any, BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import open_url

from ..device.http_source import is_loopback, pause_before
from ..release.digests import CHUNK
from .errors import ArtifactError, as_artifact_error

MAX_FAILURES = 5
MAX_SMALL = 1024 * 1024


class _Retry(Exception):
    """Worth another try."""


class Hashes:
    """The SHA-256 of what passes by, and its SHA-512 when the digest that is ``wanted`` is one."""

    def __init__(self, wanted: str = "") -> None:
        self._sha256 = hashlib.sha256()
        self._sha512 = hashlib.sha512() if len(wanted) > 64 else None
        self.size = 0

    def update(self, data: bytes) -> None:
        """Count in some bytes."""
        self.size += len(data)
        self._sha256.update(data)
        if self._sha512:
            self._sha512.update(data)

    def read(self, source: BinaryIO) -> None:
        """Count in the rest of an open file."""
        while True:
            data = source.read(CHUNK)
            if not data:
                return
            self.update(data)

    @property
    def sha256(self) -> str:
        """The SHA-256 as hex."""
        return self._sha256.hexdigest()

    @property
    def found(self) -> str:
        """The digest of the kind that is wanted."""
        return (self._sha512 or self._sha256).hexdigest()


class Web:
    """Downloads. ``requests`` counts what was asked, ``received`` the bytes of files."""

    def __init__(self, ca_path: str | None = None, timeout: int = 60, pause: float = 1.0) -> None:
        """pause: factor of the pauses between tries; timeout: seconds without a byte."""
        self._ca_path, self._timeout, self._pause = ca_path, timeout, pause
        self.requests = 0
        self.received = 0

    def small(self, url: str) -> str:
        """The text of a small file. Raises ArtifactError."""
        failures = 0
        while True:
            try:
                with self._open(url, 0) as answer:
                    data = bytes(answer.read(MAX_SMALL + 1))
                if len(data) > MAX_SMALL:
                    raise ArtifactError(f"{url}: has more than {MAX_SMALL} bytes, so it is no list of checksums")
                _refuse_short(answer, len(data), url)
                return data.decode("utf-8", "replace")
            except (_Retry, OSError) as error:
                failures += 1
                self._wait(failures, error, url)

    def file(self, url: str, part: str, digest: str) -> Hashes:
        """Download to ``part``, whose bytes are kept when they are the beginning; flushed to the disk on return.

        :param digest: what it has to be, hex SHA-256 or SHA-512

        Raises ArtifactError. ``part`` then holds what arrived, or is gone when that was something else.
        """
        resumed = os.path.exists(part)
        hashes = self._whole(url, part, digest)
        if hashes.found != digest and resumed:  # what was there may have been another file's beginning
            os.unlink(part)
            hashes = self._whole(url, part, digest)
        if hashes.found != digest:
            os.unlink(part)
            raise ArtifactError(f"{url}: has the digest {hashes.found}, wanted is {digest}; it was not kept")
        return hashes

    def _whole(self, url: str, part: str, digest: str) -> Hashes:
        failures = 0
        try:
            while True:
                before = os.path.getsize(part) if os.path.exists(part) else 0
                try:
                    with as_artifact_error(), open(part, "ab") as sink:
                        return self._attempt(url, part, sink, digest)
                except _Retry as error:
                    failures = 1 if os.path.getsize(part) > before else failures + 1
                    self._wait(failures, error, url)
        except ArtifactError:
            if os.path.exists(part) and not os.path.getsize(part):
                os.unlink(part)
            raise

    def _attempt(self, url: str, part: str, sink: BinaryIO, digest: str) -> Hashes:
        hashes = Hashes(digest)
        with open(part, "rb") as present:
            hashes.read(present)
        with self._open(url, hashes.size) as answer:
            if hashes.size and answer.status != 206:
                sink.truncate(0)
                hashes = Hashes(digest)
            start = hashes.size
            while True:
                try:
                    data = answer.read(CHUNK)
                except Exception as error:  # http.client and ssl have errors that are no OSError
                    raise _Retry(f"{error or type(error).__name__}") from error
                if not data:
                    break
                sink.write(data)
                hashes.update(data)
                self.received += len(data)
            sink.flush()
            _refuse_short(answer, hashes.size - start, url)
        os.fsync(sink.fileno())
        return hashes

    def _open(self, url: str, start: int) -> Any:
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        self.requests += 1
        try:
            answer = open_url(
                url, headers=headers, timeout=self._timeout, ca_path=self._ca_path, decompress=False,
                follow_redirects="safe", http_agent="edgeai-fleet", use_netrc=False,
                use_proxy=not is_loopback(urlsplit(url).hostname or ""),  # a proxy has a loopback of its own
            )  # fmt: skip
        except HTTPError as error:
            if start and error.code == 416:  # nothing is left, or the file is another one: the digest tells
                return _Nothing()
            if error.code == 429 or error.code >= 500:
                raise _Retry(f"HTTP {error.code}") from error
            raise ArtifactError(f"{url}: HTTP {error.code} {error.reason}; is there such a release?") from error
        except Exception as error:  # open_url has errors of its own (ConnectionError, SSLValidationError)
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ArtifactError(f"{url}: the server's certificate is not trusted; see ca_path") from error
            raise _Retry(str(error)) from error
        if url.startswith("https:") and not str(answer.geturl()).startswith("https:"):
            answer.close()
            raise ArtifactError(f"{url}: the server redirects to {answer.geturl()}, which is not https; refused")
        return answer

    def _wait(self, failures: int, error: Exception, url: str) -> None:
        if failures >= MAX_FAILURES:
            raise ArtifactError(f"{url}: {error}; gave up after {failures} tries without progress") from error
        time.sleep(self._pause * pause_before(failures, 0.0, random.random()))


class _Nothing:
    """The answer when the server says that nothing follows what is there."""

    status = 206

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def read(self, _size: int) -> bytes:
        """No bytes."""
        return b""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


def _refuse_short(answer: Any, received: int, url: str) -> None:
    length = str(answer.headers.get("Content-Length") or "")
    if length.isdigit() and received < int(length):
        raise _Retry(f"the answer ended after {received} of {length} bytes")

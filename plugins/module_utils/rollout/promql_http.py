# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The wire to Prometheus: instant queries by POST, bounded in time and size. Secrets stay in this object's memory."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

from ansible.module_utils.urls import open_url

from .errors import RolloutError, field_error
from .promql_policy import Prometheus

Answer = Mapping[str, Any]
MAX_ANSWER = 64 * 1024 * 1024
_BLOCK = 1 << 16
_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PAUSES = (0.25, 0.5, 1.0, 2.0)


class Client:
    """Asks one Prometheus until a deadline. Never raises for what the other side does: it answers with an error.

    read: returns the text of a file (the action's loader, which also opens vault-encrypted files);
    wait: sleeps so many seconds, or raises when there is no reason to go on.
    """

    def __init__(
        self, settings: Prometheus, read: Callable[[str], str], wait: Callable[[float], None] = time.sleep
    ) -> None:
        """Read the credentials. Raises RolloutError for a file that is missing or says nothing."""
        self._settings = settings
        self._wait = wait
        self._headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        self._headers.update(_secret_headers(settings, read))
        self._until = time.monotonic() + settings.deadline
        self._at: float | None = None
        self._known: dict[str, Answer] = {}
        for name in ("ca_path", "client_cert", "client_key"):
            path = getattr(settings, name)
            if path and not os.access(os.path.expanduser(path), os.R_OK):
                raise field_error("edge_policy", f"prometheus.{name}", path, "there is no such file to read here")

    def now(self) -> float | str:
        """Begin: return Prometheus' own time (POSIX, s), which every following query is about, or why there is none."""
        self._until = time.monotonic() + self._settings.deadline
        answer = self.ask("time()")
        try:
            self._at = float(answer["data"]["result"][1])
        except (KeyError, TypeError, ValueError, IndexError):
            kind, error = answer.get("errorType") or "error", answer.get("error") or "its answer is not that of its API"
            return f"Prometheus: {kind}: {error}"
        self._known.clear()
        return self._at

    def ask(self, expr: str) -> Answer:
        """Return the API's answer to an instant query; the same question is asked once."""
        if expr not in self._known:
            self._known[expr] = self._ask(expr)
        return self._known[expr]

    def _ask(self, expr: str) -> Answer:
        form = {"query": expr, "timeout": f"{self._settings.timeout}s"}
        if self._at is not None:
            form["time"] = f"{self._at:.3f}"
        body = urlencode(form).encode("ascii")
        for attempt in range(10**6):
            left = self._until - time.monotonic()
            if left <= 0:
                break
            last, again = self._post(body, min(float(self._settings.timeout), left))
            pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
            if not again or time.monotonic() + pause >= self._until:
                return last
            self._wait(pause)
        return _error("timeout", f"no time left of the {self._settings.deadline} s that asking may take")

    def _post(self, body: bytes, timeout: float) -> tuple[Answer, bool]:
        """One request: (answer, whether it makes sense to try again)."""
        settings = self._settings
        try:
            response = open_url(
                f"{settings.url}/api/v1/query",
                data=body,
                headers=self._headers,
                method="POST",
                timeout=timeout,
                ca_path=os.path.expanduser(settings.ca_path) or None,
                client_cert=os.path.expanduser(settings.client_cert) or None,
                client_key=os.path.expanduser(settings.client_key) or None,
                # a redirect would carry the credentials to whoever it names
                follow_redirects="none",
                http_agent="edgeai.fleet",
            )
            return _parsed(_read(response, time.monotonic() + timeout)), False
        except HTTPError as error:
            return _http_error(error, time.monotonic() + timeout), error.code in _RETRIED
        except ssl.SSLCertVerificationError as error:
            return _error("tls", str(error)), False
        except URLError as error:
            reason = error.reason
            return _error("unreachable", str(reason)), not isinstance(reason, ssl.SSLCertVerificationError)
        except (OSError, ValueError, http.client.HTTPException) as error:
            return _error("unreachable", str(error) or type(error).__name__), True
        except Exception as error:  # open_url has errors of its own (ConnectionError, SSLValidationError, NoSSLError)
            return _error("unreachable", str(error) or type(error).__name__), False


def _secret_headers(settings: Prometheus, read: Callable[[str], str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    if settings.headers_file:
        for number, line in enumerate(_file(read, "headers_file", settings.headers_file).splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, value = line.partition(":")
            if not colon or not _NAME.fullmatch(name) or not value.strip():
                # the line itself may be a secret
                raise RolloutError(f"{settings.headers_file}: line {number} is no header: write 'Name: value'")
            headers[name] = value.strip()
    if settings.token_file:
        headers["Authorization"] = "Bearer " + _file(read, "token_file", settings.token_file).strip()
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            where = settings.token_file if name == "Authorization" and settings.token_file else settings.headers_file
            raise RolloutError(f"{where}: a header may hold printable ASCII only, on one line")
    return headers


def _file(read: Callable[[str], str], name: str, path: str) -> str:
    try:
        content = read(os.path.expanduser(path))
    except RolloutError:
        raise
    except Exception as error:  # the loader's own kinds, a wrong vault password among them
        why = getattr(error, "strerror", None) or type(error).__name__
        raise field_error("edge_policy", f"prometheus.{name}", path, f"it cannot be read: {why}") from error
    if not content.strip():
        raise field_error("edge_policy", f"prometheus.{name}", path, "the file is empty")
    return content


def _read(response: Any, until: float) -> bytes:
    """The body, within the time and MAX_ANSWER bytes."""
    blocks: list[bytes] = []
    size = 0
    while True:
        block = response.read1(_BLOCK) if hasattr(response, "read1") else response.read(_BLOCK)
        if not block:
            return b"".join(blocks)
        blocks.append(block)
        size += len(block)
        if size > MAX_ANSWER:
            raise ValueError(f"the answer is larger than {MAX_ANSWER} bytes")
        if time.monotonic() > until:
            raise TimeoutError("the answer takes too long")


def _parsed(body: bytes) -> Answer:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return _error("bad_answer", "the answer is not JSON: is this the address of Prometheus?")
    return answer if isinstance(answer, Mapping) else _error("bad_answer", "the answer is not that of its API")


def _http_error(error: HTTPError, until: float) -> Answer:
    """What an HTTP error says: the API's own words where it gave them."""
    try:
        answer = _parsed(_read(error, until)) if error.fp else {}
    except (OSError, ValueError):
        answer = {}
    if answer.get("status") == "error" and answer.get("errorType") != "bad_answer":
        return answer
    if 300 <= error.code < 400:
        where = error.headers.get("Location") if error.headers else None
        return _error("redirect", f"it redirects to {where}: set prometheus.url to where it really is")
    return _error("http", f"HTTP {error.code} {error.reason}")


def _error(kind: str, text: str) -> Answer:
    return {"status": "error", "errorType": kind, "error": text}

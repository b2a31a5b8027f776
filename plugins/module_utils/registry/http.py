# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Requests to a registry: where it is, who asks, and one function that sends. Secrets come from files or variables."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import open_url

from .errors import RegistryError

PIECE = 1 << 20
MAX_ANSWER = 16 << 20
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ARGUMENTS: dict[str, Any] = {
    "tracking_uri": {"type": "str"},
    "token_file": {"type": "path", "no_log": False},
    "token_env": {"type": "str", "default": "MLFLOW_TRACKING_TOKEN", "no_log": False},
    "username": {"type": "str"},
    "password_file": {"type": "path", "no_log": False},
    "password_env": {"type": "str", "default": "MLFLOW_TRACKING_PASSWORD", "no_log": False},
    "ca_path": {"type": "path"},
    "plain_http": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 60},
}
"""Options of everything that asks a registry; see the documentation fragment registry."""


@dataclass(frozen=True)
class Server:
    """A registry. ``authorization`` is the header's value; it is in no repr, no log and no error."""

    url: str
    authorization: str | None = field(default=None, repr=False)
    ca_path: str | None = None
    timeout: int = 60


def server_from(options: Mapping[str, Any], environment: Mapping[str, str]) -> Server:
    """Return the server that options and environment name. Raises RegistryError.

    A token goes before user name and password. Over plain HTTP a secret is only sent to this machine itself, unless
    ``plain_http`` says otherwise.
    """
    url = str(options.get("tracking_uri") or environment.get("MLFLOW_TRACKING_URI") or "").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RegistryError(
            f"the address of the MLflow server is {url!r}: set tracking_uri, or MLFLOW_TRACKING_URI in the "
            "environment, to one that begins with https:// or http://"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise RegistryError("the address of the MLflow server holds a secret, a query or a fragment: take that out")
    authorization = _authorization(options, environment)
    if authorization and parts.scheme == "http" and parts.hostname not in LOOPBACK and not options.get("plain_http"):
        raise RegistryError(
            f"{url}: a secret would cross the network in the clear: use https, or allow it with plain_http"
        )
    return Server(url, authorization, options.get("ca_path"), int(options.get("timeout") or 60))


def _authorization(options: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    token = _secret(options.get("token_file"), environment.get(options.get("token_env") or "MLFLOW_TRACKING_TOKEN"))
    if token:
        return f"Bearer {token}"
    user = options.get("username") or environment.get("MLFLOW_TRACKING_USERNAME")
    if not user:
        return None
    name = options.get("password_env") or "MLFLOW_TRACKING_PASSWORD"
    password = _secret(options.get("password_file"), environment.get(name))
    if password is None:
        raise RegistryError(f"there is no password for {user!r}: give password_file, or set {name} in the environment")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def _secret(path: str | None, value: str | None) -> str | None:
    """The first line of a file, or the value; None when there is neither."""
    if not path:
        return value or None
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as source:
            text = source.read(8192).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"{path}: the secret cannot be read: {error}") from error
    if not text or not text.isprintable():
        raise RegistryError(f"{path}: holds no secret on one line")
    return text


def call(server: Server, method: str, path: str, data: Any = None) -> Any:
    """Send one request and return the answer's JSON. Raises RegistryError with what the server said."""
    with _opened(server, method, path, data) as answer:
        raw = answer.read(MAX_ANSWER + 1)
    try:
        if len(raw) > MAX_ANSWER:
            raise ValueError(f"it has more than {MAX_ANSWER} bytes")
        return json.loads(raw.decode("utf-8") or "{}")
    except ValueError as error:
        raise RegistryError(f"{method} {server.url}{path}: the answer is not JSON: {error}") from error


def stream(server: Server, path: str) -> Iterator[bytes]:
    """Yield the bytes behind a path, piece by piece. Raises RegistryError."""
    with _opened(server, "GET", path, None) as answer:
        while True:
            try:
                piece = answer.read(PIECE)
            except OSError as error:
                raise RegistryError(f"GET {server.url}{path}: broke off: {error}") from error
            if not piece:
                return
            yield piece


def _opened(server: Server, method: str, path: str, data: Any) -> Any:
    headers = {"Authorization": server.authorization} if server.authorization else {}
    if data is not None:
        headers["Content-Type"] = "application/json"
    url = server.url + path
    try:
        return open_url(
            url,
            method=method,
            headers=headers,
            data=None if data is None else json.dumps(data),
            timeout=server.timeout,
            ca_path=server.ca_path,
            follow_redirects="none",
        )
    except HTTPError as error:
        raise RegistryError(f"{method} {url}: {error.code}: {_said(error)}") from error
    except Exception as error:  # open_url has errors of its own (ConnectionError, SSLValidationError, NoSSLError)
        raise RegistryError(
            f"{method} {url}: {error}: is this the address of the MLflow server, and does it run?"
        ) from error


def _said(error: HTTPError) -> str:
    """The server's own words for an error, else the status."""
    if error.code in (401, 403):
        return "the server wants other credentials: token_file or MLFLOW_TRACKING_TOKEN, or a user name and password"
    try:
        told = json.loads(error.read(65536).decode("utf-8"))
        return str(told.get("message") or error.reason)[:500]
    except (OSError, ValueError, AttributeError):
        return str(error.reason)

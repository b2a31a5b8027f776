# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What provisioning wrote about this device: ``<edge_root>/device.json``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import DeviceError


@dataclass(frozen=True)
class Settings:
    """The fields of device.json that the server and the supervisor need."""

    device_id: str
    url: str
    host: str
    port: int
    python: str
    runtime: str | None


def _field(where: str, field: str, value: Any, fix: str) -> DeviceError:
    return DeviceError("bad_input", f"{where}: {field} is {json.dumps(value)}: {fix}")


def parse_settings(raw: bytes, where: str) -> Settings:
    """Parse device.json. Unknown fields are left alone: provisioning may know more than this program.

    Raises DeviceError (bad_input) that names the field and how to fix it.
    """
    try:
        data = json.loads(raw)
    except ValueError as exc:
        raise DeviceError("bad_input", f"{where} is not JSON ({exc}): run the provisioning again") from exc
    if not isinstance(data, dict):
        raise _field(where, "the document", data, "it must be a JSON object")
    server = data.get("server")
    url = server.get("url") if isinstance(server, dict) else None
    if not isinstance(url, str):
        raise _field(where, "server.url", url, "it must be a URL like http://127.0.0.1:9001")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise _field(where, "server.url", url, "it must be a URL like http://127.0.0.1:9001") from exc
    if parts.scheme != "http" or not host or port is None or parts.path not in ("", "/"):
        raise _field(where, "server.url", url, "it must be http://<address>:<port> with nothing behind the port")
    python = data.get("python") or sys.executable
    if not isinstance(python, str) or not os.path.isabs(python):
        raise _field(where, "python", python, "it must be the absolute path of an interpreter")
    runtime = data.get("runtime")
    return Settings(str(data.get("device_id") or ""), url, host, port, python, runtime if runtime else None)


def load_settings(edge_root: str) -> Settings:
    """Read ``<edge_root>/device.json``; raises DeviceError when it is missing or wrong."""
    path = os.path.join(edge_root, "device.json")
    try:
        with open(path, "rb") as handle:
            raw = handle.read(1 << 20)
    except OSError as exc:
        raise DeviceError("bad_input", f"{path} cannot be read ({exc}): provision this device first") from exc
    return parse_settings(raw, path)

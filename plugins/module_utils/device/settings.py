# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""``<edge_root>/device.json``: what provisioning says about a device. The one parser, for whoever writes or reads it.

Writing is strict: an unknown field is refused. Reading leaves unknown fields alone, because provisioning may be newer
than the program that reads; a known field with a wrong value is refused by both.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import urlsplit

from .errors import DeviceError

SETTINGS_FILE = "device.json"
RUNTIMES = ("onnxruntime", "openvino", "litert", "tensorrt")
_MAX_BYTES = 1 << 20
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}\$?")
_URL_FIX = "give http://ADDRESS:PORT (https:// with tls) with nothing behind the port"


@dataclass(frozen=True)
class Tls:
    """Absolute paths of PEM files on the device. With ``client_ca`` a client has to show a certificate of it."""

    certificate: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True)
class ServerSettings:
    """Where the model server listens. ``host`` has no brackets; ``tls`` is None for plain HTTP."""

    url: str
    host: str
    port: int
    tls: Tls | None = None

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "https" if self.tls else "http"

    @property
    def local_url(self) -> str:
        """Where a client on this device finds the server: the loopback address when it listens on every address."""
        return join_url(self.scheme, _WILDCARDS.get(self.host, self.host), self.port)


@dataclass(frozen=True)
class Settings:
    """A device's settings. ``server`` is None on a device that only stores releases, and while nobody said.

    ``server_said`` tells these two apart. ``reserve_mib`` is space that no release may take, ``service_user`` and
    ``service_group`` own ``run/`` and ``log/`` (None: whoever writes device.json).
    """

    device_id: str = ""
    server: ServerSettings | None = None
    server_said: bool = False
    sysroot: str = "/"
    runtime: str | None = None
    accelerator: str | None = None
    python: str = sys.executable
    reserve_mib: int | None = None
    redundancy_group: str | None = None
    site: str | None = None
    service_user: str | None = None
    service_group: str | None = None

    # Of a device that has a server, as `load_settings` gives it.

    @property
    def url(self) -> str:
        """The server's URL. Raises DeviceError on a device without a server."""
        return self.needed_server().url

    @property
    def host(self) -> str:
        """The server's address. Raises DeviceError on a device without a server."""
        return self.needed_server().host

    @property
    def port(self) -> int:
        """The server's port. Raises DeviceError on a device without a server."""
        return self.needed_server().port

    def needed_server(self, where: str = SETTINGS_FILE) -> ServerSettings:
        """The server, where there must be one. Raises DeviceError(bad_input)."""
        if self.server is None:
            raise bad_value(where, "server.url", None, f"this device has no model server; {_URL_FIX} to give it one")
        return self.server


def join_url(scheme: str, host: str, port: int) -> str:
    """``scheme://host:port`` with the brackets that an IPv6 address needs."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bad_value(where: str, field: str, value: Any, fix: str) -> DeviceError:
    """The error for one field: file, field, value and what to do."""
    return DeviceError("bad_input", f"{where}: {field}: {json.dumps(value, default=str)} cannot be used; {fix}")


# -- one check per field: (where, field, value) -> the value to keep; only for values that are there

Check = Callable[[str, str, Any], Any]


def _text(where: str, field: str, value: Any) -> str | None:
    if not isinstance(value, str):
        raise bad_value(where, field, value, "give a text")
    return value.strip() or None


def _path(where: str, field: str, value: Any) -> str:
    if not isinstance(value, str) or not os.path.isabs(value):
        raise bad_value(where, field, value, "give an absolute path")
    return value


def _runtime(where: str, field: str, value: Any) -> str | None:
    if value and value not in RUNTIMES:
        raise bad_value(where, field, value, "use one of {}".format(", ".join(RUNTIMES)))
    return value or None


def _count(where: str, field: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad_value(where, field, value, "give a whole number that is not negative")
    return value


def _account(where: str, field: str, value: Any) -> str:
    if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
        raise bad_value(where, field, value, "give the name of a system account")
    return value


def _server(where: str, field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise bad_value(where, field + ".url", value, 'give {"url": ...}, or null for a device without a server')
    unknown = sorted(set(value) - {"url", "tls"})
    if unknown:
        raise bad_value(where, f"{field}.{unknown[0]}", value[unknown[0]], "known fields are url, tls")
    url = value.get("url")
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port is not None
    except ValueError:
        whole = False
    if not whole or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise bad_value(where, field + ".url", url, _URL_FIX)
    tls = _tls(where, field + ".tls", value.get("tls"))
    if (parts.scheme == "https") != (tls is not None):
        raise bad_value(where, field + ".tls", tls, f"{parts.scheme}:// and tls do not go together: https needs it")
    return {"url": join_url(parts.scheme, str(parts.hostname), int(parts.port or 0)), "tls": tls}


def _tls(where: str, field: str, value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    names = ("certificate", "key", "client_ca")
    if not isinstance(value, Mapping) or not set(value) <= set(names):
        raise bad_value(where, field, value, "give certificate, key and perhaps client_ca: paths of PEM files")
    for name in names:
        if value.get(name) is not None or name != "client_ca":
            _path(where, f"{field}.{name}", value.get(name))
    return {name: value.get(name) for name in names}


#: Every field of device.json. A new one is a line here and an attribute of `Settings`.
CHECKS: dict[str, Check] = {
    "device_id": _text,
    "server": _server,
    "sysroot": _path,
    "runtime": _runtime,
    "accelerator": _text,
    "python": _path,
    "reserve_mib": _count,
    "redundancy_group": _text,
    "site": _text,
    "service_user": _account,
    "service_group": _account,
}
FIELDS = tuple(CHECKS)


def check_fields(data: Mapping[str, Any], where: str, strict: bool) -> dict[str, Any]:
    """Return every field of `FIELDS` in its normal form, None for what is not set.

    Raises DeviceError(bad_input) for a value that cannot be right and, when ``strict``, for an unknown field.
    """
    unknown = sorted(str(name) for name in set(data) - set(FIELDS)) if strict else []
    if unknown:
        raise bad_value(where, unknown[0], data.get(unknown[0]), "known fields are {}".format(", ".join(FIELDS)))
    return {name: None if data.get(name) is None else check(where, name, data[name]) for name, check in CHECKS.items()}


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what device.json should say, every field in it. Raises DeviceError(bad_input), also for unknown fields."""
    full = check_fields(settings, "settings", strict=True)
    if not full["device_id"]:
        raise bad_value(
            "settings", "device_id", settings.get("device_id"), "give the device's name, for example its inventory name"
        )
    full["sysroot"] = full["sysroot"] or "/"
    return full


def parse_settings(raw: bytes, where: str) -> Settings:
    """Parse device.json; ``where`` names it in errors.

    Raises DeviceError: damaged for what is no JSON object, bad_input for a field, with how to fix it.
    """
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise DeviceError("damaged", f"{where}: is not JSON ({exc}); provision the device again") from exc
    if not isinstance(data, dict):
        raise DeviceError("damaged", f"{where}: must be a JSON object; provision the device again")
    fields = check_fields(data, where, strict=False)
    told = fields.pop("server")
    server = None
    if told is not None:
        parts = urlsplit(told["url"])
        tls = Tls(**told["tls"]) if told["tls"] else None
        server = ServerSettings(told["url"], str(parts.hostname), int(parts.port or 0), tls)
    given = {name: value for name, value in fields.items() if value is not None}
    return Settings(server=server, server_said="server" in data, **given)


def read_settings(edge_root: str | None) -> Settings | None:
    """The settings of an edge root, None when provisioning has not written any. Raises DeviceError like the parser."""
    if edge_root is None:
        return None
    path = os.path.join(edge_root, SETTINGS_FILE)
    try:
        with open(path, "rb") as handle:
            raw = handle.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DeviceError("damaged", f"{path}: cannot be read: {exc}; provision the device again") from exc
    return parse_settings(raw, path)


def provisioned(edge_root: str) -> Settings:
    """The settings of a device that is provisioned: they are there and say whether there is a model server.

    Raises DeviceError(bad_input) when not, and like the parser.
    """
    path = os.path.join(edge_root, SETTINGS_FILE)
    settings = read_settings(edge_root)
    if settings is None:
        raise DeviceError("bad_input", f"{path}: is not there; provision this device first")
    if not settings.server_said:
        raise DeviceError(
            "bad_input", f'{path}: server is missing: give {{"url": ...}}, or null for a device without one'
        )
    return settings


def load_settings(edge_root: str) -> Settings:
    """The settings of a device with a model server. Raises DeviceError when they are missing, wrong or have none."""
    settings = provisioned(edge_root)
    settings.needed_server(os.path.join(edge_root, SETTINGS_FILE))
    return settings

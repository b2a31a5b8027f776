# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""device.json: what is written can be read, what cannot be right is refused by name, on both ways."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.settings import (
    FIELDS,
    Settings,
    Tls,
    check_settings,
    load_settings,
    parse_settings,
    provisioned,
    read_settings,
)

TLS = {"certificate": "/t/server.pem", "key": "/t/server.key", "client_ca": None}
GOOD: dict[str, Any] = {
    "device_id": "d",
    "server": {"url": "http://127.0.0.1:9001"},
    "python": "/usr/bin/python3",
    "runtime": "openvino",
}


def parse(**change: Any) -> Settings:
    return parse_settings(json.dumps({**GOOD, **change}).encode(), "device.json")


def test_settings_are_read() -> None:
    settings = parse()
    assert (settings.host, settings.port, settings.python) == ("127.0.0.1", 9001, "/usr/bin/python3")
    assert settings.server and settings.server.tls is None and settings.sysroot == "/"
    assert parse(server={"url": "http://[::1]:9001/"}).host == "::1"
    assert parse(server={"url": "http://127.0.0.1:0"}).port == 0


def test_what_is_not_set_has_its_default() -> None:
    assert parse_settings(b"{}", "device.json") == Settings()
    assert Settings().python == sys.executable and Settings().server_said is False
    empty = dict.fromkeys(FIELDS)
    assert parse_settings(json.dumps(empty).encode(), "device.json") == Settings(server_said=True)


def test_what_is_written_is_what_is_read() -> None:
    server = {"url": "https://[::]:9443/", "tls": dict(TLS, client_ca="/t/ca.pem")}
    written = check_settings({**GOOD, "server": server, "site": " north ", "reserve_mib": 0, "service_user": "edgeai"})
    assert check_settings(written) == written and set(written) == set(FIELDS)
    read = parse_settings(json.dumps(written).encode(), "device.json")
    assert read.server and read.server.url == "https://[::]:9443"
    assert read.server.tls == Tls("/t/server.pem", "/t/server.key", "/t/ca.pem")
    assert (read.site, read.reserve_mib, read.service_user) == ("north", 0, "edgeai")


@pytest.mark.parametrize(
    ("url", "tls", "local"),
    [
        ("http://0.0.0.0:9001", None, "http://127.0.0.1:9001"),
        ("http://[::]:9001", None, "http://[::1]:9001"),
        ("https://0.0.0.0:9001", TLS, "https://127.0.0.1:9001"),
        ("http://10.1.2.3:9001", None, "http://10.1.2.3:9001"),
        ("https://[fe80::1]:9001", TLS, "https://[fe80::1]:9001"),
    ],
)
def test_local_clients_use_the_loopback_when_every_address_is_listened_on(url: str, tls: Any, local: str) -> None:
    server = parse(server={"url": url, "tls": tls}).server
    assert server is not None and server.local_url == local


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"server": "http://127.0.0.1:9001"}, "server.url"),
    ({"server": {}}, "server.url"),
    ({"server": {"url": "https://127.0.0.1:9001"}}, "server.tls"),
    ({"server": {"url": "http://127.0.0.1:9001", "tls": TLS}}, "server.tls"),
    ({"server": {"url": "https://127.0.0.1:9001", "tls": {"certificate": "/a"}}}, "server.tls.key"),
    ({"server": {"url": "https://127.0.0.1:9001", "tls": {**TLS, "key": "server.key"}}}, "server.tls.key"),
    ({"server": {"url": "https://127.0.0.1:9001", "tls": {**TLS, "ciphers": "all"}}}, "server.tls"),
    ({"server": {"url": "http://127.0.0.1:9001", "port": 1}}, "server.port"),
    ({"server": {"url": "http://127.0.0.1"}}, "server.url"),
    ({"server": {"url": "http://127.0.0.1:99999"}}, "server.url"),
    ({"server": {"url": "http://127.0.0.1:9001/v2"}}, "server.url"),
    ({"server": {"url": "http://me@127.0.0.1:9001"}}, "server.url"),
    ({"server": {"url": 9001}}, "server.url"),
    ({"python": "python3"}, "python"),
    ({"sysroot": "machine"}, "sysroot"),
    ({"runtime": "torch"}, "runtime"),
    ({"reserve_mib": -1}, "reserve_mib"),
    ({"reserve_mib": True}, "reserve_mib"),
    ({"reserve_mib": "512"}, "reserve_mib"),
    ({"service_user": "edge ai"}, "service_user"),
    ({"device_id": 7}, "device_id"),
]


@pytest.mark.parametrize(("change", "field"), WRONG)
def test_what_cannot_be_right_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    for refuse in (lambda: parse(**change), lambda: check_settings({**GOOD, **change})):
        with pytest.raises(DeviceError, match=rf": {field}: .*; ") as caught:
            refuse()
        assert caught.value.code == "bad_input"


def test_unknown_fields_are_refused_when_written_and_left_alone_when_read() -> None:
    assert parse(colour="red") == parse()
    with pytest.raises(DeviceError, match=r"settings: colour: \"red\".*known fields are device_id, server"):
        check_settings({**GOOD, "colour": "red"})


@pytest.mark.parametrize("name", [None, "", "  "])
def test_a_device_has_a_name(name: Any) -> None:
    with pytest.raises(DeviceError, match="device_id"):
        check_settings({**GOOD, "device_id": name})


@pytest.mark.parametrize("raw", [b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100000])
def test_a_damaged_file_is_named(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "device.json").write_bytes(raw)
    for read in (read_settings, provisioned, load_settings):
        with pytest.raises(DeviceError, match=str(tmp_path)) as caught:
            read(str(tmp_path))
        assert caught.value.code == "damaged"


def test_a_device_says_explicitly_whether_it_has_a_server(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert read_settings(root) is None and read_settings(None) is None
    with pytest.raises(DeviceError, match="provision this device first"):
        provisioned(root)
    (tmp_path / "device.json").write_text('{"device_id": "x"}')
    with pytest.raises(DeviceError, match="server is missing"):
        provisioned(root)
    (tmp_path / "device.json").write_text('{"device_id": "x", "server": null}')
    assert provisioned(root).server is None
    with pytest.raises(DeviceError, match=r"server\.url: null"):
        load_settings(root)
    (tmp_path / "device.json").write_text('{"device_id": "x", "server": {"url": "http://127.0.0.1:9001"}}')
    assert load_settings(root).url == "http://127.0.0.1:9001"

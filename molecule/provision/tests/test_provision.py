"""Two bare machines after one `provision`: both wait for their first release."""

from __future__ import annotations

import json
from typing import Any


def test_every_unit_is_up(host: Any) -> None:
    for unit in ("edgeai-server", "edgeai-agent"):
        assert host.service(unit).is_running and host.service(unit).is_enabled
    assert host.check_output("systemctl --failed --no-legend --plain").strip() == ""


def test_the_device_says_so_itself(host: Any) -> None:
    found = json.loads(host.run("edgeai-device status --json").stdout)
    assert found["server"] and found["models"] == {} and found["ready"] is False


def test_nothing_secret_lies_about(host: Any) -> None:
    places = "/var/lib/edgeai /opt/edgeai/runtimes/current/edgeai* /etc/systemd"
    # the program itself knows how a key begins
    assert host.run(f"grep -rl --exclude=edgeai-device.pyz 'PRIVATE KEY' {places}").stdout == ""

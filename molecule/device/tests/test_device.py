"""What a prepared machine looks like from outside, before anything runs on it."""

from __future__ import annotations

import json
from typing import Any

ROOT = "/var/lib/edgeai"


def test_the_service_user_can_log_in_nowhere(host: Any) -> None:
    user = host.user("edgeai")
    assert user.exists and user.shell == "/usr/sbin/nologin" and user.uid < 1000
    assert host.check_output("passwd -S edgeai").split()[1] == "L"


def test_the_store_is_roots_and_only_run_and_log_are_the_services(host: Any) -> None:
    owners = {name: host.file(f"{ROOT}{name}").user for name in ("", "/trust/keys", "/lib", "/run", "/log")}
    assert owners == {"": "root", "/trust/keys": "root", "/lib": "root", "/run": "edgeai", "/log": "edgeai"}
    assert host.file(ROOT).mode == 0o755 and host.file(f"{ROOT}/run").mode & 0o007 == 0


def test_only_public_keys_are_there(host: Any) -> None:
    keys = host.file(f"{ROOT}/trust/keys").listdir()
    assert len(keys) == 1
    content = host.file(f"{ROOT}/trust/keys/{keys[0]}").content_string
    assert "PUBLIC KEY" in content and "PRIVATE" not in content


def test_it_knows_who_it_is(host: Any) -> None:
    settings = json.loads(host.file(f"{ROOT}/device.json").content_string)
    assert settings["device_id"] == "lab-01" and settings["site"] == "harbour"
    assert settings["redundancy_group"] == "harbour-gate"

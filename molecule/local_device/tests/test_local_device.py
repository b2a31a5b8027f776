"""What a local device looks like from outside."""

from __future__ import annotations

import json
import os
from typing import Any

ROOT = os.path.join(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "device")


def test_only_public_keys_are_there(host: Any) -> None:
    keys = host.file(f"{ROOT}/trust/keys").listdir()
    assert len(keys) == 1
    content = host.file(f"{ROOT}/trust/keys/{keys[0]}").content_string
    assert "PUBLIC KEY" in content and "PRIVATE" not in content


def test_the_management_socket_is_for_its_owner_alone(host: Any) -> None:
    assert host.file(f"{ROOT}/run").mode == 0o700
    assert host.file(f"{ROOT}/run/server.sock").is_socket
    assert host.file(f"{ROOT}/run/server.sock").mode == 0o600


def test_the_server_lives_and_serves_nothing_yet(host: Any) -> None:
    settings = json.loads(host.file(f"{ROOT}/device.json").content_string)
    assert settings["runtime"] == "onnxruntime" and settings["sysroot"].endswith("x86-no-vnni")
    script = (
        "import sys, urllib.request, urllib.error\n"
        "print(urllib.request.urlopen(sys.argv[1] + '/v2/health/live', timeout=5).status)\n"
        "try:\n    urllib.request.urlopen(sys.argv[1] + '/v2/health/ready', timeout=5)\n"
        "except urllib.error.HTTPError as error:\n    print(error.code)\n"
    )
    done = host.run("python3 -c %s %s", script, settings["server"]["url"])
    assert done.stdout.split() == ["200", "503"], done

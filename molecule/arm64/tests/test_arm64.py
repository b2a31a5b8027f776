"""A rollout on another architecture."""

from __future__ import annotations

import json
from typing import Any


def test_it_is_another_architecture(host: Any) -> None:
    assert host.check_output("uname -m") == "aarch64"


def test_the_release_serves_there_and_is_confirmed(host: Any) -> None:
    found = json.loads(host.run("edgeai-device status --json").stdout)
    model = found["models"]["scale"]
    assert found["ready"] and model["active"]["version"] == "1.1.0" and not model["unconfirmed"]

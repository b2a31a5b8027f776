"""A machine that cannot become a node, seen from outside: nothing was changed."""

from __future__ import annotations

from typing import Any


def test_nothing_is_left(host: Any) -> None:
    for path in ("/etc/rancher", "/opt/edgeai/k3s", "/var/lib/rancher", "/usr/local/bin/k3s"):
        assert not host.file(path).exists
    assert not host.file("/etc/systemd/system/k3s-agent.service").exists

"""A site without internet: everything came from the controller, and nothing looks outside."""

from __future__ import annotations

from typing import Any


def test_there_is_no_way_out(host: Any) -> None:
    assert host.check_output("ip route show default") == ""
    assert host.run("getent hosts pypi.org").rc != 0


def test_it_serves_all_the_same(host: Any) -> None:
    assert host.service("edgeai-server").is_running
    assert host.file("/opt/edgeai/runtimes/current").linked_to.startswith("/opt/edgeai/runtimes/onnxruntime-")

"""The runtime that was promised is there, in an environment of its own."""

from __future__ import annotations

from typing import Any

CURRENT = "/opt/edgeai/runtimes/current"


def test_current_names_an_environment_that_nobody_but_root_can_change(host: Any) -> None:
    link = host.file(CURRENT)
    assert link.is_symlink and link.linked_to.startswith("/opt/edgeai/runtimes/onnxruntime-")
    assert host.run(f"find -L {CURRENT}/ ! -user root -o -perm /022 ! -type l").stdout == ""


def test_the_promised_provider_runs(host: Any) -> None:
    code = "import onnxruntime; print(onnxruntime.get_available_providers())"
    assert "CPUExecutionProvider" in host.check_output(f"{CURRENT}/bin/python -c '{code}'")


def test_what_verifies_releases_is_in_it(host: Any) -> None:
    host.check_output(f"{CURRENT}/bin/python -c 'import cryptography, numpy, starlette, uvicorn, httptools'")

"""KubeEdge's own programs against what is recorded of them, and against what the roles write for them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kubeedge import key_paths, recorded, unknown

VERSION = "v1.23.1"


@pytest.fixture(params=["edgecore", "cloudcore"])
def program(request: pytest.FixtureRequest) -> str:
    """The name of a program that is there."""
    if not binary(request.param).is_file():
        pytest.skip(f"EDGEAI_ARTIFACTS holds no {request.param} {VERSION}")
    return str(request.param)


def binary(name: str) -> Path:
    """Where a program is in a directory of artifacts, signed or as it was built."""
    home = Path(os.environ.get("EDGEAI_ARTIFACTS", "/nonexistent")) / "kubeedge" / VERSION
    signed = home / os.uname().machine / name
    return signed if signed.is_file() else home / name


def printed(name: str) -> Any:
    """The settings that a program prints as its reference."""
    done = subprocess.run(
        [str(binary(name)), "--defaultconfig"], capture_output=True, text=True, timeout=120, check=True
    )
    return yaml.safe_load(done.stdout)


def test_the_record_is_what_the_program_prints(program: str) -> None:
    assert key_paths(printed(program)) == recorded(program)


def test_the_program_knows_every_setting_that_the_role_writes(program: str) -> None:
    assert unknown(program, key_paths(printed(program))) == set()

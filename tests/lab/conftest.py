"""Fixtures of the tests that need real devices: one lab for the session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.lab_fleet import make_wheelhouse

from lab.api import Lab
from lab.state import held

HERE = Path(__file__).resolve().parent
SESSION_SECONDS = 1800  # as long as a session waits for another one that uses the lab
PRIORITY = -5  # what devices and plays against them have before other tests: their deadlines are real
TIMEOUT = 4200  # seconds; the first test of a machine waits for its images, too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test below this directory is marked ``lab`` and may take long."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(TIMEOUT))


def _counts() -> tuple[int, int]:
    return int(os.environ.get("EDGEAI_LAB_DEVICES", "6")), int(os.environ.get("EDGEAI_LAB_ARM64", "1"))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab, up: six devices of this machine's architecture (EDGEAI_LAB_DEVICES).

    The image of the emulated ones is built meanwhile; see ``mixed_lab``. One session at a time uses the lab. At the end
    it goes down, unless it was up before or EDGEAI_LAB_KEEP=1.
    """
    lab = Lab()
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    with held(lab.home.with_name(f"{lab.home.name}.session"), SESSION_SECONDS), ThreadPoolExecutor() as pool:
        keep = bool(lab.devices) or os.environ.get("EDGEAI_LAB_KEEP") == "1"
        devices, arm64 = _counts()
        try:
            lab.up(devices, 0)
            if arm64:
                pool.submit(lab.build_images, devices, arm64)  # should it fail, ``mixed_lab`` says so
            yield lab
        finally:
            if not keep:
                lab.down()


@pytest.fixture(scope="session")
def mixed_lab(lab: Lab) -> Lab:
    """The lab with its emulated arm64 device (EDGEAI_LAB_ARM64)."""
    lab.up(*_counts())
    return lab


@pytest.fixture(scope="session")
def wheelhouse(lab: Lab) -> Path:
    """The signed wheelhouse for the lab's devices, as molecule's scenarios have it; its keys are in ../keys."""
    return make_wheelhouse(lab)

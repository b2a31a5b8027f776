"""A real web server with what stands for the projects' release pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.upstream import publish
from support.web import Web as Server

from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys, signing


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    publish(tmp_path / "upstream")
    server = Server(tmp_path / "upstream")
    yield server
    server.close()


@pytest.fixture
def bases(server: Server) -> dict[str, str]:
    return {name: f"{server.url}/{name}/{{version}}" for name in ("k3s", "kubeedge", "kubeedge-crds", "cni")}


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> signing.Signer:
    place = tmp_path_factory.mktemp("key")
    keys.generate_key(place / "key.pem", place / "key.pub.pem")
    return signing.load_signer(place / "key.pem")

"""What stands for the projects' release pages: a real web server over a directory, and small files in it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.web import Web as Server

from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys, signing

K3S = "v1.32.5+k3s1"
KUBEEDGE = "v1.23.1"


def tarball(members: dict[str, bytes]) -> bytes:
    """A .tar.gz with these regular files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def publish(root: Path) -> None:
    """K3s, KubeEdge and CNI plugins for two architectures, with the checksum files their projects publish."""
    for word, suffix in (("amd64", ""), ("arm64", "-arm64")):
        place = root / "k3s" / "v1.32.5%2Bk3s1"
        place.mkdir(parents=True, exist_ok=True)
        files = {
            f"k3s{suffix}": f"k3s for {word} ".encode() * 5000,
            f"k3s-airgap-images-{word}.tar.zst": word.encode() * 3,
        }
        lines = ""
        for name, content in files.items():
            (place / name).write_bytes(content)
            lines += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        (place / f"sha256sum-{word}.txt").write_text(lines)

        place = root / "kubeedge" / KUBEEDGE
        place.mkdir(parents=True, exist_ok=True)
        inside = f"kubeedge-{KUBEEDGE}-linux-{word}"
        content = tarball(
            {
                f"{inside}/cloud/cloudcore/cloudcore": f"cloudcore {word}".encode(),
                f"{inside}/edge/edgecore": f"edgecore {word}".encode(),
                f"{inside}/version": b"v1.23.1",
            }
        )
        (place / f"{inside}.tar.gz").write_bytes(content)
        (place / f"checksum_{inside}.tar.gz.txt").write_text(hashlib.sha512(content).hexdigest() + "\n")


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

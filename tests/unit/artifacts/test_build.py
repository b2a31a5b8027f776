"""A directory of artifacts: built, kept, mended, replaced as a whole; what fails leaves it as it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.certificates import NOW
from support.web import Web as Server

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.build import Built, build
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.directory import open_artifacts
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.download import Web
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.gather import plan, read_components
from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys, signing

K3S = {"name": "k3s", "version": "v1.32.5+k3s1"}
KUBEEDGE = {"name": "kubeedge", "version": "v1.23.1", "only": ["edgecore", "cloudcore"]}
BOTH = ("x86_64", "aarch64")


class Maker:
    """Builds one directory again and again."""

    def __init__(self, path: Path, bases: dict[str, str], signer: signing.Signer) -> None:
        self.path, self.bases, self.signer = path, bases, signer
        self.web = Web(pause=0.001)

    def __call__(self, *components: dict[str, Any], **options: Any) -> Built:
        self.web = Web(pause=0.001)
        items = plan(read_components(components, BOTH), self.bases)
        return build(str(self.path), items, options.pop("signer", self.signer), self.web, **options)

    def verify(self) -> list[str]:
        opened = open_artifacts(self.path, keys.Trust(keys=(self.signer.key.public_key(),)), NOW, whole=True)
        return sorted(map(str, opened.manifest.entries))


@pytest.fixture
def make(tmp_path: Path, bases: dict[str, str], signer: signing.Signer) -> Maker:
    return Maker(tmp_path / "site/artifacts", bases, signer)


def everything(path: Path) -> dict[str, bytes]:
    return {str(item.relative_to(path)): item.read_bytes() for item in path.rglob("*") if item.is_file()}


def test_built_once(make: Maker, server: Server) -> None:
    predicted = make(K3S, KUBEEDGE, check=True)
    assert "it is not there" in predicted.reasons and not make.path.parent.exists() and not server.requests
    built = make(K3S, KUBEEDGE)
    assert built.reasons == predicted.reasons and len(built.entries) == 8 and make.web.requests == 10
    assert make.verify() == sorted(map(str, built.entries))
    listed = json.loads((make.path / "artifacts.json").read_text())["components"]
    assert listed["k3s"]["v1.32.5+k3s1"]["aarch64"]["k3s"]["path"] == "k3s/v1.32.5+k3s1/aarch64/k3s-arm64"
    assert sorted(listed["kubeedge"]["v1.23.1"]["aarch64"]) == ["cloudcore", "edgecore"]
    assert os.listdir(make.path.parent) == ["artifacts"]
    assert not [name for name in everything(make.path) if name.endswith((".tar.gz", ".part"))]
    before = everything(make.path)
    again = make(K3S, KUBEEDGE)
    assert not again.reasons and make.web.requests == 0 and everything(make.path) == before
    assert len(again.entries) == 8


def test_more_and_less(make: Maker) -> None:
    make(K3S)
    inode = (make.path / "k3s/v1.32.5+k3s1/x86_64/k3s").stat().st_ino
    more = make({**K3S, "architectures": ["x86_64"]}, KUBEEDGE)
    assert "add kubeedge v1.23.1 (aarch64): edgecore" in more.reasons
    assert "remove k3s v1.32.5+k3s1 (aarch64): images" in more.reasons
    assert make.web.requests == 4 and (make.path / "k3s/v1.32.5+k3s1/x86_64/k3s").stat().st_ino == inode
    assert not (make.path / "k3s/v1.32.5+k3s1/aarch64").exists() and len(make.verify()) == 6


def alter(path: Path) -> None:
    path.write_bytes(path.read_bytes().swapcase())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    path.rename(path.parent.parent.parent.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent.parent.parent.parent / "elsewhere")


def add(path: Path) -> None:
    (path.parent / "added").write_text("x")


@pytest.mark.parametrize("tamper", [alter, truncate, link, add, Path.unlink], ids=lambda value: value.__name__)
def test_tampered_files_are_mended_with_what_was_signed(make: Maker, server: Server, tamper: Any) -> None:
    make(K3S)
    path = make.path / "k3s/v1.32.5+k3s1/aarch64/k3s-arm64"
    tamper(path)
    with pytest.raises(ArtifactError):
        make.verify()
    predicted = make(K3S, check=True)
    assert predicted.reasons and make.web.requests == 0
    # Upstream's checksum file has come into other hands meanwhile: it is not asked.
    (server.root / "k3s/v1.32.5%2Bk3s1/sha256sum-arm64.txt").write_text("")
    assert make(K3S).reasons == predicted.reasons and make.web.requests == (0 if tamper is add else 1)
    assert len(make.verify()) == 4 and not make(K3S).reasons


def test_an_altered_listing_vouches_for_nothing(make: Maker) -> None:
    make(K3S)
    path, listing = make.path / "k3s/v1.32.5+k3s1/aarch64/k3s-arm64", make.path / "artifacts.json"
    document = json.loads(listing.read_text())
    path.write_bytes(b"evil")
    entry = document["components"]["k3s"]["v1.32.5+k3s1"]["aarch64"]["k3s"]
    entry.update(sha256=hashlib.sha256(b"evil").hexdigest(), size=4)
    listing.write_text(json.dumps(document))
    built = make(K3S)
    assert "is not the one that was signed" in built.reasons[0] and path.read_bytes() != b"evil"
    assert make.web.requests == 3  # two checksum files and the one file: the others are there, and right


def test_unsigned_is_finished_with_what_is_there(make: Maker) -> None:
    make(K3S)
    (make.path / "model.sig").unlink()
    (make.path / "artifacts.json").unlink()
    (make.path / "k3s/v1.32.5+k3s1/aarch64/k3s-arm64").unlink()
    assert make(K3S).reasons and make.web.requests == 3 and len(make.verify()) == 4


def test_a_build_that_fails_leaves_all_and_the_next_goes_on(make: Maker, server: Server) -> None:
    make(KUBEEDGE)
    before = everything(make.path)
    images = server.root / "k3s/v1.32.5%2Bk3s1/k3s-airgap-images-arm64.tar.zst"
    images.rename(server.root / "later")
    with pytest.raises(ArtifactError, match=r"k3s-airgap-images-arm64\.tar\.zst: HTTP 404"):
        make(K3S, KUBEEDGE)
    assert everything(make.path) == before and make.verify()
    (server.root / "later").rename(images)
    make(K3S, KUBEEDGE)
    assert make.web.requests == 3 and len(make.verify()) == 8  # two checksum files, and what was missing
    assert os.listdir(make.path.parent) == ["artifacts"]


def test_files_of_ones_own(make: Maker, tmp_path: Path) -> None:
    image = tmp_path / "pause-amd64.tar"
    image.write_bytes(b"an image")
    file = {"name": "pause", "architecture": "x86_64", "path": str(image)}
    images = {"name": "images", "version": "1.0", "files": [file]}
    make(images)
    assert make.verify() == ["images 1.0 (x86_64): pause"] and not make(images).reasons
    image.write_bytes(b"another image")
    assert make(images).reasons == ("replace images 1.0 (x86_64): pause: another digest is given",)
    image.unlink()
    with pytest.raises(ArtifactError, match=r"pause-amd64\.tar: cannot be read"):
        make(images)
    file["sha256"] = hashlib.sha256(b"another image").hexdigest()
    assert not make(images).reasons


def test_another_key_starts_over_with_what_is_right(make: Maker, tmp_path: Path, signer: signing.Signer) -> None:
    make(K3S)
    keys.generate_key(tmp_path / "new.pem", tmp_path / "new.pub.pem")
    make.signer = signing.load_signer(tmp_path / "new.pem")
    assert "not trusted here" in make(K3S).reasons[0] and make.web.requests == 2 and len(make.verify()) == 4


def test_refused(make: Maker, tmp_path: Path) -> None:
    make.path.mkdir(parents=True)
    (make.path / "thesis.tex").write_text("x")
    with pytest.raises(ArtifactError, match=r"holds 'thesis\.tex', which is no part"):
        make(K3S)
    shutil.rmtree(make.path)
    make.path.write_text("x")
    with pytest.raises(ArtifactError, match="is not a directory"):
        make(K3S)

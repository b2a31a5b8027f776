"""A release through other programs: skopeo copies it, podman and containerd mount it, and it is still itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module
from support.releases import make_release, write_trust
from support.servers import wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now, verify_release


def needs(*programs: str) -> None:
    """Skip where a program is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def call(*command: Any) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Site:
    """A packed release, as a layout and as an archive."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.release = make_release(base / "made", version="1.1.0", payload=os.urandom(3_000_000))
        write_trust(base / "trust")
        self.keys = [str(path) for path in (base / "trust" / "keys").iterdir()]
        packed = run_module("release_pack", self.arguments(self.release, base / "oci"))
        self.digest, self.image = packed["digest"], packed["image_digest"]
        run_module("release_pack", self.arguments(self.release, base / "oci.tar"))

    def arguments(self, path: Path, dest: Path) -> dict[str, Any]:
        return {"path": path, "dest": dest, "public_keys": self.keys}

    def is_the_release(self, directory: Path) -> bool:
        """Whether a directory is it, whole and signed."""
        verified = verify_release(directory, Trust.load(self.base / "trust"), utc_now())
        return verified.manifest.digest == self.digest

    def comes_back(self, path: Path, name: str) -> bool:
        """Whether it can be unpacked from what another program wrote."""
        done = run_module("release_unpack", self.arguments(path, self.base / name))
        assert done.get("changed"), done
        return self.is_the_release(Path(done["path"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("oci"))


def test_skopeo_knows_it_copies_it_and_compresses_it(site: Site) -> None:
    needs("skopeo")
    one = f"oci:{site.base}/oci:1.1.0"
    assert site.image in call("skopeo", "inspect", one)
    call("skopeo", "copy", "--all", one, f"oci:{site.base}/all:there")
    call("skopeo", "copy", "--preserve-digests", one, f"oci:{site.base}/kept:1.1.0")
    kept = {path.name for path in (site.base / "kept" / "blobs" / "sha256").iterdir()}
    assert kept < {path.name for path in (site.base / "oci" / "blobs" / "sha256").iterdir()}
    call("skopeo", "copy", one, f"oci-archive:{site.base}/one.tar:1.1.0")
    call("skopeo", "copy", f"oci-archive:{site.base}/oci.tar:1.1.0", f"oci:{site.base}/from-archive:1.1.0")
    # As a registry's client sends it.
    call("skopeo", "copy", "--dest-compress", "--dest-compress-format=gzip", one, f"dir:{site.base}/sent")
    call("skopeo", "copy", f"dir:{site.base}/sent", f"oci:{site.base}/gzip:1.1.0")
    assert "tar+gzip" in call("skopeo", "inspect", "--raw", f"oci:{site.base}/gzip:1.1.0")
    for name in ("all", "kept", "one.tar", "from-archive", "gzip"):
        assert site.comes_back(site.base / name, f"out-{name}")


def test_podman_mounts_it_as_the_release_directory_that_it_was(site: Site) -> None:
    needs("podman")
    if os.geteuid():
        pytest.skip("podman mounts images as root")
    podman = [
        "podman",
        f"--root={site.base}/p",
        f"--runroot={site.base}/r",
        "--storage-driver=vfs",
        "--log-level=error",
    ]
    call(*podman, "load", "-i", site.base / "oci.tar")
    name = call(*podman, "images", "-q").split()[0]
    try:
        assert site.is_the_release(Path(call(*podman, "image", "mount", name).strip()))
        call(*podman, "save", "--format=oci-archive", "-o", site.base / "saved.tar", name)
        assert site.comes_back(site.base / "saved.tar", "out-podman")
    finally:
        call(*podman, "image", "unmount", "--all")


@pytest.fixture
def containerd(site: Site) -> Iterator[list[str]]:
    """ctr for a containerd of the test's own."""
    needs("containerd", "ctr")
    if os.geteuid():
        pytest.skip("containerd runs as root")
    home = Path("/tmp") / f"edgeai-oci-{os.getpid()}"  # its socket's path may be 107 bytes long
    home.mkdir()
    settings = ["version = 2", f'root = "{site.base}/c"', f'state = "{home}"']
    settings += ['disabled_plugins = ["io.containerd.grpc.v1.cri"]', "[grpc]", f'address = "{home}/s"']
    (home / "c.toml").write_text("\n".join(settings) + "\n")
    with (site.base / "containerd.log").open("wb") as log:
        process = subprocess.Popen(
            ["containerd", "--config", str(home / "c.toml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        ctr = ["ctr", "--address", str(home / "s"), "--namespace", "k8s.io"]

        def answers() -> bool:
            return subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode == 0

        wait_for(answers, 90, "containerd answers")
        yield ctr
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def test_containerd_imports_it_by_digest_and_mounts_it(site: Site, containerd: list[str]) -> None:
    pinned = f"localhost/digits@{site.image}"
    names = ["--digests", "--base-name=localhost/digits", "--snapshotter=native"]
    call(*containerd, "images", "import", *names, site.base / "oci.tar")
    assert pinned in call(*containerd, "images", "ls", "-q").split()
    mounted = site.base / "mounted"
    mounted.mkdir()
    call(*containerd, "images", "mount", "--snapshotter=native", pinned, mounted)
    try:
        assert site.is_the_release(mounted)
    finally:
        call(*containerd, "images", "unmount", mounted)

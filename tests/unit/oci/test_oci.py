"""A release as an OCI image: the same bytes for the same release, and nothing unsigned comes out of a layout."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.modules import run_module
from support.releases import make_release, write_trust

from ansible_collections.edgeai.fleet.plugins.module_utils.oci import layout as reading
from ansible_collections.edgeai.fleet.plugins.module_utils.oci.documents import LAYER, RELEASE, digest_of, encode
from ansible_collections.edgeai.fleet.plugins.module_utils.oci.pack import Packed, pack
from ansible_collections.edgeai.fleet.plugins.module_utils.oci.unpack import Unpacked, unpack
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now, verify_release

MODEL = "variants/onnxruntime/int8/model.onnx"


class Site:
    """A release, its layout, and who is trusted."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.release = make_release(base / "made", version="1.1.0")
        self.trust = Trust.load(write_trust(base / "trust"))
        self.layout = base / "oci"

    def pack(self, dest: Path | None = None, release: Path | None = None, check: bool = False) -> Packed:
        return pack(str(release or self.release), str(dest or self.layout), self.trust, utc_now(), check)

    def unpack(self, path: Path | None = None, **options: Any) -> Unpacked:
        return unpack(str(path or self.layout), str(self.base / "out"), self.trust, utc_now(), **options)

    def blob(self, digest: str) -> Path:
        return self.layout / "blobs" / "sha256" / digest.partition(":")[2]

    def load(self, digest: str) -> Any:
        return json.loads(self.blob(digest).read_bytes())

    def save(self, raw: bytes) -> tuple[str, int]:
        digest = digest_of(raw)
        self.blob(digest).write_bytes(raw)
        return digest, len(raw)

    def rewrite(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the image's manifest and put it alone into the layout, every digest right again."""
        index = json.loads((self.layout / "index.json").read_bytes())
        image = self.load(self.load(index["manifests"][0]["digest"])["manifests"][0]["digest"])
        change(image)
        digest, size = self.save(encode(image))
        index["manifests"] = [{"mediaType": image["mediaType"], "digest": digest, "size": size}]
        (self.layout / "index.json").write_bytes(encode(index))

    def replace_layer(self, number: int, raw: bytes, kind: str = LAYER) -> None:
        digest, size = self.save(raw)

        def change(image: dict[str, Any]) -> None:
            image["layers"][number] = {"mediaType": kind, "digest": digest, "size": size}

        self.rewrite(change)

    def layer(self, number: int) -> bytes:
        index = json.loads((self.layout / "index.json").read_bytes())
        image = self.load(self.load(index["manifests"][0]["digest"])["manifests"][0]["digest"])
        return self.blob(image["layers"][number]["digest"]).read_bytes()

    def left(self) -> list[str]:
        out = self.base / "out"
        return sorted(os.listdir(out)) if out.exists() else []


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def tar(*members: tuple[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda member: None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            change(member)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("name", ["oci", "oci.tar"])
def test_what_went_in_comes_out_and_a_second_time_nothing_happens(site: Site, name: str) -> None:
    dest = site.base / name
    assert site.pack(dest, check=True).changed and not dest.exists()
    assert site.pack(dest).changed and not site.pack(dest).changed and not site.pack(dest, check=True).changed
    assert site.unpack(dest, check=True).changed and not site.left()
    done = site.unpack(dest)
    assert done.changed and done.path == str(site.base / "out" / "digits" / "1.1.0") and site.left() == ["digits"]
    again = site.unpack(dest)
    assert not again.changed and again.key_id == done.key_id
    names = verify_release(done.path, site.trust, utc_now()).files
    for path in (*names, "model.sig"):
        assert Path(done.path, path).read_bytes() == (site.release / path).read_bytes()


@pytest.mark.parametrize("name", ["oci", "oci.tar"])
def test_the_same_release_is_the_same_bytes_from_anywhere(site: Site, name: str) -> None:
    copy = site.base / "elsewhere" / "copy"
    shutil.copytree(site.release, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    one, two = site.base / "1" / name, site.base / "2" / name
    assert site.pack(one).image == site.pack(two, copy).image
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()] if one.is_dir() else [Path()]
    assert files and all((one / path).read_bytes() == (two / path).read_bytes() for path in files)


def test_releases_share_the_layers_of_variants_that_they_share(site: Site) -> None:
    payload = {"onnxruntime/int8": b"same" * 500}
    digests = []
    for version in ("2.0.0", "2.1.0"):
        release = make_release(site.base / "more", version=version, payload=payload)
        site.layout = site.base / version
        site.pack(release=release)
        digests.append({path.name for path in (site.layout / "blobs" / "sha256").iterdir()})
    shared = [
        path for path in digests[0] & digests[1] if b"same" * 500 in (site.layout / "blobs/sha256" / path).read_bytes()
    ]
    assert len(shared) == 1


def test_a_damaged_layout_is_made_again_and_something_else_is_not_replaced(site: Site) -> None:
    site.pack()
    before = sorted((site.layout / "blobs" / "sha256").iterdir())
    before[0].write_bytes(b"x")
    assert site.pack().changed and digest_of(before[0].read_bytes()) == f"sha256:{before[0].name}"
    (site.base / "mine").mkdir()
    with pytest.raises(ReleaseError, match="not an image layout"):
        site.pack(site.base / "mine")
    (site.base / "mine.tar").symlink_to("elsewhere")
    with pytest.raises(ReleaseError, match="not an archive"):
        site.pack(site.base / "mine.tar")


def test_nothing_unsigned_or_altered_is_packed(site: Site) -> None:
    unsigned = make_release(site.base / "unsigned", sign_key=False)
    foreign = make_release(site.base / "foreign", sign_key=ec.generate_private_key(ec.SECP256R1()))
    (site.release / MODEL).write_bytes(b"altered")
    for release in (unsigned, foreign, site.release):
        with pytest.raises(ReleaseError):
            site.pack(release=release)
    assert not site.layout.exists()


def test_nothing_of_an_unsigned_or_foreign_release_is_unpacked(site: Site) -> None:
    site.pack()
    with tarfile.open(fileobj=io.BytesIO(site.layer(0))) as archive:
        assert archive.getnames() == ["model.sig", "release.json"]
    raw = (site.release / "release.json").read_bytes()
    site.replace_layer(0, tar(("release.json", raw)))
    with pytest.raises(ReleaseError, match=r"no model.sig; the release is not signed"):
        site.unpack()
    site.trust = Trust.load(write_trust(site.base / "others", ec.generate_private_key(ec.SECP256R1())))
    shutil.rmtree(site.layout)
    with pytest.raises(ReleaseError, match="not trusted here"):
        trusted = Trust.load(site.base / "trust")
        pack(str(site.release), str(site.layout), trusted, utc_now())
        site.unpack()
    assert site.left() == []


def test_an_altered_listing_is_not_read(site: Site) -> None:
    site.pack()
    raw = (site.release / "release.json").read_bytes().replace(b'"security_counter": 1', b'"security_counter": 9')
    site.replace_layer(0, tar(("model.sig", (site.release / "model.sig").read_bytes()), ("release.json", raw)))
    with pytest.raises(ReleaseError, match="is not the one that was signed"):
        site.unpack()


def escape(name: str) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = tarfile.SYMTYPE, name, 0

    return change


def device(member: tarfile.TarInfo) -> None:
    member.type, member.size = tarfile.CHRTYPE, 0


def hard(member: tarfile.TarInfo) -> None:
    member.type, member.linkname, member.size = tarfile.LNKTYPE, "release.json", 0


EVIL = {
    "dots": (tar(("../../escaped", b"x")), "'../../escaped', a file that the release does not have"),
    "absolute": (tar(("/tmp/escaped-oci-test", b"x")), "that the release does not have"),
    "unlisted": (tar(("variants/onnxruntime/int8/extra", b"x")), "that the release does not have"),
    "symlink": (tar((MODEL, b""), change=escape("/etc/passwd")), "a link, a device or a directory"),
    "parent-link": (tar(("variants", b""), change=escape("/tmp")), "a link, a device or a directory"),
    "hardlink": (tar((MODEL, b""), change=hard), "a link, a device or a directory"),
    "device": (tar((MODEL, b""), change=device), "a link, a device or a directory"),
    "short": (tar((MODEL, b"x")), "has 1 bytes"),
    "large": (tar((MODEL, b"x" * 100_000)), "has 100000 bytes"),
    "again": (tar(("release.json", b"{}")), "that the release does not have"),
    "many": (tar(*[(MODEL, b"")] * 50), "has 0 bytes"),
    "no-tar": (b"\x01" * 4096, "is no layer that can be read"),
}


@pytest.mark.parametrize("kind", sorted(EVIL))
def test_what_the_release_does_not_have_is_refused_and_leaves_nothing(site: Site, kind: str) -> None:
    raw, says = EVIL[kind]
    site.pack()
    site.replace_layer(2, raw)
    with pytest.raises(ReleaseError, match=says.replace(".", r"\.")):
        site.unpack()
    assert site.left() == [] and not Path("/tmp/escaped-oci-test").exists()
    assert not list(site.base.glob("escaped"))


def test_another_content_of_the_right_size_is_found_out(site: Site) -> None:
    site.pack()
    size = (site.release / MODEL).stat().st_size
    site.replace_layer(2, tar((MODEL, b"x" * size)))
    with pytest.raises(ReleaseError, match="was altered"):
        site.unpack()
    assert site.left() == []


def test_a_blob_that_is_not_what_its_name_says_is_refused(site: Site) -> None:
    site.pack()
    for path in sorted((site.layout / "blobs" / "sha256").iterdir()):
        raw = path.read_bytes()
        if b"rootfs" in raw:
            continue  # a configuration is for those who mount the image
        for wrong in (raw + b"x", raw[:-1], bytes([raw[0] ^ 1]) + raw[1:]):
            path.write_bytes(wrong)
            with pytest.raises(ReleaseError):
                site.unpack()
        path.write_bytes(raw)
    assert site.left() == [] and site.unpack().changed


def test_a_compressed_layer_is_taken_and_a_bomb_is_not(site: Site) -> None:
    site.pack()
    site.replace_layer(1, gzip.compress(site.layer(1), mtime=0), LAYER + "+gzip")
    assert site.unpack().changed
    shutil.rmtree(site.base / "out")
    bomb = gzip.compress(tar((MODEL, b"\0" * (64 * 1024 * 1024))))
    shutil.rmtree(site.layout)
    site.pack()
    site.replace_layer(2, bomb, LAYER + "+gzip")
    with pytest.raises(ReleaseError):
        site.unpack()
    assert site.left() == []


def test_an_extended_header_cannot_fill_the_memory(site: Site) -> None:
    out = io.BytesIO()
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, reading.MAX_HEADER + 1
    out.write(header.tobuf(tarfile.USTAR_FORMAT) + b" " * (2 * reading.MAX_HEADER))
    site.pack()
    site.replace_layer(2, out.getvalue())
    with pytest.raises(ReleaseError, match="an extended header of"):
        site.unpack()


def test_zstd_foreign_digests_and_other_documents_are_named(site: Site) -> None:
    site.pack()
    site.replace_layer(2, b"x", LAYER + "+zstd")
    with pytest.raises(ReleaseError, match=r"a layer is .*zstd"):
        site.unpack()
    for broken, says in (
        (b"[]", "is not an object"),
        (b'{"manifests": 1}', "is no list"),
        (b'{"manifests": [{"digest": "sha512:1", "size": 1}]}', "no digest by SHA-256"),
        (b'{"manifests": []}', "no image of a release"),
        (b"[" * 100_000, "is not JSON"),
    ):
        (site.layout / "index.json").write_bytes(broken)
        with pytest.raises(ReleaseError, match=says):
            site.unpack()
    (site.layout / "oci-layout").write_bytes(b'{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(ReleaseError, match=r"version '2\.0\.0'"):
        site.unpack()


def test_the_image_cannot_claim_another_release(site: Site) -> None:
    site.pack()
    site.rewrite(lambda image: image["annotations"].update({RELEASE: "sha256:" + "0" * 64}))
    with pytest.raises(ReleaseError, match="holds release"):
        site.unpack()


def test_a_layout_of_several_releases_asks_which_one(site: Site) -> None:
    site.pack()
    other = Site.__new__(Site)
    other.__dict__.update(site.__dict__)
    other.release, other.layout = make_release(site.base / "other", version="1.2.0"), site.base / "oci2"
    digest = other.pack().image.digest
    shutil.copytree(other.layout / "blobs", site.layout / "blobs", dirs_exist_ok=True)
    both = json.loads((site.layout / "index.json").read_bytes())
    both["manifests"] += json.loads((other.layout / "index.json").read_bytes())["manifests"]
    (site.layout / "index.json").write_bytes(encode(both))
    with pytest.raises(ReleaseError, match="has 2 releases; name one"):
        site.unpack()
    with pytest.raises(ReleaseError, match=r"has no image '9\.9'"):
        site.unpack(reference="9.9")
    assert site.unpack(reference=digest).path.endswith("digits/1.2.0")
    assert site.unpack(reference="1.1.0").path.endswith("digits/1.1.0")
    with pytest.raises(ReleaseError, match="holds release"):
        site.unpack(reference="1.2.0", digest="sha256:" + "1" * 64)


def test_another_release_of_that_version_is_not_overwritten(site: Site) -> None:
    site.pack()
    make_release(site.base / "out", version="1.1.0", counter=7)
    with pytest.raises(ReleaseError, match="is another release"):
        site.unpack()
    (site.base / "out" / "digits" / "1.1.0" / "model.sig").unlink()
    with pytest.raises(ReleaseError, match="is there, and is not this release"):
        site.unpack()


@pytest.mark.parametrize("change", [escape("/etc/passwd"), device], ids=["symlink", "device"])
def test_an_archive_of_links_or_doubles_is_no_layout(site: Site, change: Callable[[tarfile.TarInfo], None]) -> None:
    path = site.base / "evil.tar"
    path.write_bytes(tar(("oci-layout", b""), change=change))
    with pytest.raises(ReleaseError, match="a link or a device"):
        site.unpack(path)
    path.write_bytes(tar(("oci-layout", b"{}"), ("oci-layout", b"{}")))
    with pytest.raises(ReleaseError, match="oci-layout twice"):
        site.unpack(path)
    path.write_bytes(gzip.compress(b"x"))
    with pytest.raises(ReleaseError, match="is no archive"):
        site.unpack(path)
    (site.base / "link.tar").symlink_to(path)
    with pytest.raises(ReleaseError, match="symbolic link"):
        site.unpack(site.base / "link.tar")


def test_the_modules_do_it_and_say_what_they_did(site: Site) -> None:
    keys = [str(path) for path in (site.base / "trust" / "keys").iterdir()]
    args = {"path": site.release, "dest": site.layout, "public_keys": keys}
    packed = run_module("release_pack", args)
    assert packed["changed"] and packed["tag"] == "1.1.0" and packed["image_digest"] in packed["diff"]["after"]
    taken = {"path": site.layout, "dest": site.base / "out", "public_keys": keys}
    assert run_module("release_unpack", taken, check=True)["changed"] and site.left() == []
    done = run_module("release_unpack", taken)
    assert done["changed"] and done["digest"] == packed["digest"] and Path(done["path"], "model.sig").exists()
    assert not run_module("release_unpack", taken)["changed"]
    refused = run_module("release_unpack", {**taken, "path": site.base / "nowhere"})
    assert refused["failed"] and "nowhere" in refused["msg"] and "exception" not in refused

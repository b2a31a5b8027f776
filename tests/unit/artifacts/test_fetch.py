"""Files from a real web server that misbehaves, and from a directory: whole and right, or not there."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest
from support.web import Web as Server

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.download import Web
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.fetch import Fetcher, find_checksum
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.gather import Item, plan, read_components

K3S = {"name": "k3s", "version": "v1.32.5+k3s1", "only": ["k3s"], "architectures": ["x86_64"]}
KUBEEDGE = {"name": "kubeedge", "version": "v1.23.1", "only": ["edgecore", "cloudcore"], "architectures": ["aarch64"]}


def one(component: dict[str, object], bases: dict[str, str]) -> Item:
    (item,) = plan(read_components([component], []), bases)
    return item


def quick() -> Web:
    return Web(timeout=60, pause=0.001)


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_checksum_files_as_upstream_writes_them() -> None:
    a, b, c = "a" * 64, "B" * 64, "c" * 128
    text = f"{a}  k3s-airgap-images-amd64.tar\n{b} *./dist/k3s\n\n# no line\n"
    assert find_checksum(text, "k3s", "here") == b.lower()
    assert find_checksum(c + "\n", "kubeedge.tar.gz", "here") == c
    for wrong in (text.replace("k3s\n", "k3s-arm64\n"), "", "<html>404</html>", f"{a}\n{b}\n", a[:-1] + "  k3s"):
        with pytest.raises(ArtifactError, match="here: says nothing of k3s"):
            find_checksum(wrong, "k3s", "here")


@pytest.mark.parametrize(
    "faults", [[], ["cut"], [503, "cut", "cut"], ["cut", "ignore_range"], ["long"]],
    ids=lambda value: "-".join(map(str, value)) or "none",
)  # fmt: skip
def test_downloads_whole(
    server: Server, bases: dict[str, str], tmp_path: Path, faults: list[int | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not for this machine itself
    web = quick()
    (server.root / "k3s/v1.32.5%2Bk3s1/sha256sum-amd64.txt").rename(server.root / "release.json")  # no faults for it
    item = one(K3S, bases)._replace(checksum_url=server.url + "/release.json")
    server.fail(*faults)
    (entry,) = Fetcher(str(tmp_path / "new"), web).bring(item).values()
    content = (server.root / "k3s/v1.32.5%2Bk3s1/k3s").read_bytes()
    assert (tmp_path / "new" / entry.path).read_bytes() == content and entry.size == len(content)
    assert entry.sha256 == hashlib.sha256(content).hexdigest() and files(tmp_path / "new") == [entry.path]


def test_gives_up(server: Server, bases: dict[str, str], tmp_path: Path) -> None:
    item = one(K3S, bases)
    server.fail(*[503] * 5)
    with pytest.raises(ArtifactError, match=r"sha256sum-amd64\.txt: HTTP 503; gave up after 5 tries"):
        Fetcher(str(tmp_path / "new"), quick()).bring(item)
    (server.root / "k3s/v1.32.5%2Bk3s1/k3s").unlink()
    with pytest.raises(ArtifactError, match="/k3s: HTTP 404"):
        Fetcher(str(tmp_path / "new"), quick()).bring(item)
    assert files(tmp_path / "new") == []
    server.close()
    with pytest.raises(ArtifactError, match="gave up after 5 tries"):
        Fetcher(str(tmp_path / "new"), quick()).bring(item)


def test_goes_on_where_an_earlier_run_broke_off(server: Server, bases: dict[str, str], tmp_path: Path) -> None:
    item, content = one(K3S, bases), (server.root / "k3s/v1.32.5%2Bk3s1/k3s").read_bytes()
    part = tmp_path / "new" / item.folder / "k3s.part"
    for begun, received in (
        (content[:60000], len(content) - 60000),
        (b"X" * 60000, 2 * len(content) - 60000),
        (content, 0),
    ):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(begun)
        web = quick()
        Fetcher(str(tmp_path / "new"), web).bring(item)
        assert part.with_suffix("").read_bytes() == content and web.received == received
        shutil.rmtree(tmp_path / "new")


def test_what_is_not_right_is_not_kept(server: Server, bases: dict[str, str], tmp_path: Path) -> None:
    item = one(K3S, bases)
    (server.root / "k3s/v1.32.5%2Bk3s1/k3s").write_bytes(b"something else")
    with pytest.raises(
        ArtifactError, match=r"/k3s: has the digest [0-9a-f]{64}, wanted is [0-9a-f]{64}; it was not kept"
    ):
        Fetcher(str(tmp_path / "new"), quick()).bring(item)
    assert files(tmp_path / "new") == []
    # A server that says that half a file is all of it.
    shutil.copy(server.root / "k3s/v1.32.5%2Bk3s1/k3s-arm64", server.root / "k3s/v1.32.5%2Bk3s1/k3s")
    server.fail("short")
    whole = hashlib.sha256((server.root / "k3s/v1.32.5%2Bk3s1/k3s").read_bytes()).hexdigest()
    with pytest.raises(ArtifactError, match="it was not kept"):
        Fetcher(str(tmp_path / "new"), quick()).bring(item._replace(digest=whole))
    assert files(tmp_path / "new") == []
    (server.root / "k3s/v1.32.5%2Bk3s1/k3s").write_bytes(b"something else")
    # A digest of one's own goes before upstream's checksum file, which is not asked then.
    before = len(server.requests)
    pinned = one({**K3S, "digests": {"k3s": hashlib.sha512(b"something else").hexdigest()}}, bases)
    Fetcher(str(tmp_path / "new"), quick()).bring(pinned)
    assert len(server.requests) == before + 1


def test_an_archive_gives_only_what_is_wanted(server: Server, bases: dict[str, str], tmp_path: Path) -> None:
    item, new = one(KUBEEDGE, bases), tmp_path / "new"
    entries = {key.file: entry for key, entry in Fetcher(str(new), quick()).bring(item).items()}
    assert (new / entries["edgecore"].path).read_bytes() == b"edgecore arm64"
    assert entries["cloudcore"].path == "kubeedge/v1.23.1/aarch64/cloudcore"
    assert entries["cloudcore"].sha256 == hashlib.sha256(b"cloudcore arm64").hexdigest()
    # An archive with a link where the program should be, or without it.
    for member in ("edge/edgecore", "edge/another"):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as archive:
            info = tarfile.TarInfo("kubeedge-v1.23.1-linux-arm64/" + member)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
        digest = hashlib.sha256(raw.getvalue()).hexdigest()
        (server.root / "kubeedge/v1.23.1/kubeedge-v1.23.1-linux-arm64.tar.gz").write_bytes(raw.getvalue())
        with pytest.raises(ArtifactError, match=r"is no regular file|has no kubeedge-v1"):
            Fetcher(str(tmp_path / member.replace("/", "-")), quick()).bring(item._replace(digest=digest))


def test_from_a_directory_and_checked_the_same_way(server: Server, bases: dict[str, str], tmp_path: Path) -> None:
    disk, item = tmp_path / "disk", one(K3S, bases)
    disk.mkdir()
    upstream = server.root / "k3s/v1.32.5%2Bk3s1"
    shutil.copy(upstream / "k3s", disk)
    fetcher = Fetcher(str(tmp_path / "a"), quick(), str(disk))
    fetcher.bring(item)
    assert [path for path, _headers in server.requests] == ["/k3s/v1.32.5%2Bk3s1/sha256sum-amd64.txt"]
    origin = fetcher.origins["k3s/v1.32.5+k3s1/x86_64/k3s"]
    assert origin.place == str(disk / "k3s") and "sha256sum-amd64.txt says" in origin.proof

    shutil.copy(upstream / "sha256sum-amd64.txt", disk)  # no network at all
    Fetcher(str(tmp_path / "b"), quick(), str(disk)).bring(item)
    assert len(server.requests) == 1

    content = (disk / "k3s").read_bytes()
    for wrong in (content[:-1], content + b"x", b""):
        (disk / "k3s").write_bytes(wrong)
        with pytest.raises(ArtifactError, match=r"disk/k3s: has the digest .* it was not taken"):
            Fetcher(str(tmp_path / "c"), quick(), str(disk)).bring(item)
    (disk / "k3s").unlink()
    (disk / "k3s").symlink_to(upstream / "k3s")
    with pytest.raises(ArtifactError, match="is a symbolic link"):
        Fetcher(str(tmp_path / "c"), quick(), str(disk)).bring(item)
    assert files(tmp_path / "c") == [] and len(server.requests) == 1


def test_programs_without_their_archive_need_digests(bases: dict[str, str], tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "kubeedge" / "v1.23.1"
    disk.mkdir(parents=True)
    digests = {}
    for name in ("edgecore", "cloudcore"):
        (disk / name).write_bytes(name.encode())
        digests[f"aarch64/{name}"] = hashlib.sha256(name.encode()).hexdigest()
    web = quick()
    entries = Fetcher(str(tmp_path / "new"), web, str(tmp_path / "disk")).bring(
        one({**KUBEEDGE, "digests": digests}, bases)
    )
    assert sorted(entry.path for entry in entries.values()) == files(tmp_path / "new") and not web.requests


def test_nothing_without_a_digest(bases: dict[str, str], tmp_path: Path) -> None:
    rules = {"name": "kubeedge", "version": "v1.22.0", "only": ["manifests"], "architectures": ["x86_64"]}
    with pytest.raises(ArtifactError, match="upstream publishes no checksum for it, and none is known here"):
        Fetcher(str(tmp_path), quick()).bring(one(rules, bases))


def test_one_file_of_many(server: Server, bases: dict[str, str], tmp_path: Path) -> None:
    names = [part.upstream for part in one({**KUBEEDGE, "only": ["manifests"]}, bases).parts]
    (tmp_path / "disk").mkdir()
    digests = {}
    for number, name in enumerate(names):
        content = f"---\nkind: {number}\n" if number % 2 else f"kind: {number}"
        (tmp_path / "disk" / name).write_text(content)
        digests[name] = hashlib.sha256(content.encode()).hexdigest()
    item = one({**KUBEEDGE, "only": ["manifests"], "version": "v1.22.0", "digests": digests}, bases)
    fetcher = Fetcher(str(tmp_path / "new"), quick(), str(tmp_path / "disk"))
    (entry,) = fetcher.bring(item).values()
    text = (tmp_path / "new" / entry.path).read_text()
    assert text == "".join(f"---\nkind: {number}\n" for number in range(13))
    assert entry.sha256 == hashlib.sha256(text.encode()).hexdigest() and not server.requests
    (tmp_path / "disk" / names[3]).write_text("kind: evil")
    with pytest.raises(ArtifactError, match="it was not taken"):
        Fetcher(str(tmp_path / "again"), quick(), str(tmp_path / "disk")).bring(item)

"""Sources of a release: what they fetch, what they refuse, how they go on after a failure."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.web import Web

from ansible_collections.edgeai.fleet.plugins.module_utils.device import http_source
from ansible_collections.edgeai.fleet.plugins.module_utils.device.blobs import Blobs
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.transfer import Patience, open_source
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import FileEntry

NAME = "variants/onnxruntime/int8/model.onnx"
SIZE = 3_000_000


@pytest.fixture
def data() -> bytes:
    return random.Random(1).randbytes(SIZE)


@pytest.fixture
def entry(data: bytes) -> FileEntry:
    return FileEntry(NAME, SIZE, hashlib.sha256(data).hexdigest())


@pytest.fixture
def releases(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "web" / "digits" / "1.0.0"
    (path / NAME).parent.mkdir(parents=True)
    (path / NAME).write_bytes(data)
    (path / "release.json").write_text("{}")
    (path / "model.sig").write_text("signature")
    return tmp_path / "web"


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    made = Blobs(str(tmp_path / "edge"))
    made.prepare()
    return made


@pytest.fixture
def web(releases: Path) -> Iterator[Web]:
    made = Web(releases)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_source, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(http_source, "LONGEST_PAUSE", 0.01)


def patience(seconds: float = 60.0, socket: float = 10.0) -> Patience:
    return Patience(time.monotonic() + seconds, socket)


def source_of(raw: dict[str, Any], edge_root: str = "/nowhere", wait: Patience | None = None) -> Any:
    return open_source(raw, "digits", "1.0.0", edge_root, wait or patience())


def bring(source: Any, blobs: Blobs, entry: FileEntry) -> bytes:
    with blobs.sink(entry) as sink:
        source.fetch(entry, sink)
        sink.commit()
    return Path(blobs.path(entry.sha256)).read_bytes()


class TestFile:
    @pytest.mark.parametrize("below", ["", "digits/1.0.0"])
    def test_a_directory_or_a_directory_of_releases(
        self, releases: Path, blobs: Blobs, entry: FileEntry, data: bytes, below: str
    ) -> None:
        source = source_of({"type": "file", "path": str(releases / below)})
        assert (source.manifest(), source.signature()) == (b"{}", b"signature")
        assert bring(source, blobs, entry) == data

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DeviceError, match=r"release\.json") as caught:
            source_of({"type": "file", "path": str(tmp_path)})
        assert caught.value.code == "unreachable"

    @pytest.mark.parametrize("wrong", [b"short", b"x" * (SIZE + 1), b"x" * SIZE])
    def test_another_file_is_refused(self, releases: Path, blobs: Blobs, entry: FileEntry, wrong: bytes) -> None:
        (releases / "digits/1.0.0" / NAME).write_bytes(wrong)
        with pytest.raises(DeviceError) as caught:
            bring(source_of({"type": "file", "path": str(releases)}), blobs, entry)
        assert caught.value.code == "digest_mismatch"
        assert not os.path.exists(blobs.path(entry.sha256))

    def test_links_and_pipes_are_not_followed(self, releases: Path, blobs: Blobs, entry: FileEntry) -> None:
        path = releases / "digits/1.0.0" / NAME
        for make in (lambda: path.symlink_to("/dev/zero"), lambda: os.mkfifo(path)):
            path.unlink()
            make()
            with pytest.raises(DeviceError) as caught:
                bring(source_of({"type": "file", "path": str(releases)}), blobs, entry)
            assert caught.value.code == "unreachable"


class TestHttp:
    def test_whole(self, web: Web, blobs: Blobs, entry: FileEntry, data: bytes) -> None:
        source = source_of({"type": "https", "url": web.url})
        assert (source.manifest(), source.signature()) == (b"{}", b"signature")
        assert bring(source, blobs, entry) == data
        assert [path for path, _headers in web.requests] == [
            "/digits/1.0.0/release.json",
            "/digits/1.0.0/model.sig",
            "/digits/1.0.0/" + NAME,
        ]
        assert os.listdir(blobs.partial_dir) == []

    def test_a_url_of_the_release_itself(self, web: Web) -> None:
        assert source_of({"type": "https", "url": web.url + "/digits/1.0.0/"}).manifest() == b"{}"

    def test_a_cut_connection_is_continued_where_it_ended(
        self, web: Web, blobs: Blobs, entry: FileEntry, data: bytes
    ) -> None:
        web.fail("cut", "cut")
        assert bring(source_of({"type": "https", "url": web.url}), blobs, entry) == data
        ranges = [headers.get("range") for _path, headers in web.requests]
        assert ranges == [None, f"bytes={SIZE // 2}-", f"bytes={SIZE // 2 + SIZE // 4}-"]
        assert all(headers.get("if-range") for _path, headers in web.requests[1:])
        assert web.sent == SIZE

    def test_the_next_run_continues_too(self, web: Web, blobs: Blobs, entry: FileEntry, data: bytes) -> None:
        web.fail("cut", 404)
        with pytest.raises(DeviceError, match="404"):
            bring(source_of({"type": "https", "url": web.url}), blobs, entry)
        assert blobs.partial_bytes(entry.sha256) == SIZE // 2
        assert bring(source_of({"type": "https", "url": web.url}), blobs, entry) == data
        assert web.sent == SIZE

    def test_a_file_that_changed_meanwhile_starts_again(
        self, web: Web, blobs: Blobs, entry: FileEntry, data: bytes, releases: Path
    ) -> None:
        path = releases / "digits/1.0.0" / NAME
        path.write_bytes(b"?" * SIZE)
        web.fail("cut", 404)
        with pytest.raises(DeviceError):
            bring(source_of({"type": "https", "url": web.url}), blobs, entry)
        path.write_bytes(data)
        assert bring(source_of({"type": "https", "url": web.url}), blobs, entry) == data

    @pytest.mark.parametrize("plan", [("cut", "ignore_range"), ("cut", 416), ("cut", 503, "cut", 500)])
    def test_servers_that_cannot_continue(
        self, web: Web, blobs: Blobs, entry: FileEntry, data: bytes, plan: tuple[Any, ...]
    ) -> None:
        web.fail(*plan)
        assert bring(source_of({"type": "https", "url": web.url}), blobs, entry) == data

    def test_a_server_without_tags(self, releases: Path, blobs: Blobs, entry: FileEntry, data: bytes) -> None:
        web = Web(releases, etags=False)
        web.fail("cut")
        assert bring(source_of({"type": "https", "url": web.url}), blobs, entry) == data
        assert web.sent == SIZE
        web.close()

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 409])
    def test_no_is_no(self, web: Web, blobs: Blobs, entry: FileEntry, status: int) -> None:
        web.fail(status)
        with pytest.raises(DeviceError, match=str(status)) as caught:
            bring(source_of({"type": "https", "url": web.url}), blobs, entry)
        assert caught.value.code == "unreachable"
        assert len(web.requests) == 1, "a final answer is not asked for again"

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_try_again(self, web: Web, blobs: Blobs, entry: FileEntry, data: bytes, status: int) -> None:
        web.fail(status, status)
        assert bring(source_of({"type": "https", "url": web.url}), blobs, entry) == data
        assert len(web.requests) == 3

    def test_not_for_ever(self, web: Web, blobs: Blobs, entry: FileEntry) -> None:
        web.fail(*[503] * 50)
        with pytest.raises(DeviceError, match="gave up after 6 tries") as caught:
            bring(source_of({"type": "https", "url": web.url}), blobs, entry)
        assert caught.value.code == "unreachable" and len(web.requests) == http_source.MAX_FAILURES

    def test_nobody_listens(self, web: Web, blobs: Blobs, entry: FileEntry) -> None:
        web.close()
        with pytest.raises(DeviceError) as caught:
            source_of({"type": "https", "url": web.url}).manifest()
        assert caught.value.code == "unreachable"

    def test_a_server_that_falls_silent(self, web: Web, blobs: Blobs, entry: FileEntry, data: bytes) -> None:
        web.fail("stall")
        source = source_of({"type": "https", "url": web.url}, wait=patience(60, socket=0.3))
        assert bring(source, blobs, entry) == data

    def test_the_whole_call_has_an_end(self, web: Web, blobs: Blobs, entry: FileEntry) -> None:
        web.fail(*["stall"] * 20)
        begin = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            bring(source_of({"type": "https", "url": web.url}, wait=patience(0.6, socket=0.2)), blobs, entry)
        assert caught.value.code == "deadline" and time.monotonic() - begin < 5

    @pytest.mark.parametrize("meet", ["long", "short"])
    def test_a_length_that_was_not_signed_is_refused_unread(
        self, web: Web, blobs: Blobs, entry: FileEntry, meet: str
    ) -> None:
        web.fail(meet)
        with pytest.raises(DeviceError, match=str(SIZE)) as caught:
            bring(source_of({"type": "https", "url": web.url}), blobs, entry)
        assert caught.value.code == "digest_mismatch"
        assert blobs.partial_bytes(entry.sha256) == 0

    def test_other_bytes_are_refused_and_thrown_away(
        self, web: Web, blobs: Blobs, entry: FileEntry, releases: Path
    ) -> None:
        (releases / "digits/1.0.0" / NAME).write_bytes(b"x" * SIZE)
        with pytest.raises(DeviceError, match="thrown away") as caught:
            bring(source_of({"type": "https", "url": web.url}), blobs, entry)
        assert caught.value.code == "digest_mismatch" and os.listdir(blobs.partial_dir) == []

    def test_an_endless_manifest(self, web: Web, releases: Path) -> None:
        (releases / "digits/1.0.0/release.json").write_bytes(b" " * (5 << 20))
        with pytest.raises(DeviceError, match="longer than"):
            source_of({"type": "https", "url": web.url}).manifest()

    def test_headers_from_a_private_file_only(self, web: Web, tmp_path: Path, blobs: Blobs, entry: FileEntry) -> None:
        path = tmp_path / "headers"
        path.write_text("Authorization: Bearer secret\n# a remark\n\nX-Site: 7\n")
        path.chmod(0o644)
        raw = {"type": "https", "url": web.url, "headers_file": str(path)}
        with pytest.raises(DeviceError, match="0600"):
            source_of(raw)
        path.chmod(0o600)
        source_of(raw).manifest()
        assert web.requests[-1][1]["authorization"] == "Bearer secret"
        assert web.requests[-1][1]["x-site"] == "7"

    def test_headers_do_not_go_to_another_host(
        self, web: Web, tmp_path: Path, blobs: Blobs, entry: FileEntry, data: bytes, releases: Path
    ) -> None:
        path = tmp_path / "headers"
        path.write_text("Authorization: Bearer secret\n")
        path.chmod(0o600)
        other = Web(releases)
        web.fail(other.url + "/digits/1.0.0/" + NAME)
        raw = {"type": "https", "url": web.url, "headers_file": str(path)}
        assert bring(source_of(raw), blobs, entry) == data
        assert web.requests[-1][1]["authorization"] and "authorization" not in other.requests[-1][1]
        other.close()

    @pytest.mark.parametrize(
        ("url", "word"),
        [
            ("http://models.example.com/x", "plain http"),
            ("ftp://127.0.0.1/x", "no https"),
            ("file:///etc/passwd", "no https"),
            ("https://user:secret@example.com/", "password"),
            ("nonsense", "no https"),
        ],
    )
    def test_urls_that_are_refused(self, url: str, word: str) -> None:
        with pytest.raises(DeviceError, match=word) as caught:
            source_of({"type": "https", "url": url})
        assert caught.value.code == "bad_input" and "secret" not in caught.value.message

    def test_plain_http_when_allowed(self) -> None:
        assert source_of({"type": "https", "url": "http://models.example.com/x", "allow_http": True})


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> tuple[Path, Path]:
        import datetime
        import ipaddress

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.datetime.now(datetime.timezone.utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        paths = tmp_path / "server.pem", tmp_path / "server.key"
        paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def test_only_with_the_right_ca(
        self, releases: Path, certificate: tuple[Path, Path], blobs: Blobs, entry: FileEntry, data: bytes
    ) -> None:
        web = Web(releases, certificate)
        with pytest.raises(DeviceError, match="not trusted") as caught:
            source_of({"type": "https", "url": web.url}).manifest()
        assert caught.value.code == "unreachable"
        raw = {"type": "https", "url": web.url, "ca_path": str(certificate[0])}
        assert bring(source_of(raw), blobs, entry) == data
        web.close()

    def test_a_ca_file_that_is_not_there(self) -> None:
        with pytest.raises(DeviceError, match="ca_path"):
            source_of({"type": "https", "url": "https://127.0.0.1:1", "ca_path": "/no/such/ca.pem"})

    def test_never_out_of_https(
        self, releases: Path, certificate: tuple[Path, Path], blobs: Blobs, entry: FileEntry
    ) -> None:
        web = Web(releases, certificate)
        plain = Web(releases)
        web.fail(plain.url + "/digits/1.0.0/" + NAME)
        raw = {"type": "https", "url": web.url, "ca_path": str(certificate[0])}
        with pytest.raises(DeviceError, match="redirects from https"):
            bring(source_of(raw), blobs, entry)
        assert plain.requests == []
        web.close()
        plain.close()


class TestPush:
    @staticmethod
    def raw(inbox: Path | None, **more: str) -> dict[str, Any]:
        return {
            "type": "push",
            "manifest": base64.b64encode(b"{}").decode(),
            "signature": base64.b64encode(b"signature").decode(),
            "inbox": str(inbox) if inbox else None,
            **more,
        }

    def test_taken_out_of_the_inbox(self, tmp_path: Path, blobs: Blobs, entry: FileEntry, data: bytes) -> None:
        inbox = Path(blobs.root) / "inbox" / "abc"
        inbox.mkdir(parents=True)
        (inbox / entry.sha256).write_bytes(data)
        inode = (inbox / entry.sha256).stat().st_ino
        source = source_of(self.raw(inbox), edge_root=blobs.root)
        assert (source.manifest(), source.signature()) == (b"{}", b"signature")
        assert bring(source, blobs, entry) == data
        assert os.stat(blobs.path(entry.sha256)).st_ino == inode, "renamed, not copied"
        source.finish()
        assert not inbox.exists()

    def test_copied_when_somebody_else_could_still_write(
        self, tmp_path: Path, blobs: Blobs, entry: FileEntry, data: bytes
    ) -> None:
        inbox = tmp_path / "inbox"
        inbox.mkdir()
        (inbox / entry.sha256).write_bytes(data)
        os.link(inbox / entry.sha256, tmp_path / "another-name")
        source = source_of(self.raw(inbox), edge_root=blobs.root)
        assert bring(source, blobs, entry) == data
        (tmp_path / "another-name").write_bytes(b"changed")
        assert blobs.check(entry.sha256, entry.size) == "ok"
        source.finish()
        assert inbox.exists(), "not below edge_root: not ours to remove"

    @pytest.mark.parametrize("content", [None, b"x" * SIZE, b"x"])
    def test_not_pushed_or_wrong(self, tmp_path: Path, blobs: Blobs, entry: FileEntry, content: bytes | None) -> None:
        inbox = tmp_path / "inbox"
        inbox.mkdir()
        if content is not None:
            (inbox / entry.sha256).write_bytes(content)
        with pytest.raises(DeviceError) as caught:
            bring(source_of(self.raw(inbox), edge_root=blobs.root), blobs, entry)
        assert caught.value.code == ("unreachable" if content is None else "digest_mismatch")

    @pytest.mark.parametrize("manifest", ["", "***", "x" * (8 << 20)])
    def test_broken_arguments(self, manifest: str) -> None:
        with pytest.raises(DeviceError, match=r"source\.manifest"):
            source_of(self.raw(None, manifest=manifest))


@pytest.mark.parametrize("raw", [{}, {"type": "ftp"}, {"type": "file"}, {"type": "https", "url": ""}])
def test_sources_that_are_none(raw: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="source") as caught:
        source_of(raw)
    assert caught.value.code == "bad_input"


def test_pauses_have_full_jitter_and_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [http_source.pause_before(n, 0.0, 1.0) for n in (1, 2, 3, 4, 20)] == [0.5, 1.0, 2.0, 4.0, 30.0]
    assert http_source.pause_before(5, 0.0, 0.0) == 0.0
    assert http_source.pause_before(1, 7.0, 0.5) == 7.0
    assert http_source.pause_before(1, 7000.0, 0.5) == 30.0

"""Signatures against the reference program ``model_signing``, both ways, on real directories.

What it accepts of ours, we accept of its; what either has to refuse, both refuse. Where it is known to be laxer (an
expired certificate, files under ignored paths), only our refusal is asserted: its laxness is not a contract.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.certificates import (
    CODE_SIGNING,
    DAY,
    NOW,
    Identity,
    authority,
    issue,
    write_chain,
    write_key,
    write_public,
)
from support.releases import make_release

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import load_signer, verify_release

MODEL = "variants/onnxruntime/int8/model.onnx"
PROGRAM = Path(sys.executable).with_name("model_signing")


def program(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run model_signing and return what it did."""
    command = [str(PROGRAM), *[str(argument) for argument in arguments]]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def they_sign(release: Path, key: Path, *options: Any, kind: str = "key") -> None:
    done = program("sign", kind, release, "--private_key", key, "--signature", release / "model.sig", *options)
    assert done.returncode == 0, done.stderr


def they_accept(release: Path, option: str, trusted: Path) -> bool:
    kind = "key" if option == "--public_key" else "certificate"
    done = program("verify", kind, release, "--signature", release / "model.sig", option, trusted)
    assert done.returncode == 0 or "failed" in done.stdout + done.stderr, done.stderr
    return done.returncode == 0


def we_accept(release: Path, *, keys: tuple[Path, ...] = (), roots: tuple[Path, ...] = ()) -> bool:
    try:
        verify_release(release, Trust.from_files(keys, roots), NOW)
    except ReleaseError:
        return False
    return True


class Pair:
    """A key pair on disk."""

    def __init__(self, folder: Path, name: str, curve: Any = None) -> None:
        key = ec.generate_private_key(curve or ec.SECP256R1())
        self.private = write_key(folder / f"{name}.pem", key)
        self.public = write_public(folder / f"{name}.pub.pem", key)


@pytest.fixture(params=["ours", "theirs"])
def signed(request: Any, tmp_path: Path) -> tuple[Path, Pair]:
    """A release signed by us, and one signed by them."""
    pair = Pair(tmp_path, "key")
    if request.param == "ours":
        return make_release(tmp_path, sign_key=pair.private), pair
    release = make_release(tmp_path, sign_key=False)
    they_sign(release, pair.private)
    return release, pair


def edit_payload(release: Path) -> None:
    bundle = json.loads((release / "model.sig").read_text())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["subject"][0]["name"] = "another"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    (release / "model.sig").write_text(json.dumps(bundle))


def tamper(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    moved = path.parents[4] / "moved"
    shutil.move(path, moved)
    path.symlink_to(moved)


FAULTS: dict[str, Callable[[Path], Any]] = {
    "tampered": lambda release: tamper(release / MODEL),
    "renamed": lambda release: (release / MODEL).rename(release / MODEL.replace("model", "other")),
    "added": lambda release: (release / "variants" / "extra.bin").write_bytes(b"x"),
    "removed": lambda release: (release / MODEL).unlink(),
    "symlinked": lambda release: link(release / MODEL),
    "edited payload": edit_payload,
}


def test_both_accept_what_either_signed(signed: tuple[Path, Pair]) -> None:
    release, pair = signed
    assert they_accept(release, "--public_key", pair.public)
    assert we_accept(release, keys=(pair.public,))


@pytest.mark.parametrize("fault", FAULTS)
def test_both_refuse_what_was_changed_afterwards(signed: tuple[Path, Pair], fault: str) -> None:
    release, pair = signed
    FAULTS[fault](release)
    assert not they_accept(release, "--public_key", pair.public)
    assert not we_accept(release, keys=(pair.public,))


def test_both_refuse_the_wrong_key(signed: tuple[Path, Pair], tmp_path: Path) -> None:
    release, _pair = signed
    other = Pair(tmp_path, "other")
    assert not they_accept(release, "--public_key", other.public)
    assert not we_accept(release, keys=(other.public,))


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_the_larger_curves_work_both_ways(tmp_path: Path, curve: Any) -> None:
    pair = Pair(tmp_path, "key", curve)
    release = make_release(tmp_path, sign_key=pair.private)
    assert they_accept(release, "--public_key", pair.public)
    they_sign(release, pair.private)
    assert we_accept(release, keys=(pair.public,))


def test_an_encrypted_key_of_ours_signs_what_they_accept(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = load_signer(write_key(tmp_path / "key.pem", key, b"secret"), b"secret")
    release = make_release(tmp_path, sign_key=signer)
    assert they_accept(release, "--public_key", write_public(tmp_path / "key.pub.pem", key))


def test_a_device_with_the_old_key_only_takes_old_releases_only(tmp_path: Path) -> None:
    old, new = Pair(tmp_path, "old"), Pair(tmp_path, "new")
    before = make_release(tmp_path, version="1.0.0", sign_key=False)
    after = make_release(tmp_path, version="2.0.0", sign_key=False)
    they_sign(before, old.private)
    they_sign(after, new.private)
    assert we_accept(before, keys=(old.public,)) and not we_accept(after, keys=(old.public,))
    assert we_accept(before, keys=(old.public, new.public)) and we_accept(after, keys=(old.public, new.public))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("release.json.bak", ("--ignore-paths", "release.json.bak")),
        (".gitignore", ()),
        (".git/hooks/post-merge", ()),
    ],
)
def test_files_under_ignored_paths_are_not_smuggled_past_us(tmp_path: Path, name: str, options: Any) -> None:
    pair = Pair(tmp_path, "key")
    release = make_release(tmp_path, sign_key=False)
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).touch()
    options = [release / item if item == name else item for item in options]
    they_sign(release, pair.private, *options)
    assert not we_accept(release, keys=(pair.public,))


def test_a_signature_that_allows_symlinks_is_refused(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "key")
    release = make_release(tmp_path, sign_key=False)
    they_sign(release, pair.private, "--allow_symlinks")
    assert not we_accept(release, keys=(pair.public,))


class Authority:
    """A root, an intermediate, and their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = authority("root")
        self.middle = authority("middle", self.root)
        self.root_file = write_chain(folder / "root.pem", self.root)
        self.middle_file = write_chain(folder / "middle.pem", self.middle)

    def issue(self, **options: Any) -> tuple[Identity, Path, Path]:
        leaf = issue("leaf", self.middle, purposes=CODE_SIGNING, **options)
        return leaf, write_key(self.folder / "leaf.key", leaf.key), write_chain(self.folder / "leaf.pem", leaf)


def test_certificates_work_both_ways(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    leaf, key, certificate = ca.issue()
    chain = write_chain(tmp_path / "chain.pem", leaf, ca.middle)
    release = make_release(tmp_path, sign_key=load_signer(key, None, chain))
    assert they_accept(release, "--certificate_chain", ca.root_file)
    they_sign(
        release, key, "--signing_certificate", certificate, "--certificate_chain", ca.middle_file, kind="certificate"
    )
    assert they_accept(release, "--certificate_chain", ca.root_file)
    assert we_accept(release, roots=(ca.root_file,))
    stranger = write_chain(tmp_path / "stranger.pem", authority("root"))
    assert not they_accept(release, "--certificate_chain", stranger)
    assert not we_accept(release, roots=(stranger,))
    tamper(release / MODEL)
    assert not they_accept(release, "--certificate_chain", ca.root_file)
    assert not we_accept(release, roots=(ca.root_file,))


def test_an_expired_certificate_is_refused_by_us_whoever_signed(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    leaf, key, certificate = ca.issue(start=NOW - 30 * DAY, end=NOW - DAY)
    release = make_release(tmp_path, sign_key=False)
    they_sign(
        release, key, "--signing_certificate", certificate, "--certificate_chain", ca.middle_file, kind="certificate"
    )
    assert not we_accept(release, roots=(ca.root_file,))
    trust = Trust.from_files((), (ca.root_file,))
    with pytest.raises(ReleaseError, match="'CN=leaf' expired"):
        verify_release(release, trust, NOW)
    # Only the time is what is wrong with it.
    valid_then = NOW - 2 * DAY
    ca_then = authority("middle", ca.root, key=ca.middle.key, start=NOW - 30 * DAY)
    root_then = authority("root", key=ca.root.key, start=NOW - 30 * DAY)
    they_sign(
        release, key, "--signing_certificate", certificate,
        "--certificate_chain", write_chain(tmp_path / "middle-then.pem", ca_then), kind="certificate",
    )  # fmt: skip
    verify_release(release, Trust((), (root_then.certificate,)), valid_then)
    assert leaf.certificate.subject.rfc4514_string() == "CN=leaf"

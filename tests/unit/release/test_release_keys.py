"""Keys on disk: permissions, passphrases, generation that never overwrites, trust directories."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.certificates import authority, write_chain, write_key, write_public
from support.releases import write_trust

from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_generated_pair_has_the_right_modes_and_is_kept(tmp_path: Path) -> None:
    private, public = tmp_path / "k.pem", tmp_path / "k.pub.pem"
    first = keys.ensure_key(private, public)
    assert first.private_changed and first.public_changed
    assert (mode(private), mode(public)) == (0o600, 0o644)
    before = private.read_bytes()
    second = keys.ensure_key(private, public)
    assert not second.changed and second.key_id == first.key_id and private.read_bytes() == before
    assert keys.load_private_key(private).curve.name == "secp256r1"
    assert first.key_id == hashlib.sha256(public.read_bytes()).hexdigest() and first.public_pem == public.read_text()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["k.pem", "k.pub.pem"]


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    program = (
        "import os, sys; os.umask(int(sys.argv[2], 8))\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import generate_key\n"
        "generate_key(sys.argv[1] + '.pem', sys.argv[1] + '.pub')"
    )
    for umask in ("000", "077"):
        base = tmp_path / umask
        command = [sys.executable, "-c", program, str(base), umask]
        subprocess.run(command, check=True, env={"PYTHONPATH": ":".join(sys.path)})
        assert (mode(base.with_suffix(".pem")), mode(base.with_suffix(".pub"))) == (0o600, 0o644)


def test_check_mode_writes_nothing_and_tells_the_truth(tmp_path: Path) -> None:
    private, public = tmp_path / "k.pem", tmp_path / "k.pub.pem"
    predicted = keys.ensure_key(private, public, check=True)
    assert predicted.private_changed and predicted.public_changed and not list(tmp_path.iterdir())
    keys.ensure_key(private)
    predicted = keys.ensure_key(private, public, check=True)
    assert not predicted.private_changed and predicted.public_changed and not public.exists()
    assert keys.ensure_key(private, public).public_changed and public.exists()


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_key_that_cannot_be_read_is_never_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.pem"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(ReleaseError, match="cannot be read as a PEM private key"):
        keys.ensure_key(path, tmp_path / "p.pem")
    assert path.read_bytes() == content and not (tmp_path / "p.pem").exists()
    with pytest.raises(ReleaseError, match="never overwritten"):
        keys.generate_key(path)


def test_dangling_links_directories_and_missing_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link.pem").symlink_to(tmp_path / "elsewhere.pem")
    for path in (tmp_path / "link.pem", tmp_path, tmp_path / "no" / "k.pem"):
        with pytest.raises(ReleaseError):
            keys.ensure_key(path)
    assert not (tmp_path / "elsewhere.pem").exists()


def test_a_file_that_appears_while_a_key_is_made_is_not_overwritten(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.release import errors, keys\n"
        "keys.crypto.ec.generate_private_key = lambda *a, real=keys.crypto.ec.generate_private_key: ("
        "open(sys.argv[1], 'w').write('by another process'), real(*a))[1]\n"
        "try:\n    keys.ensure_key(sys.argv[1])\nexcept errors.ReleaseError as error:\n    print(error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "k.pem")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert "appeared meanwhile" in done.stdout, done.stderr
    assert (tmp_path / "k.pem").read_text() == "by another process"
    assert [item.name for item in tmp_path.iterdir()] == ["k.pem"]


def test_a_public_file_with_another_key_or_without_its_private_one_is_refused(tmp_path: Path) -> None:
    keys.generate_key(tmp_path / "a.pem", tmp_path / "a.pub")
    keys.generate_key(tmp_path / "b.pem")
    content = (tmp_path / "a.pub").read_bytes()
    with pytest.raises(ReleaseError, match="not that of the private key"):
        keys.ensure_key(tmp_path / "b.pem", tmp_path / "a.pub")
    (tmp_path / "a.pem").unlink()
    with pytest.raises(ReleaseError, match=r"its private key .* is not"):
        keys.ensure_key(tmp_path / "a.pem", tmp_path / "a.pub")
    assert (tmp_path / "a.pub").read_bytes() == content and not (tmp_path / "a.pem").exists()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o666])
def test_secrets_open_to_others_are_refused(tmp_path: Path, bits: int) -> None:
    path = write_key(tmp_path / "k.pem", ec.generate_private_key(ec.SECP256R1()))
    path.chmod(bits)
    for read in (keys.load_private_key, keys.ensure_key):
        with pytest.raises(ReleaseError, match=rf"has mode {bits:04o}; run: chmod 600"):
            read(path)
    with pytest.raises(ReleaseError, match="chmod 600"):
        keys.passphrase_from(file=path)


def test_encrypted_keys_open_with_their_passphrase_only(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    made = keys.ensure_key(path, passphrase=b"correct horse")
    assert b"ENCRYPTED" in path.read_bytes()
    assert keys.key_id(keys.load_private_key(path, b"correct horse").public_key()) == made.key_id
    with pytest.raises(ReleaseError, match="is encrypted: name its passphrase"):
        keys.load_private_key(path)
    with pytest.raises(ReleaseError, match="with this passphrase") as caught:
        keys.load_private_key(path, b"wrong")
    assert "wrong" not in str(caught.value)
    plain = write_key(tmp_path / "plain.pem", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ReleaseError, match="is not encrypted"):
        keys.ensure_key(plain, passphrase=b"x")


def test_a_passphrase_comes_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "p"
    file.touch(mode=0o600)
    file.write_bytes(b" se cret \n")
    assert keys.passphrase_from(file=file) == b" se cret "
    monkeypatch.setenv("SOME_PASSPHRASE", "gehëim")
    assert keys.passphrase_from(env="SOME_PASSPHRASE") == "gehëim".encode()
    assert keys.passphrase_from() is None
    with pytest.raises(ReleaseError, match="not both"):
        keys.passphrase_from(file, "SOME_PASSPHRASE")
    with pytest.raises(ReleaseError, match="NOT_SET: is not set"):
        keys.passphrase_from(env="NOT_SET")
    file.write_bytes(b"\n")
    monkeypatch.setenv("SOME_PASSPHRASE", "")
    for source in ({"file": file}, {"env": "SOME_PASSPHRASE"}):
        with pytest.raises(ReleaseError, match="empty"):
            keys.passphrase_from(**source)  # type: ignore[arg-type]


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256K1())):
        path = write_key(tmp_path / f"{type(key).__name__}{key.key_size}", key)
        with pytest.raises(ReleaseError, match="P-256"):
            keys.load_private_key(path)


def test_trust_holds_several_keys_and_roots(tmp_path: Path) -> None:
    old, new = (ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1()))
    trust_dir = write_trust(tmp_path / "trust", old, new)
    (trust_dir / "roots").mkdir()
    write_chain(trust_dir / "roots" / "both.pem", authority("one"), authority("two"))
    (trust_dir / "keys" / "README").write_text("not a key")
    trust = keys.Trust.load(trust_dir)
    assert len(trust.keys) == 2 and len(trust.roots) == 2
    assert trust.key(keys.key_id(old.public_key())) == old.public_key() and trust.key("0" * 64) is None


def test_a_trust_directory_is_used_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="trusts nobody"):
        keys.Trust.load(tmp_path / "none")
    key = ec.generate_private_key(ec.SECP256R1())
    folder = write_trust(tmp_path / "trust", key) / "keys"
    for content, words in (
        (b"garbage", "exactly one PEM public key"),
        (keys.private_pem(key), "treat this one as exposed"),
        (keys.public_pem(key.public_key()) * 2, "exactly one"),
        (keys.public_pem(rsa.generate_private_key(65537, 2048).public_key()), "elliptic"),
    ):
        (folder / "x.pem").write_bytes(content)
        with pytest.raises(ReleaseError, match=words):
            keys.Trust.load(folder.parent)
    write_public(folder / "x.pem", key).chmod(0o646)
    with pytest.raises(ReleaseError, match="everybody can write it"):
        keys.Trust.load(folder.parent)


def test_certificate_files_hold_certificates_only(tmp_path: Path) -> None:
    root = authority()
    for content, words in (
        (b"", "PEM certificates and nothing else"),
        (root.pem + keys.public_pem(root.key.public_key()), "nothing else"),
        (root.pem + keys.private_pem(root.key), "private key"),
        (root.pem.replace(b"MII", b"AAA", 1), "cannot be read"),
    ):
        (tmp_path / "c.pem").write_bytes(content)
        with pytest.raises(ReleaseError, match=words):
            keys.load_certificates(tmp_path / "c.pem")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("None", "cannot be imported"),
        ("types.SimpleNamespace(__version__='2.8', __file__='/opt/old')", "has version 2.8 in /opt/old"),
    ],
)
def test_a_missing_or_old_library_is_named_with_the_interpreter(found: str, words: str) -> None:
    program = (
        "import sys, types\n"
        f"sys.modules['cryptography'] = {found}\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.release import crypto\n"
        "try:\n    crypto.require()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.stdout.startswith("ReleaseError ") and sys.executable in done.stdout, done.stderr
    assert "cryptography >= 3.4" in done.stdout and words in done.stdout

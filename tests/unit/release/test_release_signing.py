"""Signing and verifying: what is accepted, and everything that is refused, on real directories."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.certificates import DAY, NOW, authority, issue, write_chain, write_key
from support.releases import default_key, make_release

from ansible_collections.edgeai.fleet.plugins.module_utils.release import statement as st
from ansible_collections.edgeai.fleet.plugins.module_utils.release.crypto import ecdsa
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust, key_id
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import (
    Signer,
    load_signer,
    sign_release,
    verify_bundle,
    verify_release,
)

MODEL = "variants/onnxruntime/int8/model.onnx"


def trust(*keys: Any) -> Trust:
    return Trust(tuple(key.public_key() for key in keys or (default_key(),)))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path / "releases")


def refused(release: Path, *, by: Trust | None = None, **options: Any) -> str:
    with pytest.raises(ReleaseError) as caught:
        verify_release(release, by or trust(), NOW, **options)
    # The file itself is named: in a device's store that is the blob.
    assert str(caught.value).startswith((str(release), str(options.get("blobs_dir", release))))
    return str(caught.value)


def test_a_signed_release_verifies_and_names_its_signer(release: Path) -> None:
    verified = verify_release(release, trust(), NOW)
    assert verified.manifest.version == "1.0.0" and verified.not_after is None
    assert verified.key_id == key_id(default_key().public_key())
    assert verified.files == (
        "golden/golden.npz", "release.json", "variants/onnxruntime/fp32/model.onnx", MODEL,
    )  # fmt: skip


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_all_three_curves_sign_and_verify(tmp_path: Path, curve: Any) -> None:
    key = ec.generate_private_key(curve)
    assert verify_release(make_release(tmp_path, sign_key=key), trust(key), NOW).key_id == key_id(key.public_key())


def test_the_bundle_has_the_form_of_the_specification(release: Path) -> None:
    bundle = json.loads((release / "model.sig").read_bytes())
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    material = {"publicKey": {"hint": key_id(default_key().public_key())}, "tlogEntries": []}
    assert bundle["verificationMaterial"] == material
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    names = [item["name"] for item in payload["predicate"]["resources"]]
    assert names == sorted(names, key=lambda name: name.split("/")) and "model.sig" not in names
    raw = b"".join(bytes.fromhex(item["digest"]) for item in payload["predicate"]["resources"])
    assert payload["subject"] == [{"name": "digits", "digest": {"sha256": hashlib.sha256(raw).hexdigest()}}]


def test_keys_are_rotated_with_two_trusted_and_an_old_device_says_which_it_lacks(tmp_path: Path) -> None:
    old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    first = make_release(tmp_path, version="1.0.0", sign_key=old)
    second = make_release(tmp_path, version="2.0.0", sign_key=new)
    for path in (first, second):
        verify_release(path, trust(old, new), NOW)
    text = refused(second, by=trust(old))
    assert key_id(new.public_key()) in text and key_id(old.public_key()) in text and "not trusted" in text


def test_a_signature_that_names_a_trusted_key_but_is_by_another_is_refused(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    release = make_release(tmp_path, sign_key=other)
    raw = (release / "model.sig").read_text()
    raw = raw.replace(key_id(other.public_key()), key_id(default_key().public_key()))
    (release / "model.sig").write_text(raw)
    assert "signature is wrong" in refused(release)


# --- the directory ----------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap_variants(release: Path) -> None:
    one, two = release / MODEL, release / "variants/onnxruntime/fp32/model.onnx"
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def to_link(release: Path, name: str, target: str = "") -> None:
    path = release / name
    moved = release.parent / "moved"
    shutil.move(path, moved)
    path.symlink_to(target or moved)


DIRECTORY_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "tampered": (lambda r: flip(r / MODEL), "altered"),
    "tampered golden": (lambda r: flip(r / "golden/golden.npz"), "altered"),
    "tampered manifest": (lambda r: flip(r / "release.json"), "altered"),
    "swapped": (swap_variants, "altered"),
    "shortened": (lambda r: os.truncate(r / MODEL, 5), "has 5 bytes"),
    "emptied": (lambda r: os.truncate(r / MODEL, 0), "has 0 bytes"),
    "extended": (lambda r: (r / MODEL).write_bytes((r / MODEL).read_bytes() + b"x"), "bytes, but"),
    "extended without end": (lambda r: os.truncate(r / MODEL, 1 << 42), "bytes, but"),
    "renamed": (lambda r: (r / MODEL).rename(r / (MODEL + "2")), "is not listed"),
    "removed": (lambda r: (r / MODEL).unlink(), "is missing"),
    "removed manifest": (lambda r: (r / "release.json").unlink(), "is missing"),
    "removed signature": (lambda r: (r / "model.sig").unlink(), "not signed"),
    "added": (lambda r: (r / "extra.py").write_text("x"), "is not listed"),
    "added empty": (lambda r: (r / "extra").touch(), "is not listed"),
    "added hidden": (lambda r: (r / "variants/.hidden").touch(), "is not listed"),
    "added deep": (lambda r: (r / "variants/onnxruntime/int8/plugin.so").touch(), "is not listed"),
    "added empty directory": (lambda r: (r / "variants/openvino").mkdir(), "is not listed"),
    "added under an ignored name": (lambda r: (r / ".gitignore").touch(), "is not listed"),
    "added under an ignored directory": (lambda r: [(r / ".git").mkdir(), (r / ".git/hook").touch()], "is not listed"),
    "second signature": (lambda r: shutil.copy(r / "model.sig", r / "model.sig.bak"), "is not listed"),
    "linked file": (lambda r: to_link(r, MODEL), "symbolic link"),
    "linked inside": (lambda r: to_link(r, MODEL, "../fp32/model.onnx"), "symbolic link"),
    "linked manifest": (lambda r: to_link(r, "release.json"), "symbolic link"),
    "linked signature": (lambda r: to_link(r, "model.sig"), "symbolic link"),
    "linked directory": (lambda r: to_link(r, "golden"), "symbolic link"),
    "added link": (lambda r: (r / "extra").symlink_to("release.json"), "is not listed"),
    "pipe": (lambda r: [(r / MODEL).unlink(), os.mkfifo(r / MODEL)], "not a regular file"),
    "directory for a file": (lambda r: [(r / MODEL).unlink(), (r / MODEL).mkdir()], "is not listed"),
    "file for a directory": (lambda r: [shutil.rmtree(r / "golden"), (r / "golden").touch()], "is not listed"),
    "signature emptied": (lambda r: os.truncate(r / "model.sig", 0), "not JSON"),
    "signature cut": (lambda r: os.truncate(r / "model.sig", 500), "not JSON"),
    "signature without end": (lambda r: os.truncate(r / "model.sig", 1 << 40), "larger than"),
}


@pytest.mark.parametrize("name", DIRECTORY_FAULTS)
def test_a_directory_that_is_not_what_was_signed_is_refused(release: Path, name: str) -> None:
    change, words = DIRECTORY_FAULTS[name]
    change(release)
    assert words in refused(release)


@pytest.mark.parametrize("name", [name for name in DIRECTORY_FAULTS if "signature" not in name])
def test_such_a_directory_is_not_signed_either(release: Path, name: str) -> None:
    DIRECTORY_FAULTS[name][0](release)
    before = (release / "model.sig").read_bytes()
    with pytest.raises(ReleaseError):
        sign_release(release, default_key())
    assert (release / "model.sig").read_bytes() == before


# --- the payload: forged by somebody who holds the key, or edited by somebody who does not ------------------------


def payload_of(release: Path) -> dict[str, Any]:
    bundle = json.loads((release / "model.sig").read_bytes())
    return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))


def write_signed(release: Path, payload: bytes, key: Any = None) -> None:
    key = key or default_key()
    signature = key.sign(st.pae(payload), ecdsa(key))
    (release / "model.sig").write_bytes(st.build_bundle(payload, signature, key_id(key.public_key())))


def add_resource(payload: dict[str, Any], name: str, **fields: Any) -> None:
    item = {"name": name, "algorithm": "sha256", "digest": hashlib.sha256(b"").hexdigest(), **fields}
    payload["predicate"]["resources"].append(item)


def fields(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(target: Any) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        for part in parents:
            target = target[part]
        target[last] = value

    return edit


PAYLOAD_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "statement type": (fields("_type", "https://in-toto.io/Statement/v0.1"), "_type"),
    "old predicate": (fields("predicateType", "https://model_signing/Digests/v0.1"), "predicateType"),
    "other predicate": (fields("predicateType", "https://slsa.dev/provenance/v1"), "predicateType"),
    "no subject": (fields("subject", []), "exactly one"),
    "two subjects": (lambda p: p["subject"].append(p["subject"][0]), "exactly one"),
    "subject's digest": (fields("subject/0/digest/sha256", "0" * 64), "subject's digest"),
    "second digest": (fields("subject/0/digest/sha512", "0" * 64), "unknown field"),
    "shards": (fields("predicate/serialization/method", "shards"), "method"),
    "blake2": (fields("predicate/serialization/hash_type", "blake2b"), "hash_type"),
    "symlinks": (fields("predicate/serialization/allow_symlinks", True), "allow_symlinks"),
    "symlinks as text": (fields("predicate/serialization/allow_symlinks", "false"), "allow_symlinks"),
    "ignored": (fields("predicate/serialization/ignore_paths", ["model.sig", "extra"]), "ignore_paths"),
    "ignored all": (fields("predicate/serialization/ignore_paths", ["."]), "ignore_paths"),
    "ignored upwards": (fields("predicate/serialization/ignore_paths", [".git/.."]), "ignore_paths"),
    "ignored absolute": (fields("predicate/serialization/ignore_paths", ["/"]), "ignore_paths"),
    "algorithm": (fields("predicate/resources/0/algorithm", "sha512"), "algorithm"),
    "algorithm in capitals": (fields("predicate/resources/0/algorithm", "SHA256"), "algorithm"),
    "digest in capitals": (fields("predicate/resources/0/digest", "A" * 64), "lower-case"),
    "short digest": (fields("predicate/resources/0/digest", "ab"), "64"),
    "no resources": (fields("predicate/resources", []), "list of 1"),
    "path upwards": (lambda p: add_resource(p, "../evil"), "'..'"),
    "absolute path": (lambda p: add_resource(p, "/etc/passwd"), "absolute"),
    "path twice": (lambda p: add_resource(p, "release.json"), "listed twice"),
    "itself": (lambda p: add_resource(p, "model.sig"), "cannot list itself"),
    "unknown field": (fields("predicate/surprise", 1), "unknown field"),
    "unknown field of a resource": (fields("predicate/resources/0/size", 1), "unknown field"),
    "unknown field of the statement": (fields("surprise", 1), "unknown field"),
}


@pytest.mark.parametrize("name", PAYLOAD_FAULTS)
def test_a_payload_that_says_something_else_is_refused_although_the_key_is_right(release: Path, name: str) -> None:
    edit, words = PAYLOAD_FAULTS[name]
    payload = payload_of(release)
    edit(payload)
    if name != "subject's digest":
        digests = [item["digest"] for item in payload["predicate"]["resources"]]
        if payload["subject"]:
            payload["subject"][0]["digest"]["sha256"] = st.root_digest(digests)
    write_signed(release, json.dumps(payload).encode())
    assert words in refused(release)


def test_payloads_that_are_not_strict_json_are_refused(release: Path) -> None:
    text = json.dumps(payload_of(release))
    for bad in (
        text.replace('"_type"', '"_type": "x", "_type"', 1),
        text + "{}",
        "[" * 100_000,
        text.replace('"subject"', '"x": NaN, "subject"'),
        "",
    ):
        write_signed(release, bad.encode() or b" ")
        refused(release)


def test_whitespace_and_key_order_of_a_payload_are_free(release: Path) -> None:
    payload = dict(reversed(list(payload_of(release).items())))
    write_signed(release, json.dumps(payload, indent=7).encode())
    verify_release(release, trust(), NOW)


def test_an_edited_payload_no_longer_fits_its_signature(release: Path) -> None:
    bundle = json.loads((release / "model.sig").read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    for edited in (payload + b" ", payload.replace(b"digits", b"digitz"), payload[:-1]):
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(edited).decode()
        (release / "model.sig").write_text(json.dumps(bundle))
        assert "signature is wrong" in refused(release)


BUNDLE_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "media type": (fields("mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.1"), "mediaType"),
    "payload type": (fields("dsseEnvelope/payloadType", "text/plain"), "payloadType"),
    "no signature": (fields("dsseEnvelope/signatures", []), "exactly one"),
    "two signatures": (lambda b: b["dsseEnvelope"]["signatures"].append(b["dsseEnvelope"]["signatures"][0]), "exactly"),
    "key id": (fields("dsseEnvelope/signatures/0/keyid", "x"), "keyid"),
    "not base64": (fields("dsseEnvelope/payload", "!!!"), "base64"),
    "base64 with junk": (lambda b: fields("dsseEnvelope/payload", b["dsseEnvelope"]["payload"] + "\n")(b), "base64"),
    "empty signature": (fields("dsseEnvelope/signatures/0/sig", ""), "base64"),
    "zero signature": (fields("dsseEnvelope/signatures/0/sig", "MAYCAQACAQA="), "signature is wrong"),
    "junk signature": (fields("dsseEnvelope/signatures/0/sig", "AAAA"), "signature is wrong"),
    "no hint": (fields("verificationMaterial/publicKey", {}), "hint"),
    "empty hint": (fields("verificationMaterial/publicKey/hint", ""), "hint"),
    "own key": (fields("verificationMaterial/publicKey/rawBytes", "AAAA"), "unknown field"),
    "transparency log": (fields("verificationMaterial/tlogEntries", [{}]), "tlogEntries"),
    "both materials": (fields("verificationMaterial/x509CertificateChain", {"certificates": []}), "either"),
    "no material": (fields("verificationMaterial", {"tlogEntries": []}), "either"),
    "keyless": (fields("verificationMaterial", {"certificate": {"rawBytes": "AAAA"}}), "unknown field"),
    "bad certificate": (
        fields("verificationMaterial", {"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}}),
        "cannot be read",
    ),
    "message signature": (fields("messageSignature", {}), "unknown field"),
    "unknown field": (fields("surprise", 1), "unknown field"),
}


@pytest.mark.parametrize("name", BUNDLE_FAULTS)
def test_a_bundle_of_another_form_is_refused(release: Path, name: str) -> None:
    edit, words = BUNDLE_FAULTS[name]
    bundle = json.loads((release / "model.sig").read_bytes())
    edit(bundle)
    (release / "model.sig").write_text(json.dumps(bundle))
    assert words in refused(release, by=Trust(trust().keys, (authority().certificate,)))


def test_a_correctly_signed_list_that_disagrees_with_the_manifest_is_refused(release: Path) -> None:
    # Signed by the right key over files the manifest does not know: upstream accepts, we do not.
    (release / "extra.bin").write_bytes(b"")
    payload = payload_of(release)
    listing = {item["name"]: item["digest"] for item in payload["predicate"]["resources"]}
    write_signed(release, st.build_statement("digits", {**listing, "extra.bin": hashlib.sha256(b"").hexdigest()}))
    assert "'extra.bin' has SHA-256" in refused(release) and "none in release.json" in refused(release)
    (release / "extra.bin").unlink()
    flip(release / MODEL)
    changed = hashlib.sha256((release / MODEL).read_bytes()).hexdigest()
    write_signed(release, st.build_statement("digits", {**listing, MODEL: changed}))
    assert f"'{MODEL}' has SHA-256 {changed}" in refused(release)
    del listing[MODEL]
    write_signed(release, st.build_statement("digits", listing))
    assert "is not listed" in refused(release)
    (release / MODEL).unlink()
    shutil.rmtree((release / MODEL).parent)
    assert "none in the signature" in refused(release, partial=True)


# --- a device's partial release -----------------------------------------------------------------------------------


def into_store(release: Path, root: Path) -> tuple[Path, Path]:
    """Lay out a release as a device's store does: links into blobs."""
    blobs, target = root / "blobs" / "sha256", root / "releases" / "digits" / "1.0.0"
    blobs.mkdir(parents=True)
    for path in release.rglob("*"):
        if path.is_file():
            blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
            shutil.copy(path, blob)
            link = target / path.relative_to(release)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return target, root / "blobs"


def test_a_store_of_links_into_blobs_verifies_and_no_other_link_does(release: Path, tmp_path: Path) -> None:
    stored, blobs = into_store(release, tmp_path / "edge")
    assert verify_release(stored, trust(), NOW, blobs_dir=blobs).files == verify_release(release, trust(), NOW).files
    assert "symbolic link" in refused(stored)
    content = (stored / MODEL).read_bytes()
    (stored / MODEL).unlink()
    (tmp_path / "edge" / "blobs-too").write_bytes(content)  # same bytes, same prefix of the path, but not in the store
    (stored / MODEL).symlink_to(tmp_path / "edge" / "blobs-too")
    assert "leads out of the blob store" in refused(stored, blobs_dir=blobs)
    (blobs / "hop").symlink_to(tmp_path / "edge" / "blobs-too")
    (stored / MODEL).unlink()
    (stored / MODEL).symlink_to(blobs / "hop")
    assert "leads out of the blob store" in refused(stored, blobs_dir=blobs)
    (stored / MODEL).unlink()
    (stored / MODEL).symlink_to(blobs / "nothing")
    assert "cannot be read" in refused(stored, blobs_dir=blobs)


def test_a_corrupt_blob_is_found_through_the_link(release: Path, tmp_path: Path) -> None:
    stored, blobs = into_store(release, tmp_path / "edge")
    flip((stored / MODEL).resolve())
    assert "altered" in refused(stored, blobs_dir=blobs)


def test_a_partial_release_needs_manifest_golden_and_the_wanted_variant(release: Path) -> None:
    shutil.rmtree(release / "variants/onnxruntime/fp32")
    assert "is missing" in refused(release)
    assert verify_release(release, trust(), NOW, partial=True).files == ("golden/golden.npz", "release.json", MODEL)
    verify_release(release, trust(), NOW, partial=True, variants=["onnxruntime/int8"])
    text = refused(release, partial=True, variants=["onnxruntime/int8", "onnxruntime/fp32"])
    assert "'variants/onnxruntime/fp32/model.onnx' is missing" in text
    with pytest.raises(ReleaseError, match="no variant 'litert/int8'"):
        verify_release(release, trust(), NOW, partial=True, variants=["litert/int8"])
    flip(release / MODEL)
    assert "altered" in refused(release, partial=True)
    shutil.rmtree(release / "variants")
    verify_release(release, trust(), NOW, partial=True)
    (release / "golden/golden.npz").unlink()
    assert "golden" in refused(release, partial=True)


# --- certificates --------------------------------------------------------------------------------------------------


def test_certificate_mode_signs_and_verifies(tmp_path: Path) -> None:
    root = authority("root")
    middle = authority("middle", root, end=NOW + 30 * DAY)
    leaf = issue("leaf", middle)
    key = write_key(tmp_path / "k.pem", leaf.key, b"secret")
    signer = load_signer(key, b"secret", write_chain(tmp_path / "c.pem", leaf, middle))
    release = make_release(tmp_path, sign_key=signer)
    verified = verify_release(release, Trust((), (root.certificate,)), NOW)
    assert verified.key_id == key_id(leaf.key.public_key()) and verified.not_after == NOW + 30 * DAY
    assert "no CA certificate is trusted" in refused(release)
    with pytest.raises(ReleaseError, match="'CN=middle' expired"):
        verify_release(release, Trust((), (root.certificate,)), NOW + 31 * DAY)


def test_a_chain_that_no_verifier_would_accept_signs_nothing(tmp_path: Path) -> None:
    root = authority("root")
    middle = authority("middle", root)
    leaf, other = issue("leaf", middle), issue("other", middle)
    old = issue("old", middle, start=NOW - 9 * DAY, end=NOW - DAY)
    release = make_release(tmp_path, sign_key=False)
    for identity, chain, words in (
        (old, (old.certificate, middle.certificate), "expired"),
        (leaf, (leaf.certificate, root.certificate), "was not issued by"),
        (root, (root.certificate,), "is a CA"),
    ):
        with pytest.raises(ReleaseError, match=words):
            sign_release(release, Signer(identity.key, chain))
    key = write_key(tmp_path / "k.pem", leaf.key)
    with pytest.raises(ReleaseError, match="put the signing certificate first"):
        load_signer(key, None, write_chain(tmp_path / "c.pem", other, middle))
    assert not (release / "model.sig").exists()


# --- signing again ---------------------------------------------------------------------------------------------------


def test_signing_again_with_the_same_key_changes_nothing(release: Path) -> None:
    before = (release / "model.sig").read_bytes()
    signed = sign_release(release, default_key())
    assert not signed.changed and signed.reason == "" and (release / "model.sig").read_bytes() == before


def test_signing_replaces_what_is_not_this_signers_and_says_why(release: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    predicted = sign_release(release, other, check=True)
    assert predicted.changed and predicted.reason == "it was signed by another key"
    verify_release(release, trust(), NOW)
    assert sign_release(release, other).reason == predicted.reason
    verify_release(release, trust(other), NOW)
    leaf = issue("leaf", authority(), key=other)
    assert "other certificates" in sign_release(release, Signer(other, (leaf.certificate,))).reason
    assert not sign_release(release, Signer(other, (leaf.certificate,))).changed
    (release / "model.sig").write_text("garbage")
    assert "not one by this signer" in sign_release(release, other).reason
    manifest = (release / "release.json").read_bytes()
    (release / "release.json").write_bytes(manifest + b"\n")
    assert "the release changed" in sign_release(release, other).reason


def test_a_leftover_of_a_crash_does_not_stop_the_next_signing(release: Path) -> None:
    (release / ".model.sig.tmp").write_bytes(b"half")
    assert "is not listed" in refused(release)
    (release / "model.sig").unlink()
    assert sign_release(release, default_key()).changed
    verify_release(release, trust(), NOW)


def test_times_without_a_zone_are_refused(release: Path) -> None:
    with pytest.raises(ReleaseError, match="time zone"):
        verify_bundle((release / "model.sig").read_bytes(), trust(), NOW.replace(tzinfo=None))


def test_verifying_a_large_file_stays_small(tmp_path: Path) -> None:
    """A 256 MiB (sparse) model is signed and verified by a process that may not get 32 MiB more than it has."""
    program = """
import os, resource, sys
from pathlib import Path
from ansible_collections.edgeai.fleet.plugins.module_utils.release import digests
from support.certificates import NOW
from support.releases import make_release, default_key
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import sign_release, verify_release
from support.releases import dump_manifest
import json
SIZE = 256 << 20
release = make_release(Path(sys.argv[1]), variants=["onnxruntime/int8"], sign_key=False)
model = release / "variants/onnxruntime/int8/model.onnx"
os.truncate(model, SIZE)
manifest = json.loads((release / "release.json").read_bytes())
manifest["variants"][0]["files"][0].update(size=SIZE, sha256=digests.sha256_file(model))
(release / "release.json").write_bytes(dump_manifest(manifest))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), resource.RLIM_INFINITY))
sign_release(release, default_key())
print(len(verify_release(release, Trust((default_key().public_key(),)), NOW).files))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = {"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "3\n", done.stderr

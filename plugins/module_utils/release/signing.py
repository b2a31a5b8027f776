# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Sign a release, and verify one: signature, listing against ``release.json``, and every byte on disk.

The signature is OpenSSF Model Signing v1 (``model.sig``); its bytes are in ``statement``, certificates in
``certificates``. Order matters when verifying: nothing of the release is parsed before the signature over it holds.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import crypto
from .certificates import check_leaf, check_valid_at, describe, issued_by, verify_chain
from .digests import PathLike
from .errors import ReleaseError
from .keys import Trust, key_id, load_certificates, load_private_key
from .manifest_reader import read_manifest
from .model import MANIFEST_NAME, MAX_MANIFEST, SIGNATURE_NAME, Manifest
from .statement import MAX_BUNDLE, Bundle, build_bundle, build_statement, pae, parse_bundle, parse_statement
from .tree import check_files, list_files, read_member

_TEMPORARY = ".model.sig.tmp"


@dataclass(frozen=True)
class Statement:
    """What a verified signature says: the listed files, who signed, and when the certificate path expires (or None)."""

    resources: dict[str, str]
    key_id: str
    not_after: datetime.datetime | None


@dataclass(frozen=True)
class Verified:
    """A verified release: its manifest, the signer's key id, the relative paths that are there and match."""

    manifest: Manifest
    key_id: str
    not_after: datetime.datetime | None
    files: tuple[str, ...]


@dataclass(frozen=True)
class Signer:
    """A private key, and in certificate mode its certificate followed by the intermediate ones."""

    key: Any
    chain: tuple[Any, ...] = ()

    @property
    def key_id(self) -> str:
        """The id of the public key."""
        return key_id(self.key.public_key())


@dataclass(frozen=True)
class Signed:
    """The outcome of signing: whether and why ``model.sig`` was (or would be) written, and by which key.

    ``digest`` is the release digest, ``before`` the key id of a signature that was in place and holds.
    """

    changed: bool
    reason: str
    key_id: str
    digest: str
    before: str | None


def utc_now() -> datetime.datetime:
    """Return the machine's time, aware, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc)


def load_signer(
    private_key: PathLike, passphrase: bytes | None = None, certificate_chain: PathLike | None = None
) -> Signer:
    """Read a signer from PEM files: a private key, and optionally its certificate with the intermediate ones behind it.

    Raises ReleaseError, also when the certificate does not belong to the key.
    """
    key = load_private_key(private_key, passphrase)
    if certificate_chain is None:
        return Signer(key)
    chain = load_certificates(certificate_chain)
    if key_id(chain[0].public_key()) != key_id(key.public_key()):
        raise ReleaseError(
            f"{os.fspath(certificate_chain)}: the first {describe(chain[0])} is not that of the private key "
            f"{os.fspath(private_key)}; put the signing certificate first"
        )
    return Signer(key, tuple(chain))


def _check_chain_to_sign(chain: Sequence[Any], now: datetime.datetime) -> None:
    """Refuse to sign with a chain that no verifier would accept."""
    where = "certificate chain"
    check_leaf(chain[0], where)
    for index, certificate in enumerate(chain):
        check_valid_at(certificate, now, where)
        if index and not issued_by(chain[index - 1], certificate):
            raise ReleaseError(
                f"{where}: {describe(chain[index - 1])} was not issued by the next one, {describe(certificate)}; "
                "order them from the signing certificate towards the root"
            )


def _listing(manifest: Manifest) -> dict[str, str]:
    """Return what a signature over this release has to list: path to hex SHA-256."""
    listing = {entry.path: entry.sha256 for entry in manifest.files()}
    listing[MANIFEST_NAME] = hashlib.sha256(manifest.raw).hexdigest()
    return listing


def _current_signature(base: str, signer: Signer, listing: dict[str, str]) -> tuple[str, str]:
    """Return (signer's key id when the signature in place is its, why it has to be replaced); both may be empty."""
    path = os.path.join(base, SIGNATURE_NAME)
    if not os.path.lexists(path):
        return "", "it was not signed"
    try:
        bundle = parse_bundle(read_member(base, SIGNATURE_NAME, MAX_BUNDLE), path)
        if not bundle.certificates and bundle.hint != signer.key_id:
            return bundle.hint, "it was signed by another key"
        resources = _open_bundle(bundle, signer.key.public_key(), path)
    except ReleaseError as error:
        # Whatever is wrong with the signature in place, the cure is the one asked for: to sign.
        return "", f"the signature in place is not one by this signer ({error})"
    der = tuple(item.public_bytes(crypto.serialization.Encoding.DER) for item in signer.chain)
    if bundle.certificates != der:
        return signer.key_id, "the signature in place has other certificates"
    if resources != listing:
        return signer.key_id, "the release changed since it was signed"
    return signer.key_id, ""


def _write_signature(base: str, raw: bytes) -> None:
    """Replace ``model.sig`` as a whole, durably; a crash leaves the old one or the new one."""
    temporary, path = os.path.join(base, _TEMPORARY), os.path.join(base, SIGNATURE_NAME)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o644), "wb") as sink:
            sink.write(raw)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(temporary, path)
        handle = os.open(base, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def sign_release(
    release_dir: PathLike, signer: Any, now: datetime.datetime | None = None, check: bool = False
) -> Signed:
    """Sign every file of a release directory and write ``model.sig``, unless the same signer already did.

    What is signed is what ``release.json`` says; the files are hashed and compared with it first, so a release that
    does not agree with itself is never signed.

    :param signer: a Signer, or an EC private key alone
    :param now: time to check certificates at; the machine's when None
    :param check: write nothing, tell what would happen

    Raises ReleaseError: bad manifest, missing, altered, additional or linked files, an unusable certificate.
    """
    crypto.require()
    signer = signer if isinstance(signer, Signer) else Signer(crypto.check_ec(signer, "signing key"))
    now = now or utc_now()
    base = os.fspath(release_dir)
    manifest = read_manifest(read_member(base, MANIFEST_NAME, MAX_MANIFEST), os.path.join(base, MANIFEST_NAME))
    listing = _listing(manifest)
    found = list_files(base, listing, (SIGNATURE_NAME, _TEMPORARY))
    _refuse_missing(base, found, listing)
    check_files(found, listing, {entry.path: entry.size for entry in manifest.files()})
    if signer.chain:
        _check_chain_to_sign(signer.chain, now)
    before, reason = _current_signature(base, signer, listing)
    if reason and not check:
        payload = build_statement(manifest.model, listing)
        signature = signer.key.sign(pae(payload), crypto.ecdsa(signer.key))
        der = [item.public_bytes(crypto.serialization.Encoding.DER) for item in signer.chain]
        _write_signature(base, build_bundle(payload, signature, signer.key_id, der))
    return Signed(bool(reason), reason, signer.key_id, manifest.digest, before or None)


def _public_key_of(
    bundle: Bundle, trust: Trust, now: datetime.datetime, where: str
) -> tuple[Any, datetime.datetime | None]:
    """Return the trusted key that has to have made a bundle's signature, and when its certificates expire."""
    if not bundle.certificates:
        key = trust.key(bundle.hint)
        if key is None:
            known = ", ".join(key_id(item) for item in trust.keys) or "none"
            raise ReleaseError(f"{where}: is signed by the key {bundle.hint}, not trusted here; trusted keys: {known}")
        return key, None
    try:
        chain = [crypto.x509.load_der_x509_certificate(item) for item in bundle.certificates]
    except ValueError as error:
        raise ReleaseError(f"{where}: a certificate cannot be read ({error})") from error
    verified = verify_chain(chain, trust.roots, now, where)
    return verified.public_key, verified.not_after


def _open_bundle(bundle: Bundle, key: Any, where: str) -> dict[str, str]:
    """Check the signature with a public key, and only then read what was signed: the listed files."""
    try:
        key.verify(bundle.signature, pae(bundle.payload), crypto.ecdsa(key))
    except crypto.exceptions.InvalidSignature:
        text = f"{where}: the signature is wrong: the signed list was altered, or another key signed it"
        raise ReleaseError(text) from None
    return parse_statement(bundle.payload, where)


def verify_bundle(raw: bytes, trust: Trust, now: datetime.datetime, where: str = SIGNATURE_NAME) -> Statement:
    """Verify the bytes of a signature file against trusted keys and CA certificates; no other file is looked at.

    :param now: aware time that every certificate has to be valid at (not used for plain keys)
    :param where: file named in errors

    Raises ReleaseError.
    """
    crypto.require()
    if now.tzinfo is None:
        raise ReleaseError(f"{where}: the time to verify at has no time zone; pass an aware datetime")
    bundle = parse_bundle(raw, where)
    key, not_after = _public_key_of(bundle, trust, now, where)
    return Statement(_open_bundle(bundle, key, where), key_id(key), not_after)


def _refuse_missing(base: str, found: Iterable[str], required: Iterable[str]) -> None:
    missing = sorted(set(required) - set(found))
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ReleaseError(f"{base}: file '{missing[0]}'{more} is missing; the release is not complete")


def _refuse_disagreement(manifest: Manifest, resources: dict[str, str], base: str) -> None:
    """Refuse a signature whose list is not that of ``release.json``: one of them is then not to be believed."""
    listing = _listing(manifest)
    for path in sorted(set(listing) | set(resources)):
        if listing.get(path) != resources.get(path):
            raise ReleaseError(
                f"{os.path.join(base, SIGNATURE_NAME)}: file '{path}' has SHA-256 {resources.get(path, 'none')} in the "
                f"signature but {listing.get(path, 'none')} in {MANIFEST_NAME}; build and sign the release again"
            )


def verify_release(
    release_dir: PathLike,
    trust: Trust,
    now: datetime.datetime,
    partial: bool = False,
    variants: Iterable[str] | None = None,
    blobs_dir: PathLike | None = None,
) -> Verified:
    """Verify a release directory: signature, agreement with ``release.json``, and every byte of every file present.

    :param partial: files of variants may be missing (a device holds one); ``release.json`` and golden never
    :param variants: with ``partial``: ids whose files have to be complete
    :param blobs_dir: accept symlinks that resolve inside this directory (a device's store)

    Raises ReleaseError: see ``statement``, ``certificates`` and ``tree`` for what is refused.
    """
    base = os.fspath(release_dir)
    signature_path = os.path.join(base, SIGNATURE_NAME)
    if not os.path.lexists(signature_path):
        raise ReleaseError(f"{signature_path}: is missing; the release is not signed")
    statement = verify_bundle(read_member(base, SIGNATURE_NAME, MAX_BUNDLE, blobs_dir), trust, now, signature_path)
    found = list_files(base, statement.resources, (SIGNATURE_NAME,), blobs_dir)
    _refuse_missing(base, found, (MANIFEST_NAME,))
    raw = read_member(base, MANIFEST_NAME, MAX_MANIFEST, blobs_dir)
    if hashlib.sha256(raw).hexdigest() != statement.resources.get(MANIFEST_NAME):
        raise ReleaseError(f"{os.path.join(base, MANIFEST_NAME)}: is not the one that was signed: it was altered")
    manifest = read_manifest(raw, os.path.join(base, MANIFEST_NAME))
    _refuse_disagreement(manifest, statement.resources, base)
    required = [entry.path for entry in manifest.files(() if partial and variants is None else variants)]
    _refuse_missing(base, found, required if partial else statement.resources)
    check_files(found, statement.resources, {entry.path: entry.size for entry in manifest.files()})
    return Verified(manifest, statement.key_id, statement.not_after, tuple(sorted(found)))

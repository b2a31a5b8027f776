# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""X.509 chains: from a signing certificate to a trusted root, with every certificate valid now (RFC 5280, section 6).

The time is an argument: upstream verifiers accept an expired signing certificate, this one does not.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import crypto
from .errors import ReleaseError

MAX_CHAIN = 6
_MIN_RSA = 2048


@dataclass(frozen=True)
class Chain:
    """A verified path: the leaf's public key and the moment the first of its certificates expires."""

    public_key: Any
    not_after: datetime.datetime


def describe(certificate: Any) -> str:
    """Return a certificate's subject for error texts."""
    return f"certificate '{certificate.subject.rfc4514_string()}'"


def check_valid_at(certificate: Any, now: datetime.datetime, where: str) -> None:
    """Raise ReleaseError when ``now`` is outside the certificate's validity."""
    first, last = crypto.validity(certificate)
    if now < first:
        raise ReleaseError(
            f"{where}: {describe(certificate)} is valid from {first.isoformat()}, and it is {now.isoformat()}"
        )
    if now > last:
        raise ReleaseError(
            f"{where}: {describe(certificate)} expired at {last.isoformat()}, and it is {now.isoformat()}; "
            "sign the release again with a valid certificate"
        )


def _extension(certificate: Any, kind: Any) -> Any:
    """Return the value of an extension, None when the certificate lacks it."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except crypto.x509.ExtensionNotFound:
        return None


def _check_extensions(certificate: Any, where: str) -> None:
    """Refuse critical extensions that are not understood here (RFC 5280, 4.2), and unreadable ones."""
    x509 = crypto.x509
    understood = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
    try:
        extensions = list(certificate.extensions)
    except ValueError as error:
        raise ReleaseError(f"{where}: {describe(certificate)} has unreadable extensions ({error})") from error
    for extension in extensions:
        if extension.critical and not isinstance(extension.value, understood):
            oid = extension.oid.dotted_string
            raise ReleaseError(f"{where}: {describe(certificate)} has the critical extension {oid}, not supported here")


def check_leaf(certificate: Any, where: str) -> None:
    """Refuse a certificate that must not sign releases: a CA, no digitalSignature, other purposes than code signing."""
    x509 = crypto.x509
    _check_extensions(certificate, where)
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise ReleaseError(f"{where}: {describe(certificate)} is a CA; sign with a certificate that it issued")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise ReleaseError(f"{where}: {describe(certificate)} lacks key usage digitalSignature")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    good = (x509.ExtendedKeyUsageOID.CODE_SIGNING.dotted_string, "2.5.29.37.0")
    if purposes is not None and not any(purpose.dotted_string in good for purpose in purposes):
        raise ReleaseError(
            f"{where}: {describe(certificate)} is for other purposes; it needs extended key usage codeSigning"
        )


def _check_issuer(certificate: Any, below: int, where: str) -> None:
    """Refuse an issuer that is not a CA, may not sign certificates, or has too many CA certificates below it."""
    x509 = crypto.x509
    _check_extensions(certificate, where)
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise ReleaseError(f"{where}: {describe(certificate)} is not a CA (basic constraints)")
    if constraints.path_length is not None and below > constraints.path_length:
        raise ReleaseError(
            f"{where}: {describe(certificate)} allows {constraints.path_length} CAs below it, not {below}"
        )
    usage = _extension(certificate, x509.KeyUsage)
    if usage is None or not usage.key_cert_sign:
        raise ReleaseError(f"{where}: {describe(certificate)} lacks key usage keyCertSign")


def issued_by(certificate: Any, issuer: Any) -> bool:
    """Tell whether ``issuer``'s name and key are those that signed ``certificate`` (EC or RSA, SHA-2 only)."""
    hashes = crypto.hashes
    if certificate.issuer != issuer.subject:
        return False
    try:
        algorithm = certificate.signature_hash_algorithm
        if not isinstance(algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
            return False
        key: Any = issuer.public_key()
        body, signature = certificate.tbs_certificate_bytes, certificate.signature
        if isinstance(key, crypto.ec.EllipticCurvePublicKey):
            key.verify(signature, body, crypto.ec.ECDSA(algorithm))
        elif isinstance(key, crypto.rsa.RSAPublicKey) and key.key_size >= _MIN_RSA:
            key.verify(signature, body, crypto.padding.PKCS1v15(), algorithm)
        else:
            return False
    except (crypto.exceptions.InvalidSignature, crypto.exceptions.UnsupportedAlgorithm, ValueError):
        return False
    return True


def _same(first: Any, second: Any) -> bool:
    """Tell whether two certificates have the same bytes."""
    return first.fingerprint(crypto.hashes.SHA256()) == second.fingerprint(crypto.hashes.SHA256())


def _path(path: list[Any], pool: Sequence[Any], roots: Sequence[Any]) -> list[list[Any]]:
    """Return every path from ``path`` through the pool to a root, shortest first by construction."""
    if len(path) > MAX_CHAIN:
        return []
    tip = path[-1]
    found = [[*path, root] for root in roots if issued_by(tip, root)]
    for candidate in pool:
        if not any(_same(candidate, used) for used in path) and issued_by(tip, candidate):
            found.extend(_path([*path, candidate], pool, roots))
    return found


def _check_path(path: Sequence[Any], now: datetime.datetime, where: str) -> None:
    for below, certificate in enumerate(path[1:]):
        _check_issuer(certificate, below, where)
    for certificate in path:
        check_valid_at(certificate, now, where)


def verify_chain(chain: Sequence[Any], roots: Iterable[Any], now: datetime.datetime, where: str) -> Chain:
    """Verify a bundle's certificates, leaf first, against trusted roots, and return the leaf's key.

    Every certificate of the bundle has to be valid at ``now``, used or not. The root itself may be in the bundle.
    Raises ReleaseError.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise ReleaseError(f"{where}: has {len(chain)} certificates; 1 to {MAX_CHAIN} are allowed")
    trusted = list(roots)
    if not trusted:
        raise ReleaseError(
            f"{where}: is signed with a certificate, but no CA certificate is trusted here (roots/*.pem)"
        )
    leaf = chain[0]
    check_leaf(leaf, where)
    for certificate in chain:
        check_valid_at(certificate, now, where)
    pool = [item for item in chain[1:] if not any(_same(item, root) for root in trusted)]
    paths = _path([leaf], pool, trusted)
    if not paths:
        raise ReleaseError(f"{where}: {describe(leaf)} does not chain to a trusted CA certificate")
    problems = []
    for path in paths:
        try:
            _check_path(path, now, where)
        except ReleaseError as error:
            problems.append(error)
            continue
        public_key = crypto.check_ec(leaf.public_key(), f"{where}: {describe(leaf)}")
        return Chain(public_key, min(crypto.validity(item)[1] for item in path))
    raise problems[0]

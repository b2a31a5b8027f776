# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Certificates of a KubeEdge cluster: whether one has to be signed again, and how it is signed. No input or output.

The authority's key never leaves the controller, so every certificate is signed there, per node, and none is ever asked
for with a token. Times are arguments.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..release import crypto
from .errors import KubeedgeError

NODE, SERVER = "node", "server"
PURPOSES = (NODE, SERVER)
AUTHORITY_NAME = "edgeai.fleet KubeEdge authority"
#: A certificate is valid from a little before it is signed: the clocks of two machines are never the same.
BACKDATED = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DNS = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NODE_PREFIX, _NODES = "system:node:", "system:nodes"


@dataclass(frozen=True)
class Wanted:
    """What a certificate has to be: ``purpose`` (node or server), name of the node or service, names and addresses."""

    purpose: str
    name: str
    names: tuple[str, ...]
    validity: datetime.timedelta
    renew_before: datetime.timedelta


@dataclass(frozen=True)
class Authority:
    """The authority's certificate and, where something is signed, its private key."""

    certificate: Any
    key: Any


def check_name(name: str) -> str:
    """Return a Kubernetes node name (RFC 1123). Raises KubeedgeError."""
    if len(name) > 253 or not _DNS.fullmatch(name):
        raise KubeedgeError(
            f"name: {name!r} is no name of a Kubernetes node; use small letters, digits, - and ., "
            "for example kubeedge_edge_node_name: camera-01"
        )
    return name


def wanted(purpose: str, name: str, names: Sequence[str], validity_days: int, renew_before_days: int) -> Wanted:
    """Check and return what is wanted; ``names`` are DNS names and addresses. Raises KubeedgeError."""
    if purpose not in PURPOSES:
        raise KubeedgeError(f"purpose: {purpose!r} is none of {', '.join(PURPOSES)}")
    if not 1 <= validity_days <= 3650:
        raise KubeedgeError(f"validity_days: {validity_days} is not between 1 and 3650")
    if not 0 <= renew_before_days < validity_days:
        raise KubeedgeError(
            f"renew_before_days: {renew_before_days} has to be less than validity_days, {validity_days}: "
            "otherwise every run renews the certificate"
        )
    if purpose == SERVER and not names:
        raise KubeedgeError("names: a server's certificate needs the names or addresses that edges dial")
    for entry in names:
        general_name(entry)
    days = datetime.timedelta(days=validity_days), datetime.timedelta(days=renew_before_days)
    return Wanted(purpose, check_name(name), tuple(sorted(set(names))), *days)


def general_name(text: str) -> Any:
    """Return an address or a DNS name as X.509 has it. Raises KubeedgeError."""
    crypto.require()
    try:
        return crypto.x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if len(text) > 253 or not _DNS.fullmatch(text):
        raise KubeedgeError(f"names: {text!r} is neither an address nor a DNS name in small letters")
    return crypto.x509.DNSName(text)


def subject(purpose: str, name: str) -> Any:
    """Return the subject. CloudCore and the API server know a node by exactly this name and organization."""
    oid, attribute = crypto.x509.NameOID, crypto.x509.NameAttribute
    if purpose == NODE:
        return crypto.x509.Name(
            [attribute(oid.ORGANIZATION_NAME, _NODES), attribute(oid.COMMON_NAME, _NODE_PREFIX + name)]
        )
    return crypto.x509.Name([attribute(oid.ORGANIZATION_NAME, "KubeEdge"), attribute(oid.COMMON_NAME, name)])


def names_of(certificate: Any) -> tuple[str, ...]:
    """Return the DNS names and addresses a certificate is for, sorted."""
    try:
        extension = certificate.extensions.get_extension_for_class(crypto.x509.SubjectAlternativeName)
    except crypto.x509.ExtensionNotFound:
        return ()
    return tuple(sorted(str(entry.value) for entry in extension.value))


def _purposes_of(certificate: Any) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(crypto.x509.ExtendedKeyUsage)
    except crypto.x509.ExtensionNotFound:
        return ()
    return tuple(sorted(oid.dotted_string for oid in extension.value))


def _purpose(purpose: str) -> Any:
    oids = crypto.x509.ExtendedKeyUsageOID
    return oids.CLIENT_AUTH if purpose == NODE else oids.SERVER_AUTH


def signed_by(certificate: Any, authority: Any) -> bool:
    """Whether the authority's key signed this certificate, and its name is in it."""
    if certificate.issuer != authority.subject:
        return False
    key = authority.public_key()
    try:
        algorithm = crypto.ec.ECDSA(certificate.signature_hash_algorithm)
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, algorithm)
    except (crypto.exceptions.InvalidSignature, crypto.exceptions.UnsupportedAlgorithm, TypeError):
        return False
    return True


def same_key(certificate: Any, key: Any) -> bool:
    """Whether a certificate is for this private key."""
    left, right = certificate.public_key(), key.public_key()
    form = crypto.serialization.Encoding.DER, crypto.serialization.PublicFormat.SubjectPublicKeyInfo
    return bool(left.public_bytes(*form) == right.public_bytes(*form))


def reasons(certificate: Any, key: Any, want: Wanted, authority: Any, now: datetime.datetime) -> list[str]:
    """Return why a certificate has to be signed (again), nothing when it is right.

    :param certificate: the one that is there, None when there is none; likewise ``key``
    :param authority: the authority's certificate
    """
    if certificate is None or key is None:
        return ["missing"]
    first, last = crypto.validity(certificate)
    found = (
        ("key", not same_key(certificate, key)),
        ("authority", not signed_by(certificate, authority)),
        ("name", certificate.subject != subject(want.purpose, want.name)),
        ("names", names_of(certificate) != want.names),
        ("purpose", _purposes_of(certificate) != (_purpose(want.purpose).dotted_string,)),
        ("not_yet_valid", first > now),
        ("expires", last - now < want.renew_before),
    )
    return [name for name, wrong in found if wrong]


def authority_reasons(certificate: Any, key: Any, needed: datetime.timedelta, now: datetime.datetime) -> list[str]:
    """Return why the authority's certificate has to be made (again) for its key.

    :param needed: how long it has to last, so that what it signs does not outlive it

    Raises KubeedgeError when it is for another key: then nobody can tell which of the two devices trust.
    """
    if certificate is None:
        return ["missing"]
    if not same_key(certificate, key):
        raise KubeedgeError(
            "the authority's certificate is not for the authority's key; restore the pair from your backup, "
            "or move both away to begin with a new authority (every node then gets a new certificate)"
        )
    return ["expires"] if crypto.validity(certificate)[1] - now < needed else []


def _builder(name: Any, issuer: Any, public_key: Any, first: datetime.datetime, last: datetime.datetime) -> Any:
    x509 = crypto.x509
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(**chosen: bool) -> Any:
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    names += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return crypto.x509.KeyUsage(**{name: chosen.get(name, False) for name in names})


def new_key() -> Any:
    """Return a new private key on P-256."""
    crypto.require()
    return crypto.ec.generate_private_key(crypto.ec.SECP256R1())


def make_authority(key: Any, validity: datetime.timedelta, now: datetime.datetime) -> Any:
    """Return a self-signed certificate for the authority's key.

    One that is made again for the same key replaces the old one: what was signed before stays valid under it.
    """
    oid = crypto.x509.NameOID
    name = crypto.x509.Name([crypto.x509.NameAttribute(oid.COMMON_NAME, AUTHORITY_NAME)])
    builder = _builder(name, name, key.public_key(), now - BACKDATED, now + validity)
    builder = builder.add_extension(crypto.x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    return builder.sign(key, crypto.hashes.SHA256())


def sign(want: Wanted, key: Any, authority: Authority, now: datetime.datetime) -> Any:
    """Return a certificate of the authority for a private key; it never outlives the authority's own."""
    last = min(now + want.validity, crypto.validity(authority.certificate)[1])
    issuer = authority.certificate
    builder = _builder(subject(want.purpose, want.name), issuer.subject, key.public_key(), now - BACKDATED, last)
    identifier = crypto.x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    builder = builder.add_extension(crypto.x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(crypto.x509.ExtendedKeyUsage([_purpose(want.purpose)]), critical=False)
    if want.names:
        names = crypto.x509.SubjectAlternativeName([general_name(entry) for entry in want.names])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority.key, crypto.hashes.SHA256())


def describe(certificate: Any, now: datetime.datetime) -> dict[str, Any]:
    """Return what a person wants to know of a certificate; ``days_left`` is rounded down. Nothing of a key."""
    last = crypto.validity(certificate)[1]
    return {
        "subject": certificate.subject.rfc4514_string(),
        "names": list(names_of(certificate)),
        "expires": last.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "days_left": (last - now) // DAY,
        "fingerprint": certificate.fingerprint(crypto.hashes.SHA256()).hex(),
    }

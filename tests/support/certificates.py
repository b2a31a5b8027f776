"""Certificates for tests: CAs and signing certificates with any fault a test wants."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import private_pem, public_pem

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A private key and its certificate."""

    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def _usage(**chosen: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: chosen.get(name, False) for name in names})


def issue(
    name: str,
    issuer: Identity | None = None,
    *,
    ca: bool | None = False,
    usage: str | None = "digital_signature",
    purposes: list[Any] | None = None,
    path_length: int | None = None,
    start: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + 365 * DAY,
    key: Any = None,
    digest: Any = None,
    extra: x509.ExtensionType | None = None,
) -> Identity:
    """Issue a certificate (self-signed without ``issuer``); ``ca=None`` and ``usage=None`` leave the extension out."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if usage is not None:
        builder = builder.add_extension(_usage(**{usage: True}), critical=True)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    signing_key = issuer.key if issuer else key
    return Identity(key, builder.sign(signing_key, digest or hashes.SHA256()))


def authority(name: str = "root", issuer: Identity | None = None, **options: Any) -> Identity:
    """Issue a CA certificate."""
    return issue(name, issuer, **{"ca": True, "usage": "key_cert_sign", **options})


CODE_SIGNING = [ExtendedKeyUsageOID.CODE_SIGNING]
SERVER_AUTH = [ExtendedKeyUsageOID.SERVER_AUTH]


def write_key(path: Path, key: Any, passphrase: bytes | None = None) -> Path:
    """Write a private key with mode 0600 and return its path."""
    path.touch(mode=0o600)
    path.write_bytes(private_pem(key, passphrase))
    return path


def write_public(path: Path, key: Any) -> Path:
    """Write the public half of a private key and return the path."""
    path.write_bytes(public_pem(key.public_key()))
    return path


def write_chain(path: Path, *identities: Identity) -> Path:
    """Write certificates, in the given order, into one PEM file and return its path."""
    path.write_bytes(b"".join(identity.pem for identity in identities))
    return path

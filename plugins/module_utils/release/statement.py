# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""OpenSSF Model Signing v1: the Sigstore bundle around a DSSE envelope around an in-toto statement, as bytes.

Nothing here verifies a signature. Reading is strict: every field is known, every list has the length it must have.
Of what upstream tools can write, only method ``files`` with SHA-256 and without symlinks is taken.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ReleaseError, field_error
from .model import SIGNATURE_NAME
from .paths import check_relative
from .schema import Fields, load_json

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_BUNDLE = 8 * 1024 * 1024
"""Largest accepted signature file, bytes."""
MAX_RESOURCES = 4098
"""The files of a release, its golden samples and ``release.json``."""

# The git names are what model_signing adds by default. Taking them is safe only because this verifier looks at every
# file of the directory and refuses the unlisted ones, under these names too.
ALLOWED_IGNORES = frozenset({SIGNATURE_NAME, ".git", ".gitattributes", ".github", ".gitignore"})

_HEX = re.compile(r"[0-9a-f]{64}")
_HEX_FIX = "use 64 lower-case hex digits"


@dataclass(frozen=True)
class Bundle:
    """A parsed bundle: exact payload, its one signature, and either a key's id or certificates (DER, leaf first)."""

    payload: bytes
    signature: bytes
    hint: str
    certificates: tuple[bytes, ...]


def pae(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding (DSSE protocol v1, section Signature Definition)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode("ascii"), len(payload), payload)


def _decode(fields: Fields, name: str) -> bytes:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise fields.error(name, "use base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise fields.error(name, "use base64") from None


def _constant(fields: Fields, name: str, expected: str) -> None:
    if fields.get(name) != expected:
        raise fields.error(name, f"only {expected!r} is accepted")


def _one(fields: Fields, name: str) -> Any:
    value = fields.get(name)
    if not isinstance(value, list) or len(value) != 1:
        raise fields.error(name, "exactly one is accepted")
    return value[0]


def _read_material(value: Any, where: str) -> tuple[str, tuple[bytes, ...]]:
    """Return (hint, certificates); exactly one of them is not empty."""
    path = "verificationMaterial"
    material = Fields(value, where, path, (), ("publicKey", "x509CertificateChain", "tlogEntries"))
    if material.get("tlogEntries") not in (None, []):
        raise material.error("tlogEntries", "transparency logs are not used here; sign with a key or a certificate")
    if ("publicKey" in material) == ("x509CertificateChain" in material):
        raise field_error(where, path, value, "use either publicKey or x509CertificateChain")
    if "publicKey" in material:
        key = Fields(material.get("publicKey"), where, path + ".publicKey", ("hint",))
        return key.text("hint", _HEX, _HEX_FIX), ()
    chain = Fields(material.get("x509CertificateChain"), where, path + ".x509CertificateChain", ("certificates",))
    certificates = []
    for index, item in enumerate(chain.array("certificates", 1, 16)):
        entry = Fields(item, where, f"{chain.at('certificates')}[{index}]", ("rawBytes",))
        certificates.append(_decode(entry, "rawBytes"))
    return "", tuple(certificates)


def parse_bundle(raw: bytes, where: str) -> Bundle:
    """Return the parts of a Sigstore bundle. Raises ReleaseError."""
    top = Fields(load_json(raw, where, MAX_BUNDLE), where, "", ("mediaType", "verificationMaterial", "dsseEnvelope"))
    _constant(top, "mediaType", MEDIA_TYPE)
    hint, certificates = _read_material(top.get("verificationMaterial"), where)
    envelope = Fields(top.get("dsseEnvelope"), where, "dsseEnvelope", ("payload", "payloadType", "signatures"))
    _constant(envelope, "payloadType", PAYLOAD_TYPE)
    signature = Fields(_one(envelope, "signatures"), where, "dsseEnvelope.signatures[0]", ("sig",), ("keyid",))
    if signature.get("keyid") not in (None, ""):
        raise signature.error("keyid", "leave it empty; the key is named by verificationMaterial")
    return Bundle(_decode(envelope, "payload"), _decode(signature, "sig"), hint, certificates)


def build_bundle(payload: bytes, signature: bytes, hint: str, certificates: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of a bundle: compact JSON, as upstream writes it.

    :param hint: id of the public key; not used when ``certificates`` (DER, leaf first) are given
    """
    material: dict[str, Any] = {"publicKey": {"hint": hint}}
    if certificates:
        chain = [{"rawBytes": base64.b64encode(item).decode("ascii")} for item in certificates]
        material = {"x509CertificateChain": {"certificates": chain}}
    material["tlogEntries"] = []
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode("ascii"), "keyid": ""}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode("ascii")


def root_digest(digests: Sequence[str]) -> str:
    """Return the subject's digest: hex SHA-256 over the raw digests of the resources, in listed order."""
    return hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()


def build_statement(name: str, resources: Mapping[str, str]) -> bytes:
    """Return the payload that lists ``resources`` (path to hex SHA-256), sorted by path components.

    :param name: the subject's name; informative only
    """
    ordered = sorted(resources.items(), key=lambda item: item[0].split("/"))
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root_digest([digest for _name, digest in ordered])}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_NAME],
            },
            "resources": [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in ordered],
        },
    }
    return json.dumps(statement, indent=2).encode("ascii")


def _check_serialization(value: Any, where: str) -> None:
    path = "predicate.serialization"
    fields = Fields(value, where, path, ("method", "hash_type", "allow_symlinks"), ("ignore_paths",))
    _constant(fields, "method", "files")
    _constant(fields, "hash_type", "sha256")
    if fields.get("allow_symlinks") is not False:
        raise fields.error("allow_symlinks", "only false is accepted")
    for name in fields.array("ignore_paths", 0, 16) if "ignore_paths" in fields else []:
        if not isinstance(name, str) or name not in ALLOWED_IGNORES:
            fix = f"only {SIGNATURE_NAME} (and the .git names that model_signing adds) may be ignored"
            raise field_error(where, path + ".ignore_paths", name, fix)


def _read_resources(predicate: Fields) -> dict[str, str]:
    resources: dict[str, str] = {}
    for index, item in enumerate(predicate.array("resources", 1, MAX_RESOURCES)):
        at = f"predicate.resources[{index}]"
        fields = Fields(item, predicate.where, at, ("name", "algorithm", "digest"))
        _constant(fields, "algorithm", "sha256")
        name = check_relative(fields.get("name"), predicate.where, at + ".name")
        if name in resources:
            raise fields.error("name", "the file is listed twice")
        if name == SIGNATURE_NAME:
            raise fields.error("name", "a signature cannot list itself")
        resources[name] = fields.text("digest", _HEX, _HEX_FIX)
    return resources


def parse_statement(payload: bytes, where: str) -> dict[str, str]:
    """Return the listed files of a statement: path to hex SHA-256, in listed order.

    Raises ReleaseError for another statement or predicate type, several subjects, another serialization than files
    with SHA-256 and no symlinks, unsafe ignored paths, bad or double names, a subject that disagrees with the list.
    """
    where = f"{where} (payload)"
    top = Fields(load_json(payload, where, MAX_BUNDLE), where, "", ("_type", "subject", "predicateType", "predicate"))
    _constant(top, "_type", STATEMENT_TYPE)
    _constant(top, "predicateType", PREDICATE_TYPE)
    subject = Fields(_one(top, "subject"), where, "subject[0]", ("name", "digest"))
    digest = Fields(subject.get("digest"), where, "subject[0].digest", ("sha256",))
    predicate = Fields(top.get("predicate"), where, "predicate", ("serialization", "resources"))
    _check_serialization(predicate.get("serialization"), where)
    resources = _read_resources(predicate)
    if digest.text("sha256", _HEX, _HEX_FIX) != root_digest(list(resources.values())):
        raise ReleaseError(f"{where}: the subject's digest is not that of the listed resources; sign the release again")
    return resources

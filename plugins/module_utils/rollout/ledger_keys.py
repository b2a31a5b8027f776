# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Signing and checking checkpoints: ECDSA over SHA-256, keys as PEM."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from typing import Any

from .errors import RolloutError

_PEM_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)


def _crypto() -> Any:
    """The parts of `cryptography` in use; `RolloutError` with the interpreter's path when it is not installed."""
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise RolloutError(
            f"checkpoints of the ledger need the Python package cryptography; {sys.executable} has none ({error})"
        ) from error
    return exceptions, hashes, serialization, ec


def key_id(public_key: Any) -> str:
    """SHA-256 (hex) of the key's SubjectPublicKeyInfo as PEM, the same id release signatures use."""
    _exceptions, _hashes, serialization, _ec = _crypto()
    pem = public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def load_signer(path: str, passphrase: bytes | None = None) -> Any:
    """The EC private key at ``path``; `RolloutError` names the file, never its content."""
    _exceptions, _hashes, serialization, ec = _crypto()
    try:
        with open(path, "rb") as handle:
            key = serialization.load_pem_private_key(handle.read(1 << 20), passphrase)
    except (OSError, ValueError, TypeError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "not a readable PEM private key (or wrong passphrase)"
        )
        raise RolloutError(f"the ledger's signing key {path}: {reason}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RolloutError(f"the ledger's signing key {path} is not an EC key; make one with edgeai.fleet.signing_key")
    return key


def sign(key: Any, message: bytes) -> dict[str, str]:
    """The data of a checkpoint record: signature (base64 of DER) and key_id."""
    _exceptions, hashes, _serialization, ec = _crypto()
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    return {"signature": base64.b64encode(signature).decode("ascii"), "key_id": key_id(key.public_key())}


def signed_by(key: Any, data: dict[str, Any]) -> bool:
    """Whether a checkpoint names this private key's public half."""
    return data.get("key_id") == key_id(key.public_key())


def load_public_keys(pem: bytes) -> dict[str, Any]:
    """Every public key in ``pem`` (several during a key's rotation) by key id; `RolloutError` when there is none."""
    _exceptions, _hashes, serialization, ec = _crypto()
    keys: dict[str, Any] = {}
    for block in _PEM_KEY.findall(pem):
        try:
            key = serialization.load_pem_public_key(block)
        except ValueError as error:
            raise RolloutError(f"the ledger's public key is not readable PEM: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise RolloutError(f"the ledger's public key is a {type(key).__name__}; it must be an EC key")
        keys[key_id(key)] = key
    if not keys:
        raise RolloutError(
            "the ledger's public key holds no PEM block 'PUBLIC KEY'; give the public half, not the private key"
        )
    return keys


def signature_problem(keys: dict[str, Any], data: dict[str, Any], message: bytes) -> str | None:
    """None for a good signature, else what is wrong with the checkpoint."""
    exceptions, hashes, _serialization, ec = _crypto()
    key = keys.get(str(data.get("key_id")))
    if key is None:
        return "signed by key {}, which is not the expected one".format(data.get("key_id"))
    try:
        signature = base64.b64decode(str(data.get("signature")), validate=True)
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except (ValueError, exceptions.InvalidSignature):
        return "the signature does not fit what stands before it"
    return None

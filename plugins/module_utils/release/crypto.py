# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The one place where ``cryptography`` is imported, and what differs between its versions (3.4 and later)."""

from __future__ import annotations

import datetime
import sys
from typing import Any

from .errors import ReleaseError

MINIMUM = (3, 4)

# What is missing is kept, and told when it is needed: a device without the library can still read manifests.
_problem = ""
try:
    import cryptography

    if tuple(int(part) for part in cryptography.__version__.split(".")[:2]) < MINIMUM:
        _problem = f"has version {cryptography.__version__} in {cryptography.__file__}"
    from cryptography import exceptions, x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
except ImportError as error:
    _problem = _problem or f"cannot be imported ({error})"

__all__ = ["ec", "exceptions", "hashes", "padding", "require", "rsa", "serialization", "validity", "x509"]

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def require() -> None:
    """Raise ReleaseError when ``cryptography`` is missing or too old, naming the interpreter that lacks it."""
    if _problem:
        version = ".".join(str(part) for part in sys.version_info[:3])
        raise ReleaseError(
            f"Python library cryptography >= {MINIMUM[0]}.{MINIMUM[1]} is needed for signatures, but it {_problem}; "
            f"install it for {sys.executable} (Python {version}), on Debian with the package python3-cryptography"
        )


def validity(certificate: Any) -> tuple[datetime.datetime, datetime.datetime]:
    """Return a certificate's (not before, not after) as aware datetimes in UTC."""
    if hasattr(certificate, "not_valid_after_utc"):  # cryptography >= 42
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    utc = datetime.timezone.utc
    return certificate.not_valid_before.replace(tzinfo=utc), certificate.not_valid_after.replace(tzinfo=utc)


def ecdsa(key: Any) -> Any:
    """Return the ECDSA algorithm Sigstore pairs with the curve of a key: SHA-256, 384, 512 for P-256, 384, 521."""
    by_size: dict[int, Any] = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}
    return ec.ECDSA(by_size[key.curve.key_size]())


def check_ec(key: Any, where: str) -> Any:
    """Return ``key`` when it is an elliptic-curve key on P-256, P-384 or P-521, else raise ReleaseError."""
    if not isinstance(key, (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)):
        raise ReleaseError(f"{where}: is not an elliptic-curve key; use one on P-256 (or P-384, P-521)")
    if key.curve.name not in CURVES:
        raise ReleaseError(f"{where}: curve {key.curve.name} is not supported; use P-256 (or P-384, P-521)")
    return key

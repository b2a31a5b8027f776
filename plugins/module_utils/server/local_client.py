# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Make the identity with which clients on a device reach a server that asks for certificates (mTLS).

It is good for one run of one server, which trusts exactly this certificate; the file is readable by the server's user
and root, who could do anything to the server anyway.
"""

from __future__ import annotations

import datetime
import os

from ..device import fsutil
from ..device.errors import DeviceError
from ..device.tls import LOCAL_CLIENT
from ..release import crypto
from ..release.errors import ReleaseError

# A device without a clock is in 1970; the identity ends with the server's process, not by date.
_BEGIN = datetime.datetime(1970, 1, 1)
_END = datetime.datetime(2120, 1, 1)


def write_local_client(edge_root: str) -> str:
    """Write a new key and its certificate to ``run/client.pem`` (mode 0600); returns the path. Raises DeviceError."""
    try:
        crypto.require()
    except ReleaseError as exc:
        raise DeviceError("server", str(exc)) from exc
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    x509, serialization = crypto.x509, crypto.serialization
    key = crypto.ec.generate_private_key(crypto.ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgeai local client " + os.urandom(8).hex())])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .sign(key, crypto.hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    text = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = os.path.join(edge_root, LOCAL_CLIENT)
    try:
        fsutil.write_atomic(path, text + certificate.public_bytes(encoding), 0o600)
    except OSError as exc:
        raise DeviceError("server", f"{path}: cannot be written: {exc}") from exc
    return path

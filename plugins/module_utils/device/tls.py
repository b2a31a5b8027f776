# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""TLS of the model server: is a certificate fit to be served, and contexts for the server and its local clients.

A client on the device does not need a name in the certificate: it knows the very certificate that the server has to
show, because it reads the same file.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from . import fsutil, pem
from .errors import DeviceError
from .settings import ServerSettings, Tls

#: Certificate and key with which clients on this device identify themselves to a server that asks for one (mTLS).
LOCAL_CLIENT = os.path.join("run", "client.pem")
_MAX_FILE = 1 << 20
_KEY_FIX = "give the private key of the certificate, in PEM and without a passphrase"


@dataclass(frozen=True)
class Pair:
    """A certificate that may be served, with everything that belongs to it, as PEM texts."""

    certificate: str
    key: str
    client_ca: str | None
    leaf: pem.Certificate


def check_pair(certificate: str, key: str, client_ca: str | None, now: datetime.datetime | None) -> Pair:
    """Return what is fit to be served; raises DeviceError(bad_input) that says what is wrong and how to mend it.

    ``now`` is the time to judge validity at, None to leave that out (a server serves what it has: an expired
    certificate is its clients' decision). No message contains anything of the key.
    """
    chain = pem.certificates(certificate, "certificate")
    leaf = chain[0]
    _check_order(chain)
    if leaf.purposes is not None and not {"serverAuth", "any"} & set(leaf.purposes):
        raise _bad("certificate", f"is for {', '.join(leaf.purposes)} only", "have it issued for serverAuth")
    for name, found in [("certificate", chain), ("client_ca", _authorities(client_ca))]:
        for one in found if now is not None else []:
            _check_dates(name, one, now or one.not_before)
    if "ENCRYPTED" in key:
        raise _bad("key", "is encrypted, and nobody can type a passphrase on a device", _KEY_FIX)
    if "PRIVATE KEY-----" not in key:
        raise _bad("key", "has no block BEGIN PRIVATE KEY", _KEY_FIX)
    pair = Pair(certificate, key, client_ca, leaf)
    server_context(pair)
    return pair


def _authorities(client_ca: str | None) -> list[pem.Certificate]:
    return pem.certificates(client_ca, "client_ca") if client_ca else []


def _bad(field: str, what: str, fix: str) -> DeviceError:
    return DeviceError("bad_input", f"{field}: {what}; {fix}")


def _check_order(chain: list[pem.Certificate]) -> None:
    for below, above in zip(chain, chain[1:]):
        if below.issuer != above.subject:
            fix = "put the server's own certificate first, then the one that issued it, and so on"
            raise _bad("certificate", f"{above.short} did not issue {below.short} before it", fix)


def _check_dates(field: str, certificate: pem.Certificate, now: datetime.datetime) -> None:
    if now > certificate.not_after:
        ended = certificate.not_after.isoformat()
        raise _bad(field, f"{certificate.short} expired at {ended}", "renew it before it goes to the device")
    if now < certificate.not_before:
        begins = certificate.not_before.isoformat()
        raise _bad(field, f"{certificate.short} is not valid before {begins}", "see the clock here and at the issuer")


def read_pair(tls: Tls) -> Pair:
    """Read the files that device.json names. Raises DeviceError(bad_input) naming the file."""
    try:
        texts = [_read(path) for path in (tls.certificate, tls.key)]
        return check_pair(texts[0], texts[1], _read(tls.client_ca) if tls.client_ca else None, None)
    except DeviceError as error:
        raise DeviceError(error.code, f"server.tls ({tls.certificate}): {error.message}") from error


def _read(path: str) -> str:
    try:
        return fsutil.read_bounded(path, _MAX_FILE).decode("utf-8", "replace")
    except OSError as error:
        raise DeviceError(
            "bad_input", f"{path}: cannot be read ({error.strerror}); provision the device again"
        ) from error


@contextlib.contextmanager
def _memory_file(text: str) -> Iterator[str]:
    """A name under which OpenSSL can read ``text``, without a file on any disk."""
    descriptor = os.memfd_create("edgeai-tls", os.MFD_CLOEXEC)
    try:
        fsutil.write_all(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def server_context(pair: Pair, local_client: str | None = None) -> ssl.SSLContext:
    """The context of a server; ``local_client`` is the PEM of one more accepted client certificate (with client_ca).

    Certificate and key are taken from memory, so that both are from the same moment. Raises DeviceError(bad_input).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        with _memory_file(pair.certificate) as certificate, _memory_file(pair.key) as key:
            context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise _bad("key", f"does not belong to certificate {pair.leaf.short}", _KEY_FIX) from error
        raise _bad("key", f"cannot be used with certificate {pair.leaf.short} ({error})", _KEY_FIX) from error
    if pair.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=pair.client_ca)
            if local_client:
                context.load_verify_locations(cadata=local_client)
        except ssl.SSLError as error:
            raise _bad("client_ca", f"cannot be used ({error})", "give the PEM of the CA of your clients") from error
    return context


@dataclass(frozen=True)
class LocalTls:
    """How a client on the device talks to its server: ``certificate`` is the file with what it must show."""

    certificate: str
    identity: str | None = None

    def context(self) -> ssl.SSLContext:
        """The client's context. It trusts no authority: `check` compares the certificate itself.

        Raises OSError when the identity cannot be read.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.identity is not None:
            context.load_cert_chain(self.identity)
        return context

    def check(self, shown: bytes | None) -> None:
        """Raise DeviceError(server) unless the DER certificate that was shown is the file's."""
        wanted = pem.fingerprint(pem.ders(_read(self.certificate), self.certificate)[0])
        told = pem.fingerprint(shown) if shown else "none"
        if told != wanted:
            raise DeviceError(
                "server",
                f"the server shows certificate {told[:16]}, {self.certificate} is {wanted[:16]}: "
                "another program listens there, or the server could not take the renewed certificate (see its log)",
            )


def local_tls(edge_root: str, server: ServerSettings) -> LocalTls | None:
    """What a client on this device needs, None for plain HTTP."""
    if server.tls is None:
        return None
    return LocalTls(server.tls.certificate, os.path.join(edge_root, LOCAL_CLIENT) if server.tls.client_ca else None)

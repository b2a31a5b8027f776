# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Certificates of the model server: what is read of them, which are refused, and real handshakes with them."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.certificates import CODE_SIGNING, DAY, NOW, SERVER_AUTH, Identity, authority, issue, write_chain, write_key

from ansible_collections.edgeai.fleet.plugins.module_utils.device import pem
from ansible_collections.edgeai.fleet.plugins.module_utils.device.client import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.oip import ServerError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.settings import ServerSettings, Tls
from ansible_collections.edgeai.fleet.plugins.module_utils.device.tls import (
    LocalTls,
    check_pair,
    local_tls,
    read_pair,
    server_context,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import private_pem

CLIENT_AUTH = [ExtendedKeyUsageOID.CLIENT_AUTH]
ROOT = authority("fleet")


def text(*identities: Identity) -> str:
    return b"".join(identity.pem for identity in identities).decode()


def key_of(identity: Identity) -> str:
    return private_pem(identity.key).decode()


SERVER = issue("device-7", ROOT, purposes=SERVER_AUTH)


# -- what a certificate says


def test_a_certificate_is_read_as_the_library_reads_it() -> None:
    names = x509.SubjectAlternativeName(
        [x509.DNSName("edge.example"), x509.IPAddress(ipaddress.ip_address("10.1.2.3")), x509.DNSName("edge")]
    )
    made = issue("edge", ROOT, purposes=[*SERVER_AUTH, *CLIENT_AUTH, *CODE_SIGNING], extra=names)
    found = pem.certificates("words before\n" + text(made, ROOT) + "and behind", "test")
    leaf = found[0]
    assert leaf.fingerprint == made.certificate.fingerprint(hashes.SHA256()).hex()
    assert (leaf.not_before, leaf.not_after) == (NOW - DAY, NOW + 365 * DAY)
    assert leaf.names == ("edge.example", "10.1.2.3", "edge")
    assert leaf.purposes == ("serverAuth", "clientAuth", "other")
    assert leaf.issuer == found[1].subject == found[1].issuer and leaf.subject != leaf.issuer
    assert found[1].purposes is None and found[1].names == ()


@pytest.mark.parametrize("year", [1975, 2049, 2050, 2107])
def test_dates_of_either_form_are_read(year: int) -> None:
    end = datetime.datetime(year, 6, 30, 23, 59, 59, tzinfo=datetime.timezone.utc)
    made = issue("edge", start=datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc), end=end)
    assert pem.certificates(text(made), "test")[0].not_after == end


BLOCK = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----"


@pytest.mark.parametrize(
    "broken",
    ["", BLOCK.format("AAAA"), BLOCK.format("%%%"), text(SERVER) * 65],
    ids=["empty", "no DER", "no base64", "too many"],
)
def test_what_is_no_certificate_is_refused(broken: str) -> None:
    with pytest.raises(DeviceError, match="certificate: ") as caught:
        pem.certificates(broken, "certificate")
    assert caught.value.code == "bad_input"


def test_every_cut_and_flip_is_an_error_of_ours_or_read() -> None:
    der = pem.ders(text(SERVER), "test")[0]
    for at in range(len(der)):
        for wrong in (der[:at], der[:at] + bytes([der[at] ^ 0xFF]) + der[at + 1 :]):
            with contextlib.suppress(DeviceError):
                pem._certificate(wrong, "test")


# -- which are fit to be served


def test_a_whole_pair_is_accepted() -> None:
    between = authority("site", ROOT, path_length=0)
    made = issue("edge", between, purposes=SERVER_AUTH)
    pair = check_pair(text(made, between, ROOT), key_of(made), text(ROOT), NOW)
    assert pair.leaf.fingerprint == made.certificate.fingerprint(hashes.SHA256()).hex()
    big = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    check_pair(text(issue("edge", ROOT, key=big)), private_pem(big).decode(), None, NOW)


EXPIRED = issue("edge", ROOT, end=NOW - datetime.timedelta(seconds=1))
EARLY = issue("edge", ROOT, start=NOW + DAY)
ENCRYPTED = private_pem(SERVER.key, b"secret").decode()
OLD_FORM = SERVER.key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.TraditionalOpenSSL,
    serialization.BestAvailableEncryption(b"secret"),
).decode()


@pytest.mark.parametrize(
    ("certificate", "key", "client_ca", "said"),
    [
        (text(SERVER), key_of(ROOT), None, "key: does not belong to certificate [0-9a-f]{16}; "),
        (text(EXPIRED), key_of(EXPIRED), None, "certificate: .* expired at .*; renew"),
        (text(EARLY), key_of(EARLY), None, "certificate: .* is not valid before .*; see the clock"),
        (text(SERVER, authority("old", end=NOW - DAY / 2)), key_of(SERVER), None, "did not issue"),
        (text(SERVER), key_of(SERVER), text(authority("old", end=NOW - DAY / 2)), "client_ca: .* expired at"),
        (text(ROOT, SERVER), key_of(ROOT), None, "certificate: .* did not issue .*; put the server's own"),
        (text(issue("e", ROOT, purposes=CLIENT_AUTH)), "", None, "is for clientAuth only; have it issued for server"),
        (text(SERVER), ENCRYPTED, None, "key: is encrypted"),
        (text(SERVER), OLD_FORM, None, "key: is encrypted"),
        (text(SERVER), text(SERVER), None, "key: has no block BEGIN PRIVATE KEY"),
        (text(SERVER), key_of(SERVER)[:80], None, "key: (has no block|cannot be used)"),
        ("pki/server.pem", key_of(SERVER), None, "certificate: has 0 blocks BEGIN CERTIFICATE"),
        (text(SERVER), key_of(SERVER), "ca.pem", "client_ca: has 0 blocks"),
    ],
    # Not the values: keys are made anew, and two workers must agree on the names.
    ids=lambda value: value if isinstance(value, str) and "-----" not in value else "",
)  # fmt: skip
def test_what_cannot_be_served_is_refused_with_the_reason(
    certificate: str, key: str, client_ca: str | None, said: str
) -> None:
    with pytest.raises(DeviceError, match=said) as caught:
        check_pair(certificate, key, client_ca, NOW)
    assert caught.value.code == "bad_input"
    assert not any(line in caught.value.message for line in key.splitlines() if len(line) == 64)


def test_a_server_starts_with_an_expired_certificate(tmp_path: Path) -> None:
    """Its clients decide what to make of it: a device whose renewal failed goes on serving those that pin it."""
    tls = Tls(str(write_chain(tmp_path / "s.pem", EXPIRED)), str(write_key(tmp_path / "s.key", EXPIRED.key)))
    assert read_pair(tls).leaf.not_after < NOW
    (tmp_path / "s.key").unlink()
    with pytest.raises(DeviceError, match=r"server\.tls .*s\.key: cannot be read"):
        read_pair(tls)


# -- handshakes


@contextlib.contextmanager
def served(context: ssl.SSLContext) -> Iterator[str]:
    """A TLS server that answers every request with {"live": true}; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            try:
                plain, _peer = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                while tls.recv(65536):
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + b'{"live": true}')

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def test_a_local_client_knows_the_certificate_itself(tmp_path: Path) -> None:
    """No name in the certificate, no authority on the device, an expired date: the very certificate is what counts."""
    path = str(write_chain(tmp_path / "server.pem", EXPIRED, ROOT))
    context = server_context(check_pair(text(EXPIRED), key_of(EXPIRED), None, None))
    with served(context) as url, Client(url, timeout=5, tls=LocalTls(path)) as client:
        assert client.live() and client.live()


def test_another_certificate_gets_no_request(tmp_path: Path) -> None:
    path = str(write_chain(tmp_path / "server.pem", SERVER))
    imposter = issue("device-7", ROOT, purposes=SERVER_AUTH)
    context = server_context(check_pair(text(imposter), key_of(imposter), None, None))
    said = r"shows certificate [0-9a-f]{16}, .*server\.pem is [0-9a-f]{16}"
    with served(context) as url, Client(url, tls=LocalTls(path)) as client, pytest.raises(ServerError, match=said):
        client.live()


def test_a_client_certificate_is_asked_for_and_a_local_one_is_enough(tmp_path: Path) -> None:
    path = str(write_chain(tmp_path / "server.pem", SERVER))
    pair = check_pair(text(SERVER), key_of(SERVER), text(ROOT), NOW)

    def identity(name: str, made: Identity) -> LocalTls:
        (tmp_path / name).write_text(key_of(made) + text(made))
        return LocalTls(path, str(tmp_path / name))

    local = issue("local client", purposes=CLIENT_AUTH)
    fleet, stranger = issue("c", ROOT, purposes=CLIENT_AUTH), issue("s", authority("other"), purposes=CLIENT_AUTH)
    context = server_context(pair, text(local))
    with served(context) as url:
        for made in (fleet, local):
            with Client(url, timeout=5, tls=identity("ok.pem", made)) as client:
                assert client.live()
        # What the local client would sign itself is not trusted: it is no authority.
        forged = issue("forged", local, purposes=CLIENT_AUTH)
        for wrong in (LocalTls(path), identity("stranger.pem", stranger), identity("forged.pem", forged)):
            with Client(url, timeout=5, tls=wrong) as client, pytest.raises(ServerError):
                client.live()


def test_a_handshake_that_never_ends_ends_in_time(tmp_path: Path) -> None:
    path = str(write_chain(tmp_path / "server.pem", SERVER))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.3, tls=LocalTls(path)) as client, pytest.raises(ServerError) as caught:
            client.live()
    assert caught.value.timed_out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_protocols_are_refused(tmp_path: Path) -> None:
    context = server_context(check_pair(text(SERVER), key_of(SERVER), None, None))
    old: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with served(context) as url:
        address = url.removeprefix("https://").split(":")
        with socket.create_connection((address[0], int(address[1])), 5) as plain, pytest.raises(ssl.SSLError):
            old.wrap_socket(plain)


def test_what_a_local_client_needs_follows_from_device_json() -> None:
    plain = ServerSettings("http://127.0.0.1:1", "127.0.0.1", 1)
    assert local_tls("/edge", plain) is None
    tls = ServerSettings("https://127.0.0.1:1", "127.0.0.1", 1, Tls("/t/s.pem", "/t/s.key"))
    assert local_tls("/edge", tls) == LocalTls("/t/s.pem", None)
    both = ServerSettings("https://127.0.0.1:1", "127.0.0.1", 1, Tls("/t/s.pem", "/t/s.key", "/t/ca.pem"))
    assert local_tls("/edge", both) == LocalTls("/t/s.pem", "/edge/run/client.pem")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1"])
def test_a_certificate_is_never_talked_to_in_the_clear(url: str) -> None:
    with pytest.raises(ServerError, match="https://host:port"):
        Client(url, tls=LocalTls("/t/s.pem"))
    with pytest.raises(ServerError, match="http://host:port"):
        Client("https://127.0.0.1:1")

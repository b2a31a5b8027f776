# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a TLS certificate says, with the standard library alone: the system's Python on a device has nothing else.

Reads the few fields that provisioning, the server and its local clients need. It judges nothing and verifies no
signature; OpenSSL does that when the certificate is used.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import DeviceError

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s+(.*?)-----END CERTIFICATE-----", re.DOTALL)
_SAN, _EKU = b"\x55\x1d\x11", b"\x55\x1d\x25"
_PURPOSES = {
    b"\x2b\x06\x01\x05\x05\x07\x03\x01": "serverAuth",
    b"\x2b\x06\x01\x05\x05\x07\x03\x02": "clientAuth",
    b"\x55\x1d\x25\x00": "any",
}
_UTC = datetime.timezone.utc
_MAX_PEM = 1 << 20
_MAX_CERTIFICATES = 64


@dataclass(frozen=True)
class Certificate:
    """One certificate. ``names`` are its subject alternative names, ``purposes`` None when it names none."""

    fingerprint: str
    issuer: bytes
    subject: bytes
    not_before: datetime.datetime
    not_after: datetime.datetime
    names: tuple[str, ...]
    purposes: tuple[str, ...] | None

    @property
    def short(self) -> str:
        """The first digits of the fingerprint, for messages."""
        return self.fingerprint[:16]


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def ders(text: str, where: str) -> list[bytes]:
    """The certificates of a PEM text in order, as DER. Raises DeviceError(bad_input) when there is none."""
    if len(text) > _MAX_PEM:
        raise DeviceError("bad_input", f"{where}: longer than {_MAX_PEM} characters; give certificates in PEM")
    found = []
    for block in _BLOCK.findall(text):
        try:
            found.append(base64.b64decode("".join(block.split()), validate=True))
        except (binascii.Error, ValueError) as error:
            raise DeviceError("bad_input", f"{where}: a CERTIFICATE block is not base64 ({error})") from error
    if not found or len(found) > _MAX_CERTIFICATES:
        raise DeviceError(
            "bad_input",
            f"{where}: has {len(found)} blocks BEGIN CERTIFICATE; give a PEM file with 1 to {_MAX_CERTIFICATES}",
        )
    return found


def certificates(text: str, where: str) -> list[Certificate]:
    """The certificates of a PEM text in order. Raises DeviceError(bad_input) naming ``where``."""
    return [_certificate(der, where) for der in ders(text, where)]


def _certificate(der: bytes, where: str) -> Certificate:
    try:
        return _parse(der)
    except (ValueError, IndexError, StopIteration) as error:
        raise DeviceError("bad_input", f"{where}: a certificate cannot be read ({error or 'cut off'})") from error


def _items(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The elements of a DER sequence's content: (tag, content, whole)."""
    at = 0
    while at < len(data):
        begin, tag, size = at, data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 4:
                raise ValueError("a length of more than 4 bytes")
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + size], data[begin : at + size]
        at += size


def _parse(der: bytes) -> Certificate:
    outer = next(_items(der))[1]
    fields = list(_items(next(_items(outer))[1]))
    if fields[0][0] == 0xA0:  # the version
        del fields[0]
    _serial, _algorithm, issuer, validity, subject = fields[:5]
    before, after = (_time(tag, content) for tag, content, _whole in list(_items(validity[1]))[:2])
    extensions: dict[bytes, bytes] = {}
    for tag, content, _whole in fields[6:]:
        if tag == 0xA3:
            for extension in _items(next(_items(content))[1]):
                parts = list(_items(extension[1]))
                extensions[parts[0][1]] = parts[-1][1]
    return Certificate(
        fingerprint(der), issuer[2], subject[2], before, after, _names(extensions), _purposes(extensions)
    )


def _time(tag: int, content: bytes) -> datetime.datetime:
    text = content.decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year, 1950 to 2049
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif tag != 0x18:
        raise ValueError(f"a time of type {tag}")
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=_UTC)


def _names(extensions: dict[bytes, bytes]) -> tuple[str, ...]:
    if _SAN not in extensions:
        return ()
    names = []
    for tag, content, _whole in _items(next(_items(extensions[_SAN]))[1]):
        if tag == 0x82:
            names.append(content.decode("ascii"))
        elif tag == 0x87:
            names.append(str(ipaddress.ip_address(content)))
    return tuple(names)


def _purposes(extensions: dict[bytes, bytes]) -> tuple[str, ...] | None:
    if _EKU not in extensions:
        return None
    return tuple(_PURPOSES.get(content, "other") for _tag, content, _whole in _items(next(_items(extensions[_EKU]))[1]))

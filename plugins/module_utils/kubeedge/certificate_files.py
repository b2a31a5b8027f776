# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Bring an authority and the certificates it signs into a directory on the controller; `certificates` decides.

``ca.key``, ``ca.crt``, and per purpose a directory with ``<name>.key`` and ``<name>.crt``. Keys are 0600.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..device import fsutil
from ..device.errors import DeviceError
from ..release import crypto, keys
from ..release.errors import ReleaseError
from . import certificates
from .certificates import Authority, Wanted
from .errors import KubeedgeError

CA_KEY, CA_CERTIFICATE = "ca.key", "ca.crt"
_LIMIT = 1 << 20
_LOCK_SECONDS = 120.0


@dataclass
class Outcome:
    """What was or would be done for one certificate; ``certificate`` is None when check mode would make it."""

    reasons: list[str]
    before: dict[str, Any] | None
    certificate: dict[str, Any] | None
    authority_reasons: list[str] = field(default_factory=list)
    authority: dict[str, Any] | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was, or would be, written or removed."""
        return bool(self.reasons or self.authority_reasons)


def paths(directory: str, purpose: str, name: str) -> dict[str, str]:
    """Return where a certificate, its key and its authority's certificate are."""
    stem = os.path.join(directory, purpose, name)
    return {"certificate": stem + ".crt", "key": stem + ".key", "ca": os.path.join(directory, CA_CERTIFICATE)}


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the parts below raise into this part's error."""
    try:
        yield
    except ReleaseError as error:
        raise KubeedgeError(str(error)) from error
    except DeviceError as error:
        raise KubeedgeError(error.message) from error
    except OSError as error:
        raise KubeedgeError(f"{error.filename}: {error.strerror}; see that you can write there") from error


def _certificate(path: str) -> Any:
    """Return the certificate in a file, None when there is none. Raises ReleaseError when it cannot be read."""
    return keys.load_certificates(path)[0] if os.path.lexists(path) else None


def _key(path: str, passphrase: bytes | None = None) -> Any:
    return keys.load_private_key(path, passphrase) if os.path.lexists(path) else None


def _write(path: str, content: bytes, mode: int) -> None:
    fsutil.make_dirs(os.path.dirname(path), 0o700)
    fsutil.write_atomic(path, content, mode)


def _pem(certificate: Any) -> bytes:
    return bytes(certificate.public_bytes(crypto.serialization.Encoding.PEM))


def _ensure_authority(
    directory: str, passphrase: bytes | None, need: datetime.timedelta, valid: datetime.timedelta,
    now: datetime.datetime, check: bool,
) -> tuple[Authority, list[str]]:  # fmt: skip
    """Return the authority and why its certificate was made. In check mode a missing key is one that is not kept."""
    place, certificate_place = os.path.join(directory, CA_KEY), os.path.join(directory, CA_CERTIFICATE)
    certificate, key = _certificate(certificate_place), _key(place, passphrase)
    if key is None and certificate is not None:
        raise KubeedgeError(f"{place}: is not there, but {certificate_place} is; restore the key from your backup")
    if key is None:
        key = certificates.new_key()
        if not check:
            _write(place, keys.private_pem(key, passphrase), 0o600)
    why = certificates.authority_reasons(certificate, key, need, now)
    if why:
        certificate = certificates.make_authority(key, valid, now)
        if not check:
            _write(certificate_place, _pem(certificate), 0o644)
    return Authority(certificate, key), why


def ensure(
    directory: str, want: Wanted, authority_days: int, passphrase: bytes | None, now: datetime.datetime, check: bool
) -> Outcome:
    """Make sure that the certificate is there, is right and lasts; create the authority when there is none.

    :param authority_days: how long the authority's own certificate is valid
    :param check: write nothing

    Raises KubeedgeError, also for a private key that others than its owner can read.
    """
    valid = datetime.timedelta(days=authority_days)
    need = want.validity + want.renew_before
    if valid <= need:
        raise KubeedgeError(
            f"authority_days: {authority_days} has to be more than validity_days and renew_before_days together, "
            f"{need.days}: what an authority signs must not outlive it"
        )
    with _told():
        crypto.require()
        if not check:
            fsutil.make_dirs(directory, 0o700)
        with _alone(directory, check):
            authority, authority_why = _ensure_authority(directory, passphrase, need, valid, now, check)
            place = paths(directory, want.purpose, want.name)
            certificate, key = _certificate(place["certificate"]), _key(place["key"])
            why = certificates.reasons(certificate, key, want, authority.certificate, now)
            before = certificates.describe(certificate, now) if certificate is not None else None
            if why and not check:
                key = certificates.new_key()
                certificate = certificates.sign(want, key, authority, now)
                # The key first: a certificate that does not fit it is signed again by the next run.
                _write(place["key"], keys.private_pem(key), 0o600)
                _write(place["certificate"], _pem(certificate), 0o644)
        now_there = None if why and check else certificates.describe(certificate, now)
        about = None if authority_why and check else certificates.describe(authority.certificate, now)
        return Outcome(why, before, now_there, authority_why, about)


def remove(directory: str, purpose: str, name: str, now: datetime.datetime, check: bool) -> Outcome:
    """Remove a certificate and its key from the controller; the authority stays. Raises KubeedgeError."""
    place = paths(directory, purpose, certificates.check_name(name))
    there = [place[part] for part in ("certificate", "key") if os.path.lexists(place[part])]
    with _told():
        crypto.require()
        certificate = _certificate(place["certificate"])
        before = certificates.describe(certificate, now) if certificate is not None else None
        for path in there if not check else ():
            fsutil.remove(path)
    return Outcome(["unwanted"] if there else [], before, None)


@contextmanager
def _alone(directory: str, check: bool) -> Iterator[None]:
    """Let one process at a time create the authority: tasks of many hosts run here side by side."""
    if check:
        yield
        return
    lock = os.path.join(directory, ".lock")
    with fsutil.flocked(lock, timeout=_LOCK_SECONDS, purpose="another run that signs certificates"):
        yield

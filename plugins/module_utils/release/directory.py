# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A signed directory that is no release: one listing, the files it names, and ``model.sig`` over all of it.

The signature is that of releases (OpenSSF Model Signing v1); what the listing says is the caller's.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from . import crypto
from .digests import PathLike
from .errors import ReleaseError
from .keys import Trust
from .model import SIGNATURE_NAME
from .signing import Signer, Statement, verify_bundle
from .statement import MAX_BUNDLE, build_bundle, build_statement, pae
from .tree import list_files, read_member


class Kind(NamedTuple):
    """What sort of directory it is: its name in texts, its listing's name and size limit in bytes, what makes one."""

    name: str
    listing: str
    limit: int
    maker: str


class Signed(NamedTuple):
    """What a valid signature vouches for: path to hex SHA-256 (the listing among them), the listing, the signer."""

    resources: Mapping[str, str]
    raw: bytes
    key_id: str


def sign_listing(directory: PathLike, kind: Kind, resources: Mapping[str, str], signer: Signer) -> None:
    """Write ``model.sig`` over ``resources`` (path to hex SHA-256), which were just hashed. Raises ReleaseError."""
    crypto.require()
    payload = build_statement(kind.name, resources)
    signature = signer.key.sign(pae(payload), crypto.ecdsa(signer.key))
    der = [item.public_bytes(crypto.serialization.Encoding.DER) for item in signer.chain]
    with open(os.path.join(os.fspath(directory), SIGNATURE_NAME), "wb") as sink:
        sink.write(build_bundle(payload, signature, signer.key_id, der))


def _statement(base: str, kind: Kind, trust: Trust, now: datetime.datetime) -> Statement:
    signature = os.path.join(base, SIGNATURE_NAME)
    if not os.path.isdir(base):
        raise ReleaseError(f"{base}: is not there; build it with {kind.maker}")
    if not os.path.lexists(signature):
        raise ReleaseError(f"{signature}: is missing; the {kind.name} is not signed")
    return verify_bundle(read_member(base, SIGNATURE_NAME, MAX_BUNDLE), trust, now, signature)


def read_signed(directory: PathLike, kind: Kind, trust: Trust, now: datetime.datetime) -> Signed:
    """Verify the signature and that the listing is the signed one; no other file is looked at. Raises ReleaseError."""
    base = os.fspath(directory)
    statement = _statement(base, kind, trust, now)
    if not os.path.lexists(os.path.join(base, kind.listing)):
        raise ReleaseError(f"{base}: file '{kind.listing}' is missing; the {kind.name} is not complete")
    raw = read_member(base, kind.listing, kind.limit)
    if statement.resources.get(kind.listing) != hashlib.sha256(raw).hexdigest():
        raise ReleaseError(f"{os.path.join(base, kind.listing)}: is not the one that was signed: it was altered")
    return Signed(statement.resources, raw, statement.key_id)


def find_signed(directory: PathLike, kind: Kind, signed: Signed) -> dict[str, str]:
    """Return the path of every file that was signed. Raises ReleaseError when one is missing, linked, or not listed."""
    base = os.fspath(directory)
    found = list_files(base, signed.resources, (SIGNATURE_NAME,))
    missing = sorted(set(signed.resources) - set(found))
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ReleaseError(f"{base}: file '{missing[0]}'{more} is missing; the {kind.name} is not complete")
    return found


def check_sizes(found: Mapping[str, str], sizes: Mapping[str, int], kind: Kind) -> None:
    """Compare the size of every file with the listing's, in bytes; nothing is read. Raises ReleaseError."""
    for path, size in sizes.items():
        present = os.stat(found[path]).st_size
        if present != size:
            raise ReleaseError(
                f"{found[path]}: has {present} bytes, {kind.listing} says {size}; build the {kind.name} again"
            )

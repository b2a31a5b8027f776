# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A directory of artifacts: ``artifacts.json``, the files it lists, and a signature over all of them."""

from __future__ import annotations

import datetime
import hashlib
import os
from typing import NamedTuple

from ..release.digests import PathLike
from ..release.directory import Kind, Signed, check_sizes, find_signed, read_signed, sign_listing
from ..release.keys import Trust
from ..release.signing import Signer
from ..release.tree import check_file, check_files, read_member
from .errors import ArtifactError, as_artifact_error
from .manifest import LISTING, MAX_LISTING, Entry, Manifest, parse

KIND = Kind("directory of artifacts", LISTING, MAX_LISTING, "edgeai.fleet.artifacts")


class Opened(NamedTuple):
    """A verified listing, the directory it is of, and the id of the key that signed it."""

    manifest: Manifest
    base: str
    key_id: str

    def path(self, entry: Entry) -> str:
        """Where a file lies."""
        return os.path.join(self.base, *entry.path.split("/"))

    def checked(self, entry: Entry) -> str:
        """Hash one file, before it is sent, and return its path. Raises ArtifactError when it was altered."""
        path = self.path(entry)
        with as_artifact_error():
            check_file(path, entry.path, entry.sha256, entry.size)
        return path


def sign_artifacts(directory: PathLike, signer: Signer) -> None:
    """Write ``model.sig`` over files that were just hashed, and the listing beside them. Raises ArtifactError."""
    base = os.fspath(directory)
    with as_artifact_error():
        raw = read_member(base, LISTING, MAX_LISTING)
        manifest = parse(raw, os.path.join(base, LISTING))
        sign_listing(base, KIND, _resources(manifest, raw), signer)


def read_listing(directory: PathLike, trust: Trust, now: datetime.datetime) -> Opened:
    """Verify the signature and the listing, and look at no file. Raises ArtifactError."""
    return _read(os.fspath(directory), trust, now)[0]


def open_artifacts(directory: PathLike, trust: Trust, now: datetime.datetime, whole: bool = False) -> Opened:
    """Verify a directory: signature, listing, every file there and of its size, nothing else there.

    :param whole: hash every file too. Without it a file is to be hashed before it is used (`Opened.checked`)

    Raises ArtifactError: unsigned, signed by a key that is not trusted, expired certificates, altered, missing, added.
    """
    opened, signed = _read(os.fspath(directory), trust, now)
    with as_artifact_error():
        found = find_signed(opened.base, KIND, signed)
        check_sizes(found, opened.manifest.sizes(), KIND)
        if whole:
            check_files(found, signed.resources, opened.manifest.sizes())
    return opened


def _read(base: str, trust: Trust, now: datetime.datetime) -> tuple[Opened, Signed]:
    if not trust.keys and not trust.roots:
        raise ArtifactError(f"{base}: no key was given to verify it with; name one (public_keys, edge_trust_keys)")
    with as_artifact_error():
        signed = read_signed(base, KIND, trust, now)
        where = os.path.join(base, LISTING)
        manifest = parse(signed.raw, where)
    if _resources(manifest, signed.raw) != signed.resources:
        raise ArtifactError(f"{where}: lists other files than its signature; build it again")
    return Opened(manifest, base, signed.key_id), signed


def _resources(manifest: Manifest, raw: bytes) -> dict[str, str]:
    """What the signature has to list: path to hex SHA-256."""
    return {**manifest.digests(), LISTING: hashlib.sha256(raw).hexdigest()}

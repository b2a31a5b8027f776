# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""May this device trust a release? Decided from release.json and model.sig alone, before any big file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from ..release.errors import ReleaseError
from ..release.keys import Trust
from ..release.manifest import Manifest, parse_manifest
from ..release.model import MANIFEST_NAME
from ..release.signing import verify_bundle
from .errors import DeviceError


def check_digest(raw: bytes, expected: str | None, where: str) -> str:
    """The release digest of release.json's bytes. Raises DeviceError(digest_mismatch) unless it is ``expected``."""
    found = "sha256:" + hashlib.sha256(raw).hexdigest()
    if expected is not None and found != expected:
        raise DeviceError(
            "digest_mismatch",
            f"{where}: {MANIFEST_NAME} is {found}, asked for was {expected}. The source holds another release under "
            "this version, or it was changed",
        )
    return found


def verify_pair(raw: bytes, signature: bytes, trust: Trust, now: datetime, where: str) -> Manifest:
    """Verify the signature, then parse the manifest, then compare the two lists of files: they have to be one.

    Nothing of the manifest is looked at before its bytes are known to be signed. Raises DeviceError: not_trusted,
    bad_input (signed, but not what the format allows).
    """
    try:
        statement = verify_bundle(signature, trust, now, f"{where}: model.sig")
    except ReleaseError as exc:
        raise DeviceError("not_trusted", str(exc)) from exc
    own = hashlib.sha256(raw).hexdigest()
    if statement.resources.get(MANIFEST_NAME) != own:
        raise DeviceError("not_trusted", f"{where}: {MANIFEST_NAME} ({own}) is not the one that was signed")
    try:
        manifest = parse_manifest(raw, f"{where}: {MANIFEST_NAME}")
    except ReleaseError as exc:
        raise DeviceError("bad_input", str(exc)) from exc
    listed = {entry.path: entry.sha256 for entry in manifest.files()}
    listed[MANIFEST_NAME] = own
    for path in sorted(set(listed) | set(statement.resources)):
        if listed.get(path) != statement.resources.get(path):
            raise DeviceError(
                "not_trusted",
                f"{where}: file {path!r} is {statement.resources.get(path, 'absent')} in the signature and "
                f"{listed.get(path, 'absent')} in {MANIFEST_NAME}; build and sign the release again",
            )
    return manifest


def check_names(manifest: Manifest, model: str, version: str, where: str) -> None:
    """Raise DeviceError(bad_input) unless the manifest is for this model and version."""
    if (manifest.model, manifest.version) != (model, version):
        raise DeviceError(
            "bad_input",
            f"{where}: {MANIFEST_NAME} is for {manifest.model} {manifest.version}, asked for was {model} {version}",
        )


def load_trust(directory: str) -> Trust:
    """The keys and root certificates this device trusts. Raises DeviceError(not_trusted)."""
    try:
        return Trust.load(directory)
    except ReleaseError as exc:
        raise DeviceError("not_trusted", str(exc)) from exc


LoadTrust = Callable[[], Trust]

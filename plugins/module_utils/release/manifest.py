# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""``release.json``: read it, check it, write it. The data is in ``model``, the strict reader in ``manifest_reader``."""

from __future__ import annotations

import json
import os
from typing import Any

from .digests import PathLike, read_limited
from .errors import ReleaseError
from .manifest_reader import read_manifest
from .model import (
    FORMAT,
    MANIFEST_NAME,
    MAX_MANIFEST,
    SIGNATURE_NAME,
    Budget,
    FileEntry,
    Golden,
    Manifest,
    Requires,
    Source,
    TensorSpec,
    Variant,
)

__all__ = [
    "FORMAT",
    "MANIFEST_NAME",
    "MAX_MANIFEST",
    "SIGNATURE_NAME",
    "Budget",
    "FileEntry",
    "Golden",
    "Manifest",
    "Requires",
    "Source",
    "TensorSpec",
    "Variant",
    "dump_manifest",
    "load_manifest",
    "parse_manifest",
]


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """Check the bytes of a ``release.json`` and return them as data.

    :param where: file named in errors

    Raises ReleaseError for anything the format does not say: see ``manifest_reader``.
    """
    return read_manifest(raw, where)


def load_manifest(release_dir: PathLike) -> Manifest:
    """Read and check ``release.json`` of a release directory. A symlink is followed: a device's store has links.

    This says nothing about who wrote it: see ``signing.verify_release``. Raises ReleaseError.
    """
    path = os.path.join(os.fspath(release_dir), MANIFEST_NAME)
    return parse_manifest(read_limited(path, MAX_MANIFEST, follow=True), path)


def dump_manifest(manifest: dict[str, Any]) -> bytes:
    """Return the canonical bytes of a ``release.json``: sorted keys, two spaces, ASCII, one newline at the end.

    The content is not checked; pass the result to ``parse_manifest`` for that. Raises ReleaseError for NaN, Infinity
    and values that JSON does not have.
    """
    try:
        text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ReleaseError(f"{MANIFEST_NAME}: cannot be written as JSON ({error})") from error
    return text.encode("ascii") + b"\n"

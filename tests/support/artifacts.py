"""Small signed directories of artifacts, to install from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.directory import sign_artifacts
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.manifest import LISTING, Entry, Key, dump
from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys, signing


def make_artifacts(base: Path, files: Mapping[tuple[str, str, str, str], bytes], key: Path) -> Path:
    """Write and sign a directory.

    :param files: (component, version, architecture or ``any``, logical name) to content
    :param key: private key; made, with its ``.pub.pem`` beside it, when it is not there
    """
    if not key.exists():
        make_key(key)
    entries = {}
    for parts, content in files.items():
        name = Key(*parts)
        path = f"{name.component}/{name.version}/{name.architecture}/{name.file}"
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(content)
        entries[name] = Entry(path, hashlib.sha256(content).hexdigest(), len(content))
    base.mkdir(parents=True, exist_ok=True)
    (base / LISTING).write_bytes(dump(entries))
    sign_artifacts(base, signing.load_signer(key))
    return base


def make_key(key: Path) -> None:
    """Make a key, with its ``.pub.pem`` beside it."""
    keys.generate_key(key, key.with_suffix(".pub.pem"))

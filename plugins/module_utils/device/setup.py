# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What provisioning leaves on a device before the first release: its directory, its settings and whom it trusts.

The trusted keys are an exact set: a key that is no longer wanted is removed in the same call, so rotating a key is
"install both, sign with the new one, install only the new one".
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from typing import Any, NamedTuple

from . import fsutil
from .errors import DeviceError
from .settings import SETTINGS_FILE, check_settings

DIRECTORIES = (("trust/keys", 0o755), ("trust/roots", 0o755), ("lib", 0o755), ("run", 0o700), ("log", 0o750))


class Setup(NamedTuple):
    """The files a device should have, and those it has now, as text by path relative to ``edge_root``."""

    before: dict[str, str]
    after: dict[str, str]
    missing_directories: list[str]

    @property
    def changed(self) -> bool:
        """Whether applying it would change anything."""
        return self.before != self.after or bool(self.missing_directories)


def _bad(field: str, value: Any, fix: str) -> DeviceError:
    return DeviceError("bad_input", f"{field}: {value!r} cannot be used; {fix}")


def trust_files(keys: list[str], roots: list[str]) -> dict[str, str]:
    """Name the trusted PEM texts by their content: ``trust/keys/<hash>.pem`` and ``trust/roots/<hash>.pem``.

    Raises DeviceError(bad_input) for a private key, for what is no PEM of the right kind, and for an empty set.
    """
    if not keys and not roots:
        raise _bad(
            "trust_keys",
            [],
            "name at least one public key or root certificate: a device that trusts nobody can run nothing",
        )
    files = {}
    for field, texts, marker in (("trust_keys", keys, "PUBLIC KEY"), ("trust_roots", roots, "CERTIFICATE")):
        for index, text in enumerate(texts):
            where = f"{field}[{index}]"
            if "PRIVATE KEY" in text:
                # The value is a secret: it must not be in the message.
                raise _bad(where, "(a private key)", "devices get public keys only")
            if f"-----BEGIN {marker}-----" not in text:
                raise _bad(where, text[:40], f"give the text of a PEM file with BEGIN {marker}")
            clean = text.strip() + "\n"
            name = hashlib.sha256(clean.encode()).hexdigest()[:16] + ".pem"
            files["trust/{}/{}".format(field[len("trust_") :], name)] = clean
    return files


def plan_setup(edge_root: str, settings: dict[str, Any], keys: list[str], roots: list[str]) -> Setup:
    """Compare what the device has with what it should have; reads only.

    Raises DeviceError(bad_input) when the wanted state itself is wrong.
    """
    after = trust_files(keys, roots)
    after[SETTINGS_FILE] = json.dumps(check_settings(settings), indent=2, sort_keys=True) + "\n"
    before = {}
    for folder in ("trust/keys", "trust/roots"):
        directory = os.path.join(edge_root, folder)
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            before[f"{folder}/{name}"] = _read(os.path.join(directory, name))
    if os.path.exists(os.path.join(edge_root, SETTINGS_FILE)):
        before[SETTINGS_FILE] = _read(os.path.join(edge_root, SETTINGS_FILE))
    missing = [name for name, _mode in DIRECTORIES if not os.path.isdir(os.path.join(edge_root, name))]
    return Setup(before, after, missing)


def apply_setup(edge_root: str, setup: Setup) -> None:
    """Write what differs, each file by rename; new keys come before old ones go, so that there is never no key.

    Raises DeviceError(no_space or bad_input) when a file cannot be written.
    """
    try:
        os.makedirs(edge_root, mode=0o755, exist_ok=True)
        for name, mode in DIRECTORIES:
            path = os.path.join(edge_root, name)
            os.makedirs(path, exist_ok=True)
            os.chmod(path, mode)
        for name, text in sorted(setup.after.items()):
            if setup.before.get(name) != text:
                fsutil.write_atomic(os.path.join(edge_root, name), text.encode("utf-8"))
        for name in sorted(set(setup.before) - set(setup.after)):
            fsutil.remove(os.path.join(edge_root, name))
    except OSError as error:
        code = "no_space" if error.errno == errno.ENOSPC else "bad_input"
        raise DeviceError(
            code, f"{error.filename or edge_root}: {error.strerror}; see that the directory can be written"
        ) from error


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()

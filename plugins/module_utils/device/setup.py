# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What provisioning leaves on a device before the first release: its directory, its settings and whom it trusts.

The trusted keys are an exact set: a key that is no longer wanted is removed in the same call, so rotating a key is
"install both, sign with the new one, install only the new one".
"""

from __future__ import annotations

import errno
import grp
import hashlib
import json
import os
import pwd
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from . import fsutil, removal
from .errors import DeviceError
from .settings import SETTINGS_FILE, check_settings


class Directory(NamedTuple):
    """A directory below edge_root; ``service`` says that it belongs to the service user, else to who provisions."""

    name: str
    mode: int
    service: bool = False


DIRECTORIES = (
    Directory("trust/keys", 0o755),
    Directory("trust/roots", 0o755),
    Directory("lib", 0o755),
    Directory("run", 0o700, True),
    Directory("log", 0o750, True),
)
#: With a service user the whole path to what it reads has to be open to it, and closed for its writing.
SHARED = (Directory(".", 0o755), Directory("trust", 0o755))


class Setup(NamedTuple):
    """The files a device should have, and those it has now, as text by path relative to ``edge_root``.

    ``directories`` are those to be made or mended: (directory, what it is, what it should be) as ``0755 root:root``,
    empty when it is not there. ``loose`` are files that somebody else may write; they are replaced. ``owner`` is
    (user, group) of what belongs to the service, None when nobody named one.
    """

    before: dict[str, str]
    after: dict[str, str]
    directories: list[tuple[Directory, str, str]]
    loose: list[str]
    owner: tuple[str, str] | None

    @property
    def changed(self) -> bool:
        """Whether applying it would change anything."""
        return self.before != self.after or bool(self.directories) or bool(self.loose)


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

    Raises DeviceError(bad_input) when the wanted state itself is wrong, and for a directory that holds something else.
    """
    refused = removal.setup_refusal(edge_root, removal.look(edge_root))
    if refused:
        raise _bad("edge_root", edge_root, refused)
    after = trust_files(keys, roots)
    checked = check_settings(settings)
    after[SETTINGS_FILE] = json.dumps(checked, indent=2, sort_keys=True) + "\n"
    before = {}
    for folder in ("trust/keys", "trust/roots"):
        directory = os.path.join(edge_root, folder)
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            before[f"{folder}/{name}"] = _read(os.path.join(directory, name))
    if os.path.exists(os.path.join(edge_root, SETTINGS_FILE)):
        before[SETTINGS_FILE] = _read(os.path.join(edge_root, SETTINGS_FILE))
    user, group = checked["service_user"], checked["service_group"]
    owner = (user, group or user) if user else None
    loose = [name for name in sorted(set(before) & set(after)) if _is_loose(os.path.join(edge_root, name))]
    return Setup(before, after, _plan_directories(edge_root, owner), loose, owner)


def _plan_directories(edge_root: str, owner: tuple[str, str] | None) -> list[tuple[Directory, str, str]]:
    """The directories that are not as they should be. Owners count only where a service user is named."""
    found = []
    for directory in (*SHARED, *DIRECTORIES) if owner else DIRECTORIES:
        has = _attributes(os.path.join(edge_root, directory.name), owner is not None)
        names = (owner if directory.service else _names(os.geteuid(), os.getegid())) if owner else None
        wants = f"{directory.mode:04o}" + (" {}:{}".format(*names) if names else "")
        if has != wants:
            found.append((directory, has, wants))
    return found


def _names(uid: int, gid: int) -> tuple[str, str]:
    user, group = str(uid), str(gid)
    with suppress(KeyError):
        user = pwd.getpwuid(uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(gid).gr_name
    return user, group


def _attributes(path: str, owned: bool) -> str:
    """Mode and, with ``owned``, owner of a directory, empty when it is not there (or is something else)."""
    try:
        found = os.lstat(path)
    except OSError:
        return ""
    if not stat.S_ISDIR(found.st_mode):
        return "not a directory"
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    return "{} {}:{}".format(mode, *_names(found.st_uid, found.st_gid)) if owned else mode


def _is_loose(path: str) -> bool:
    """Whether somebody else may write the file, or it is a link, or the service cannot read it."""
    found = os.lstat(path)
    return not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o644


def apply_setup(edge_root: str, setup: Setup) -> None:
    """Write what differs, each file by rename; new keys come before old ones go, so that there is never no key.

    Raises DeviceError(no_space or bad_input) when a file cannot be written, or the service user is not there.
    """
    ids = _ids(setup.owner) if setup.owner else None
    try:
        os.makedirs(edge_root, mode=0o755, exist_ok=True)
        for directory, _has, _wants in setup.directories:
            path = os.path.join(edge_root, directory.name)
            os.makedirs(path, mode=0o755, exist_ok=True)
            _set_attributes(path, directory, ids)
        for name, text in sorted(setup.after.items()):
            if setup.before.get(name) != text or name in setup.loose:
                fsutil.write_atomic(os.path.join(edge_root, name), text.encode("utf-8"))
        for name in sorted(set(setup.before) - set(setup.after)):
            fsutil.remove(os.path.join(edge_root, name))
    except OSError as error:
        code = "no_space" if error.errno == errno.ENOSPC else "bad_input"
        raise DeviceError(
            code, f"{error.filename or edge_root}: {error.strerror}; see that the directory can be written"
        ) from error


def _ids(owner: Sequence[str]) -> tuple[int, int]:
    try:
        return pwd.getpwnam(owner[0]).pw_uid, grp.getgrnam(owner[1]).gr_gid
    except KeyError as error:
        raise _bad("settings.service_user", ":".join(owner), "make this user and group first (role device)") from error


def _set_attributes(path: str, directory: Directory, ids: tuple[int, int] | None) -> None:
    # Through a descriptor: a link in a directory that belongs to somebody else must not lead anywhere.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if ids is not None:
            os.fchown(fd, *(ids if directory.service else (os.geteuid(), os.getegid())))
        os.fchmod(fd, directory.mode)
    finally:
        os.close(fd)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()

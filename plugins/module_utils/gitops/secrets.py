# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Secrets of a pipeline: from environment variables into files that only this user can read, and away again."""

from __future__ import annotations

import hmac
import os
import shutil
import stat
from collections.abc import Mapping

from . import files
from .errors import RepoError

MARK = ".edgeai-secrets"


def write(directory: str, wanted: Mapping[str, str], environment: Mapping[str, str], check: bool) -> list[str]:
    """Write each secret that the environment has; returns the names of those that are new or other than before.

    wanted: file name -> variable, which holds the text or the path of a file with it. Raises RepoError, never with a
    secret in its text.
    """
    secrets = {name: _text(environment[key], key) for name, key in wanted.items() if environment.get(key)}
    if not check:
        _private(directory)
    changed = []
    for name, text in secrets.items():
        if os.path.basename(name) != name or name in ("", ".", "..", MARK):
            raise RepoError(f"secrets: {name!r} is not a plain file name")
        known = files.read(directory, name) if os.path.isdir(directory) else None
        private = known is not None and stat.S_IMODE(os.lstat(os.path.join(directory, name)).st_mode) == 0o600
        if known is not None and private and hmac.compare_digest(known, text):
            continue
        changed.append(name)
        if not check:
            files.write(directory, name, text, 0o600)
    return sorted(changed)


def remove(directory: str, check: bool) -> bool:
    """Remove the directory, if it is one that `write` made; returns whether it was there."""
    if not os.path.lexists(directory):
        return False
    _own(directory)
    if not os.path.exists(os.path.join(directory, MARK)):
        raise RepoError(f"{directory}: was not made for secrets by this module; it is not removed")
    if not check:
        shutil.rmtree(directory)
    return True


def _private(directory: str) -> None:
    """Make the directory, or make sure that nobody else made it: it may have a name that can be guessed."""
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        os.mkdir(directory, 0o700)
    except FileExistsError:
        _own(directory)
        mode = stat.S_IMODE(os.lstat(directory).st_mode)
        if mode != 0o700:
            raise RepoError(f"{directory}: has mode {mode:04o}: others may look in; remove it") from None
    except OSError as error:
        raise RepoError(f"{directory}: cannot be made: {error.strerror}") from error
    if files.read(directory, MARK) is None:
        files.write(directory, MARK, b"", 0o600)


def _own(directory: str) -> None:
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RepoError(f"{directory}: is a link, no directory, or somebody else's: take another one (EDGEAI_SECRETS)")


def _text(value: str, key: str) -> bytes:
    """A secret's bytes. Forges that keep files give the path of one; it ends with exactly one newline, as keys must."""
    if value.startswith("/") and "\n" not in value.strip():
        try:
            with open(value.strip(), "rb") as handle:
                content = handle.read(files.MAX_FILE)
        except OSError as error:
            raise RepoError(f"{key}: looks like a path, and the file cannot be read: {error.strerror}") from error
    else:
        content = value.encode("utf-8")
    return content.replace(b"\r\n", b"\n").strip(b"\n") + b"\n"

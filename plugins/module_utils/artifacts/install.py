# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Put one verified file in its place on a device: whole or not at all, hashed from the disk before it gets its name."""

from __future__ import annotations

import errno
import os
import stat
from typing import Callable, NamedTuple

from ..device.fsutil import TEMP_PREFIX, fsync_dir, make_dirs, temp_name, unlink_quietly
from ..device.readback import hash_from_disk
from ..release.digests import copy_hashed, sha256_file
from .errors import ArtifactError, as_artifact_error


class Wanted(NamedTuple):
    """The file that ``dest`` has to be: hex SHA-256, size in bytes. ``what`` names it in errors."""

    dest: str
    sha256: str
    size: int
    what: str


def present_digest(wanted: Wanted) -> str:
    """The hex SHA-256 of what lies at ``dest``; of a file of another size only ``other``, empty when there is nothing.

    A symbolic link is something else, also when it leads to the right bytes: it is replaced. Raises ArtifactError for
    a path that cannot be a file's.
    """
    if not os.path.isabs(wanted.dest) or wanted.dest.endswith("/"):
        raise ArtifactError(f"dest is {wanted.dest!r}: use the absolute path of a file")
    with as_artifact_error():
        try:
            info = os.lstat(wanted.dest)
        except FileNotFoundError:
            return ""
        if stat.S_ISDIR(info.st_mode):
            raise ArtifactError(f"dest is {wanted.dest!r}, which is a directory: name the file in it")
        if not stat.S_ISREG(info.st_mode) or info.st_size != wanted.size:
            return "other"
        return sha256_file(wanted.dest)


def refuse_full(wanted: Wanted, copies: int) -> None:
    """Raise ArtifactError when the disk has no room for so many copies of the file."""
    place = os.path.dirname(wanted.dest)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    with as_artifact_error():
        disk = os.statvfs(place)
    free, needed = disk.f_bavail * disk.f_frsize, wanted.size * copies
    if free < needed:
        raise ArtifactError(
            f"{wanted.dest}: found {free >> 20} MiB free at {place}, {wanted.what} needs {(needed >> 20) + 1} MiB "
            "while it is installed; free space there"
        )


def _remove_leftovers(dest: str) -> None:
    """Remove what an earlier try was writing when the power went."""
    directory, name = os.path.split(dest)
    for found in os.listdir(directory):
        if found.startswith(f"{TEMP_PREFIX}{name}-"):
            os.unlink(os.path.join(directory, found))


def place(source: str, wanted: Wanted, attributes: Callable[[str], None]) -> None:
    """Copy ``source`` to where it belongs.

    The copy is flushed, hashed as the disk gives it back, gets its mode and owner, and only then its name, by one
    rename. Raises ArtifactError; ``dest`` is then as it was.

    :param attributes: gives a file its mode and owner
    """
    temporary = temp_name(wanted.dest)
    with as_artifact_error():
        make_dirs(os.path.dirname(wanted.dest))
        _remove_leftovers(wanted.dest)
        try:
            copy_hashed(source, temporary)
            digest = hash_from_disk(temporary)
            if digest != wanted.sha256:
                raise ArtifactError(
                    f"{wanted.dest}: what arrived of {wanted.what} has SHA-256 {digest}, but {wanted.sha256} was "
                    "signed; nothing was changed"
                )
            attributes(temporary)
            os.rename(temporary, wanted.dest)
        except OSError as error:
            if error.errno == errno.EISDIR:
                raise ArtifactError(f"dest is {wanted.dest!r}, which is a directory: name the file in it") from error
            raise
        finally:
            unlink_quietly(temporary)
        fsync_dir(os.path.dirname(wanted.dest))

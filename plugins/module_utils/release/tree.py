# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The files of a release directory against a listing: nothing unlisted, nothing odd, every byte hashed by streaming."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from .digests import PathLike, hash_stream, open_regular, read_limited
from .errors import ReleaseError


def resolve(path: str, blobs_dir: PathLike | None = None) -> str:
    """Return the path to open for one file: itself, or what a symlink into the blob store leads to.

    :param blobs_dir: a symlink is accepted only when it resolves to somewhere inside this directory; None: never

    Raises ReleaseError.
    """
    if not os.path.islink(path):
        return path
    if blobs_dir is None:
        raise ReleaseError(f"{path}: is a symbolic link; a release holds the files themselves")
    target, store = os.path.realpath(path), os.path.realpath(blobs_dir)
    if os.path.commonpath([target, store]) != store or target == store:
        raise ReleaseError(f"{path}: is a symbolic link that leads out of the blob store, to {target}")
    return target


def read_member(release_dir: str, name: str, limit: int, blobs_dir: PathLike | None = None) -> bytes:
    """Return the bytes of one file of a release, at most ``limit`` of them. Raises ReleaseError."""
    return read_limited(resolve(os.path.join(release_dir, name), blobs_dir), limit)


def _parents(paths: Collection[str]) -> set[str]:
    """Return every directory that lies above one of the paths."""
    result: set[str] = set()
    for path in paths:
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in result:
                break
            result.add(path)
    return result


def list_files(
    release_dir: PathLike, listed: Collection[str], skip: Collection[str], blobs_dir: PathLike | None = None
) -> dict[str, str]:
    """Walk a release directory and return the path to open for every file present, by relative path.

    :param listed: relative paths that may be there
    :param skip: relative paths that may be there too and are left out of the result

    Raises ReleaseError at the first thing that is neither: a file, a directory that no listed file lies in, a device,
    a pipe, a symlink that ``resolve`` refuses. What is not listed is never descended into, so a walk is bounded.
    """
    base = os.fspath(release_dir)
    names, directories = set(listed), _parents(listed)
    found: dict[str, str] = {}
    pending = [""]
    while pending:
        parent = pending.pop()
        try:
            with os.scandir(os.path.join(base, parent)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise ReleaseError(f"{os.path.join(base, parent)}: cannot be listed ({error.strerror})") from error
        for entry in entries:
            relative = parent + "/" + entry.name if parent else entry.name
            if entry.is_dir(follow_symlinks=False) and relative in directories:
                pending.append(relative)
            elif relative in names and not entry.is_dir(follow_symlinks=False):
                found[relative] = resolve(entry.path, blobs_dir)
            elif relative in directories and entry.is_symlink():
                raise ReleaseError(f"{entry.path}: is a symbolic link; a release holds the directory itself")
            elif relative not in skip:
                raise ReleaseError(f"{entry.path}: is not listed in the signature; remove it or sign the release again")
    return found


def check_file(path: str, relative: str, expected: str, size: int | None) -> None:
    """Hash one regular file and compare; memory does not grow with it. Raises ReleaseError.

    :param path: what to open, never through a symlink
    :param relative: name for the error
    :param expected: hex SHA-256
    :param size: bytes it has to have, compared before anything is read; None when no size was signed
    """
    with open_regular(path) as source:
        present = os.fstat(source.fileno()).st_size
        if size is not None and present != size:
            raise ReleaseError(f"{path}: file '{relative}' has {present} bytes, but the release says {size}")
        try:
            digest = hash_stream(source, limit=size)[1]
        except OSError as error:
            raise ReleaseError(f"{path}: cannot be read ({error.strerror})") from error
    if digest != expected:
        raise ReleaseError(f"{path}: file '{relative}' has SHA-256 {digest}, but {expected} was signed: it was altered")


def check_files(found: Mapping[str, str], listing: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    """Hash every file found against the listing (relative path to hex SHA-256). Raises ReleaseError."""
    for relative in sorted(found):
        check_file(found[relative], relative, listing[relative], sizes.get(relative))

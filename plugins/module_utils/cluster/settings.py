# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Write a node's settings and tokens (0600, whole or not at all), and tell whether the running K3s has read them."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..device import fsutil
from .errors import ClusterError

MODE = 0o600


class Plan(NamedTuple):
    """What has to be done: files to write (generated ones have no text yet), modes to correct, files to remove."""

    write: dict[str, str]
    generate: list[str]
    correct: list[str]
    remove: list[str]

    @property
    def changed(self) -> bool:
        """Whether anything is to be done."""
        return any(self)


def plan(wanted: Mapping[str, str], initial: Mapping[str, str], generate: Iterable[str], absent: Iterable[str]) -> Plan:
    """Compare the device with what is wanted.

    ``initial`` is only written where no such file is; ``generate`` names files that get a random secret when they are
    not there. Raises ClusterError for what is there and is no file, and for a text that is empty.
    """
    write = {}
    correct = []
    for path, text in {**initial, **wanted}.items():
        if not os.path.isabs(path):
            raise ClusterError(f"{path}: is no absolute path; name the file in full")
        if not text.strip():
            raise ClusterError(f"{path}: would be empty; give it its content")
        there = read(path)
        if there is None or (path in wanted and there != text):
            write[path] = text
        elif _loose(path):
            correct.append(path)
    lacking = [path for path in generate if read(path) is None]
    correct += [path for path in generate if path not in lacking and _loose(path)]
    return Plan(write, lacking, correct, [path for path in absent if os.path.lexists(path)])


def apply(todo: Plan) -> None:
    """Do it. Raises ClusterError when a file cannot be written."""
    for path, text in {**todo.write, **{path: secrets.token_hex(32) + "\n" for path in todo.generate}}.items():
        try:
            fsutil.make_dirs(os.path.dirname(path))
            fsutil.write_atomic(path, text.encode("utf-8"), MODE)
        except OSError as error:
            raise ClusterError(f"{path}: {error.strerror}; see that root can write there") from error
    for path in todo.correct:
        os.chmod(path, MODE)
        os.chown(path, 0, 0)
    for path in todo.remove:
        fsutil.remove(path)


def read(path: str) -> str | None:
    """The text of a file, None when it is not there. Raises ClusterError for anything but a file."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ClusterError(f"{path}: is no regular file; remove it and run again")
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}; see that root can read it") from error


def _loose(path: str) -> bool:
    found = os.lstat(path)
    return stat.S_IMODE(found.st_mode) != MODE or found.st_uid != 0


def inputs_digest(paths: Sequence[str]) -> str:
    """What the unit notes at its start: SHA-256 over the files in this order (absent ones left out), links named.

    The unit computes the same with cat, readlink and sha256sum (template k3s.service.j2).
    """
    found = hashlib.sha256()
    for path in paths:
        if os.path.islink(path):
            found.update(os.readlink(path).encode("utf-8") + b"\n")
        elif os.path.isfile(path):
            with open(path, "rb") as stream:
                found.update(stream.read())
    return found.hexdigest()


def stale(paths: Sequence[str], note: str) -> bool:
    """Whether K3s runs with other inputs than are on the disk now. ``note`` is the file the unit wrote at its start.

    Without that file nothing runs that this collection started, so nothing is stale.
    """
    try:
        with open(note, encoding="utf-8") as stream:
            return stream.read().split(maxsplit=1)[:1] != [inputs_digest(paths)]
    except OSError:
        return False

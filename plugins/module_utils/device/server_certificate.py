# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Bring the model server's certificate onto a device: judged first, written only when it is fit to be served."""

from __future__ import annotations

import datetime
import grp
import os
from typing import Any, NamedTuple

from . import fsutil
from .errors import DeviceError
from .tls import Pair

CERTIFICATE, KEY, CLIENT_CA = "server.pem", "server.key", "client-ca.pem"
#: Mode of each file; the key belongs to root and the group of the server's user.
MODES = {CERTIFICATE: 0o644, KEY: 0o640, CLIENT_CA: 0o644}
_UTC = datetime.timezone.utc


class Change(NamedTuple):
    """What is to be done in ``directory``: files to write (name -> text), to remove, and to correct (mode, owner)."""

    directory: str
    write: dict[str, str]
    remove: list[str]
    correct: list[str]

    @property
    def changed(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.write or self.remove or self.correct)


def parse_time(text: str | None) -> datetime.datetime:
    """The time to judge by: ``text`` (ISO 8601, UTC) or this machine's clock. Raises DeviceError(bad_input)."""
    if not text:
        return datetime.datetime.now(_UTC)
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=_UTC)
    except ValueError as error:
        raise DeviceError("bad_input", f"now: {text!r} is no time like 2026-11-23T12:00:00Z") from error


def plan_certificate(directory: str, pair: Pair | None, group: int | None) -> Change:
    """Compare ``directory`` with what it should hold (``pair`` None: nothing); reads only.

    ``group`` is the numeric group of the key, None when it is not known yet.
    """
    wanted: dict[str, str] = {}
    if pair is not None:
        wanted = {CERTIFICATE: pair.certificate, KEY: pair.key}
        if pair.client_ca:
            wanted[CLIENT_CA] = pair.client_ca
    wanted = {name: text.strip() + "\n" for name, text in wanted.items()}
    found = {name: _read(os.path.join(directory, name)) for name in MODES}
    write = {name: text for name, text in wanted.items() if found[name] != text}
    remove = [name for name, text in found.items() if text is not None and name not in wanted]
    correct = [
        name for name in wanted if name not in write and not _is_right(os.path.join(directory, name), name, group)
    ]
    return Change(directory, write, remove, correct)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 21)
    except OSError:
        return None


def _is_right(path: str, name: str, group: int | None) -> bool:
    status = os.stat(path)
    owner = (0, group if name == KEY and group is not None else 0)
    return (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (MODES[name], *owner)


def apply_certificate(change: Change, group: int) -> None:
    """Write, correct and remove; the key first, so that a certificate never waits for its key.

    Raises DeviceError(bad_input or no_space).
    """
    try:
        fsutil.make_dirs(change.directory)
        for name in sorted(change.write, reverse=True):  # server.pem after server.key: see above
            _place(change.directory, name, change.write[name], group)
        for name in change.correct:
            _give(os.path.join(change.directory, name), name, group)
        for name in change.remove:
            fsutil.remove(os.path.join(change.directory, name))
        if not any(os.path.exists(os.path.join(change.directory, name)) for name in MODES):
            _remove_empty(change.directory)
    except OSError as error:
        code = "no_space" if fsutil.no_space(error) else "bad_input"
        where = error.filename or change.directory
        raise DeviceError(code, f"{where}: {error.strerror}; see that root can write there") from error


def _place(directory: str, name: str, text: str, group: int) -> None:
    """Write a file under a name that nobody reads, give it its owner, then put it into its place."""
    path = os.path.join(directory, name)
    temp = fsutil.temp_name(path)
    try:
        fsutil.write_atomic(temp, text.encode(), 0o600)
        _give(temp, name, group)
        os.rename(temp, path)
    except OSError:
        fsutil.unlink_quietly(temp)
        raise
    fsutil.fsync_dir(directory)


def _give(path: str, name: str, group: int) -> None:
    os.chown(path, 0, group if name == KEY else 0)
    os.chmod(path, MODES[name])


def _remove_empty(directory: str) -> None:
    if os.path.isdir(directory) and not os.listdir(directory):
        os.rmdir(directory)
        fsutil.fsync_dir(os.path.dirname(directory))


def group_id(name: str) -> int | None:
    """The number of a group, None when it is not there."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def describe(pair: Pair, now: datetime.datetime) -> dict[str, Any]:
    """What a person wants to know of a certificate. ``days_left`` is rounded down."""
    leaf = pair.leaf
    return {
        "fingerprint": leaf.fingerprint,
        "expires": leaf.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "days_left": (leaf.not_after - now).days,
        "names": list(leaf.names),
        "client_certificates": "required" if pair.client_ca else "none",
    }

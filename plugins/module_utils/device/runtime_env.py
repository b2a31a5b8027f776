# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Runtime environments of a device: make one beside the others, prove it, then point ``current`` at it.

An environment is never changed after it is in place. A damaged one is made again, from what is whole of it and the
wheels of what is not, and takes its place in one step. A power cut at any moment leaves ``current`` on an environment
that was whole and proven when it got there.

Layout of ``home``: ``<runtime>-<version>-<lock digest>/``, ``current`` and ``previous`` (links), ``.wheels/`` (wheels
that arrived and are not installed yet, by SHA-256), ``.inbox-*/`` (where they arrive).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from . import fsutil
from .errors import DeviceError
from .exchange import replace_directory
from .runtime_lock import Lock, Package, dump_lock
from .runtime_proof import Proof, prove
from .runtime_tree import (
    DESCRIPTION,
    Description,
    Report,
    description_bytes,
    hash_bytes,
    own_environments,
    read_description,
    site_packages,
    verify,
    wheel_files,
)
from .runtime_wheel import hash_file, unpack

CURRENT, PREVIOUS, STASH, INBOX = "current", "previous", ".wheels", ".inbox-"
RESERVE = 64 * 1024 * 1024
#: Every start of an environment's interpreter, root's too, leaves it as it is: bytecode is made once, at installation.
_PTH = "import sys; sys.dont_write_bytecode = True\n"


class Status(NamedTuple):
    """What is there for a lock: the environment's report, what ``current`` names, wheels that must be unpacked."""

    path: str
    present: bool
    report: Report
    current: str | None
    needed: tuple[Package, ...]

    @property
    def good(self) -> bool:
        """Whether the environment is whole and in use."""
        return self.report.good and self.current == os.path.basename(self.path)


def link_target(home: str, name: str) -> str | None:
    """What ``current`` or ``previous`` names, None when it is not there."""
    try:
        return os.readlink(os.path.join(home, name))
    except OSError:
        return None


def inspect(home: str, lock: Lock) -> Status:
    """Verify the lock's environment (all its bytes) and say what is missing for it. Writes nothing, never raises."""
    path = os.path.join(home, lock.name)
    present = os.path.isdir(path)
    report = verify(path, lock)
    needed = tuple(package for package in lock.packages if package.file in report.wheels)
    return Status(path, present, report, link_target(home, CURRENT), needed)


@contextmanager
def locked(home: str) -> Iterator[None]:
    """Let nobody else change environments meanwhile; ``home`` is made, leftovers of dead attempts are removed.

    Raises DeviceError(busy) when somebody else is at it for longer than a minute.
    """
    umask = os.umask(0o022)
    try:
        fsutil.make_dirs(home)
        with fsutil.flocked(os.path.join(home, ".lock"), timeout=60.0, purpose="another run installs a runtime"):
            _drop_leftovers(home)
            yield
    except OSError as error:
        code = "no_space" if fsutil.no_space(error) else "bad_input"
        raise DeviceError(code, f"{error.filename or home}: {error.strerror or error}") from error
    finally:
        os.umask(umask)


def _drop_leftovers(home: str) -> None:
    """Remove what attempts that were cut off left behind."""
    for name in os.listdir(home):
        path = os.path.join(home, name)
        if not name.startswith(fsutil.TEMP_PREFIX):
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            fsutil.unlink_quietly(path)


def find_wheels(packages: Iterable[Package], places: Iterable[str]) -> dict[str, str]:
    """Where the wheels lie, by file: under their own name or their SHA-256 in one of the directories ``places``.

    Only names and sizes are looked at: whoever opens a wheel hashes it.
    """
    found: dict[str, str] = {}
    for package in packages:
        for place in places:
            for name in (package.sha256, package.file):
                path = os.path.join(place, name)
                if package.file not in found and _has_size(path, package.size):
                    found[package.file] = path
    return found


def _has_size(path: str, size: int) -> bool:
    try:
        return os.path.isfile(path) and (not size or os.path.getsize(path) == size)
    except OSError:
        return False


def adopt(home: str, packages: Iterable[Package], inbox: str, strict: bool = True) -> None:
    """Move the wheels that arrived in ``inbox`` to the stash, each hashed on its way and durable there.

    Raises DeviceError(digest_mismatch) for one that is not what the lock says; without ``strict`` it stays behind.
    """
    stash = os.path.join(home, STASH)
    fsutil.make_dirs(stash, 0o700)
    for package in packages:
        arrived = os.path.join(inbox, package.sha256)
        if not os.path.isfile(arrived):
            continue
        target = os.path.join(stash, package.sha256)
        temp = fsutil.temp_name(target)
        try:
            descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(arrived, "rb") as source, open(descriptor, "wb") as sink:
                digest, _size = hash_file(source, sink=sink)
                sink.flush()
                os.fsync(sink.fileno())
            if digest == package.sha256:
                os.rename(temp, target)
            elif strict:
                raise DeviceError(
                    "digest_mismatch",
                    f"{package.file}: what arrived has SHA-256 {digest}, the lock says {package.sha256}; run it again",
                )
        finally:
            fsutil.unlink_quietly(temp)
        fsutil.unlink_quietly(arrived)
    fsutil.fsync_dir(stash)


def drop_inboxes(home: str, packages: Iterable[Package] = (), but: str | None = None) -> None:
    """Remove the inboxes of transfers that were cut off; what arrived whole, and is wanted, goes to the stash."""
    for name in sorted(os.listdir(home)):
        path = os.path.join(home, name)
        if name.startswith(INBOX) and os.path.isdir(path) and not os.path.islink(path) and path != but:
            if packages:
                adopt(home, packages, path, strict=False)
            shutil.rmtree(path, ignore_errors=True)


def drop_stash(home: str, wanted: Collection[str] = ()) -> None:
    """Remove wheels (by SHA-256) that are not ``wanted``, and the stash itself when it is empty."""
    stash = os.path.join(home, STASH)
    for name in os.listdir(stash) if os.path.isdir(stash) else []:
        if name not in wanted:
            fsutil.unlink_quietly(os.path.join(stash, name))
    with suppress(OSError):
        os.rmdir(stash)


def check_space(home: str, needed: Iterable[Package], arriving: Iterable[Package]) -> None:
    """Raise DeviceError(no_space) unless what is to be unpacked, and what is to arrive, fits; plus 64 MiB."""
    place = home
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    space = os.statvfs(place)
    free = space.f_bavail * space.f_frsize
    wanted = sum(item.unpacked for item in needed) + sum(item.size for item in arriving) + RESERVE
    if free < wanted:
        raise DeviceError(
            "no_space",
            f"{home}: the environment needs {wanted // 2**20} MiB and {free // 2**20} MiB are free; make room, or put "
            "edge_runtime_home on a larger disk",
        )


def _skeleton(tree: str, lock: Lock, python: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """A virtual environment without anything in it; returns (hashes of its files, its links)."""
    site = site_packages(lock.python)
    executable = str(python["executable"])
    os.makedirs(os.path.join(tree, site))
    os.makedirs(os.path.join(tree, "bin"))
    links = {"bin/python": executable, "bin/python3": "python", "lib64": "lib"}
    for path, target in links.items():
        os.symlink(target, os.path.join(tree, path))
    settings = (
        f"home = {os.path.dirname(executable)}\nexecutable = {executable}\nversion = {python['version']}\n"
        f"include-system-site-packages = {'true' if lock.system else 'false'}\n"
    )
    made = {"pyvenv.cfg": settings, f"{site}/edgeai-immutable.pth": _PTH}
    for path, text in made.items():
        with open(os.path.join(tree, path), "x", encoding="utf-8") as stream:
            stream.write(text)
    return {path: hash_bytes(text.encode()) for path, text in made.items()}, links


def _take_over(tree: str, old: str, lock: Lock, whole: Collection[str]) -> dict[str, tuple[str, str]]:
    """Link the files of wheels that are whole in ``old`` into ``tree``; returns their RECORDs (path, SHA-256)."""
    description = read_description(old)
    if description is None:
        return {}
    expected, _bad = wheel_files(old, lock, description)
    for file in whole:
        for path in expected[file]:
            target = os.path.join(tree, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if not os.path.lexists(target):
                os.link(os.path.join(old, path), target)
    return {file: description.records[file] for file in whole}


def build(
    home: str, lock: Lock, python: Mapping[str, Any], provider: str, status: Status, wheels: Mapping[str, str]
) -> tuple[Proof, Report]:
    """Make the lock's environment, prove it, verify it from the disk, and put it in its place; ``current`` stays.

    :param python: `runtime_facts.ask_python`'s answer for the interpreter
    :param wheels: where the wheels of ``status.needed`` lie, by file

    Raises DeviceError: digest_mismatch for a bad wheel, server when the proof fails, no_space, damaged.
    """
    tree = fsutil.temp_name(status.path)
    site = os.path.join(tree, site_packages(lock.python))
    try:
        made, links = _skeleton(tree, lock, python)
        whole = {package.file for package in lock.packages} - {package.file for package in status.needed}
        records = _take_over(tree, status.path, lock, whole) if whole else {}
        for package in status.needed:
            name, raw = unpack(wheels[package.file], package, site, tree)
            records[package.file] = (f"{site_packages(lock.python)}/{name}", hash_bytes(raw))
        proof = prove(os.path.join(tree, "bin/python"), lock.runtime, provider, compile_below=site)
        root = os.path.realpath(tree)
        for path in proof.made:
            with open(path, "rb") as source:
                made[os.path.relpath(os.path.realpath(path), root)] = hash_file(source)[0]
        description = Description(lock.digest, dump_lock(lock), records, made, links)
        fsutil.write_atomic(os.path.join(tree, DESCRIPTION), description_bytes(description))
        os.sync()  # thousands of files: one flush of the file system instead of one each
        report = verify(tree, lock, drop_cache=True)
        if not report.good:
            path, said = next(iter(report.damaged.items()))
            raise DeviceError("damaged", f"{path} {said} right after it was written: is the disk sound?")
        replace_directory(tree, status.path)
        return proof, report
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def switch(home: str, name: str) -> bool:
    """Point ``current`` at an environment and ``previous`` at the one before; False when it does already."""
    before = link_target(home, CURRENT)
    if before == name:
        return False
    if before is not None:
        fsutil.link_atomic(before, os.path.join(home, PREVIOUS))
    fsutil.link_atomic(name, os.path.join(home, CURRENT))
    return True


def prune(home: str, check: bool = False) -> list[str]:
    """Remove environments that are neither current nor previous; returns their names. Running servers use these two."""
    kept = {link_target(home, CURRENT), link_target(home, PREVIOUS)}
    doomed = [name for name in own_environments(home) if name not in kept]
    for name in doomed if not check else []:
        fsutil.remove_tree(os.path.join(home, name))
    return doomed


def remove_all(home: str, check: bool = False) -> list[str]:
    """Remove every environment that was made here and all that goes with it; returns what was (or would be) removed.

    Other things in ``home`` are left alone, and then ``home`` too. Raises DeviceError when something cannot be removed.
    """
    mine = own_environments(home)
    links = [name for name in (CURRENT, PREVIOUS) if os.path.islink(os.path.join(home, name))]
    if check or not os.path.isdir(home):
        return mine + links
    try:
        for name in links:
            fsutil.remove(os.path.join(home, name))
        for name in mine:
            fsutil.remove_tree(os.path.join(home, name))
        drop_stash(home)
        drop_inboxes(home)
        _drop_leftovers(home)
        fsutil.unlink_quietly(os.path.join(home, ".lock"))
        _remove_empty(home)
    except OSError as error:
        raise DeviceError("bad_input", f"{error.filename or home}: cannot be removed: {error.strerror}") from error
    return mine + links


def _remove_empty(home: str) -> None:
    with suppress(OSError):
        os.rmdir(home)
        if os.path.basename(os.path.dirname(home)) == "edgeai":
            os.rmdir(os.path.dirname(home))

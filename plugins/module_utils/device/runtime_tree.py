# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a runtime environment consists of, and whether all of it is there: every file, every byte, nothing else.

``edgeai-environment.json`` in it holds the lock, where each wheel's RECORD is, and the hashes of the few files that
were made here (the interpreter's settings, bytecode). RECORD files are checked against the lock, all others against
their RECORD: with a lock that was signed, the chain from the signature to the byte on the disk has no gap.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .errors import DeviceError
from .fsutil import read_bounded
from .runtime_lock import Lock
from .runtime_wheel import MAX_RECORD, entries, hash_file, parse_record, safe_name

DESCRIPTION = "edgeai-environment.json"
MAX_DESCRIPTION = 64 * 1024 * 1024
FORMAT = 1

Expected = dict[str, tuple[str, str]]  # path below the environment -> (algorithm, hex digest)


class Description(NamedTuple):
    """``edgeai-environment.json``. ``records``: wheel file to (RECORD's path, SHA-256); ``made``: path to SHA-256.

    ``lock`` is there for people; ``digest`` of it is what counts.
    """

    digest: str
    lock: Mapping[str, Any]
    records: Mapping[str, tuple[str, str]]
    made: Mapping[str, str]
    links: Mapping[str, str]


class Report(NamedTuple):
    """The outcome of `verify`. ``damaged``: paths with what is wrong, ``wheels``: files of wheels not whole here.

    ``whole`` wheels can be taken over from this tree when it is built again.
    """

    files: int
    size: int
    seconds: float
    damaged: Mapping[str, str]
    wheels: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether everything is there and as it was installed."""
        return self.files > 0 and not self.damaged


def site_packages(python: str) -> str:
    """Where packages are, relative to the environment. ``python``: major.minor."""
    return f"lib/python{python}/site-packages"


def description_bytes(description: Description) -> bytes:
    """The file's content, always the same for the same environment."""
    data = {"format": FORMAT, **description._asdict()}
    return json.dumps(data, indent=1, sort_keys=True).encode("ascii") + b"\n"


def read_description(environment: str) -> Description | None:
    """The environment's description, None when there is none that can be used (then nothing in it can be trusted)."""
    try:
        data = json.loads(read_bounded(os.path.join(environment, DESCRIPTION), MAX_DESCRIPTION))
        if data.pop("format") != FORMAT:
            return None
        found = Description(**data)
        records = {str(file): (str(path), str(digest)) for file, (path, digest) in found.records.items()}
        made = {str(path): str(digest) for path, digest in found.made.items()}
        links = {str(path): str(target) for path, target in found.links.items()}
        paths = [*made, *links, *(path for path, _digest in records.values())]
        if not all(safe_name(path) for path in paths):
            return None
        return Description(str(found.digest), found.lock, records, made, links)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, DeviceError):
        return None


def wheel_files(environment: str, lock: Lock, description: Description) -> tuple[dict[str, Expected], dict[str, str]]:
    """Per wheel of the lock the files it put here, from its RECORD; and what is wrong with a wheel's RECORD."""
    expected: dict[str, Expected] = {}
    bad: dict[str, str] = {}
    site = site_packages(lock.python)
    for package in lock.packages:
        path, digest = description.records.get(package.file, ("", ""))
        wanted = package.record or digest
        if not path or not path.startswith(site + "/"):
            bad[package.file] = "not in the environment's description"
            continue
        try:
            raw = read_bounded(os.path.join(environment, path), MAX_RECORD)
            if hash_bytes(raw) != wanted:
                bad[path] = bad[package.file] = "RECORD is not the one that was installed"
                continue
            record = parse_record(raw, package.file)
        except (OSError, DeviceError) as error:
            bad[path] = bad[package.file] = str(error)
            continue
        files = {
            entry.target if entry.in_prefix else f"{site}/{entry.target}": (entry.algorithm, entry.digest)
            for entry in entries(record)
        }
        files[path] = ("sha256", wanted)
        expected[package.file] = files
    return expected, bad


def hash_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def walk(environment: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below an environment that is not a directory, with its relative path; links are not followed."""
    pending = [""]
    while pending:
        parent = pending.pop()
        with os.scandir(os.path.join(environment, parent)) as scan:
            for entry in scan:
                relative = f"{parent}/{entry.name}" if parent else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(relative)
                else:
                    yield relative, entry


def verify(environment: str, lock: Lock, drop_cache: bool = False) -> Report:
    """Hash every file of an environment and compare; name what is missing, altered or not its own. Writes nothing.

    :param drop_cache: ask the kernel to read from the disk again, for files that were just written

    Never raises for what it finds; an environment whose description is gone has all its wheels in ``wheels``.
    """
    began = time.monotonic()
    everything = tuple(package.file for package in lock.packages)
    description = read_description(environment)
    if not os.path.isdir(environment):
        return Report(0, 0, 0.0, {}, everything)
    if description is None or description.digest != lock.digest:
        said = "is missing or unusable" if description is None else "describes another lock"
        return Report(0, 0, time.monotonic() - began, {DESCRIPTION: said}, everything)
    expected, damaged = wheel_files(environment, lock, description)
    wheels = {file for file in damaged if file in everything}
    owners: dict[str, list[str]] = {}
    wanted: Expected = {path: ("sha256", digest) for path, digest in description.made.items()}
    for file, content in expected.items():
        for path, value in content.items():
            owners.setdefault(path, []).append(file)
            wanted[path] = value
    files, size, seen = 0, 0, set()
    for relative, entry in walk(environment):
        if relative == DESCRIPTION:
            continue
        fault, count = _fault(relative, entry, wanted, description.links, drop_cache)
        files, size = files + 1, size + count
        seen.add(relative)
        if fault:
            damaged[relative] = fault
    for relative in sorted((set(wanted) | set(description.links)) - seen):
        damaged[relative] = "is missing"
    for relative in damaged:
        wheels.update(owners.get(relative, ()))
    return Report(files, size, time.monotonic() - began, damaged, tuple(sorted(wheels)))


def _fault(
    relative: str, entry: os.DirEntry[str], wanted: Expected, links: Mapping[str, str], drop_cache: bool
) -> tuple[str, int]:
    """What is wrong with one file ("" for nothing), and how many bytes were hashed."""
    try:
        if entry.is_symlink():
            return ("" if links.get(relative) == os.readlink(entry.path) else "is a link that was not installed"), 0
        status = entry.stat(follow_symlinks=False)
        if relative not in wanted or not stat.S_ISREG(status.st_mode):
            return "was not installed", 0
        if status.st_mode & 0o022:
            return "can be written by others", 0
        algorithm, digest = wanted[relative]
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as source:
            if drop_cache:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            found, size = hash_file(source, algorithm)  # type: ignore[arg-type]
        return ("" if found == digest else "was altered"), size
    except OSError as error:
        return f"cannot be read ({error.strerror})", 0


def own_environments(home: str) -> list[str]:
    """Names of the environments below ``home`` that were made here; other directories are none of our business."""
    try:
        with os.scandir(home) as scan:
            names = sorted(entry.name for entry in scan if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    return [
        name for name in names if not name.startswith(".") and os.path.isfile(os.path.join(home, name, DESCRIPTION))
    ]

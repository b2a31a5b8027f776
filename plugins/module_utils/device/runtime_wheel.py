# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Unpack a wheel so that every byte is accounted for: each file against RECORD, RECORD against the lock.

Written by hand, on the standard library, instead of calling pip: a device needs neither ensurepip nor pip, nothing of
the wheel is executed, and RECORD stays as it was signed, so an installed environment can be verified with it later.
Scripts and headers are left out: an environment is there to be imported from, by its interpreter.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from .errors import DeviceError
from .runtime_lock import Package, check_wheel_name, normal_name

CHUNK = 1024 * 1024
MAX_RECORD = 32 * 1024 * 1024
MAX_FILES = 100_000
MAX_FILE = 16 * 1024 * 1024 * 1024
_ALGORITHMS = ("sha256", "sha384", "sha512")
_UNHASHED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_LEFT_OUT = ("scripts", "headers")


class Entry(NamedTuple):
    """One file of a wheel: where it goes below the environment's site-packages (``data`` files: below the prefix)."""

    member: str
    target: str
    in_prefix: bool
    algorithm: str
    digest: str


def _damaged(wheel: str, said: str) -> DeviceError:
    return DeviceError("digest_mismatch", f"{wheel}: {said}; bring the wheel again, or build the wheelhouse again")


def safe_name(name: str) -> bool:
    """Whether a name inside a wheel stays inside the directory it is unpacked to, and is what it looks like."""
    parts = name.split("/")
    return (
        bool(name)
        and not name.startswith("/")
        and "\\" not in name
        and name.isprintable()
        and len(name) <= 1024
        and not any(part in ("", ".", "..") for part in parts)
    )


def hash_file(source: BinaryIO, algorithm: str = "sha256", sink: BinaryIO | None = None) -> tuple[str, int]:
    """Hex digest and number of bytes of a stream, at most a MiB at a time; written to ``sink`` on the way."""
    digest, size = hashlib.new(algorithm), 0
    while True:
        block = source.read(CHUNK)
        if not block:
            return digest.hexdigest(), size
        digest.update(block)
        size += len(block)
        if sink is not None:
            sink.write(block)


def parse_record(raw: bytes, where: str) -> dict[str, tuple[str, str]]:
    """The files that a RECORD lists: name to (algorithm, hex digest), ("", "") for the few that cannot have one.

    Raises DeviceError(digest_mismatch) for bad names, weak or missing hashes and lines that are no RECORD.
    """
    found: dict[str, tuple[str, str]] = {}
    try:
        rows = list(csv.reader(raw.decode("utf-8").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(where, f"its RECORD cannot be read ({error})") from error
    for row in rows:
        if not row:
            continue
        name = row[0]
        if not safe_name(name) or name in found or len(found) >= MAX_FILES:
            raise _damaged(where, f"its RECORD lists {name[:120]!r}, which is unsafe or listed twice")
        algorithm, _equals, value = (row[1] if len(row) > 1 else "").partition("=")
        if not value:
            if name.rpartition("/")[2] not in _UNHASHED or ".dist-info/" not in name:
                raise _damaged(where, f"its RECORD gives no hash for {name!r}")
            found[name] = ("", "")
            continue
        try:
            digest = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
        except (binascii.Error, ValueError) as error:
            raise _damaged(where, f"the hash of {name!r} in its RECORD cannot be read") from error
        if algorithm not in _ALGORITHMS or len(digest) != hashlib.new(algorithm).digest_size * 2:
            raise _damaged(where, f"its RECORD gives no SHA-2 hash for {name!r}")
        found[name] = (algorithm, digest)
    return found


def placed(name: str) -> tuple[str, bool] | None:
    """Where a file of a wheel goes: (path, whether below the prefix instead of site-packages); None for left out."""
    head, _slash, rest = name.partition("/")
    if not head.endswith(".data"):
        return name, False
    kind, _slash, target = rest.partition("/")
    if not target or kind in _LEFT_OUT:
        return None
    if kind in ("purelib", "platlib"):
        return target, False
    return (target, True) if kind == "data" else None


def entries(record: dict[str, tuple[str, str]]) -> Iterator[Entry]:
    """The files of a RECORD that an environment holds and that have a hash."""
    for name, (algorithm, digest) in record.items():
        place = placed(name)
        if algorithm and place is not None:
            yield Entry(name, place[0], place[1], algorithm, digest)


def record_name(names: list[str], package: Package) -> str:
    """The name of a wheel's RECORD, in the one .dist-info directory that a wheel has. Raises DeviceError."""
    found = [name for name in names if name.endswith(".dist-info/RECORD") and name.count("/") == 1]
    if len(found) != 1:
        raise _damaged(package.file, f"it has {len(found)} RECORD files, a wheel has one")
    name, _dash, version = found[0].partition("/")[0][: -len(".dist-info")].partition("-")
    wheel = check_wheel_name(package.file)
    if (normal_name(name), version.replace("_", "-")) != (
        normal_name(wheel["name"]),
        wheel["version"].replace("_", "-"),
    ):
        raise _damaged(package.file, f"it holds {name} {version}, its name says {package.name} {package.version}")
    return found[0]


@contextmanager
def open_wheel(path: str, package: Package) -> Iterator[zipfile.ZipFile]:
    """Open a wheel whose bytes are those of the lock; they are hashed first, through the same descriptor.

    Raises DeviceError(digest_mismatch) for other bytes or a torn archive, DeviceError(damaged) when it is not readable.
    """
    try:
        with open(path, "rb") as stream:
            if package.size and os.fstat(stream.fileno()).st_size != package.size:
                size = os.fstat(stream.fileno()).st_size
                raise _damaged(package.file, f"it has {size} bytes, the lock says {package.size}")
            digest, _size = hash_file(stream)
            if digest != package.sha256:
                raise _damaged(package.file, f"it has SHA-256 {digest}, the lock says {package.sha256}")
            stream.seek(0)
            with zipfile.ZipFile(stream) as archive:
                yield archive
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.filename == path:
            raise DeviceError("damaged", f"{path}: cannot be read ({error.strerror})") from error
        raise
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _damaged(package.file, f"it is not a whole wheel ({error})") from error


def read_record(archive: zipfile.ZipFile, package: Package) -> tuple[str, bytes]:
    """The name and bytes of a wheel's RECORD, compared with the lock's hash of it. Raises DeviceError."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(names) != len(set(names)) or len(names) > MAX_FILES:
        raise _damaged(package.file, "it lists a file twice, or too many files")
    name = record_name(names, package)
    if archive.getinfo(name).file_size > MAX_RECORD:
        raise _damaged(package.file, "its RECORD is too large")
    raw = archive.read(name)
    if package.record and hashlib.sha256(raw).hexdigest() != package.record:
        raise _damaged(package.file, "its RECORD is not the one of the lock")
    return name, raw


def unpack(path: str, package: Package, site: str, prefix: str) -> tuple[str, bytes]:
    """Unpack a wheel below ``site`` (and ``prefix``), hashing every file on its way; returns RECORD's name and bytes.

    Two packages may bring the same file with the same content. Raises DeviceError(digest_mismatch) at the first file
    that is unsafe, not in RECORD, or not what RECORD says, and for a file that RECORD lists and the wheel lacks.
    """
    with open_wheel(path, package) as archive:
        name, raw = read_record(archive, package)
        record = parse_record(raw, package.file)
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        for missing in sorted(set(record) - set(members)):
            if record[missing][0]:
                raise _damaged(package.file, f"it lacks {missing!r}, which its RECORD lists")
        for member, info in members.items():
            if member not in record or stat.S_ISLNK(info.external_attr >> 16):
                raise _damaged(package.file, f"it holds {member[:120]!r}, which its RECORD does not list, or a link")
        for entry in entries(record):
            _extract(archive, members[entry.member], entry, prefix if entry.in_prefix else site, package)
        _write(os.path.join(site, name), raw)
        return name, raw


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Entry, base: str, package: Package) -> None:
    target = os.path.join(base, *entry.target.split("/"))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if info.file_size > MAX_FILE:
        raise _damaged(package.file, f"{entry.member!r} is too large")
    mode = 0o755 if (info.external_attr >> 16) & 0o111 else 0o644
    with archive.open(info) as source:
        if os.path.lexists(target):
            digest, _size = _hash_path(target, entry.algorithm)
            if digest != entry.digest:
                raise DeviceError(
                    "bad_input", f"{package.file}: {entry.target} is also in another package of the lock, and differs"
                )
            return
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as sink:
            os.fchmod(sink.fileno(), mode)
            try:
                digest, _size = hash_file(source, entry.algorithm, sink)  # type: ignore[arg-type]
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise _damaged(package.file, f"{entry.member!r} cannot be unpacked ({error})") from error
    if digest != entry.digest:
        raise _damaged(package.file, f"{entry.member!r} is not what its RECORD says")


def _hash_path(path: str, algorithm: str) -> tuple[str, int]:
    with open(path, "rb") as stream:
        return hash_file(stream, algorithm)


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as sink:
        sink.write(data)


def describe_wheel(path: str) -> Package:
    """What a lock says of the wheel at ``path``.

    Raises DeviceError(digest_mismatch) when it is not a whole, well-formed wheel.
    """
    file = os.path.basename(path)
    match = check_wheel_name(file)
    digest, size = _hash_path(path, "sha256")
    package = Package(normal_name(match["name"]), match["version"], file, size, digest)
    with open_wheel(path, package) as archive:
        _name, raw = read_record(archive, package)
        parse_record(raw, file)
        unpacked = sum(info.file_size for info in archive.infolist())
    return package._replace(record=hashlib.sha256(raw).hexdigest(), unpacked=unpacked)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The lock of a runtime environment: which wheels, by hash, and whether they fit this Python, architecture and libc."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .errors import DeviceError

_WHEEL = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[A-Za-z0-9][A-Za-z0-9._!+]*)(?:-(?P<build>\d[A-Za-z0-9._]*))?"
    r"-(?P<python>[a-z0-9._]+)-(?P<abi>[a-z0-9._]+)-(?P<platform>[A-Za-z0-9._]+)\.whl"
)
_HEX = re.compile(r"[0-9a-f]{64}")
_OLD_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
DIGEST_LENGTH = 12


class Package(NamedTuple):
    """One wheel. ``size`` and ``unpacked`` in bytes, 0 when not known; ``record``: SHA-256 of its RECORD, or empty."""

    name: str
    version: str
    file: str
    size: int
    sha256: str
    record: str = ""
    unpacked: int = 0


class Lock(NamedTuple):
    """Everything an environment is made of. ``system``: versions of packages of the distribution it also sees."""

    runtime: str
    version: str
    python: str
    packages: tuple[Package, ...]
    system: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """Hex SHA-256 over Python, wheels and system packages: the same lock gives the same environment."""
        content = [self.python, sorted([item.file, item.sha256] for item in self.packages), sorted(self.system)]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The directory of the environment: ``<runtime>-<version>-<12 digits of the digest>``."""
        return f"{self.runtime}-{self.version}-{self.digest[:DIGEST_LENGTH]}"


def _bad(field: str, value: Any, fix: str) -> DeviceError:
    return DeviceError("bad_input", f"lock: {field} is {value!r}: {fix}")


def check_wheel_name(file: Any) -> re.Match[str]:
    """The parts of a wheel's file name. Raises DeviceError(bad_input) for anything else, a path among it."""
    match = _WHEEL.fullmatch(file) if isinstance(file, str) and len(file) <= 255 else None
    if match is None:
        raise _bad("file", file, "use the name of a wheel, such as numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl")
    return match


def normal_name(name: str) -> str:
    """One spelling per package: lower case, hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_package(value: Any) -> Package:
    """Check one entry of a lock. Raises DeviceError(bad_input)."""
    if not isinstance(value, Mapping) or set(value) - set(Package._fields):
        raise _bad("package", value, "use an object with " + ", ".join(Package._fields))
    match = check_wheel_name(value.get("file"))
    for field, empty in (("sha256", False), ("record", True)):
        text = value.get(field) or ""
        if not isinstance(text, str) or not (_HEX.fullmatch(text) or (empty and not text)):
            raise _bad(f"{field} of {value['file']}", value.get(field), "use 64 lower-case hex digits")
    for field in ("size", "unpacked"):
        size = value.get(field) or 0
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise _bad(f"{field} of {value['file']}", size, "use a number of bytes")
    return Package(
        normal_name(match["name"]),
        match["version"],
        value["file"],
        value.get("size") or 0,
        value["sha256"],
        value.get("record") or "",
        value.get("unpacked") or 0,
    )


def read_lock(value: Mapping[str, Any]) -> Lock:
    """Make a lock of plain data: {runtime, version, python, packages[], system{}}. Raises DeviceError(bad_input)."""
    for field, pattern in (("runtime", r"[a-z][a-z0-9_]*"), ("version", r"[0-9A-Za-z][0-9A-Za-z.+_~:-]*"),
                           ("python", r"\d+\.\d+")):  # fmt: skip
        if not isinstance(value.get(field), str) or not re.fullmatch(pattern, value[field]):
            raise _bad(field, value.get(field), f"use a text like {pattern}")
    packages = tuple(sorted(read_package(item) for item in value.get("packages") or ()))
    names = [item.name for item in packages]
    for name in names:
        if names.count(name) > 1:
            raise _bad("packages", name, "a package appears twice; keep one of them")
    system = tuple(sorted((str(name), str(version)) for name, version in (value.get("system") or {}).items()))
    return Lock(value["runtime"], value["version"].replace(":", "_"), value["python"], packages, system)


def dump_lock(lock: Lock) -> dict[str, Any]:
    """The lock as plain data, as `read_lock` takes it."""
    return {
        "runtime": lock.runtime,
        "version": lock.version,
        "python": lock.python,
        "packages": [package._asdict() for package in lock.packages],
        "system": dict(lock.system),
    }


def _python_fits(tag: str, abi: str, python: Sequence[int]) -> bool:
    match = re.fullmatch(r"(cp|py)(\d)(\d*)", tag)
    if match is None or int(match[2]) != python[0]:
        return False
    minor = int(match[3]) if match[3] else 0
    if match[1] == "py":
        return abi == "none" and minor <= python[1]
    if abi == "abi3":
        return minor <= python[1]
    return minor == python[1] and abi in (f"cp{python[0]}{python[1]}", "none")


def _platform_fits(tag: str, architecture: str, glibc: Sequence[int]) -> bool:
    if tag == "any":
        return True
    for prefix, needed in _OLD_TAGS.items():
        if tag == f"{prefix}_{architecture}":
            return tuple(glibc) >= needed
    match = re.fullmatch(r"manylinux_(\d+)_(\d+)_(\w+)", tag)
    if match is not None:
        return match[3] == architecture and tuple(glibc) >= (int(match[1]), int(match[2]))
    return tag == f"linux_{architecture}"  # a vendor's wheel for one system


def misfit(file: str, python: Sequence[int], architecture: str, glibc: Sequence[int]) -> str | None:
    """Why a wheel cannot be used on a device (by its name, as installers decide); None when it can."""
    match = check_wheel_name(file)
    abis = match["abi"].split(".")
    if not any(_python_fits(tag, abi, python) for tag in match["python"].split(".") for abi in abis):
        return f"{file}: is for Python {match['python']} ({match['abi']}), the device has {python[0]}.{python[1]}"
    if not any(_platform_fits(tag, architecture, glibc) for tag in match["platform"].split(".")):
        return f"{file}: is for {match['platform']}, the device is {architecture} with glibc {glibc[0]}.{glibc[1]}"
    return None

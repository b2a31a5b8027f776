# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A wheelhouse: the wheels of every environment a fleet needs, with their hashes, signed as one.

``wheelhouse.json`` lists the environments and the wheels, ``wheels/`` holds them, ``model.sig`` is a signature of
OpenSSF Model Signing v1 over all of it, as releases have: any tool of that specification verifies a wheelhouse.
The locks of the collection (``requirements/locks.json``) have the same form without the wheels.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..device.errors import DeviceError
from ..device.runtime_lock import Lock, Package, check_wheel_name, misfit, read_package
from ..release.digests import PathLike, read_limited
from ..release.directory import Kind, check_sizes, find_signed, read_signed, sign_listing
from ..release.errors import ReleaseError, field_error
from ..release.keys import Trust
from ..release.schema import Fields, load_json
from ..release.signing import Signer
from ..release.tree import check_files, read_member

LISTING = "wheelhouse.json"
WHEELS = "wheels"
FORMAT = 1
MAX_LISTING = 16 * 1024 * 1024
KIND = Kind("wheelhouse", LISTING, MAX_LISTING, "edgeai.fleet.wheelhouse")
MAX_WHEELS = 4000
MAX_SIZE = 16 * 1024 * 1024 * 1024

_HEX = re.compile(r"[0-9a-f]{64}")
_PYTHON = re.compile(r"3\.\d{1,2}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_]*")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[a-z0-9,_-]+\])?")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[a-z0-9,_-]+\])?(?:==[0-9A-Za-z.+_]+)?")
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
ARCHITECTURES = ("x86_64", "aarch64", "armv7l")


class Target(NamedTuple):
    """What an environment is for: a Python (major.minor) and an architecture."""

    python: str
    architecture: str

    @property
    def version(self) -> tuple[int, int]:
        """The Python as numbers."""
        major, _dot, minor = self.python.partition(".")
        return int(major), int(minor)


class Environment(NamedTuple):
    """One environment of a wheelhouse. ``package`` brings the runtime; ``requirements`` is what was asked for."""

    runtime: str
    package: str
    version: str
    target: Target
    requirements: tuple[str, ...]
    wheels: tuple[str, ...]

    @property
    def label(self) -> str:
        """For texts: ``onnxruntime==1.32.0 for Python 3.11 on x86_64``."""
        return f"{self.package}=={self.version} for Python {self.target.python} on {self.target.architecture}"


class Wheelhouse(NamedTuple):
    """A checked listing. ``where`` is the directory (or file) it came from; ``raw`` its bytes."""

    where: str
    created: str
    environments: tuple[Environment, ...]
    wheels: Mapping[str, Package]
    raw: bytes

    def stocked(self, target: Target) -> set[str]:
        """``package==version`` of the environments for a target."""
        return {f"{item.package}=={item.version}" for item in self.environments if item.target == target}

    def lock(self, package: str, version: str, target: Target) -> Lock:
        """The lock of one environment. Raises ReleaseError that says what there is instead."""
        for item in self.environments:
            if (item.package, item.version, item.target) == (package, version, target):
                return Lock(
                    item.runtime, version, target.python, tuple(sorted(self.wheels[name] for name in item.wheels))
                )
        have = ", ".join(sorted(item.label for item in self.environments)) or "nothing"
        raise ReleaseError(
            f"{self.where}: has no {package}=={version} for Python {target.python} on {target.architecture}; it has "
            f"{have}. Build the wheelhouse (edgeai.fleet.wheelhouse) with this device in the inventory"
        )


def dump(created: str, environments: Iterable[Environment], wheels: Mapping[str, Package]) -> bytes:
    """The bytes of a listing, always the same for the same content."""
    document = {
        "format": FORMAT,
        "created": created,
        "environments": [
            {**{key: value for key, value in item._asdict().items() if key != "target"}, **item.target._asdict()}
            for item in sorted(environments)
        ],
        "wheels": {
            name: {key: getattr(wheels[name], key) for key in ("size", "sha256", "record", "unpacked")}
            for name in sorted(wheels)
        },
    }
    return json.dumps(document, indent=1, sort_keys=True).encode("ascii") + b"\n"


def _environment(value: Any, where: str, at: str, wheels: Mapping[str, Package]) -> Environment:
    names = ("runtime", "package", "version", "python", "architecture", "requirements", "wheels")
    fields = Fields(value, where, at, names)
    target = Target(fields.text("python", _PYTHON), fields.choice("architecture", ARCHITECTURES))
    files = fields.array("wheels", 1, 500)
    seen = set()
    for index, file in enumerate(files):
        if not isinstance(file, str) or file not in wheels:
            raise field_error(where, f"{fields.at('wheels')}[{index}]", file, "name a file of 'wheels'")
        reason = misfit(file, target.version, target.architecture, (99, 0))
        if reason:
            raise field_error(where, f"{fields.at('wheels')}[{index}]", file, reason)
        if wheels[file].name in seen:
            raise field_error(where, f"{fields.at('wheels')}[{index}]", file, "this package is there twice")
        seen.add(wheels[file].name)
    return Environment(
        fields.text("runtime", re.compile(r"[a-z][a-z0-9]*")),
        fields.text("package", _PACKAGE),
        fields.text("version", _VERSION),
        target,
        fields.texts("requirements", _REQUIREMENT, 0, 100),
        tuple(files),
    )


def _wheel(name: Any, value: Any, where: str) -> Package:
    at = f"wheels[{name!r}]"
    fields = Fields(value, where, at, ("size", "sha256", "record", "unpacked"))
    try:
        check_wheel_name(name)
        return read_package(
            {
                "file": name,
                "size": fields.integer("size", 0, MAX_SIZE),
                "sha256": fields.text("sha256", _HEX, "use 64 lower-case hex digits"),
                "record": fields.text("record", re.compile(r"[0-9a-f]{64}|"), "use 64 hex digits", empty=True),
                "unpacked": fields.integer("unpacked", 0, MAX_SIZE),
            }
        )
    except DeviceError as error:
        raise ReleaseError(f"{where}: {at}: {error.message}") from error


def parse(raw: bytes, where: str) -> Wheelhouse:
    """Check a listing. Raises ReleaseError that names the field."""
    top = Fields(load_json(raw, where, MAX_LISTING), where, "", ("format", "created", "environments", "wheels"))
    if top.get("format") != FORMAT:
        raise top.error("format", f"this version reads format {FORMAT}; update the collection or build it again")
    listed = top.get("wheels")
    if not isinstance(listed, dict) or len(listed) > MAX_WHEELS:
        raise top.error("wheels", f"use an object of at most {MAX_WHEELS} wheels")
    wheels = {name: _wheel(name, value, where) for name, value in listed.items()}
    environments = tuple(
        _environment(value, where, f"environments[{index}]", wheels)
        for index, value in enumerate(top.array("environments", 0, 1000))
    )
    keys = [(item.package, item.version, item.target) for item in environments]
    if len(set(keys)) != len(keys):
        raise top.error("environments", "an environment is there twice")
    return Wheelhouse(where, top.text("created", _CREATED), environments, wheels, raw)


def read_locks(path: PathLike) -> Wheelhouse:
    """Read a file of locks, which has the form of a listing and no wheels beside it. Raises ReleaseError."""
    return parse(read_limited(path, MAX_LISTING, follow=True), os.fspath(path))


def wheel_path(directory: PathLike, file: str) -> str:
    """Where a wheel lies in a wheelhouse."""
    return os.path.join(os.fspath(directory), WHEELS, file)


def _listing(house: Wheelhouse) -> dict[str, str]:
    """What the signature has to list: path to SHA-256."""
    listing = {f"{WHEELS}/{name}": package.sha256 for name, package in house.wheels.items()}
    listing[LISTING] = hashlib.sha256(house.raw).hexdigest()
    return listing


def sign(directory: PathLike, signer: Signer) -> None:
    """Write ``model.sig`` over a wheelhouse whose wheels were just hashed. Raises ReleaseError."""
    base = os.fspath(directory)
    house = parse(read_member(base, LISTING, MAX_LISTING), os.path.join(base, LISTING))
    sign_listing(base, KIND, _listing(house), signer)


class Opened(NamedTuple):
    """A verified wheelhouse, and the id of the key that signed it."""

    house: Wheelhouse
    key_id: str


def open_wheelhouse(directory: PathLike, trust: Trust, now: datetime.datetime, whole: bool = False) -> Opened:
    """Verify a wheelhouse: signature, agreement of signature and listing, every file there, of its size, none else.

    :param whole: hash every wheel too. Without it a wheel is to be hashed before it is used (`check_wheel`)

    Raises ReleaseError: unsigned, signed by a key that is not trusted, expired certificates, altered, missing, added.
    """
    base = os.fspath(directory)
    signed = read_signed(base, KIND, trust, now)
    found = find_signed(base, KIND, signed)
    listing = os.path.join(base, LISTING)
    house = parse(signed.raw, listing)
    if _listing(house) != signed.resources:
        raise ReleaseError(f"{listing}: lists other wheels than its signature; build the wheelhouse again")
    sizes = {f"{WHEELS}/{name}": package.size for name, package in house.wheels.items()}
    check_sizes(found, sizes, KIND)
    if whole:
        check_files(found, signed.resources, sizes)
    return Opened(house._replace(where=base), signed.key_id)


def check_wheel(directory: PathLike, package: Package) -> str:
    """Hash one wheel of a wheelhouse before it is sent; returns its path. Raises ReleaseError."""
    path = wheel_path(directory, package.file)
    relative = f"{WHEELS}/{package.file}"
    check_files({relative: path}, {relative: package.sha256}, {relative: package.size} if package.size else {})
    return path

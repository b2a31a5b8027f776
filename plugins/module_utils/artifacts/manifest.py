# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""``artifacts.json``: which file is which component's, of which version, for which architecture, and its SHA-256.

``components[component][version][architecture][file]`` is ``{path, sha256, size}``. The architecture ``any`` is that of
manifests and other files that suit every machine. Pure: no file is opened.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..release.errors import ReleaseError, field_error
from ..release.paths import check_relative
from ..release.schema import Fields, load_json
from .errors import ArtifactError

LISTING = "artifacts.json"
FORMAT = "edgeai.artifacts/1"
ARCHITECTURES = ("x86_64", "aarch64", "armv7l")
ANY = "any"
MAX_LISTING = 4 * 1024 * 1024
MAX_FILES = 4000
MAX_SIZE = 64 * 1024 * 1024 * 1024
"""Largest file, bytes."""

COMPONENT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")
_HEX = re.compile(r"[0-9a-f]{64}")


class Key(NamedTuple):
    """What a file is: ``file`` is its logical name (``k3s``, ``edgecore``), the same for every architecture."""

    component: str
    version: str
    architecture: str
    file: str

    def __str__(self) -> str:
        """For texts: ``k3s v1.32.5+k3s1 (x86_64): images``."""
        return f"{self.component} {self.version} ({self.architecture}): {self.file}"


class Entry(NamedTuple):
    """One file: its path in the directory, hex SHA-256, size in bytes."""

    path: str
    sha256: str
    size: int


class Manifest(NamedTuple):
    """A checked listing. ``where`` names it in errors."""

    where: str
    entries: Mapping[Key, Entry]

    def candidates(self, component: str, version: str, file: str) -> dict[str, Entry]:
        """The entries of one file by architecture. Raises ArtifactError that lists what there is instead."""
        found = {
            key.architecture: entry
            for key, entry in self.entries.items()
            if (key.component, key.version, key.file) == (component, version, file)
        }
        if not found:
            have = "; ".join(sorted(map(str, self.entries))) or "nothing"
            raise ArtifactError(
                f"{self.where}: has no file '{file}' of {component} {version}; it has {have}. "
                "Build it (edgeai.fleet.artifacts) with this component and version"
            )
        return found

    def digests(self) -> dict[str, str]:
        """Path to hex SHA-256, of every file but the listing."""
        return {entry.path: entry.sha256 for entry in self.entries.values()}

    def sizes(self) -> dict[str, int]:
        """Path to size in bytes."""
        return {entry.path: entry.size for entry in self.entries.values()}


def directory_of(key: Key) -> str:
    """The directory that a file has to lie in."""
    return f"{key.component}/{key.version}/{key.architecture}"


def pick(candidates: Mapping[str, Any], architecture: str, what: str) -> str:
    """Which of the architectures there are is right for a machine: its own, else ``any``. Raises ArtifactError. Pure.

    :param architecture: the machine's, in the collection's words
    :param what: the file, for the error
    """
    for name in (architecture, ANY):
        if name in candidates:
            return name
    raise ArtifactError(
        f"{what}: there is none for the architecture {architecture!r}; there is one for "
        f"{', '.join(sorted(candidates))}. Build the artifacts (edgeai.fleet.artifacts) with this device in the "
        "inventory"
    )


def dump(entries: Mapping[Key, Entry]) -> bytes:
    """The bytes of a listing, always the same for the same content."""
    components: dict[str, Any] = {}
    for key, entry in sorted(entries.items()):
        versions = components.setdefault(key.component, {})
        versions.setdefault(key.version, {}).setdefault(key.architecture, {})[key.file] = entry._asdict()
    document = {"format": FORMAT, "components": components}
    return json.dumps(document, indent=1, sort_keys=True).encode("ascii") + b"\n"


def _named(value: Any, where: str, at: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, Any, str]]:
    """Yield (name, value, path of the field) of an object whose names all match; none is empty."""
    if not isinstance(value, dict) or not value:
        raise field_error(where, at, value, "use a JSON object with at least one entry")
    for name, inner in value.items():
        if not pattern.fullmatch(name):
            raise field_error(where, f"{at} (a name in it)", name, f"use a name that matches {pattern.pattern}")
        yield name, inner, f"{at}[{name!r}]"


def _entry(key: Key, value: Any, where: str, at: str) -> Entry:
    fields = Fields(value, where, at, ("path", "sha256", "size"))
    path = check_relative(fields.get("path"), where, fields.at("path"))
    place, _slash, name = path.rpartition("/")
    if place != directory_of(key) or not FILE.fullmatch(name):
        raise fields.error("path", f"use {directory_of(key)}/ and the file's name")
    sha256 = fields.text("sha256", _HEX, "use 64 lower-case hex digits")
    return Entry(path, sha256, fields.integer("size", 0, MAX_SIZE))


def parse(raw: bytes, where: str) -> Manifest:
    """Check the bytes of a listing. Raises ArtifactError that names file, field and value."""
    try:
        top = Fields(load_json(raw, where, MAX_LISTING), where, "", ("format", "components"))
        if top.get("format") != FORMAT:
            raise top.error("format", f"this version reads {FORMAT}; update the collection, or build it again")
        entries = dict(_entries(top.get("components"), where))
        if len(entries) > MAX_FILES:
            raise ReleaseError(f"{where}: lists {len(entries)} files; at most {MAX_FILES} are allowed")
        paths = Counter(entry.path for entry in entries.values())
        for path, count in paths.items():
            if count > 1:
                raise field_error(where, "components", path, "two files have this path; give each its own")
    except ReleaseError as error:
        raise ArtifactError(str(error)) from error
    return Manifest(where, entries)


def _entries(components: Any, where: str) -> Iterator[tuple[Key, Entry]]:
    if components == {}:
        return
    architecture_names = re.compile("|".join((*ARCHITECTURES, ANY)))
    for component, versions, at in _named(components, where, "components", COMPONENT):
        for version, architectures, at_version in _named(versions, where, at, VERSION):
            for architecture, files, at_arch in _named(architectures, where, at_version, architecture_names):
                for file, value, at_file in _named(files, where, at_arch, FILE):
                    key = Key(component, version, architecture, file)
                    yield key, _entry(key, value, where, at_file)

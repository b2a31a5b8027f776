# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Bring one file into a directory of artifacts: from where it already is, from a directory, or from upstream.

Wherever it comes from, it is checked the same way: against the digest that was pinned, else against upstream's checksum
file, which may lie in the directory too.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Mapping
from typing import NamedTuple

from ..release.digests import CHUNK, open_regular
from .download import MAX_SMALL, Hashes, Web
from .errors import ArtifactError, as_artifact_error
from .gather import Item
from .manifest import Entry, Key

PART = ".part"
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}|[0-9a-fA-F]{128})(?:[ \t]+[ *]?(.+))?")


class Origin(NamedTuple):
    """Where a file came from, and what said that it is right. For people."""

    place: str
    proof: str


def find_checksum(text: str, name: str, where: str) -> str:
    """The digest of one file in a checksum file: lines of ``digest  name``, or a digest alone. Pure."""
    lines = [_LINE.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    for match in lines:
        if match and match[2] and match[2].strip().rpartition("/")[2] == name:
            return match[1].lower()
    if len(lines) == 1 and lines[0] and not lines[0][2]:
        return lines[0][1].lower()
    raise ArtifactError(f"{where}: says nothing of {name}; give its digest (digests)")


def hash_file(path: str, wanted: str = "") -> Hashes:
    """The hashes of a regular file, never through a link. Raises ArtifactError."""
    hashes = Hashes(wanted)
    with as_artifact_error(), open_regular(path) as source:
        hashes.read(source)
    return hashes


class Fetcher:
    """Brings files into ``base``.

    :param source: a directory to take files from before any server is asked; None without one
    :param leftovers: directories of earlier runs, whose files are taken when they are right and passed over otherwise
    """

    def __init__(self, base: str, web: Web, source: str | None = None, leftovers: tuple[str, ...] = ()) -> None:
        self.base, self.source = base, source
        self._web, self._leftovers = web, leftovers
        self._texts: dict[str, str] = {}
        self.origins: dict[str, Origin] = {}

    def bring(self, item: Item) -> dict[Key, Entry]:
        """Bring an item, and take its files out of it when it is an archive. Raises ArtifactError."""
        if item.archive:
            pinned = self._pinned_members(item)
            if pinned is not None:
                return pinned
        path = os.path.join(self.base, *item.folder.split("/"), item.upstream)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if item.parts:
            return self._join(item, path)
        digest, proof = self._expected(item)
        hashes, place = self._obtain(item, path, digest)
        self.origins[f"{item.folder}/{item.upstream}"] = Origin(place, proof)
        if not item.archive:
            return {key: Entry(item.target(key), hashes.sha256, hashes.size) for key in item.outputs}
        return self._unpack(item, path)

    def _expected(self, item: Item) -> tuple[str, str]:
        """The digest an item has to have, and who says so."""
        if item.digest:
            return item.digest, "its digest is given"
        if item.path:
            return "", "taken as it is"
        if not item.checksum_url:
            raise ArtifactError(
                f"{item.upstream}: upstream publishes no checksum for it, and none is known here; give its digest: "
                f"digests: {{{item.upstream!r}: <SHA-256>}}"
            )
        name = item.checksum_url.rpartition("/")[2]
        local = self._in_source(item, name)
        if local:
            with as_artifact_error(), open_regular(local) as stream:
                text = (stream.read(MAX_SMALL) or b"").decode("utf-8", "replace")
            return find_checksum(text, item.upstream, local), f"as {local} says"
        if item.checksum_url not in self._texts:
            self._texts[item.checksum_url] = self._web.small(item.checksum_url)
        url = item.checksum_url
        return find_checksum(self._texts[url], item.upstream, url), f"as {url} says"

    def _in_source(self, item: Item, name: str) -> str:
        """Where a file lies in the source directory: as in a directory of artifacts, per version, or flat."""
        if not self.source:
            return ""
        parts = item.folder.split("/")
        for depth in (3, 2, 0):
            path = os.path.join(self.source, *parts[:depth], name)
            if os.path.lexists(path):
                return path
        return ""

    def _obtain(self, item: Item, path: str, digest: str) -> tuple[Hashes, str]:
        """Have the file at ``path``; returns its hashes and where it came from."""
        for base in (self.base, *self._leftovers):
            left = os.path.join(base, *item.folder.split("/"), item.upstream)
            if digest and os.path.isfile(left) and not os.path.islink(left) and hash_file(left, digest).found == digest:
                return (hash_file(path) if left == path else self._copy(left, path, digest)), "there already"
        local = item.path or self._in_source(item, item.upstream)
        if local:
            return self._copy(local, path, digest), local
        hashes = self._web.file(item.url, path + PART, digest)
        os.replace(path + PART, path)
        os.chmod(path, 0o644)
        return hashes, item.url

    def _copy(self, source: str, path: str, digest: str) -> Hashes:
        """Copy a regular file, hashed on its way. Raises ArtifactError when it is another; nothing is left of it."""
        hashes = Hashes(digest)
        with as_artifact_error(), open_regular(source) as stream, open(path + PART, "wb") as sink:
            while True:
                data = stream.read(CHUNK)
                if not data:
                    break
                hashes.update(data)
                sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        if digest and hashes.found != digest:
            os.unlink(path + PART)
            raise ArtifactError(f"{source}: has the digest {hashes.found}, wanted is {digest}; it was not taken")
        os.replace(path + PART, path)
        os.chmod(path, 0o644)
        return hashes

    def _pinned_members(self, item: Item) -> dict[Key, Entry] | None:
        """The files of an archive that lie in the source by themselves, when the digest of each is given; else None."""
        found: dict[Key, str] = {}
        for key in item.outputs:
            local = self._in_source(item, key.file)
            if key not in item.digests or not local:
                return None
            found[key] = local
        entries = {}
        for key, local in found.items():
            target = item.target(key)
            path = os.path.join(self.base, *target.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            hashes = self._copy(local, path, item.digests[key])
            entries[key] = Entry(target, hashes.sha256, hashes.size)
            self.origins[target] = Origin(local, "its digest is given")
        return entries

    def _join(self, item: Item, path: str) -> dict[Key, Entry]:
        """Bring YAML files and make one of them, the same for the same parts."""
        hashes = Hashes()
        with as_artifact_error(), open(path + PART, "wb") as sink:
            for part in item.parts:
                self.bring(part)
                with open_regular(os.path.join(self.base, *part.folder.split("/"), part.upstream)) as stream:
                    data = stream.read()
                data = (b"" if data.startswith(b"---") else b"---\n") + data + (b"" if data.endswith(b"\n") else b"\n")
                sink.write(data)
                hashes.update(data)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(path + PART, path)
        return {key: Entry(item.target(key), hashes.sha256, hashes.size) for key in item.outputs}

    def _unpack(self, item: Item, path: str) -> dict[Key, Entry]:
        """Take the wanted files out of a checked archive, which goes then; nothing else of it is written."""
        wanted = {member: key for key, member in item.outputs.items()}
        entries: dict[Key, Entry] = {}
        try:
            with tarfile.open(path, "r:*") as archive:
                for member in archive:
                    key = wanted.get(member.name[2:] if member.name.startswith("./") else member.name)
                    if key is not None:
                        entries[key] = self._member(item, key, archive, member)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ArtifactError(f"{path}: cannot be unpacked ({error})") from error
        missing = [member for member, key in wanted.items() if key not in entries]
        if missing:
            raise ArtifactError(f"{path}: has no {missing[0]}; this version may be made in another way")
        return entries

    def _member(self, item: Item, key: Key, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
        stream = archive.extractfile(member) if member.isreg() else None
        if stream is None:
            raise ArtifactError(f"{item.upstream}: {member.name} is no regular file")
        target, digest = item.target(key), item.digests.get(key, "")
        hashes = Hashes(digest)
        path = os.path.join(self.base, *target.split("/"))
        with stream, open(path, "wb") as sink:
            while True:
                data = stream.read(CHUNK)
                if not data:
                    break
                hashes.update(data)
                sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        if digest and hashes.found != digest:
            os.unlink(path)
            raise ArtifactError(f"{item.upstream}: {member.name} has the digest {hashes.found}, wanted is {digest}")
        return Entry(target, hashes.sha256, hashes.size)


def pins(item: Item) -> Mapping[Key, str]:
    """The digest that each file of an item has to have, where one is given."""
    return item.digests if item.archive else {key: item.digest for key in item.outputs if item.digest}

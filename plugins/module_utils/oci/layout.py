# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Read an OCI image layout, a directory or an uncompressed archive of one. Nothing in it is believed."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from tarfile import ReadError
from typing import Any, BinaryIO

from ..release.digests import CHUNK, open_regular, read_limited
from ..release.errors import ReleaseError
from .documents import MAX_DOCUMENT, check_descriptor, decode

#: Members of an archive; an image has one blob for each layer and document.
MAX_MEMBERS = 4096
#: Largest extended header of a tar member, bytes: a path has 1024 at most.
MAX_HEADER = 64 * 1024
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_SPARSE = tarfile.GNUTYPE_SPARSE


class Member(tarfile.TarInfo):
    """A member of a tar file that cannot make its reader hold more than a small header in memory."""

    def _proc_member(self, tarfile: Any) -> Any:
        if self.type in _EXTENDED and not 0 <= self.size <= MAX_HEADER:
            raise ReadError(f"an extended header of {self.size} bytes")
        if self.type == _SPARSE:
            raise ReadError("a sparse file")
        return super()._proc_member(tarfile)  # type: ignore[misc]


class Verifying(io.RawIOBase):
    """A blob's bytes as they are read; `finish` reads what is left, and compares digest and size."""

    def __init__(self, source: Any, digest: str, size: int, where: str) -> None:
        self.source, self.wanted, self.size, self.where = source, digest, size, where
        self.hash, self.count = hashlib.sha256(), 0

    def readable(self) -> bool:
        """It is there to be read from."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Give the next bytes, never more than the blob is said to have. Raises ReleaseError."""
        data: bytes = self.source.read(min(size, CHUNK) if size >= 0 else CHUNK)
        self.hash.update(data)
        self.count += len(data)
        if self.count > self.size:
            raise ReleaseError(f"{self.where}: has more than the {self.size} bytes that its manifest says")
        return data

    def finish(self) -> None:
        """Raises ReleaseError when the bytes are not those of the digest."""
        while self.read(CHUNK):
            pass
        found = "sha256:" + self.hash.hexdigest()
        if found != self.wanted or self.count != self.size:
            raise ReleaseError(
                f"{self.where}: has {self.count} bytes with {found}; {self.size} with its name were said"
            )


class Layout:
    """A layout that is open for reading."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._archive: tarfile.TarFile | None = None
        self._members: dict[str, tarfile.TarInfo] = {}

    def read(self, name: str, limit: int = MAX_DOCUMENT) -> bytes:
        """The bytes of a small file. Raises ReleaseError."""
        if self._archive is None:
            return read_limited(os.path.join(self.path, name), limit)
        member = self._member(name)
        if member.size > limit:
            raise ReleaseError(f"{self.path}: {name} is larger than the {limit} bytes allowed")
        with closing(self._open(member)) as source:
            return source.read()

    def document(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        """A document by its descriptor, its digest checked. Raises ReleaseError."""
        descriptor = check_descriptor(descriptor, self.path)
        where = f"{self.path}: {descriptor['digest']}"
        if descriptor["size"] > MAX_DOCUMENT:
            raise ReleaseError(f"{where}: is larger than the {MAX_DOCUMENT} bytes allowed for a document")
        with self.blob(descriptor) as source:
            raw = b"".join(iter(lambda: source.read(CHUNK), b""))
        return decode(raw, where)

    @contextmanager
    def blob(self, descriptor: dict[str, Any]) -> Iterator[Verifying]:
        """A blob's bytes, checked when the context is left without an error. Raises ReleaseError."""
        name = "blobs/sha256/" + descriptor["digest"].partition(":")[2]
        where = os.path.join(self.path, name)
        with self._open(self._member(name)) if self._archive else open_regular(where) as source:
            checked = Verifying(source, descriptor["digest"], descriptor["size"], where)
            yield checked
            checked.finish()

    def blobs(self) -> set[str]:
        """The digests of all blobs that are there. Raises ReleaseError."""
        if self._archive is not None:
            names = [name for name in self._members if name.startswith("blobs/sha256/")]
            return {"sha256:" + name.rpartition("/")[2] for name in names}
        try:
            return {"sha256:" + name for name in os.listdir(os.path.join(self.path, "blobs", "sha256"))}
        except OSError as error:
            raise ReleaseError(f"{self.path}: cannot be listed ({error.strerror})") from error

    def _member(self, name: str) -> tarfile.TarInfo:
        if name not in self._members:
            raise ReleaseError(f"{self.path}: has no {name}; it is no whole image layout")
        return self._members[name]

    def _open(self, member: tarfile.TarInfo) -> BinaryIO:
        source = self._archive.extractfile(member) if self._archive else None
        if source is None:
            raise ReleaseError(f"{self.path}: {member.name} is not a regular file")
        return source  # type: ignore[return-value]

    def _index(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        for number, member in enumerate(archive):
            if number >= MAX_MEMBERS:
                raise ReleaseError(f"{self.path}: has more than {MAX_MEMBERS} members; it is no image of a release")
            name = member.name[2:] if member.name.startswith("./") else member.name
            if member.isfile():
                if name in self._members:
                    raise ReleaseError(f"{self.path}: has {name} twice")
                self._members[name] = member
            elif not member.isdir():
                raise ReleaseError(f"{self.path}: {name} is a link or a device; an image layout has files alone")


@contextmanager
def open_layout(path: str) -> Iterator[Layout]:
    """A layout for reading; its version is looked at. Raises ReleaseError."""
    layout = Layout(path)
    if os.path.isdir(path):
        _check_version(layout)
        yield layout
        return
    with open_regular(path) as file:
        try:
            # "r:" takes no compression, so a small archive cannot become a large one.
            with tarfile.open(fileobj=file, mode="r:", tarinfo=Member) as archive:
                layout._index(archive)
                _check_version(layout)
                yield layout
        except tarfile.TarError as error:
            raise ReleaseError(f"{path}: is no archive of an image layout ({error})") from error


def _check_version(layout: Layout) -> None:
    version = decode(layout.read("oci-layout", CHUNK), f"{layout.path}: oci-layout").get("imageLayoutVersion")
    if version != "1.0.0":
        raise ReleaseError(f"{layout.path}: has image layout version {version!r}; 1.0.0 is known")

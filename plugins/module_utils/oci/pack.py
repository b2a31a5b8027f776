# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Write a signed release as an OCI image layout, a directory or an archive of one. Nothing is held in memory whole."""

from __future__ import annotations

import datetime
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

from ..device import fsutil
from ..release.digests import CHUNK, open_regular, sha256_file
from ..release.errors import ReleaseError
from ..release.keys import Trust
from ..release.signing import Verified, verify_release
from .documents import LAYOUT, Image, Layer, image, parts
from .layout import open_layout


class Packed(NamedTuple):
    """What was, or would be, written."""

    changed: bool
    verified: Verified
    image: Image
    size: int


class _Hashing(io.RawIOBase):
    """A file to write to that counts and hashes, and keeps only what ``sink`` keeps."""

    def __init__(self, sink: BinaryIO | None = None) -> None:
        self.sink, self.digest, self.size = sink, hashlib.sha256(), 0

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def write(self, data: Any) -> int:
        """Take the next bytes."""
        self.digest.update(data)
        self.size += len(data)
        if self.sink is not None:
            self.sink.write(data)
        return len(data)


class _Checked(io.RawIOBase):
    """A file to read from that hashes what it gives."""

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.digest = source, hashlib.sha256()

    def readable(self) -> bool:
        """It is there to be read from."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Give the next bytes."""
        data = self.source.read(min(size, CHUNK) if size >= 0 else CHUNK)
        self.digest.update(data)
        return data


def entry(name: str, size: int | None) -> tarfile.TarInfo:
    """A member without anything of this machine: a directory when ``size`` is None."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = (tarfile.DIRTYPE, 0o755) if size is None else (tarfile.REGTYPE, 0o444)
    info.size = size or 0
    return info


def write_layer(
    sink: BinaryIO | None, base: str, paths: Iterable[str], sizes: Mapping[str, int], digests: Mapping[str, str]
) -> tuple[str, int]:
    """Write one layer; return its digest and size. Every file is hashed again while it is read. Raises ReleaseError."""
    out = _Hashing(sink)
    made: set[str] = set()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as archive:
        for path in sorted(paths):
            names = path.split("/")
            for depth in range(1, len(names)):
                parent = "/".join(names[:depth])
                if parent not in made:
                    made.add(parent)
                    archive.addfile(entry(parent, None))
            with open_regular(os.path.join(base, path)) as source:
                checked = _Checked(source)
                try:
                    archive.addfile(entry(path, sizes[path]), checked)
                except OSError as error:
                    raise ReleaseError(f"{os.path.join(base, path)}: cannot be packed ({error})") from error
            if checked.digest.hexdigest() != digests[path]:
                raise ReleaseError(f"{os.path.join(base, path)}: changed while it was packed; pack the release again")
    return "sha256:" + out.digest.hexdigest(), out.size


class _Source:
    """A verified release, and how to write its layers."""

    def __init__(self, base: str, verified: Verified) -> None:
        entries = {item.path: item for item in verified.manifest.files()}
        self.base, self.parts = base, parts(verified.manifest)
        self.sizes = {path: item.size for path, item in entries.items()}
        self.digests = {path: item.sha256 for path, item in entries.items()}
        for path in self.parts[0][1]:
            self.sizes[path] = os.stat(os.path.join(base, path)).st_size
            self.digests[path] = sha256_file(os.path.join(base, path))

    def layer(self, number: int, sink: BinaryIO | None = None) -> Layer:
        """Write one layer, or only find out its digest. Raises ReleaseError."""
        part, paths = self.parts[number]
        return Layer(part, *write_layer(sink, self.base, paths, self.sizes, self.digests))

    def layers(self) -> list[Layer]:
        """All layers, not written."""
        return [self.layer(number) for number in range(len(self.parts))]


def _refuse_foreign(dest: str, archive: bool) -> None:
    """Refuse to replace what is not the like of what is written. Raises ReleaseError."""
    if not os.path.lexists(dest):
        return
    fine = os.path.isfile(dest) if archive else os.path.isfile(os.path.join(dest, "oci-layout"))
    if os.path.islink(dest) or not fine:
        what = "an archive" if archive else "an image layout"
        raise ReleaseError(f"{dest}: is there and is not {what}; name another place, or remove it")


def _same(dest: str, made: Image, layers: Iterable[Layer]) -> bool:
    """Whether a layout holds exactly this already, every blob with its bytes."""
    wanted = {digest: len(raw) for digest, raw in made.documents.items()} | {item.digest: item.size for item in layers}
    if not os.path.lexists(dest):
        return False
    try:
        with open_layout(dest) as layout:
            if layout.read("index.json") != made.listing or layout.blobs() != set(wanted):
                return False
            for digest, size in wanted.items():
                with layout.blob({"digest": digest, "size": size}):
                    pass
    except ReleaseError:
        return False
    return True


def _write_layout(directory: str, source: _Source, made: Image, layers: list[Layer]) -> None:
    blobs = os.path.join(directory, "blobs", "sha256")
    os.makedirs(blobs)
    for number, layer in enumerate(layers):
        path = os.path.join(blobs, layer.digest.partition(":")[2])
        with open(path, "xb") as sink:
            if source.layer(number, sink).digest != layer.digest:
                raise ReleaseError(f"{source.base}: changed while it was packed; pack the release again")
            sink.flush()
            os.fsync(sink.fileno())
    for digest, raw in made.documents.items():
        _write(os.path.join(blobs, digest.partition(":")[2]), raw)
    _write(os.path.join(directory, "oci-layout"), LAYOUT)
    _write(os.path.join(directory, "index.json"), made.listing)
    for path in (blobs, os.path.dirname(blobs), directory):
        os.chmod(path, 0o755)
        fsutil.fsync_dir(path)


def _write(path: str, raw: bytes) -> None:
    with open(path, "xb") as sink:
        sink.write(raw)
        sink.flush()
        os.fsync(sink.fileno())


def _write_archive(directory: str, path: str) -> None:
    """The layout in a directory as one archive."""
    blobs = sorted(os.listdir(os.path.join(directory, "blobs", "sha256")))
    with open(path, "xb") as sink:
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as archive:
            for name in ["oci-layout", "index.json", *(f"blobs/sha256/{name}" for name in blobs)]:
                with open_regular(os.path.join(directory, name)) as source:
                    archive.addfile(entry(name, os.fstat(source.fileno()).st_size), source)
        sink.flush()
        os.fsync(sink.fileno())


def pack(release: str, dest: str, trust: Trust, now: datetime.datetime, check: bool = False) -> Packed:
    """Verify a release and write it to ``dest``: a layout, or with a name that ends in ``.tar`` an archive of one.

    What is there is replaced as a whole; what has the same content is left. Raises ReleaseError.
    """
    archive = dest.endswith(".tar")
    verified = verify_release(release, trust, now)
    source = _Source(release, verified)
    layers = source.layers()
    made = image(verified.manifest, layers)
    size = sum(layer.size for layer in layers) + sum(len(raw) for raw in made.documents.values())
    _refuse_foreign(dest, archive)
    changed = not _same(dest, made, layers)
    if changed and not check:
        try:
            _replace(os.path.abspath(dest), archive, source, made, layers)
        except OSError as error:
            raise ReleaseError(f"{dest}: cannot be written ({error.strerror or error})") from error
    return Packed(changed, verified, made, size)


def _replace(dest: str, archive: bool, source: _Source, made: Image, layers: list[Layer]) -> None:
    """Make it beside its place, and put it there by a rename."""
    parent = os.path.dirname(dest)
    os.makedirs(parent, exist_ok=True)
    work = tempfile.mkdtemp(prefix=fsutil.TEMP_PREFIX, dir=parent)
    try:
        new = os.path.join(work, "layout")
        _write_layout(new, source, made, layers)
        if archive:
            new = os.path.join(work, "archive.tar")
            _write_archive(os.path.join(work, "layout"), new)
            os.chmod(new, 0o644)
        elif os.path.isdir(dest):
            os.rename(dest, os.path.join(work, "old"))
        os.rename(new, dest)
        fsutil.fsync_dir(parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Take a release out of an OCI image layout into a directory of releases; nothing unsigned gets there.

Who signed is known from the first layer alone, before anything else is unpacked; from then on only files that the
signature lists are taken, each of the size that `release.json` says, and at the end every byte is verified once more.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..device import fsutil
from ..release.digests import CHUNK, read_limited
from ..release.errors import ReleaseError
from ..release.keys import Trust
from ..release.manifest_reader import read_manifest
from ..release.model import MANIFEST_NAME, MAX_MANIFEST, SIGNATURE_NAME, Manifest
from ..release.signing import Verified, verify_bundle, verify_release
from ..release.statement import MAX_BUNDLE
from .documents import INDEXES, LAYERS, MANIFESTS, REF_NAME, RELEASE, decode, descriptors
from .layout import MAX_HEADER, Layout, Member, open_layout

#: Layers and manifests of one image.
MAX_ITEMS = 256


class Unpacked(NamedTuple):
    """What was, or would be, unpacked, and where."""

    changed: bool
    manifest: Manifest
    path: str
    key_id: str


class _Bounded:
    """A stream to read from that ends with an error behind ``limit`` bytes."""

    def __init__(self, source: Any, limit: int, where: str) -> None:
        self.source, self.left, self.where = source, limit, where

    def read(self, size: int) -> bytes:
        """Give the next bytes. Raises ReleaseError."""
        data: bytes = self.source.read(min(size, CHUNK))
        self.left -= len(data)
        if self.left < 0:
            raise ReleaseError(f"{self.where}: unpacks to more than the release's files can have")
        return data


def _images(layout: Layout, reference: str | None) -> list[dict[str, Any]]:
    """Every image manifest that ``reference`` (a tag, a digest, or none) can mean, one level of indexes deep."""
    where = f"{layout.path}: index.json"
    top = descriptors(decode(layout.read("index.json"), where), "manifests", where)
    if reference:
        top = [item for item in top if reference in (item["digest"], item["annotations"].get(REF_NAME))]
        if not top:
            raise ReleaseError(
                f"{layout.path}: has no image {reference!r}; leave reference out, or name its tag or digest"
            )
    found: list[dict[str, Any]] = []
    for item in top[:MAX_ITEMS]:
        document = layout.document(item)
        if item["mediaType"] in INDEXES or "manifests" in document:
            inner = descriptors(document, "manifests", f"{layout.path}: {item['digest']}")[:MAX_ITEMS]
            found.extend(
                layout.document(entry) for entry in inner if entry["mediaType"] in MANIFESTS and _has(layout, entry)
            )
        else:
            found.append(document)
    return found


def _has(layout: Layout, descriptor: dict[str, Any]) -> bool:
    """Whether a manifest is there: a copy for one platform has an index without the others."""
    return descriptor["digest"] in layout.blobs()


def find_layers(layout: Layout, reference: str | None) -> tuple[str, list[dict[str, Any]]]:
    """The digest that the image says its release has, and its layers. Raises ReleaseError."""
    images = [item for item in _images(layout, reference) if RELEASE in (item.get("annotations") or {})]
    releases = sorted({str(item["annotations"][RELEASE]) for item in images})
    if not releases:
        raise ReleaseError(f"{layout.path}: has no image of a release (no annotation {RELEASE})")
    if len(releases) > 1:
        raise ReleaseError(f"{layout.path}: has {len(releases)} releases; name one with reference (a tag or a digest)")
    layers = descriptors(images[0], "layers", layout.path)
    if not 1 <= len(layers) <= MAX_ITEMS:
        raise ReleaseError(f"{layout.path}: its image has {len(layers)} layers; 1 to {MAX_ITEMS} are taken")
    for layer in layers:
        if layer["mediaType"] not in LAYERS:
            known = ", ".join(sorted(LAYERS))
            raise ReleaseError(f"{layout.path}: a layer is {layer['mediaType']!r}; known are {known}")
    return releases[0], layers


def extract(layout: Layout, layer: dict[str, Any], dest: str, sizes: Mapping[str, int], exact: bool) -> list[str]:
    """Unpack a layer's files into ``dest``; return their paths. Raises ReleaseError for anything but the files named.

    ``sizes``: bytes by path that a file may have, or with ``exact`` has to have. Files that are already there, links,
    devices, paths that lead elsewhere and directories of no such file are refused. The blob's digest is checked.
    """
    where = f"{layout.path}: {layer['digest']}"
    parents = {path[:cut] for path in sizes for cut in range(len(path)) if path[cut] == "/"}
    # Every member has a header, an extended one, and padding; an archive's end has at most 20 blocks and padding.
    limit = sum(sizes.values()) + (len(sizes) + len(parents)) * (MAX_HEADER + 4096) + CHUNK
    if layer["size"] > limit + limit // 1000:  # what does not compress grows a little
        raise ReleaseError(f"{where}: has {layer['size']} bytes, more than the release's files can have")
    seen: list[str] = []
    members = 0
    try:
        with layout.blob(layer) as raw:
            plain: Any = gzip.GzipFile(fileobj=raw, mode="rb") if LAYERS[layer["mediaType"]] else raw
            source: Any = _Bounded(plain, limit, where)
            with tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK, tarinfo=Member) as archive:
                for member in archive:
                    members += 1
                    if members > len(sizes) + len(parents):
                        raise ReleaseError(f"{where}: has more members than the release has files")
                    name = _name(member, sizes, parents, exact, where)
                    if name:
                        _write(archive, member, os.path.join(dest, name), where)
                        seen.append(name)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError) as error:
        raise ReleaseError(f"{where}: is no layer that can be read ({error})") from error
    return seen


def _name(member: tarfile.TarInfo, sizes: Mapping[str, int], parents: Iterable[str], exact: bool, where: str) -> str:
    """The path of a file to unpack, empty for a directory. Raises ReleaseError for everything else."""
    name = member.name[2:] if member.name.startswith("./") else member.name
    if member.isdir() and name.rstrip("/") in parents:
        return ""
    if not member.isreg() or name not in sizes:
        kind = "a file" if member.isreg() else "a link, a device or a directory"
        raise ReleaseError(f"{where}: has {name!r}, {kind} that the release does not have")
    if not 0 <= member.size <= sizes[name] or (exact and member.size != sizes[name]):
        raise ReleaseError(f"{where}: {name} has {member.size} bytes, {sizes[name]} are right")
    return name


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, where: str) -> None:
    source = archive.extractfile(member)
    if source is None:
        raise ReleaseError(f"{where}: {member.name} is not a regular file")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(path, "xb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)
            sink.flush()
            os.fchmod(sink.fileno(), 0o644)
            os.fsync(sink.fileno())
    except FileExistsError:
        raise ReleaseError(f"{where}: has {member.name} twice") from None


def _identity(layout: Layout, layer: dict[str, Any], work: str, trust: Trust, now: datetime.datetime) -> Manifest:
    """What the first layer says the release is, once its signature holds. Raises ReleaseError."""
    limits = {MANIFEST_NAME: MAX_MANIFEST, SIGNATURE_NAME: MAX_BUNDLE}
    missing = sorted(set(limits) - set(extract(layout, layer, work, limits, exact=False)))
    if missing:
        raise ReleaseError(f"{layout.path}: its first layer has no {missing[0]}; the release is not signed, or not one")
    raw = read_limited(os.path.join(work, MANIFEST_NAME), MAX_MANIFEST)
    signature = read_limited(os.path.join(work, SIGNATURE_NAME), MAX_BUNDLE)
    statement = verify_bundle(signature, trust, now, f"{layout.path}: {SIGNATURE_NAME}")
    if hashlib.sha256(raw).hexdigest() != statement.resources.get(MANIFEST_NAME):
        raise ReleaseError(f"{layout.path}: {MANIFEST_NAME} is not the one that was signed: it was altered")
    return read_manifest(raw, f"{layout.path}: {MANIFEST_NAME}")


def _there(path: str, manifest: Manifest, trust: Trust, now: datetime.datetime) -> Verified | None:
    """The release that already lies at ``path``, whole. Raises ReleaseError when something else does."""
    if not os.path.lexists(path):
        return None
    try:
        verified = verify_release(path, trust, now)
    except ReleaseError as error:
        raise ReleaseError(f"{path}: is there, and is not this release ({error}); remove it") from error
    if verified.manifest.digest != manifest.digest:
        raise ReleaseError(f"{path}: is another release, {verified.manifest.digest}; a version is made once")
    return verified


def unpack(
    path: str,
    releases: str,
    trust: Trust,
    now: datetime.datetime,
    reference: str | None = None,
    digest: str | None = None,
    check: bool = False,
) -> Unpacked:
    """Verify an image and put its release to ``releases``/model/version. Raises ReleaseError.

    :param reference: which image, by tag or digest, in a layout of several releases
    :param digest: refuse any release but the one with this digest
    :param check: verify what identifies the release, and write nothing that stays
    """
    with open_layout(path) as layout:
        claimed, layers = find_layers(layout, reference)
        if not check:
            os.makedirs(releases, exist_ok=True)
        work = tempfile.mkdtemp(prefix=fsutil.TEMP_PREFIX, dir=None if check else releases)
        try:
            manifest = _identity(layout, layers[0], work, trust, now)
            if manifest.digest != claimed or (digest and digest != manifest.digest):
                raise ReleaseError(f"{path}: holds release {manifest.digest}, not {digest or claimed}")
            dest = os.path.join(releases, manifest.model, manifest.version)
            there = _there(dest, manifest, trust, now)
            if there:
                return Unpacked(False, manifest, dest, there.key_id)
            sizes = {entry.path: entry.size for entry in manifest.files()}
            for layer in layers[1:] if not check else ():
                extract(layout, layer, work, sizes, exact=True)
            if check:
                return Unpacked(True, manifest, dest, "")
            verified = verify_release(work, trust, now)
            _place(work, dest)
            return Unpacked(True, manifest, dest, verified.key_id)
        except OSError as error:
            raise ReleaseError(f"{releases}: cannot be written ({error.strerror or error})") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _place(work: str, dest: str) -> None:
    """Put a verified release into its place, durably, whole or not at all."""
    for folder, _folders, _files in os.walk(work):
        os.chmod(folder, 0o755)
        fsutil.fsync_dir(folder)
    fsutil.make_dirs(os.path.dirname(dest))
    os.rename(work, dest)
    fsutil.fsync_dir(os.path.dirname(dest))

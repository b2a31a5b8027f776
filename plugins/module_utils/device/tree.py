# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Release directories (links into the blobs) and the links ``current`` and ``previous``.

A release directory is built under a temporary name and appears by one rename. ``current`` names release and variant in
one link, so that both change in one rename.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..release.model import MANIFEST_NAME, SIGNATURE_NAME
from . import fsutil
from .blobs import Blobs
from .errors import DeviceError
from .state import Ref

if TYPE_CHECKING:
    from ..release.manifest import FileEntry, Manifest

_TARGET = re.compile(r"^\.\./\.\./releases/(?P<model>[^/]+)/(?P<version>[^/]+)/variants/(?P<variant>[^/]+/[^/]+)$")
_BLOB = re.compile(r"(?:^|/)blobs/sha256/(?P<hex>[0-9a-f]{64})$")
LINKS = ("current", "previous")
DIRECTORY_MODE = 0o755


class Tree:
    """The directories ``<root>/releases`` and ``<root>/models``."""

    def __init__(self, root: str, blobs: Blobs) -> None:
        self.root = root
        self.blobs = blobs
        self._releases = os.path.join(root, "releases")

    # -- paths

    def release_dir(self, model: str, version: str) -> str:
        """Where a release is, or will be."""
        return os.path.join(self.root, "releases", model, version)

    def model_dir(self, model: str) -> str:
        """Where a model's links and state.json are."""
        return os.path.join(self.root, "models", model)

    def models(self) -> list[str]:
        """The models that have a directory."""
        return _visible(os.path.join(self.root, "models"))

    def releases(self, model: str) -> list[str]:
        """The versions in the store."""
        return _visible(os.path.join(self.root, "releases", model))

    def release_models(self) -> list[str]:
        """The models of which there are releases in the store."""
        return _visible(os.path.join(self.root, "releases"))

    # -- reading

    def digest(self, model: str, version: str) -> str | None:
        """The release digest in the store, from the link's name (nothing is hashed); None when there is none."""
        return _blob_digest(os.path.join(self.release_dir(model, version), MANIFEST_NAME))

    def read_link(self, model: str, name: str) -> Ref | None:
        """What ``current`` or ``previous`` names; None when there is no such link or it leads nowhere."""
        path = os.path.join(self.model_dir(model), name)
        try:
            match = _TARGET.match(os.readlink(path))
        except OSError:
            return None
        if match is None or match.group("model") != model or not os.path.isdir(path):
            return None
        digest = self.digest(model, match.group("version"))
        return Ref(match.group("version"), digest, match.group("variant")) if digest else None

    def intact(self, model: str, ref: Ref) -> bool:
        """Whether the release, its signature and the variant's files are all there. Their content is not looked at."""
        directory = self.release_dir(model, ref.version)
        if self.digest(model, ref.version) != ref.digest:
            return False
        variant = os.path.join(directory, "variants", ref.variant)
        links = [os.path.join(directory, name) for name in (MANIFEST_NAME, SIGNATURE_NAME)] + list(
            _links_below(variant)
        )
        return len(links) > 2 and all(os.path.isfile(link) for link in links)

    def blobs_of(self, model: str, version: str) -> set[str]:
        """The hex digests of all blobs that a release directory links to."""
        found = set()
        for link in _links_below(self.release_dir(model, version)):
            digest = _blob_digest(link)
            if digest:
                found.add(digest[len("sha256:") :])
        return found

    # -- writing

    def complete(self, manifest: Manifest, signature_hex: str, entries: Iterable[FileEntry]) -> bool:
        """Whether the release directory already links everything that is wanted."""
        directory = self.release_dir(manifest.model, manifest.version)
        return all(
            _blob_digest(os.path.join(directory, path)) == "sha256:" + sha256
            for path, sha256 in _wanted(manifest, signature_hex, entries)
        )

    def link_release(self, manifest: Manifest, signature_hex: str, entries: Iterable[FileEntry], in_use: bool) -> None:
        """Make the release directory, or add to it. Every blob it links to has to be there.

        Raises DeviceError(bad_input) when another release of the same version is in use: a version never changes.
        """
        model, version = manifest.model, manifest.version
        final = self.release_dir(model, version)
        wanted = _wanted(manifest, signature_hex, entries)
        there = self.digest(model, version)
        if there == manifest.digest:
            self._add_links(final, wanted)
            return
        if there is not None and in_use:
            raise DeviceError(
                "bad_input",
                f"{final}: version {version} of {model} is {there}, not {manifest.digest}, and it is in use. A "
                "released version never changes: give the new content a new version",
            )
        fsutil.make_dirs(os.path.dirname(final))
        temp = fsutil.temp_name(final)
        os.mkdir(temp)
        os.chmod(temp, DIRECTORY_MODE)
        self._add_links(temp, wanted)
        fsutil.remove_tree(final)
        os.rename(temp, final)
        fsutil.fsync_dir(os.path.dirname(final))

    def _add_links(self, directory: str, wanted: list[tuple[str, str]]) -> None:
        for path, sha256 in wanted:
            link = os.path.join(directory, path)
            if _blob_digest(link) == "sha256:" + sha256:
                continue
            fsutil.make_dirs(os.path.dirname(link))
            # Relative, and right in the temporary directory as in the final one, which is its neighbour.
            fsutil.link_atomic(os.path.relpath(self.blobs.path(sha256), os.path.dirname(link)), link)

    def point(self, model: str, name: str, ref: Ref | None) -> None:
        """Set ``current`` or ``previous`` by one rename, or remove it. Does nothing when it is right already."""
        path = os.path.join(self.model_dir(model), name)
        if ref is None:
            fsutil.remove(path)
            return
        target = f"../../releases/{model}/{ref.version}/variants/{ref.variant}"
        try:
            if os.readlink(path) == target:
                return
        except OSError:
            pass
        fsutil.link_atomic(target, path)

    def open_up(self) -> list[str]:
        """Make directories readable that were created under a narrow umask: the model server is another user."""
        found = []
        for top in (os.path.dirname(self.blobs.dir), os.path.join(self.root, "models"), self._releases):
            for base, names, _files in os.walk(top):
                if base == self.blobs.partial_dir:
                    names.clear()
                elif stat.S_IMODE(os.lstat(base).st_mode) & DIRECTORY_MODE != DIRECTORY_MODE:
                    os.chmod(base, DIRECTORY_MODE)
                    found.append(base)
        return found

    def sweep(self) -> list[str]:
        """Remove temporary leftovers of interrupted writes. Returns their paths. Nobody else may be staging."""
        found = []
        directories = [self.root, os.path.join(self.root, "models"), os.path.join(self.root, "releases")]
        directories += [self.blobs.dir, os.path.join(self.root, "engine")]
        directories += [self.model_dir(model) for model in self.models()]
        for model in self.release_models():
            directories.append(os.path.join(self.root, "releases", model))
            for version in self.releases(model):
                directories += [base for base, _dirs, _files in os.walk(self.release_dir(model, version))]
        for directory in directories:
            for name in _listdir(directory):
                if name.startswith(fsutil.TEMP_PREFIX):
                    path = os.path.join(directory, name)
                    found.append(path)
                    if os.path.isdir(path) and not os.path.islink(path):
                        fsutil.remove_tree(path)
                    else:
                        fsutil.unlink_quietly(path)
        return found


def _wanted(manifest: Manifest, signature_hex: str, entries: Iterable[FileEntry]) -> list[tuple[str, str]]:
    # release.json last: a directory that has it has everything.
    pairs = [(entry.path, entry.sha256) for entry in entries]
    return [*pairs, (SIGNATURE_NAME, signature_hex), (MANIFEST_NAME, manifest.digest[len("sha256:") :])]


def _blob_digest(link: str) -> str | None:
    try:
        match = _BLOB.search(os.readlink(link))
    except OSError:
        return None
    return "sha256:" + match.group("hex") if match else None


def _links_below(directory: str) -> Iterator[str]:
    for base, _dirs, files in os.walk(directory):
        for name in sorted(files):
            if not name.startswith(fsutil.TEMP_PREFIX):
                yield os.path.join(base, name)


def _listdir(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _visible(directory: str) -> list[str]:
    return [n for n in _listdir(directory) if not n.startswith(".") and os.path.isdir(os.path.join(directory, n))]

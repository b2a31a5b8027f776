# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Space on the device: what may be removed, and whether a release fits before its first byte is fetched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..release.paths import version_key
from . import fsutil
from .errors import DeviceError
from .states import States

if TYPE_CHECKING:
    from ..release.manifest import FileEntry


@dataclass(frozen=True)
class Collected:
    """What garbage collection removed: releases as ``model/version``, blobs, bytes."""

    releases: tuple[str, ...]
    blobs: int
    bytes: int


class Space(States):
    """Garbage collection and the free-space check."""

    def check_space(self, missing: Iterable[FileEntry], keep: tuple[str, str], collect: bool = True) -> None:
        """Raise DeviceError(no_space) unless the blobs and the reserve fit, after collecting garbage if need be.

        ``keep`` (model, version) is not collected. ``collect=False`` writes nothing and counts what could be collected.
        """
        wanted = list(missing)
        if not wanted:
            return
        need = sum(max(0, e.size - self.blobs.partial_bytes(e.sha256)) for e in wanted) + self.reserve
        free = self.blobs.free_bytes()
        if free < need:
            if collect:
                self.gc(keep=[keep], pressure=True, spare_partials={e.sha256 for e in wanted})
                free = self.blobs.free_bytes()
            else:
                free += self.collectable(keep)
        if free < need:
            raise DeviceError(
                "no_space",
                f"{self.root}: needs {need} bytes ({self.reserve} of them kept free), {free} are free without unused "
                "releases. Nothing was fetched; what is active stays active. Free space and run again",
            )

    def _referenced(self) -> set[tuple[str, str]]:
        """(model, version) of all that is active, previous, unconfirmed, or on its way there."""
        found = set()
        for model in self.models():
            state = self.read(model)
            refs = [state.active, state.previous, state.unconfirmed.before if state.unconfirmed else None]
            refs += [self.tree.read_link(model, name) for name in ("current", "previous")]
            found |= {(model, ref.version) for ref in refs if ref is not None}
        return found

    def _collectable(self, keep: Iterable[tuple[str, str]], pressure: bool) -> list[tuple[str, str]]:
        spared = self._referenced() | set(keep)
        found = []
        for model in self.tree.release_models():
            active = self.read(model).active
            for version in self.tree.releases(model):
                waiting = active is None or version_key(version) > version_key(active.version)
                if (model, version) not in spared and (pressure or not waiting):
                    found.append((model, version))
        return found

    def collectable(self, keep: tuple[str, str]) -> int:
        """Bytes that `gc` under pressure would free. Writes nothing."""
        doomed = set(self._collectable([keep], True))
        kept: set[str] = set()
        for model in self.tree.release_models():
            for version in self.tree.releases(model):
                if (model, version) not in doomed:
                    kept |= self.tree.blobs_of(model, version)
        names = (
            [name for name in os.listdir(self.blobs.dir) if name not in kept] if os.path.isdir(self.blobs.dir) else []
        )
        return sum(os.lstat(self.blobs.path(name)).st_size for name in names)

    def gc(
        self, keep: Iterable[tuple[str, str]] = (), pressure: bool = False, spare_partials: Iterable[str] = ()
    ) -> Collected:
        """Remove releases that are neither active, previous nor unconfirmed, and blobs that no release links to.

        Releases newer than the active one are taken for staged and stay, unless there is ``pressure``, which also drops
        partial downloads (but ``spare_partials``). While something is being staged nothing is removed.
        """
        if not os.path.isdir(self.engine_dir):
            return Collected((), 0, 0)
        try:
            with fsutil.flocked(os.path.join(self.engine_dir, "stage.lock")), self.locked():
                doomed = self._collectable(keep, pressure)
                for model, version in doomed:
                    fsutil.remove_tree(self.tree.release_dir(model, version))
                kept: set[str] = set()
                for model in self.tree.release_models():
                    for version in self.tree.releases(model):
                        kept |= self.tree.blobs_of(model, version)
                blobs, size = self.blobs.collect(kept, pressure, set(spare_partials))
                return Collected(tuple("{}/{}".format(*pair) for pair in doomed), blobs, size)
        except DeviceError as exc:
            if exc.code != "busy":
                raise
            return Collected((), 0, 0)

"""A store with signed-looking releases in it, small enough to be copied for every kill point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.releases import make_release

from ansible_collections.edgeai.fleet.plugins.module_utils.device import clock
from ansible_collections.edgeai.fleet.plugins.module_utils.device.clock import ClockReading
from ansible_collections.edgeai.fleet.plugins.module_utils.device.state import Ref
from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import Manifest, load_manifest

VARIANT = "onnxruntime/int8"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.boottime, self.boot_id, self.wall = 1000.0, "boot-1", 1_795_000_000.0

    def __call__(self) -> ClockReading:
        return ClockReading(self.boottime, self.boot_id, self.wall)


class Shelf:
    """Releases on disk, and how to bring one into a store."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.paths: dict[str, Path] = {}

    def release(self, version: str, **options: Any) -> Manifest:
        if version not in self.paths:
            options.setdefault("variants", (VARIANT,))
            self.paths[version] = make_release(self.base, version=version, **options)
        return load_manifest(self.paths[version])

    def ref(self, version: str, variant: str = VARIANT) -> Ref:
        return Ref(version, self.release(version).digest, variant)

    def fetcher(self, version: str) -> Any:
        def fetch(entry: Any, sink: Any) -> None:
            sink.restart()
            sink.write((self.paths[version] / entry.path).read_bytes())

        return fetch

    def stage(self, store: Store, version: str, variants: tuple[str, ...] = (VARIANT,), **options: Any) -> Any:
        manifest = self.release(version, **options)
        signature = (self.paths[version] / "model.sig").read_bytes()
        return store.stage(manifest, signature, variants, self.fetcher(version))

    def activate(self, store: Store, version: str, seconds: float = 900, confirm: bool = True) -> None:
        manifest = self.release(version)
        deadline = clock.make_deadline(seconds, store.read_clock())
        store.activate(manifest.model, self.ref(version), deadline, "r1", manifest.security_counter)
        if confirm:
            store.confirm(manifest.model, manifest.digest, manifest.security_counter, manifest.created)


@pytest.fixture
def device_clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "releases")


@pytest.fixture
def store(tmp_path: Path, device_clock: Clock) -> Store:
    return Store(str(tmp_path / "edge"), read_clock=device_clock, lock_timeout=2.0, reserve=0)

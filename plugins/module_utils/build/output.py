# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Where a build writes: a workspace beside the target, made durable, then renamed into place.

``<releases>/<model>/.build/`` holds, per version, the lock, the record and the workspace of a build in progress.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..release.digests import sha256_file
from ..release.errors import ReleaseError


def digest_of(values: Any) -> str:
    """Hex sha256 of the canonical JSON of plain values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def state_path(target: Path) -> Path:
    """The build record of a release directory."""
    return target.parent / ".build" / (target.name + ".json")


@contextlib.contextmanager
def locked(target: Path) -> Iterator[Path]:
    """Hold the version's lock (the kernel frees it when the process ends) and yield the record's path.

    A second build of the same version waits, then finds the release done. Workspaces of a killed build are removed.
    """
    state = state_path(target)
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state.with_name(target.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise ReleaseError(
            f"{state.parent}: cannot write there ({exc}); choose another `dest` or make it writable"
        ) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for stale in state.parent.glob(f"{target.name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield state
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """An empty directory on the target's file system, gone afterwards unless it was published."""
    tree = Path(tempfile.mkdtemp(prefix=target.name + ".tmp-", dir=state_path(target).parent))
    try:
        yield tree
    except OSError as exc:
        raise ReleaseError(
            f"{target}: cannot write the release: {exc}; free some space or choose another `dest`"
        ) from exc
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def file_entry(tree: Path, path: Path) -> dict[str, Any]:
    """Manifest entry of one file: path relative to the release, size, sha256."""
    return {"path": path.relative_to(tree).as_posix(), "size": path.stat().st_size, "sha256": sha256_file(path)}


def seal(tree: Path) -> None:
    """Give files 0644 and directories 0755, and fsync everything, leaves first."""
    for folder, _folders, names in os.walk(tree, topdown=False):
        for name in names:
            path = os.path.join(folder, name)
            os.chmod(path, 0o644)
            fsync(path)
        os.chmod(folder, 0o755)
        fsync(folder)


def publish(tree: Path, target: Path) -> None:
    """Rename the finished tree to the target, durably."""
    os.rename(tree, target)
    fsync(target.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` with ``data`` by a rename, synced before and after."""
    descriptor, name = tempfile.mkstemp(prefix=path.name + ".tmp-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        os.chmod(name, 0o644)
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise
    fsync(path.parent)


def fsync(path: Any) -> None:
    """fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Hashing and copying: streaming, no links, nothing left behind."""

from __future__ import annotations

import hashlib
import os
import resource
import tracemalloc
from pathlib import Path

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.release import digests
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(3 * digests.CHUNK + 17)
    (tmp_path / "f").write_bytes(content)
    assert digests.sha256_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()
    assert digests.copy_hashed(tmp_path / "f", tmp_path / "g") == (len(content), hashlib.sha256(content).hexdigest())
    assert (tmp_path / "g").read_bytes() == content
    assert digests.release_digest(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as handle:
        handle.truncate(256 * 1024 * 1024)
    tracemalloc.start()
    digests.sha256_file(tmp_path / "f")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * digests.CHUNK


def test_links_pipes_and_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReleaseError, match="symbolic link"):
        digests.sha256_file(tmp_path / "link")
    assert digests.sha256_file(tmp_path / "link", follow=True) == hashlib.sha256(b"x").hexdigest()
    for name in ("pipe", "."):
        with pytest.raises(ReleaseError, match="not a regular file"):
            digests.sha256_file(tmp_path / name)
    with pytest.raises(ReleaseError, match="No such file"):
        digests.sha256_file(tmp_path / "nothing")


def test_a_copy_never_replaces_and_never_stays_half_done(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    (tmp_path / "g").write_bytes(b"old")
    with pytest.raises(ReleaseError, match="cannot be created"):
        digests.copy_hashed(tmp_path / "f", tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == b"old"


def test_a_copy_that_does_not_fit_is_removed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # stands for a disk that gets full
    try:
        with pytest.raises(ReleaseError, match="cannot be written"):
            digests.copy_hashed(tmp_path / "f", tmp_path / "g")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "g").exists()

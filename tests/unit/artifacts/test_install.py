"""A file on a device: whole or not at all, of the bytes that were signed, hashed before it has its name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.install import (
    Wanted,
    place,
    present_digest,
    refuse_full,
)

CONTENT = b"a program" * 1000


def wanted(dest: Path, content: bytes = CONTENT) -> Wanted:
    return Wanted(str(dest), hashlib.sha256(content).hexdigest(), len(content), "k3s v1: k3s")


def names(directory: Path) -> list[str]:
    return sorted(item.name for item in directory.iterdir())


def test_placed_with_its_directories(tmp_path: Path) -> None:
    source, dest = tmp_path / "source", tmp_path / "opt/k3s/v1/k3s"
    source.write_bytes(CONTENT)
    dest.parent.mkdir(parents=True)
    (dest.parent / ".tmp-k3s-1234-deadbeef").write_bytes(CONTENT[:100])  # the power went while it was written
    seen: list[bytes] = []
    place(str(source), wanted(dest), lambda path: seen.append(Path(path).read_bytes()))
    assert dest.read_bytes() == CONTENT and present_digest(wanted(dest)) == wanted(dest).sha256
    assert seen == [CONTENT] and names(dest.parent) == ["k3s"]


def test_other_bytes_leave_what_was_there(tmp_path: Path) -> None:
    source, dest = tmp_path / "source", tmp_path / "there/k3s"
    source.write_bytes(CONTENT[:-1] + b"X")
    dest.parent.mkdir()
    dest.write_bytes(b"old")
    with pytest.raises(ArtifactError, match=r"what arrived of k3s v1: k3s has SHA-256 .* nothing was changed"):
        place(str(source), wanted(dest), lambda _path: pytest.fail("it has no attributes yet"))
    assert dest.read_bytes() == b"old" and names(dest.parent) == ["k3s"]


def test_a_failure_at_the_last_step_leaves_what_was_there(tmp_path: Path) -> None:
    source, dest = tmp_path / "source", tmp_path / "there/k3s"
    source.write_bytes(CONTENT)
    dest.parent.mkdir()

    def refuse(_path: str) -> None:
        raise PermissionError(1, "Operation not permitted", str(dest))

    with pytest.raises(ArtifactError, match="Operation not permitted"):
        place(str(source), wanted(dest), refuse)
    assert names(dest.parent) == []


def test_what_is_there(tmp_path: Path) -> None:
    dest = tmp_path / "k3s"
    assert present_digest(wanted(dest)) == ""
    dest.write_bytes(b"short")
    assert present_digest(wanted(dest)) == "other"
    dest.write_bytes(CONTENT)
    link = tmp_path / "link"
    link.symlink_to(dest)
    assert present_digest(wanted(link)) == "other"
    for path, said in ((tmp_path, "is a directory"), (Path("relative"), "absolute path")):
        with pytest.raises(ArtifactError, match=said):
            present_digest(wanted(path))


def test_a_full_disk_is_named_before_anything_travels(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"found \d+ MiB free at .*needs 1099511627777 MiB"):
        refuse_full(wanted(tmp_path / "not/there/k3s")._replace(size=1 << 60), 1)


def arguments(tmp_path: Path, **change: Any) -> dict[str, Any]:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    entry = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT), "source": str(source)}
    return {
        "artifacts": "artifacts", "component": "k3s", "version": "v1", "file": "k3s", "architecture": "aarch64",
        "dest": str(tmp_path / "opt/k3s"), "candidates": {"aarch64": entry}, **change,
    }  # fmt: skip


def test_module_installs_once_and_repairs(tmp_path: Path) -> None:
    args, dest = arguments(tmp_path), tmp_path / "opt/k3s"
    predicted = run_module("artifact_file", args, check=True)
    assert predicted["changed"] and predicted["diff"]["before"] == {"sha256": "absent"} and not dest.parent.exists()
    done = run_module("artifact_file", args)
    assert done["changed"] and done["architecture"] == "aarch64" and done["size"] == len(CONTENT)
    assert dest.read_bytes() == CONTENT and dest.stat().st_mode & 0o7777 == 0o755
    assert (
        not run_module("artifact_file", args)["changed"]
        and not run_module("artifact_file", args, check=True)["changed"]
    )
    inode = dest.stat().st_ino
    looser = {**args, "mode": "0700"}
    assert run_module("artifact_file", looser, check=True)["changed"] and dest.stat().st_mode & 0o7777 == 0o755
    assert run_module("artifact_file", looser)["changed"] and dest.stat().st_mode & 0o7777 == 0o700
    assert dest.stat().st_ino == inode
    dest.write_bytes(CONTENT.swapcase())
    assert run_module("artifact_file", args)["changed"] and dest.read_bytes() == CONTENT


def test_module_asks_for_what_it_lacks(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    source = Path(args["candidates"]["aarch64"].pop("source"))
    asked = run_module("artifact_file", args)
    digest = args["candidates"]["aarch64"]["sha256"]
    assert asked["missing"] == digest and not asked["changed"] and not (tmp_path / "opt").exists()
    source.rename(tmp_path / digest)
    assert run_module("artifact_file", {**args, "inbox": str(tmp_path)})["changed"]


def test_module_refuses(tmp_path: Path) -> None:
    foreign = run_module("artifact_file", arguments(tmp_path, architecture="riscv64"))
    assert "none for the architecture 'riscv64'; there is one for aarch64" in foreign["msg"]
    alone = run_module("artifact_file", arguments(tmp_path, candidates=None))
    assert "run by its action" in alone["msg"]

"""Restoring etcd: which snapshot is whole, and what is left to do wherever an earlier run was cut off."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import restore
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.restore import (
    BEGUN,
    CLEARED,
    DONE,
    RESET,
    Note,
    decide,
)

ONE, OTHER = "1" * 64, "2" * 64


@pytest.mark.parametrize("phase", [RESET, CLEARED])
@pytest.mark.parametrize(
    ("note", "etcd", "aside", "steps"),
    [
        (None, True, False, ("keep",)),
        (None, False, False, ()),
        (Note(ONE, BEGUN, True), True, False, ("keep",)),  # cut off before the rename
        (Note(ONE, BEGUN, True), False, True, ()),  # and after it
        (Note(ONE, BEGUN, True), True, True, ("drop",)),  # in the middle of the reset
        (Note(ONE, BEGUN, False), True, False, ("drop",)),  # a new machine has nothing to keep
        (Note(OTHER, RESET, True), True, True, ("drop",)),  # another snapshot now: the first data stays aside
        (Note(OTHER, CLEARED, True), True, True, ("drop",)),
    ],
)
def test_decide(phase: str, note: Note | None, etcd: bool, aside: bool, steps: tuple[str, ...]) -> None:
    assert decide(note, Note(ONE, phase, False), etcd, aside) == (*steps, phase)


@pytest.mark.parametrize("phase", [RESET, CLEARED])
def test_what_is_there_is_not_done_again(phase: str) -> None:
    for there in (phase, DONE):
        assert decide(Note(ONE, there, True), Note(ONE, phase, False), True, True) == ()


def server(base: Path, data: str = "old") -> restore.Places:
    """A server with data; K3s does not run."""
    at = restore.places(str(base))
    os.makedirs(at.etcd)
    (Path(at.etcd) / "data").write_text(data)
    Path(at.flag).write_text("")
    return at


def clear(base: Path, digest: str = ONE) -> tuple[str, ...]:
    at, wanted = restore.places(str(base)), Note(digest, CLEARED, False)
    steps = decide(restore.read_note(str(base)), wanted, os.path.isdir(at.etcd), os.path.isdir(at.aside))
    if steps:
        restore.advance(str(base), wanted, steps)
    return steps


def test_aside_and_back(tmp_path: Path) -> None:
    at = server(tmp_path)
    assert clear(tmp_path) == ("keep", CLEARED) and clear(tmp_path) == ()
    assert not os.path.exists(at.etcd) and not os.path.exists(at.flag)
    assert stat.S_IMODE(os.stat(at.note).st_mode) == 0o600
    # It joined, and then another snapshot is wanted: the data of before is still what is kept.
    os.makedirs(at.etcd)
    assert clear(tmp_path, OTHER) == ("drop", CLEARED) and not os.path.exists(at.etcd)
    os.makedirs(at.etcd)
    assert restore.put_back(str(tmp_path)) and not restore.put_back(str(tmp_path))
    assert (Path(at.etcd) / "data").read_text() == "old"
    assert not os.path.exists(at.aside) and restore.read_note(str(tmp_path)) is None


@pytest.mark.parametrize("call", [0, 1, 2])
def test_cut_off_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Whatever was done before the power went, the next run comes to the same end, and nothing is lost."""
    at = server(tmp_path)
    calls = []

    def power(name: str):  # type: ignore[no-untyped-def]
        real = getattr(os, name)

        def cut(*given: object) -> object:
            calls.append(given)
            if len(calls) > call:
                raise KeyboardInterrupt
            return real(*given)

        return cut

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", power("rename"))
        with pytest.raises(KeyboardInterrupt):
            clear(tmp_path)
    clear(tmp_path)
    assert (Path(at.aside) / "data").read_text() == "old" and not os.path.exists(at.etcd)
    note = restore.read_note(str(tmp_path))
    assert note is not None and note.phase == CLEARED and note.had


def test_settled_and_forgotten(tmp_path: Path) -> None:
    at = server(tmp_path)
    assert not restore.settle(str(tmp_path)) and not restore.forget(str(tmp_path))
    clear(tmp_path)
    shutil.copytree(at.aside, at.etcd)
    assert restore.settle(str(tmp_path)) and not restore.settle(str(tmp_path))
    assert not os.path.exists(at.aside) and os.path.isdir(at.etcd) and clear(tmp_path) == ()
    assert restore.forget(str(tmp_path)) and not os.path.exists(at.note)


def test_snapshots(tmp_path: Path) -> None:
    body = os.urandom(2 * restore.PIECE)
    path = tmp_path / "good"
    path.write_bytes(body + hashlib.sha256(body).digest())
    whole = hashlib.sha256(path.read_bytes()).hexdigest()
    assert restore.check_snapshot(str(path)) == restore.check_snapshot(str(path), whole) == whole
    with pytest.raises(ClusterError, match="changed on its way"):
        restore.check_snapshot(str(path), ONE)
    for name, content, why in (
        ("short", path.read_bytes()[:-512], "differs"),
        ("cut", path.read_bytes()[:-100], "no whole snapshot"),
        ("empty", b"", "no whole snapshot"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ClusterError, match=why):
            restore.check_snapshot(str(tmp_path / name))
    with pytest.raises(ClusterError, match="on this server"):
        restore.check_snapshot(str(tmp_path / "none"))
    os.utime(path, (1000, 1000))
    found = restore.snapshots(str(tmp_path))
    assert found[-1]["path"] == str(path) and found[-1]["saved"] == "1970-01-01T00:16:40Z" and len(found) == 4
    assert restore.snapshots(str(tmp_path / "none")) == []


def test_a_note_that_cannot_be_read_stops_it(tmp_path: Path) -> None:
    at = server(tmp_path)
    Path(at.note).write_text("{")
    with pytest.raises(ClusterError, match="remove this file"):
        restore.read_note(str(tmp_path))


def test_what_k3s_leaves_of_a_reset(tmp_path: Path) -> None:
    at = server(tmp_path)
    base = Path(at.etcd).parent
    for name in ("etcd-old-999", "etcd-old-1000", "etcd-old-mine", "etcd-tmp"):
        (base / name).mkdir()
    assert restore.leftovers(str(tmp_path), 1000) == [str(base / "etcd-old-1000")]


@pytest.mark.parametrize(
    ("late", "lines", "cause"),
    [
        (True, ["level=info msg=x", "dial tcp 127.0.0.1:2379: connection refused"], "timeout"),
        (False, ['level=fatal msg="no space left on device"'], "disk_full"),
        (False, ["something new"], "unknown"),
    ],
    ids=["late", "known", "unknown"],
)
def test_a_reset_that_fails_names_its_own_unit(late: bool, lines: list[str], cause: str) -> None:
    failed = restore.why_not("the reset failed", late, lines)
    assert failed.cause == cause and failed.journal == lines
    assert str(failed).startswith(f"edgeai-k3s-restore.service: the reset failed: {cause}")
    assert "journalctl -u k3s " not in str(failed) and lines[-1] in str(failed)

"""The store is root's, the model server another user's: what one may read, and what the other cannot do to it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import control, journal
from ansible_collections.edgeai.fleet.plugins.module_utils.device.journal import Journal, Record
from ansible_collections.edgeai.fleet.plugins.module_utils.device.logfile import journal_line
from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store

MODEL = "digits"
PRIVATE = {"engine", "partial"}


@pytest.fixture
def narrow() -> Iterator[None]:
    """The umask of a hardened machine."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def closed_to_others(root: str) -> list[str]:
    """What the model server needs and cannot read."""
    found = []
    for base, names, files in os.walk(root):
        names[:] = [name for name in names if name not in PRIVATE]
        for path in [base, *(os.path.join(base, name) for name in files)]:
            mode = os.lstat(path).st_mode
            wanted = 0o055 if stat.S_ISDIR(mode) else 0o044
            if not stat.S_ISLNK(mode) and mode & wanted != wanted:
                found.append(path)
    return found


def test_no_umask_decides_who_reads(narrow: None, tmp_path: Path, shelf: Any, device_clock: Any) -> None:
    store = Store(str(tmp_path / "edge"), read_clock=device_clock, reserve=0)
    shelf.stage(store, "1.0.0")
    shelf.activate(store, "1.0.0")
    os.chmod(store.root, 0o755)  # provisioning's
    assert closed_to_others(store.root) == []


def test_directories_that_were_closed_are_opened_again(store: Store, shelf: Any) -> None:
    shelf.stage(store, "1.0.0")
    shelf.activate(store, "1.0.0")
    closed = [Path(store.tree.release_dir(MODEL, "1.0.0")), Path(store.root) / "models" / MODEL]
    for path in closed:
        path.chmod(0o700)
    repairs = store.recover()
    assert all(any(str(path) in repair for repair in repairs) for path in closed)
    assert closed_to_others(store.root) == [] and store.recover() == []
    assert stat.S_IMODE(os.stat(store.blobs.partial_dir).st_mode) == 0o700


def test_whoever_owns_run_cannot_hold_the_store_up(store: Store, shelf: Any) -> None:
    """The model server's user takes every lock it can name, and puts links where root would write."""
    shelf.stage(store, "1.0.0")
    run = Path(store.root) / "run"
    run.mkdir(exist_ok=True)
    target = Path(store.root).parent / "precious"
    descriptors = []
    for name in ("store.lock", "stage.lock", "digits.lock", "model-digits.lock", "ballast"):
        (run / name).touch()
        descriptors.append(os.open(run / name, os.O_RDWR))
        fcntl.flock(descriptors[-1], fcntl.LOCK_EX)
    (run / "agent.lock").symlink_to(target)
    with store.operation(MODEL, 0.5):
        shelf.activate(store, "1.0.0")
    assert store.recover() == [] and not target.exists()
    assert {path.parent.name for path in Path(store.root).rglob("*.lock")} == {"run", "engine"}
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("name", ["store", "stage", "server", "agent"])
def test_a_model_may_have_the_name_of_a_lock(store: Store, name: str) -> None:
    store.lock_timeout = 0.2
    with store.operation(name, 0.2), store.locked():
        assert store.gc().releases == ()


def test_what_lies_in_run_cannot_make_root_wait(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    os.mkfifo(run / "server.json")
    os.mkfifo(run / "server.lock")
    (run / "supervisor.json").symlink_to("/etc/passwd")
    assert control.read_run_file(str(tmp_path), "server.json") == {}
    assert control.read_run_file(str(tmp_path), "supervisor.json") == {}
    assert not control.server_running(str(tmp_path))


class TestFullDisk:
    """Only what is small and already paid for works."""

    @pytest.fixture
    def full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuses(*_arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Journal, "_rewrite", refuses)

    def test_a_damaged_journal_still_takes_a_record(self, full: None, tmp_path: Path) -> None:
        path = tmp_path / "journal.jsonl"
        good = Record(1, "2026-11-23T11:00:00Z", "activate", MODEL, None, {})
        path.write_bytes(journal.encode(good) + b"{damaged\n" + b'{"torn')
        Journal(str(path)).append(Record(2, "2026-11-23T11:00:01Z", "revert", MODEL, None, {}))
        loaded = Journal(str(path)).load()
        assert [record.seq for record in loaded.records] == [1, 2] and loaded.torn_at is None

    def test_a_long_journal_still_takes_a_record(
        self, full: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal, "COMPACT_ABOVE", 10)
        path = tmp_path / "journal.jsonl"
        for seq in (1, 2):
            Journal(str(path)).append(Record(seq, "2026-11-23T11:00:00Z", "activate", MODEL, None, {}))
        assert len(Journal(str(path)).load().records) == 2

    def test_a_link_that_finds_no_room_takes_the_reserve(
        self, store: Store, shelf: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for version in ("1.0.0", "1.1.0"):
            shelf.stage(store, version)
            shelf.activate(store, version, confirm=version == "1.0.0")
        ballast = Path(store.root) / "engine" / "ballast"
        real = os.symlink

        def symlink(*arguments: Any, **options: Any) -> None:
            if ballast.exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            real(*arguments, **options)

        monkeypatch.setattr(os, "symlink", symlink)
        state, moved = store.revert(MODEL, shelf.ref("1.1.0").digest, "gate")
        assert moved and state.active == shelf.ref("1.0.0") and not ballast.exists()

    def test_the_reserve_is_not_compressible(self, store: Store) -> None:
        import zlib

        store.prepare()
        store.ensure_ballast()
        raw = (Path(store.root) / "engine" / "ballast").read_bytes()
        assert len(zlib.compress(raw)) >= len(raw)


def test_a_line_of_the_journal_is_for_people_and_machines() -> None:
    line = journal_line("reverted", {"model": MODEL, "left": "1.1.0", "reason": "it crashed\nagain", "active": None})
    assert line == '<4>reverted model=digits left=1.1.0 reason="it crashed\\nagain" active=null'
    assert journal_line("nothing_whole", {}) == "<2>nothing_whole"
    assert journal_line("tick_failed", {"error": "x" * 9000}).startswith("<3>tick_failed error=xxx")
    assert len(journal_line("tick_failed", {"error": "x" * 9000})) == 4000

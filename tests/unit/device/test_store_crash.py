"""A kill at any file system call of any operation: old or new serves, and running it again finishes the job."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.crash import Trace, run_killed

from ansible_collections.edgeai.fleet.plugins.module_utils.device import clock
from ansible_collections.edgeai.fleet.plugins.module_utils.device.state import State
from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store

MODEL = "digits"


def _open(root: Path, device_clock: Any) -> Store:
    return Store(str(root), read_clock=device_clock, lock_timeout=2.0, reserve=0)


def _essence(state: State) -> State:
    """A state without what differs from run to run."""
    return replace(state, seq=0)


def _serving(store: Store) -> Any:
    return store.tree.read_link(MODEL, "current")


def _leftovers(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.startswith(".tmp-") or path.suffix == ".part"]


def _check_never_neither(store: Store, allowed: list[Any], hint: str) -> None:
    """At this moment, before any recovery: what the link names is complete, and known to the state."""
    serving = _serving(store)
    assert serving in allowed, hint
    if serving is not None:
        assert store.tree.intact(MODEL, serving), hint
        for sha256 in store.tree.blobs_of(MODEL, serving.version):
            assert store.blobs.check(sha256, os.path.getsize(store.blobs.path(sha256))) == "ok", hint
    assert store.read(MODEL).active == serving or store.read(MODEL).active in allowed, hint


def _kill_everywhere(
    tmp_path: Path,
    base: Path,
    device_clock: Any,
    operation: Callable[[Store], Any],
    allowed: Callable[[Store], list[Any]],
    also: Callable[[Store, str], None] = lambda store, hint: None,
) -> int:
    """Kill ``operation`` at every call; check; recover or run again; compare with the undisturbed end."""
    whole = tmp_path / "whole"
    shutil.copytree(base, whole, symlinks=True)
    operation(_open(whole, device_clock))
    expected = _essence(_open(whole, device_clock).read(MODEL))
    points = 0
    for torn in (False, True):
        at = 1
        while True:
            root = tmp_path / "victim"
            shutil.copytree(base, root, symlinks=True)
            killed = run_killed(lambda root=root: operation(_open(root, device_clock)), at, torn)
            store = _open(root, device_clock)
            hint = f"killed at call {at}{' (torn)' if torn else ''}"
            _check_never_neither(store, allowed(store), hint)
            also(store, hint)
            store.recover()
            assert _serving(store) == store.read(MODEL).active, hint
            _check_never_neither(store, allowed(store), hint)
            operation(store)
            assert _essence(store.read(MODEL)) == expected, hint
            assert store.examine(MODEL)[1] == [], hint
            assert store.journal.load().problems == (), hint
            store.recover()
            assert _leftovers(root) == [], hint
            shutil.rmtree(root)
            if not killed:
                break
            points += 1
            at += 1
    return points


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real_syncs" not in request.fixturenames:
        monkeypatch.setattr(os, "fsync", lambda fd: None)
        monkeypatch.setattr(os, "fdatasync", lambda fd: None)


@pytest.fixture
def real_syncs() -> None:
    """Keep fsync as it is."""


@pytest.fixture
def prepared(store: Store, shelf: Any) -> Path:
    """1.0.0 is active and confirmed, 1.1.0 is staged."""
    shelf.stage(store, "1.0.0")
    shelf.activate(store, "1.0.0")
    shelf.stage(store, "1.1.0")
    return Path(store.root)


def test_stage(tmp_path: Path, store: Store, shelf: Any, device_clock: Any) -> None:
    shelf.stage(store, "1.0.0")
    shelf.activate(store, "1.0.0")
    old = shelf.ref("1.0.0")

    def staged_is_whole(victim: Store, hint: str) -> None:
        if victim.tree.digest(MODEL, "1.1.0") is not None:
            assert victim.tree.intact(MODEL, shelf.ref("1.1.0")), hint

    shelf.release("1.1.0")
    points = _kill_everywhere(
        tmp_path,
        Path(store.root),
        device_clock,
        lambda victim: shelf.stage(victim, "1.1.0"),
        lambda victim: [old],
        staged_is_whole,
    )
    assert points > 50


def test_activate_never_without_a_deadline(tmp_path: Path, prepared: Path, shelf: Any, device_clock: Any) -> None:
    old, new = shelf.ref("1.0.0"), shelf.ref("1.1.0")

    def a_dead_controller_does_not_leave_it(victim: Store, hint: str) -> None:
        later = replace(device_clock(), boottime=device_clock().boottime + 901)
        copy = _open(Path(victim.root), device_clock)
        if _serving(copy) == new:
            assert copy.read(MODEL).unconfirmed is not None, hint
            aside = Path(victim.root).with_name("later")
            shutil.copytree(victim.root, aside, symlinks=True)
            late = Store(str(aside), read_clock=lambda: later, reserve=0)
            late.expire()
            assert _serving(late) == old, hint
            shutil.rmtree(aside)

    points = _kill_everywhere(
        tmp_path,
        prepared,
        device_clock,
        lambda victim: shelf.activate(victim, "1.1.0", confirm=False),
        lambda victim: [old, new],
        a_dead_controller_does_not_leave_it,
    )
    assert points > 30


def test_first_activation(tmp_path: Path, store: Store, shelf: Any, device_clock: Any) -> None:
    shelf.stage(store, "1.0.0")
    new = shelf.ref("1.0.0")
    _kill_everywhere(
        tmp_path,
        Path(store.root),
        device_clock,
        lambda victim: shelf.activate(victim, "1.0.0", confirm=False),
        lambda victim: [None, new],
    )


def test_confirm(tmp_path: Path, prepared: Path, store: Store, shelf: Any, device_clock: Any) -> None:
    shelf.activate(store, "1.1.0", confirm=False)
    manifest = shelf.release("1.1.0")
    _kill_everywhere(
        tmp_path,
        prepared,
        device_clock,
        lambda victim: victim.confirm(MODEL, manifest.digest, 1, manifest.created),
        lambda victim: [shelf.ref("1.1.0")],
    )


def test_revert(tmp_path: Path, prepared: Path, store: Store, shelf: Any, device_clock: Any) -> None:
    shelf.activate(store, "1.1.0", confirm=False)
    new = shelf.ref("1.1.0")
    _kill_everywhere(
        tmp_path,
        prepared,
        device_clock,
        lambda victim: victim.revert(MODEL, new.digest, "gate"),
        lambda victim: [shelf.ref("1.0.0"), new],
    )


def test_expire(tmp_path: Path, prepared: Path, store: Store, shelf: Any, device_clock: Any) -> None:
    shelf.activate(store, "1.1.0", seconds=60, confirm=False)
    device_clock.boottime += 61
    points = _kill_everywhere(
        tmp_path,
        prepared,
        device_clock,
        lambda victim: victim.expire(),
        lambda victim: [shelf.ref("1.0.0"), shelf.ref("1.1.0")],
    )
    assert points > 20


def test_absent(tmp_path: Path, prepared: Path, store: Store, shelf: Any, device_clock: Any) -> None:
    _kill_everywhere(
        tmp_path,
        prepared,
        device_clock,
        lambda victim: victim.absent(MODEL),
        lambda victim: [shelf.ref("1.0.0"), None],
    )


def test_gc(tmp_path: Path, prepared: Path, store: Store, shelf: Any, device_clock: Any) -> None:
    shelf.stage(store, "0.9.0")
    shelf.activate(store, "1.1.0")
    _kill_everywhere(tmp_path, prepared, device_clock, lambda victim: victim.gc(), lambda victim: [shelf.ref("1.1.0")])


def test_compaction_of_the_journal(
    tmp_path: Path, prepared: Path, shelf: Any, device_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.edgeai.fleet.plugins.module_utils.device import journal

    monkeypatch.setattr(journal, "COMPACT_ABOVE", 100)
    monkeypatch.setattr(journal, "KEEP_LAST", 2)
    _kill_everywhere(
        tmp_path,
        prepared,
        device_clock,
        lambda victim: shelf.activate(victim, "1.1.0", confirm=False),
        lambda victim: [shelf.ref("1.0.0"), shelf.ref("1.1.0")],
    )


def test_everything_is_durable_before_it_is_named(
    real_syncs: None, store: Store, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut loses what was not synced: every file is synced before its rename, every directory after."""
    shelf.release("1.0.0")
    trace = Trace(monkeypatch)
    shelf.stage(store, "1.0.0")
    shelf.activate(store, "1.0.0", confirm=False)
    names = [event for event in trace.events if event[0] == "rename"]
    assert len(names) > 8
    for index, (kind, what) in enumerate(trace.events):
        if kind != "rename":
            continue
        source, target = what.split(" -> ")
        earlier = [event for event in trace.events[:index] if event[1] == source]
        if earlier:  # a file (links and directories have no content of their own to sync)
            assert earlier[-1][0] == "fsync", f"{source} was renamed before it was synced"
        after = trace.events[index + 1 : index + 2]
        assert after == [("fsync", os.path.dirname(target))], f"the name {target} was not made durable"


def test_journal_counts_before_the_link_moves(
    real_syncs: None, store: Store, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.stage(store, "1.0.0")
    trace = Trace(monkeypatch)
    deadline = clock.make_deadline(900, store.read_clock())
    store.activate(MODEL, shelf.ref("1.0.0"), deadline, "r1", 1)
    moved = next(i for i, event in enumerate(trace.events) if event[1].endswith("/models/digits/current"))
    before = trace.events[:moved]
    assert ("fsync", os.path.join(store.root, "journal.jsonl")) in before
    assert any(event[1].endswith("/models/digits/state.json") for event in before)

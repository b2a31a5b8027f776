"""The check at boot: what serves is whole, or the release before it does, or nothing and loudly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.crash import run_killed

from ansible_collections.edgeai.fleet.plugins.module_utils.device import bootcheck
from ansible_collections.edgeai.fleet.plugins.module_utils.device.bootcheck import Check, Checked, Verdict
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.state import Ref
from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store
from ansible_collections.edgeai.fleet.plugins.module_utils.device.telling import check_lines

MODEL = "digits"


def by_hash(store: Store) -> bootcheck.Verify:
    """Verify by the blobs' hashes; the signature is another test's matter."""

    def verify(model: str, ref: Ref, _seconds: float) -> Verdict:
        problems = store.verify_ref(model, ref)
        return Verdict(bootcheck.DAMAGED, "; ".join(problems)) if problems else Verdict(bootcheck.WHOLE)

    return verify


class Log:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    @property
    def names(self) -> list[str]:
        return [name for name, _fields in self.events]


def check(store: Store, log: Log | None = None, budget: float = 60.0) -> list[Checked]:
    fresh = Store(store.root, read_clock=store.read_clock, reserve=0)  # another process: nothing remembered
    return Check(fresh, by_hash(fresh), log or Log(), budget).run()


def damage(store: Store, version: str) -> None:
    """Turn one bit of the model's own file."""
    directory = Path(store.tree.release_dir(MODEL, version)) / "variants"
    blob = next(path for path in sorted(directory.rglob("*")) if path.is_file()).resolve()
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[0] ^= 1
    blob.write_bytes(bytes(data))
    blob.chmod(0o444)


@pytest.fixture
def filled(store: Store, shelf: Any) -> Store:
    """1.0.0 and 1.1.0 confirmed, 1.2.0 active and unconfirmed; each with bytes of its own."""
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        shelf.release(version, payload=os.urandom(3000))
        shelf.stage(store, version)
        shelf.activate(store, version, confirm=version != "1.2.0")
    return store


def serving(store: Store) -> str | None:
    ref = store.tree.read_link(MODEL, "current")
    return ref.version if ref else None


def test_what_is_whole_stays(filled: Store) -> None:
    log = Log()
    assert [(c.active, c.result, c.left) for c in check(filled, log)] == [("1.2.0", "whole", None)]
    assert log.names == ["whole"] and serving(filled) == "1.2.0"
    assert filled.read(MODEL).unconfirmed is not None


@pytest.mark.parametrize(("damaged", "serves"), [(["1.2.0"], "1.1.0"), (["1.2.0", "1.1.0"], "1.0.0")])
def test_what_is_damaged_is_left_for_what_is_whole(filled: Store, damaged: list[str], serves: str) -> None:
    for version in damaged:
        damage(filled, version)
    log = Log()
    outcome = check(filled, log)
    assert [(c.active, c.result, c.left) for c in outcome] == [(serves, "whole", "1.2.0")]
    assert serving(filled) == serves and log.names == ["fell_back"]
    assert "is damaged" in log.events[0][1]["because"]
    assert [c.left for c in check(filled)] == [None]  # and is settled
    assert f"went back from 1.2.0 to {serves}" in check_lines([c.to_dict() for c in outcome])[0]


def test_a_confirmed_release_is_left_too(filled: Store, shelf: Any) -> None:
    manifest = shelf.release("1.2.0")
    filled.confirm(MODEL, manifest.digest, 1, manifest.created)
    damage(filled, "1.2.0")
    assert [(c.active, c.left) for c in check(filled)] == [("1.1.0", "1.2.0")]
    assert serving(filled) == "1.1.0"


def test_when_nothing_is_whole_nothing_is_switched_and_it_is_said_with_what_to_do(filled: Store) -> None:
    before = filled.read(MODEL)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        damage(filled, version)
    log = Log()
    outcome = check(filled, log)
    assert [(c.active, c.result) for c in outcome] == [("1.2.0", "damaged")]
    assert all(version in outcome[0].words for version in ("1.0.0", "1.1.0", "1.2.0"))
    assert log.names == ["nothing_whole"] and "edgeai.fleet.rollout" in log.events[0][1]["do"]
    assert filled.read(MODEL) == before


def test_never_below_the_security_counter(store: Store, shelf: Any) -> None:
    for version, counter in (("1.0.0", 1), ("1.1.0", 5)):
        shelf.release(version, payload=os.urandom(3000), counter=counter)
        shelf.stage(store, version)
        shelf.activate(store, version)
    damage(store, "1.1.0")
    outcome = check(store)
    assert outcome[0].result == "damaged" and "security_counter" in outcome[0].words
    assert serving(store) == "1.1.0"


def test_a_deadline_that_ran_out_while_the_device_was_down_is_kept_first(filled: Store, device_clock: Any) -> None:
    device_clock.boottime += 901
    log = Log()
    assert [c.active for c in check(filled, log)] == ["1.1.0"]
    assert log.names == ["expired", "whole"]


@pytest.mark.parametrize("wall", [0.0, 4e9])
def test_a_reboot_with_a_wrong_clock_neither_ends_nor_extends_the_time(
    filled: Store, device_clock: Any, wall: float
) -> None:
    for boot in range(2, 5):
        device_clock.boot_id, device_clock.boottime, device_clock.wall = f"boot-{boot}", 20.0, wall
        assert [c.active for c in check(filled)] == ["1.2.0"]
        device_clock.boottime = 899.0
        assert [c.active for c in check(filled)] == ["1.2.0"]
    device_clock.boot_id, device_clock.boottime = "boot-5", 20.0  # one reboot too many: what it serves may be why
    assert [c.active for c in check(filled)] == ["1.1.0"]


def test_without_time_left_nothing_is_switched(filled: Store) -> None:
    damage(filled, "1.2.0")
    log = Log()
    assert [c.result for c in check(filled, log, budget=0.0)] == ["not checked"]
    assert serving(filled) == "1.2.0" and log.names == ["not_checked"]


def test_what_cannot_be_verified_is_not_taken_for_damaged(filled: Store) -> None:
    checks = Check(filled, lambda *_: Verdict(bootcheck.UNKNOWN, "no library"), Log(), 60.0)
    assert [c.result for c in checks.run()] == ["not checked"]
    assert serving(filled) == "1.2.0"


def test_the_outcome_is_noted_for_people(filled: Store) -> None:
    check(filled)
    note = json.loads((Path(filled.root) / "engine" / "check.json").read_text())
    assert [m["model"] for m in note["models"]] == [MODEL] and note["boot_id"] == "boot-1"


def test_an_operation_that_runs_is_not_disturbed(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootcheck, "LOCK_TIMEOUT_S", 0.05)
    damage(filled, "1.2.0")
    with filled.operation(MODEL, 1.0):
        outcome = check(filled)
    assert outcome[0].result == "damaged" and "cannot go back" in outcome[0].words
    assert serving(filled) == "1.2.0"


def test_a_store_that_cannot_be_read_is_told_not_raised(tmp_path: Path) -> None:
    (tmp_path / "engine").write_text("a file where a directory should be")
    log = Log()
    store = Store(str(tmp_path))
    Check(store, by_hash(store), log, 1.0).run()
    assert "recover_failed" in log.names


def test_killed_at_any_call_it_falls_back_the_next_time(filled: Store, tmp_path: Path, device_clock: Any) -> None:
    """Power cuts during the boot check, again and again: what serves is always a release of the store."""
    import shutil

    damage(filled, "1.2.0")
    at = 0
    while True:
        at += 1
        root = tmp_path / "victim"
        shutil.copytree(filled.root, root, symlinks=True)
        victim = Store(str(root), read_clock=device_clock, reserve=0)
        killed = run_killed(lambda victim=victim: check(victim), at)
        assert serving(victim) in ("1.2.0", "1.1.0"), at
        assert [c.active for c in check(victim)] == ["1.1.0"], at
        assert victim.examine(MODEL)[1] == [] and serving(victim) == "1.1.0", at
        shutil.rmtree(root)
        if not killed:
            break
    assert at > 15


def test_a_full_disk_does_not_keep_it_from_falling_back(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    damage(filled, "1.2.0")
    filled.ensure_ballast()
    ballast = Path(filled.root) / "engine" / "ballast"
    real = {name: getattr(os, name) for name in ("write", "symlink")}

    def full(name: str) -> Any:
        def call(*args: Any) -> Any:
            if ballast.exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            return real[name](*args)

        return call

    for name in real:
        monkeypatch.setattr(os, name, full(name))
    monkeypatch.setattr(Store, "ensure_ballast", lambda self: None)
    assert [c.active for c in check(filled)] == ["1.1.0"]
    assert serving(filled) == "1.1.0"


def test_the_interpreter_that_has_no_signature_library_compares_hashes(filled: Store, tmp_path: Path) -> None:
    verify = bootcheck.verify_stored(filled, str(tmp_path / "no" / "python"), "program")
    state = filled.read(MODEL)
    assert state.active is not None and state.previous is not None
    told = verify(MODEL, state.active, 10.0)
    assert told.result == "not checked" and "hashes are right" in told.words
    damage(filled, "1.1.0")
    assert verify(MODEL, state.previous, 10.0).result == "damaged"


def test_only_who_may_change_the_store_may_check_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="there is no device here"):
        bootcheck.check_device(str(tmp_path / "nothing"), 1.0, Log())

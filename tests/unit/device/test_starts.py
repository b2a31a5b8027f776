"""What a server notes of its own starts, and what the agent makes of it where no systemd counts them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import (
    agentd,
    control,
    crashwatch,
    server_unit,
    starts,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.device.about import read_boot_id
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.starts import Starts, as_unit, begun, read_starts
from ansible_collections.edgeai.fleet.plugins.module_utils.server.listeners import hold_lock

BOOT = read_boot_id()


def noted(directory: Path) -> Starts | None:
    return read_starts(json.loads((directory / "server.lock").read_text()))


def run(directory: Path, ends: str) -> None:
    """One run of a server that ends in an orderly way, because its address is taken, or by a crash."""
    lock = hold_lock(str(directory))
    if ends == "crash":  # what the kernel does then: the descriptor is gone, nothing is written
        starts._save(lock, begun(starts._load(lock), BOOT))
        os.close(lock)
        return
    try:
        with starts.counted(lock, BOOT):
            if ends != "orderly":
                raise DeviceError(ends, "cannot go on")
    except DeviceError:
        pass


@pytest.mark.parametrize(
    ("ends", "crashes"),
    [
        (["orderly", "orderly"], 0),
        (["crash", "orderly"], 1),
        (["crash", "crash", "orderly", "orderly"], 2),
        (["busy", "busy", "orderly"], 0),
        (["server", "orderly"], 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_a_start_after_an_end_without_a_word_is_a_crash(tmp_path: Path, ends: list[str], crashes: int) -> None:
    for end in ends:
        run(tmp_path, end)
    assert noted(tmp_path) == Starts(BOOT, len(ends), crashes, False)


def test_a_reboot_begins_a_new_count() -> None:
    assert begun(Starts("one", 9, 4, True), "two") == Starts("two", 1, 0, True)


@pytest.mark.parametrize(
    "note",
    [
        {},
        {"boot_id": "b", "starts": -1, "crashes": 0, "open": True},
        {"boot_id": 1, "starts": 1, "crashes": 0, "open": 1},
    ],
    ids=["empty", "negative", "types"],
)
def test_what_makes_no_sense_is_not_used(note: dict[str, Any]) -> None:
    assert read_starts(note) is None


def test_a_crash_loop_in_a_pod_makes_a_release_suspect_and_one_crash_does_not() -> None:
    watch, suspects = crashwatch.Watch(), []
    for crashes, now in enumerate((0.0, 10.0, 30.0, 70.0, 150.0, 310.0)):  # a kubelet's pauses
        verdict = crashwatch.judge(watch, as_unit(Starts(BOOT, crashes + 1, crashes, True), True), now)
        watch = verdict.watch
        suspects.append(verdict.suspect)
    assert suspects == [False] * 5 + [True]


def test_the_agent_reverts_for_a_server_in_a_pod_and_never_asks_systemd_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(server_unit, "managed", lambda: True)
    monkeypatch.setattr(server_unit, "show", lambda: None)  # there is no edgeai-server.service
    monkeypatch.setattr(server_unit, "start_again", lambda: pytest.fail("systemd does not run it"))
    reverted: list[str] = []

    class Store:
        def revert_unconfirmed(self, reason: str) -> list[str]:
            reverted.append(reason)
            return ["camera"]

    watch = agentd.ServerWatch(str(tmp_path), Store(), lambda *_, **__: None)  # type: ignore[arg-type]
    for _crash in range(5):
        run(tmp_path / "run", "crash")
        watch._look_at = 0.0
        watch.tick(frozenset({"sha256:1"}))
    assert reverted and "crashed again and again" in reverted[0] and "systemd" not in reverted[0]


def test_a_server_in_a_pod_is_not_stopped_from_the_device(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "server.json").write_text(json.dumps({"pid": None, "pod": "edgeai-server-x7k"}))
    lock = hold_lock(str(run_dir))
    try:
        with pytest.raises(DeviceError, match="pod edgeai-server-x7k: only its cluster"):
            control.stop(str(tmp_path), 1.0)
    finally:
        os.close(lock)

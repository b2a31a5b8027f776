"""What a device does without a controller: expire, follow, give up on what crashes."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
from support.releases import make_release

from ansible_collections.edgeai.fleet.plugins.module_utils.device.agent import Agent
from ansible_collections.edgeai.fleet.plugins.module_utils.device.clock import make_deadline, read_clock
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.state import Ref
from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest

MODEL = "digits"


class Bench:
    """A store with 1.0.0 confirmed and 1.1.0 unconfirmed, an agent over it, and a clock and server to turn."""

    def __init__(self, base: Path) -> None:
        self.root = base / "edge"
        self.store = Store(str(self.root))
        self.refs = {version: self._stage(base / "releases", version) for version in ("1.0.0", "1.1.0")}
        self.now = read_clock()
        self.store.activate(MODEL, self.refs["1.0.0"], make_deadline(60, self.now), None, 1)
        self.store.confirm(MODEL, self.refs["1.0.0"].digest, 1, "2026-11-23T11:00:00Z")
        self.store.activate(MODEL, self.refs["1.1.0"], make_deadline(60, self.now), "r", 1)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.loads: list[tuple[str, bool]] = []
        self.answers: list[Any] = []
        self.served: dict[str, Any] | None = None
        self.agent = Agent(str(self.root), self._report, lambda: self.now, self._load, self._ask)

    def _stage(self, releases: Path, version: str) -> Ref:
        path = make_release(releases, version=version, variants=("onnxruntime/fp32",))
        manifest = load_manifest(path)

        def fetch(entry: Any, sink: Any) -> None:
            sink.write((path / entry.path).read_bytes())

        self.store.stage(manifest, (path / "model.sig").read_bytes(), ["onnxruntime/fp32"], fetch)
        return Ref(version, manifest.digest, "onnxruntime/fp32")

    def _report(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def _load(self, _root: str, model: str, active: bool, _timeout: float) -> Any:
        self.loads.append((model, active))
        if not self.answers:
            return None
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _ask(self, _root: str, _method: str, _path: str, _timeout: float) -> tuple[int, dict[str, Any]]:
        if self.served is None:
            raise DeviceError("unreachable", "no server")
        return int(self.served["status"]), self.served

    def later(self, seconds: float) -> None:
        self.now = dataclasses.replace(self.now, boottime=self.now.boottime + seconds, wall=self.now.wall + seconds)

    def agent_anew(self) -> Agent:
        return Agent(str(self.root), self._report, lambda: self.now, self._load, self._ask)

    @property
    def active(self) -> str:
        active = self.store.read(MODEL).active
        assert active is not None
        return active.version


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_before_its_deadline_nothing_happens(bench: Bench) -> None:
    bench.later(59)
    bench.agent.tick()
    assert bench.active == "1.1.0"
    assert bench.loads == []


def test_past_its_deadline_a_release_goes_back_and_the_server_follows(bench: Bench) -> None:
    bench.later(61)
    bench.agent.tick()
    assert bench.active == "1.0.0"
    assert bench.loads == [(MODEL, True)]
    assert [event for event, _fields in bench.events] == ["expired", "followed"]
    bench.agent.tick()
    assert len(bench.loads) == 1


def test_a_server_that_does_not_answer_is_asked_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.answers = [DeviceError("unreachable", "down"), "refused", None]
    bench.later(61)
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    for expected in (1, 2, 3, 3):
        bench.agent.tick()
        assert len(bench.loads) == expected
        bench.agent.tick()  # too early to ask again
        assert len(bench.loads) == expected
        clock[0] += 5.0
    assert bench.active == "1.0.0"
    assert [event for event, _fields in bench.events].count("follow_later") == 1
    assert [event for event, _fields in bench.events].count("follow_failed") == 1


def test_what_the_server_keeps_crashing_with_is_left(bench: Bench) -> None:
    assert bench.agent.revert_unconfirmed("crashes") == [MODEL]
    assert bench.active == "1.0.0"
    assert bench.agent.revert_unconfirmed("crashes") == []  # a confirmed release is not to blame
    assert bench.active == "1.0.0"


def test_the_server_is_told_when_whoever_moved_the_link_was_killed_before_he_could(bench: Bench) -> None:
    bench.store.revert(MODEL, bench.refs["1.1.0"].digest, "and then the power went")
    bench.served = {"status": 200, **bench.refs["1.1.0"].to_dict()}
    bench.agent.tick()
    assert bench.loads == [(MODEL, True)]
    assert [event for event, _fields in bench.events] == ["differs", "followed"]


def test_a_server_that_serves_what_it_should_is_left_alone(bench: Bench) -> None:
    bench.served = {"status": 200, **bench.refs["1.1.0"].to_dict()}
    bench.agent.tick()
    bench.served = {"status": 503, "error": "it tries again by itself"}
    bench.agent_anew().tick()
    assert bench.loads == [] and bench.events == []


def test_a_load_that_takes_long_keeps_no_deadline_waiting(bench: Bench) -> None:
    begun, end = threading.Event(), threading.Event()

    def slow(_root: str, model: str, active: bool, _timeout: float) -> None:
        bench.loads.append((model, active))
        begun.set()
        end.wait(30)

    agent = Agent(str(bench.root), bench._report, lambda: bench.now, slow, bench._ask)
    bench.later(61)
    agent.tick()
    assert begun.wait(10) and bench.active == "1.0.0"
    bench.store.activate(MODEL, bench.refs["1.1.0"], make_deadline(60, bench.now), "r2", 1)
    bench.later(61)
    agent.tick()  # the first load still hangs
    assert bench.active == "1.0.0" and len(bench.loads) == 1
    end.set()


def test_a_model_that_cannot_be_changed_keeps_no_other_from_its_deadline(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.expire_model

    def refuses(store: Store, model: str, now: Any = None) -> Any:
        if model == "another":
            raise OSError(5, "Input/output error")
        return real(store, model, now)

    (bench.root / "models" / "another").mkdir()
    (bench.root / "models" / "another" / "state.json").write_text("{")
    monkeypatch.setattr(Store, "expire_model", refuses)
    bench.later(61)
    bench.agent.tick()
    assert bench.active == "1.0.0"
    assert [event for event, _fields in bench.events] == ["tick_failed", "expired", "followed"]


def test_a_damaged_state_file_does_not_stop_the_agent(bench: Bench) -> None:
    (bench.root / "models" / MODEL / "state.json").write_text("{")
    bench.agent.recover()
    bench.agent.tick()
    assert bench.active == "1.1.0"
    bench.later(61)
    bench.agent.tick()
    assert bench.active == "1.0.0"


def test_a_store_that_cannot_be_read_is_reported_not_raised(tmp_path: Path) -> None:
    events: list[str] = []
    (tmp_path / "engine").write_text("a file where a directory should be")
    agent = Agent(str(tmp_path), lambda event, **_: events.append(event))
    agent.recover()
    agent.tick()
    assert set(events) <= {"recover_failed", "tick_failed"}
    assert events

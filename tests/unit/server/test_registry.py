"""Swaps on the event loop: who answers, when a session is closed, and what a failed load leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.server import registry as registry_module
from ansible_collections.edgeai.fleet.plugins.module_utils.server.errors import RequestError
from ansible_collections.edgeai.fleet.plugins.module_utils.server.loader import Loaded, Target
from ansible_collections.edgeai.fleet.plugins.module_utils.server.log import Log
from ansible_collections.edgeai.fleet.plugins.module_utils.server.metrics import Metrics
from ansible_collections.edgeai.fleet.plugins.module_utils.server.registry import Registry

VARIANT = "onnxruntime/fp32"


class FakeSession:
    """A session that only remembers that it was closed."""

    details: dict[str, Any] = {}  # noqa: RUF012
    runtime_version = "1"

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        assert not self.closed.is_set(), "closed twice"
        self.closed.set()


class World:
    """A store of links and release.json files, and a loader that can be held up or made to fail."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sessions: dict[str, FakeSession] = {}
        self.loads: list[str] = []
        self.hold: dict[str, threading.Event] = {}
        self.fail: set[str] = set()
        self.registry = Registry(str(root), self._load, Metrics("s", "b"), Log(io.StringIO()), {"start_id": "s"})

    def release(self, version: str) -> None:
        folder = self.root / "releases" / "m" / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "release.json").write_text(version)

    def current(self, version: str) -> None:
        self.release(version)
        link = self.root / "models" / "m" / "current"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.symlink(f"../../releases/m/{version}/variants/{VARIANT}", link)

    def _load(self, _root: str, target: Target) -> Loaded:
        self.loads.append(target.version)
        if target.version in self.hold:
            assert self.hold[target.version].wait(10.0)
        if target.version in self.fail:
            raise DeviceError("not_trusted", "a wrong signature")
        session: Any = FakeSession()
        self.sessions[target.version] = session
        digest = "sha256:" + hashlib.sha256(target.version.encode()).hexdigest()
        nothing: Any = None
        return Loaded(target, digest, nothing, nothing, session, 0.0)

    def serving(self) -> str:
        return self.registry.find("m", None, False).loaded.version


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20.0))


async def closed(session: FakeSession) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, session.closed.wait, 5.0)


def test_a_request_keeps_the_session_it_began_with_until_it_ends(world: World) -> None:
    async def story() -> None:
        world.current("1.0.0")
        await world.registry.load_current("m")
        with world.registry.find("m", None, False).lease() as first, world.registry.find("m", None, False).lease():
            world.current("1.1.0")
            assert (await world.registry.load_current("m"))["result"] == "loaded"
            assert world.serving() == "1.1.0"
            assert first.version == "1.0.0"
            assert not world.sessions["1.0.0"].closed.is_set()
        await closed(world.sessions["1.0.0"])
        assert not world.sessions["1.1.0"].closed.is_set()

    run(story)


def test_the_old_one_serves_while_the_new_one_loads_and_when_it_fails(world: World) -> None:
    async def story() -> None:
        world.current("1.0.0")
        await world.registry.load_current("m")
        world.current("1.1.0")
        world.hold["1.1.0"] = threading.Event()
        world.fail.add("1.1.0")
        loading = asyncio.ensure_future(world.registry.load_current("m"))
        while "1.1.0" not in world.loads:
            await asyncio.sleep(0.001)
        assert world.serving() == "1.0.0"
        world.hold["1.1.0"].set()
        with pytest.raises(DeviceError, match="wrong signature"):
            await loading
        assert world.serving() == "1.0.0"
        assert not world.sessions["1.0.0"].closed.is_set()

    run(story)


def test_a_link_that_moves_while_a_load_waits_is_the_one_that_counts(world: World) -> None:
    async def story() -> None:
        world.current("1.0.0")
        world.hold["1.0.0"] = threading.Event()
        first = asyncio.ensure_future(world.registry.load_current("m"))
        while not world.loads:
            await asyncio.sleep(0.001)
        world.current("1.1.0")
        second = asyncio.ensure_future(world.registry.load_current("m"))
        await asyncio.sleep(0.01)
        world.current("1.2.0")
        world.hold["1.0.0"].set()
        await asyncio.gather(first, second)
        assert world.loads == ["1.0.0", "1.2.0"]
        assert world.serving() == "1.2.0"

    run(story)


def test_promotion_needs_the_very_release_that_was_loaded(world: World) -> None:
    async def story() -> None:
        world.current("1.0.0")
        await world.registry.load_current("m")
        world.release("1.1.0")
        await world.registry.load_candidate("m", "1.1.0", VARIANT)
        world.current("1.1.0")
        (world.root / "releases" / "m" / "1.1.0" / "release.json").write_text("another one under the same name")
        assert (await world.registry.load_current("m"))["result"] == "loaded"
        assert world.loads == ["1.0.0", "1.1.0", "1.1.0"]

    run(story)


def test_a_promoted_candidate_is_not_loaded_again_and_the_old_one_is_closed(world: World) -> None:
    async def story() -> None:
        world.current("1.0.0")
        await world.registry.load_current("m")
        world.release("1.1.0")
        await world.registry.load_candidate("m", "1.1.0", VARIANT)
        with pytest.raises(RequestError, match="has no version"):
            world.registry.find("m", "1.1.0", management=False)
        world.current("1.1.0")
        assert (await world.registry.load_current("m"))["result"] == "promoted"
        assert world.loads == ["1.0.0", "1.1.0"]
        await closed(world.sessions["1.0.0"])

    run(story)


def test_a_candidate_that_is_forgotten_gives_its_memory_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "CANDIDATE_S", 0.05)

    async def story() -> None:
        world.current("1.0.0")
        await world.registry.load_current("m")
        world.release("1.1.0")
        await world.registry.load_candidate("m", "1.1.0", VARIANT)
        await closed(world.sessions["1.1.0"])
        assert world.serving() == "1.0.0"

    run(story)


def test_a_new_candidate_replaces_the_old_one_and_a_failed_one_leaves_none(world: World) -> None:
    async def story() -> None:
        for version in ("1.1.0", "1.2.0"):
            world.release(version)
        await world.registry.load_candidate("m", "1.1.0", VARIANT)
        world.fail.add("1.2.0")
        with pytest.raises(DeviceError, match="wrong signature"):
            await world.registry.load_candidate("m", "1.2.0", VARIANT)
        await closed(world.sessions["1.1.0"])
        assert world.registry.index(management=True) == []

    run(story)


def test_at_start_a_failed_load_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "RETRY_FIRST_S", 0.01)

    async def story() -> None:
        world.current("1.0.0")
        world.fail.add("1.0.0")
        world.registry.start()
        while len(world.loads) < 2:
            await asyncio.sleep(0.001)
        assert world.registry.ready_body("m", None, False)[0] == 503
        world.fail.clear()
        while world.registry.ready_body("m", None, False)[0] != 200:
            await asyncio.sleep(0.001)
        assert world.registry.all_ready() == (True, {})

    run(story)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The state of every model on the device: read, repaired, and changed, always with the journal first.

Under the store's lock nobody else is in the middle of a transition, so what looks half-finished was interrupted, and
``state.reconcile`` says how it goes on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Callable, TypeVar

from ..release.errors import ReleaseError
from ..release.manifest import load_manifest
from . import clock, fsutil
from . import state as st
from .blobs import Blobs
from .clock import ClockReading
from .errors import DeviceError
from .journal import Journal, Record
from .state import Ref, State
from .tree import Tree

T = TypeVar("T")
RESERVE = 32 * 1024 * 1024
BALLAST = 256 * 1024
ENGINE = "engine"
"""Where locks and the reserve are, below edge_root: the owner's alone, so that the model server's user can neither hold
a lock nor put a link in a lock's place."""


class States:
    """The root directory's locks, its journal, and the state of every model.

    ``reserve``: bytes that staging leaves free. ``lock_timeout``: seconds to wait for the store's lock.
    ``read_clock``: reads the clocks; the times in records come from its wall clock.
    """

    def __init__(
        self,
        root: str,
        read_clock: Callable[[], ClockReading] = clock.read_clock,
        lock_timeout: float = 30.0,
        reserve: int = RESERVE,
    ) -> None:
        self.root = os.path.abspath(root)
        self.engine_dir = os.path.join(self.root, ENGINE)
        self.blobs = Blobs(self.root)
        self.tree = Tree(self.root, self.blobs)
        self.journal = Journal(os.path.join(self.root, "journal.jsonl"))
        self.read_clock = read_clock
        self.lock_timeout = lock_timeout
        self.reserve = reserve
        self._held = 0
        self._mutex = threading.RLock()

    # -- locks

    def prepare(self) -> None:
        """Create what is missing of the store's directories."""
        self.blobs.prepare()
        fsutil.make_dirs(self.engine_dir)
        fsutil.make_dirs(os.path.join(self.root, "models"))
        fsutil.make_dirs(os.path.join(self.root, "releases"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store's lock (may be nested in one thread). Raises DeviceError(busy)."""
        with self._mutex:
            if self._held:
                self._held += 1
                try:
                    yield
                finally:
                    self._held -= 1
                return
            fsutil.make_dirs(self.engine_dir)
            path = os.path.join(self.engine_dir, "store.lock")
            with fsutil.flocked(path, timeout=self.lock_timeout, purpose="a change of the store"):
                self._held = 1
                try:
                    yield
                finally:
                    self._held = 0

    @contextmanager
    def operation(self, model: str, timeout: float) -> Iterator[None]:
        """Be the only long operation on ``model``. Raises DeviceError(busy) after ``timeout`` seconds."""
        fsutil.make_dirs(self.engine_dir)
        path = os.path.join(self.engine_dir, f"model-{model}.lock")
        with fsutil.flocked(path, timeout=timeout, purpose=f"another operation on model {model}"):
            yield

    # -- reading

    def models(self) -> list[str]:
        """The models this device knows."""
        return self.tree.models()

    def state_path(self, model: str) -> str:
        """Where a model's state.json is."""
        return os.path.join(self.tree.model_dir(model), "state.json")

    def read(self, model: str) -> State:
        """The state as it is true now, without a lock and without writing anything."""
        return self.examine(model)[0]

    def examine(self, model: str) -> tuple[State, list[str]]:
        """`read`'s state, and what recovery would repair: damaged files, interrupted transitions, wrong links."""
        stored, problems = self._stored(model)
        record = self.journal.last_state(model)
        journaled = None
        if record is not None:
            try:
                journaled = st.from_dict(record.state, model, f"journal record {record.seq}")
            except DeviceError as exc:
                problems.append(exc.message)
        known = st.newest(stored, journaled)
        if stored is None and journaled is not None:
            problems.append(f"{self.state_path(model)}: rebuilt from the journal")
        current, previous = (self.tree.read_link(model, name) for name in ("current", "previous"))
        base = known if known is not None else self._from_links(model, current)
        state, repairs = st.reconcile(base, current, previous, lambda ref: self.tree.intact(model, ref))
        return state, problems + repairs

    def _stored(self, model: str) -> tuple[State | None, list[str]]:
        path = self.state_path(model)
        try:
            return st.parse(fsutil.read_bounded(path, st.MAX_BYTES), model, path), []
        except FileNotFoundError:
            return None, []
        except DeviceError as exc:
            return None, [exc.message]
        except OSError as exc:
            return None, [f"{path}: {exc}"]

    def _from_links(self, model: str, current: Ref | None) -> State:
        # Neither state.json nor journal: what serves counts as confirmed, and the guards start from it.
        if current is None:
            return State(model)
        counter, floor = self._guards(model, current.version)
        return State(model, security_counter=counter, time_floor=floor)

    def _guards(self, model: str, version: str) -> tuple[int, str]:
        try:
            manifest = load_manifest(self.tree.release_dir(model, version))
            return manifest.security_counter, manifest.created
        except (ReleaseError, OSError):
            return 0, clock.EPOCH

    def due(self, now: ClockReading | None = None) -> list[str]:
        """The models that `expire` would act on now. Lock-free and cheap: made to be asked every second."""
        reading = now or self.read_clock()
        found = []
        for model in self.models():
            stored, problems = self._stored(model)
            waiting = stored.unconfirmed if stored else None
            stale = waiting is not None and clock.rebase(waiting.deadline, reading) != waiting.deadline
            over = waiting is not None and clock.expired(waiting.deadline, reading)
            if problems or over or stale or (stored is not None and stored.pending is not None):
                found.append(model)
        return found

    # -- the bottom of every transition (lock held)

    def _record(self, op: str, state: State, note: dict[str, Any] | None = None) -> State:
        """Journal the state (fsynced: now it counts), then replace state.json. On a full disk, give the ballast up."""
        return self._with_reserve(lambda: self._write(op, state, note or {}))

    def _with_reserve(self, write: Callable[[], T]) -> T:
        """Do a small write; on a full disk give the ballast up and do it again. Raises DeviceError(no_space)."""
        try:
            return write()
        except OSError as exc:
            if not fsutil.no_space(exc):
                raise
        fsutil.unlink_quietly(self._ballast)
        try:
            return write()
        except OSError as exc:
            raise DeviceError(
                "no_space",
                f"{self.root}: no room even for a line of the journal ({exc}); free space and run again",
            ) from exc

    def _write(self, op: str, state: State, note: dict[str, Any]) -> State:
        now = clock.format_time(self.read_clock().wall)
        state = replace(state, seq=self.journal.next_seq(state.seq))
        self.journal.append(Record(state.seq, now, op, state.model, state.to_dict(), note))
        fsutil.make_dirs(self.tree.model_dir(state.model))
        fsutil.write_atomic(self.state_path(state.model), st.dump(state))
        return state

    @property
    def _ballast(self) -> str:
        return os.path.join(self.engine_dir, "ballast")

    def ensure_ballast(self) -> None:
        """Keep a little space aside, so that going back works on a full disk too. Best effort."""
        try:
            if os.path.getsize(self._ballast) == BALLAST:
                return
        except OSError:
            pass
        with suppress(OSError):
            # Random: a file system that compresses would keep nothing aside for zeros.
            fsutil.write_atomic(self._ballast, os.urandom(BALLAST), 0o600)

    def _settled(self, model: str) -> State:
        """The true state, with links and state.json repaired to agree with it."""
        state, repairs = self.examine(model)
        links_wrong = (
            self.tree.read_link(model, "current") != state.active
            or self.tree.read_link(model, "previous") != state.previous
        )
        if repairs or links_wrong:
            self._with_reserve(lambda: self._point(state))
            state = self._record("recover", state, {"repairs": repairs[:20]})
        return state

    def _point(self, state: State) -> None:
        if not os.path.isdir(self.tree.model_dir(state.model)):
            return
        # previous first: while current still serves the old release, both naming it is harmless.
        self.tree.point(state.model, "previous", state.previous)
        self.tree.point(state.model, "current", state.active)

    def _transition(self, state: State, note: dict[str, Any]) -> State:
        """Carry out the pending transition of ``state``: decide durably, move the links, record the end."""
        if state.pending is None:
            raise DeviceError("damaged", f"model {state.model}: no transition is pending")
        op = state.pending.op
        state = self._record(op, state, note)
        done = st.finish(state)
        self._with_reserve(lambda: self._point(done))
        return self._record({"activate": "activated", "revert": "reverted", "absent": "removed"}[op], done, note)

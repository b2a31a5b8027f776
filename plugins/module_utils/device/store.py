# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The device's store: stage, activate, confirm, revert, remove, collect garbage, recover.

Locks, all advisory and released by the kernel when their holder dies:

* ``engine/store.lock``: held for milliseconds around every transition; whoever holds it sees no half-finished one, so
  what looks half-finished under the lock was interrupted, and `State` says how it goes on (``state.reconcile``);
* ``engine/stage.lock``: shared while blobs are brought in, exclusive while garbage is collected;
* ``engine/model-<model>.lock``: one long operation per model at a time. The deadline (`expire`) does not take it: an
  operation that hangs cannot keep an unconfirmed release alive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable

from . import clock, fsutil
from . import state as st
from .blobs import BlobSink
from .clock import ClockReading, Deadline
from .errors import DeviceError
from .space import Space
from .state import Quarantined, Ref, State, Unconfirmed

if TYPE_CHECKING:
    from ..release.manifest import FileEntry, Manifest

Fetch = Callable[["FileEntry", BlobSink], None]


@dataclass(frozen=True)
class Staged:
    """What staging did: bytes fetched, bytes that were here already, blobs fetched, whether anything was written."""

    bytes: int
    reused_bytes: int
    blobs: int
    changed: bool


class Store(Space):
    """The directory ``root`` of a device. Safe for several processes and threads: see the text above for the locks."""

    def plan(self, entries: Iterable[FileEntry]) -> list[FileEntry]:
        """What would have to be fetched: absent or damaged blobs, each once. Hashes what is here; writes nothing."""
        return self.blobs.missing(entries)

    def stage(self, manifest: Manifest, signature: bytes, variants: Iterable[str], fetch: Fetch) -> Staged:
        """Bring a release, reduced to the wanted variants, into the store. ``fetch(entry, sink)`` brings one blob.

        The caller has verified ``signature`` over the manifest. Every blob is hashed from the disk, also those that
        were here already; damaged ones are fetched again. Raises DeviceError.
        """
        entries = manifest.files(list(variants))
        self.prepare()
        self.ensure_ballast()
        self.check_space(self.blobs.missing(entries), (manifest.model, manifest.version))
        with self._staging():
            missing = self.blobs.missing(entries)
            for entry in missing:
                self._bring(entry, fetch)
            try:
                changed = self._link(manifest, signature, entries) or bool(missing)
            except OSError as exc:
                raise _space_or_damage(exc, self.root) from exc
        fetched = sum(entry.size for entry in missing)
        total = sum({entry.sha256: entry.size for entry in entries}.values())
        return Staged(fetched, total - fetched, len(missing), changed)

    def _bring(self, entry: FileEntry, fetch: Fetch) -> None:
        """Fetch one blob. What an earlier run left may have come from another file: then once more from the start."""
        with self.blobs.sink(entry) as sink:
            resumed = sink.offset > 0
            try:
                fetch(entry, sink)
                sink.commit()
                return
            except DeviceError as exc:
                if not resumed or exc.code != "digest_mismatch":
                    raise
        with self.blobs.sink(entry) as sink:
            sink.restart()
            fetch(entry, sink)
            sink.commit()

    @contextmanager
    def _staging(self) -> Iterator[None]:
        path = os.path.join(self.engine_dir, "stage.lock")
        with fsutil.flocked(path, shared=True, timeout=self.lock_timeout, purpose="garbage collection"):
            yield

    def _link(self, manifest: Manifest, signature: bytes, entries: list[FileEntry]) -> bool:
        self.blobs.put(manifest.raw)
        signature_hex = self.blobs.put(signature)
        if self.tree.complete(manifest, signature_hex, entries):
            return False
        with self.locked():
            in_use = (manifest.model, manifest.version) in self._referenced()
            self.tree.link_release(manifest, signature_hex, entries, in_use)
        return True

    def activate(
        self,
        model: str,
        ref: Ref,
        deadline: Deadline,
        rollout_id: str | None,
        security_counter: int,
        evidence: dict[str, Any] | None = None,
    ) -> State:
        """Switch ``current`` to a staged release, unconfirmed until `confirm` or its deadline.

        The deadline is in the journal and in state.json before the link moves. When it is active already nothing
        changes. ``evidence``: kept for the confirmation. Raises DeviceError: damaged (not staged), counter.
        """
        with self.locked():
            state = self._settled(model)
            if state.active == ref:
                return state
            if security_counter < state.security_counter:
                raise counter_error(model, ref.version, security_counter, state.security_counter)
            if not self.tree.intact(model, ref):
                where = self.tree.release_dir(model, ref.version)
                raise DeviceError("damaged", f"{where}: {ref.variant} is not staged completely; stage it again")
            new = Unconfirmed(ref.version, ref.digest, ref.variant, rollout_id, deadline, evidence=evidence or {})
            return self._transition(st.begin_activation(state, new), {"rollout_id": rollout_id})

    def settle(self, model: str) -> State:
        """Finish or undo what was interrupted, repair damaged files; the true state."""
        with self.locked():
            return self._settled(model)

    def mark_gated(self, model: str, digest: str, evidence: dict[str, Any]) -> State:
        """Record that the serving gate of the unconfirmed release passed, and what it saw."""
        with self.locked():
            state = self._settled(model)
            waiting = self._expect_unconfirmed(state, digest)
            passed = replace(waiting, gated=True, evidence={**waiting.evidence, **evidence})
            return self._record("gated", replace(state, unconfirmed=passed))

    def extend(self, model: str, digest: str, deadline: Deadline, rollout_id: str | None) -> State:
        """Give the unconfirmed release a new deadline and rollout: a controller took the rollout up again."""
        with self.locked():
            state = self._settled(model)
            waiting = self._expect_unconfirmed(state, digest)
            fresh = replace(waiting, deadline=deadline, rollout_id=rollout_id)
            return self._record("extended", replace(state, unconfirmed=fresh), {"rollout_id": rollout_id})

    def _expect_unconfirmed(self, state: State, digest: str) -> Unconfirmed:
        if state.unconfirmed is None or state.unconfirmed.digest != digest:
            active = f"{state.active.version} ({state.active.digest})" if state.active else "nothing"
            raise DeviceError(
                "deadline",
                f"model {state.model}: release {digest} is not waiting for confirmation any more; {active} is active. "
                "It was reverted, by its deadline or by somebody",
            )
        return state.unconfirmed

    def confirm(self, model: str, digest: str, security_counter: int, created: str) -> State:
        """Accept the unconfirmed release for good. Raises DeviceError(deadline) when it is not waiting any more."""
        with self.locked():
            state = self._settled(model)
            if state.unconfirmed is None and state.active is not None and state.active.digest == digest:
                return state
            self._expect_unconfirmed(state, digest)
            floor = clock.raise_floor(state.time_floor, created)
            return self._record("confirm", st.confirm(state, security_counter, floor), {})

    def revert(
        self, model: str, digest: str | None, reason: str, entry: Quarantined | None = None
    ) -> tuple[State, bool]:
        """Leave release ``digest`` (None: whatever is unconfirmed) for the one before it. Returns (state, moved).

        Already left: nothing moves. ``entry`` is added to the quarantine either way. An unconfirmed first release goes
        back to nothing. Raises DeviceError: bad_input (confirmed, and no release to go back to), counter.
        """
        with self.locked():
            state = self._settled(model)
            if entry is not None and state.quarantined(entry.digest, entry.stratum) is None:
                state = self._record("quarantine", st.quarantine(state, entry), {"reason": entry.reason})
            leaving = digest or (state.unconfirmed.digest if state.unconfirmed else None)
            if leaving is None or state.active is None or state.active.digest != leaving:
                return state, False
            self.check_way_back(state)
            return self._transition(st.begin_revert(state), {"reason": reason}), True

    def check_way_back(self, state: State) -> None:
        """Raise DeviceError unless the active release may be left for the previous one."""
        if state.unconfirmed is not None:
            return
        if state.previous is None or not self.tree.intact(state.model, state.previous):
            raise DeviceError(
                "bad_input",
                f"model {state.model}: version {state.active.version if state.active else None} is confirmed and there "
                "is no previous release in the store to go back to; activate another release instead",
            )
        counter = self._guards(state.model, state.previous.version)[0]
        if counter < state.security_counter:
            raise counter_error(state.model, state.previous.version, counter, state.security_counter)

    def lift_quarantine(self, model: str, digest: str, stratum: str) -> State:
        """Allow a release on a stratum again."""
        with self.locked():
            state = self._settled(model)
            if state.quarantined(digest, stratum) is None:
                return state
            return self._record("lifted", st.lift(state, digest, stratum), {"digest": digest, "stratum": stratum})

    def expire(self, now: ClockReading | None = None) -> list[tuple[str, State]]:
        """Revert every unconfirmed release whose deadline has passed; finish interrupted transitions.

        Returns (model, state) for each model whose ``current`` has moved: the server has to load it again. Needs no
        controller and no server. A deadline from an earlier boot is carried into this one (see `clock.rebase`).
        """
        done = ((model, self.expire_model(model, now)) for model in self.due(now))
        return [(model, state) for model, state in done if state is not None]

    def expire_model(self, model: str, now: ClockReading | None = None) -> State | None:
        """`expire` for one model that is `due`; its state when ``current`` has moved, else None. Raises DeviceError."""
        with self.locked():
            before = self.tree.read_link(model, "current")
            state = self._settled(model)
            reading = now or self.read_clock()
            waiting = state.unconfirmed
            if waiting is not None and clock.expired(waiting.deadline, reading):
                reason = f"not confirmed within {waiting.deadline.seconds:.0f} s"
                state, _moved = self.revert(model, waiting.digest, reason)
            elif waiting is not None and clock.rebase(waiting.deadline, reading) != waiting.deadline:
                carried = replace(waiting, deadline=clock.rebase(waiting.deadline, reading))
                state = self._record("rebooted", replace(state, unconfirmed=carried), {})
            return state if state.active != before else None

    def absent(self, model: str, version: str | None = None) -> tuple[State, bool]:
        """Remove one release, or with no version the model: links and releases. Guards (quarantine, counter) stay.

        Returns (state, whether anything was removed). Raises DeviceError(bad_input) for the release that is active.
        """
        with self.locked():
            state = self._settled(model)
            if version is None:
                removed = bool(state.active or state.previous or self.tree.releases(model))
                if state.active or state.previous:
                    state = self._transition(st.begin_absent(state), {})
                for name in self.tree.releases(model):
                    fsutil.remove_tree(self.tree.release_dir(model, name))
                return state, removed
            check_removable(state, version)
            if version not in self.tree.releases(model):
                return state, False
            if state.previous is not None and state.previous.version == version:
                state = self._record("forget", replace(state, previous=None), {"version": version})
                self.tree.point(model, "previous", None)
            fsutil.remove_tree(self.tree.release_dir(model, version))
            return state, True

    def verify(self, model: str) -> list[str]:
        """Hash every file of the active release from the disk. Returns what is wrong; empty when all is well."""
        state, problems = self.examine(model)
        return problems if state.active is None else problems + self.verify_ref(model, state.active)

    def verify_ref(self, model: str, ref: Ref) -> list[str]:
        """Hash every file of one release from the disk. Returns what is wrong."""
        problems = []
        directory = self.tree.release_dir(model, ref.version)
        if not self.tree.intact(model, ref):
            problems.append(f"{directory}: {ref.variant} is not complete")
        for sha256 in sorted(self.tree.blobs_of(model, ref.version)):
            path = self.blobs.path(sha256)
            size = os.lstat(path).st_size if os.path.exists(path) else -1
            verdict = self.blobs.check(sha256, size)
            if verdict != "ok":
                problems.append(f"{directory}: blob {sha256} is {verdict}")
        return problems

    def recover(self) -> list[str]:
        """After a crash or at start: repair the journal, finish or undo what was interrupted, sweep leftovers.

        Returns what was repaired, for people. Never raises for damaged content: the device has to come up.
        """
        self.prepare()
        repairs = []
        with self.locked():
            repairs += [f"opened {path} to the model server" for path in self.tree.open_up()]
            try:
                repairs += self.journal.repair()
            except OSError as exc:
                repairs.append(f"the journal cannot be repaired now: {exc}")
            for model in self.models():
                repairs += self.examine(model)[1]
                self._settled(model)
        try:
            with fsutil.flocked(os.path.join(self.engine_dir, "stage.lock")), self.locked():
                repairs += [f"removed leftover {path}" for path in self.tree.sweep()]
        except DeviceError:
            pass  # somebody is staging: its temporary files are no leftovers
        self.ensure_ballast()
        return repairs


def counter_error(model: str, version: str, counter: int, floor: int) -> DeviceError:
    """The refusal of a release from below the device's security counter."""
    return DeviceError(
        "counter",
        f"model {model}: release {version} has security_counter {counter}, this device has confirmed {floor}. Going "
        f"back to an older model is allowed, below the counter not: release it with a counter of at least {floor}",
    )


def check_removable(state: State, version: str) -> None:
    """Raise DeviceError(bad_input) when ``version`` is active."""
    if state.active is not None and state.active.version == version:
        raise DeviceError(
            "bad_input",
            f"model {state.model}: version {version} is active. Revert it or activate another release first, or leave "
            "out the version to remove the model",
        )


def _space_or_damage(exc: OSError, root: str) -> DeviceError:
    if fsutil.no_space(exc):
        return DeviceError("no_space", f"{root}: the disk filled up ({exc}); what is active stays active")
    return DeviceError("damaged", f"{root}: cannot be written ({exc})")

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which session answers which model, and how one replaces another without losing a request.

Everything here runs on the server's event loop, so a swap is one assignment: a request holds a lease on the session it
began with, and a session that was replaced is closed when its last lease is given back. Verifying, loading and warming
up happen in a thread of their own while the old session serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from ..device.errors import DeviceError
from . import loader
from .errors import RequestError
from .loader import Loaded, Target
from .log import Log
from .metrics import Metrics

RETRY_FIRST_S = 5.0
RETRY_LAST_S = 600.0
CANDIDATE_S = 3600.0
"""How long a candidate may wait to be promoted or dropped, seconds."""

LoadFunction = Callable[[str, Target], Loaded]


class Serving:
    """A loaded session with the number of requests that use it."""

    def __init__(self, loaded: Loaded, close: Callable[[Loaded], None]) -> None:
        self.loaded = loaded
        self._close = close
        self._leases = 0
        self._retired = False

    @contextlib.contextmanager
    def lease(self) -> Iterator[Loaded]:
        """Keep the session open while a request uses it."""
        self._leases += 1
        try:
            yield self.loaded
        finally:
            self._leases -= 1
            self._close_if_free()

    def retire(self) -> None:
        """Close the session as soon as nobody uses it."""
        self._retired = True
        self._close_if_free()

    def _close_if_free(self) -> None:
        if self._retired and not self._leases:
            self._close(self.loaded)


class Slot:
    """One model: what serves, what waits beside it, and why the last load failed."""

    def __init__(self) -> None:
        self.serving: Serving | None = None
        self.candidate: Serving | None = None
        self.error: str | None = None
        self.change = asyncio.Lock()


class Registry:
    """The models of one server process."""

    def __init__(
        self, edge_root: str, load: LoadFunction, metrics: Metrics, log: Log, identity: dict[str, str]
    ) -> None:
        self.edge_root = edge_root
        self.identity = identity
        self._load = load
        self._metrics = metrics
        self._log = log
        self._slots: dict[str, Slot] = {}
        # One at a time: two models that load at once on a small device are how it runs out of memory.
        self._loader = ThreadPoolExecutor(1, "loader")
        self._tasks: set[asyncio.Task[None]] = set()
        self.started = False

    # -- reading ----------------------------------------------------------------------------------------------------

    def find(self, model: str, version: str | None, management: bool) -> Serving:
        """Return what answers ``model`` (``version``: None for the default). Candidates exist only for management.

        Raises RequestError: 404 unknown model or version, 503 a known model with nothing loaded.
        """
        slot = self._slots.get(model)
        if slot is None:
            if not self.started:
                raise RequestError(503, "models are being loaded", "server", retry_after=1)
            raise RequestError(404, f"model {model} is not on this device")
        if version is not None:
            for serving in (slot.candidate if management else None, slot.serving):
                if serving is not None and serving.loaded.version == version:
                    return serving
            raise RequestError(404, f"model {model} has no version {version} here")
        if slot.serving is None:
            raise RequestError(503, "model {} is not ready: {}".format(model, slot.error or "loading"), "server", 1)
        return slot.serving

    def ready_body(self, model: str, version: str | None, management: bool) -> tuple[int, dict[str, Any]]:
        """Return the status (200 or 503) and body of a model's readiness; RequestError 404 when it is unknown."""
        try:
            loaded = self.find(model, version, management).loaded
        except RequestError as exc:
            if exc.status == 404:
                raise
            return 503, dict(self.identity, name=model, ready=False, error=exc.message)
        return 200, dict(
            self.identity,
            name=model,
            ready=True,
            version=loaded.version,
            variant=loaded.target.variant,
            digest=loaded.digest,
        )

    def all_ready(self) -> tuple[bool, dict[str, str]]:
        """Return whether there is at least one model and every model serves, and why each other one does not."""
        waiting = {name: slot.error or "loading" for name, slot in self._slots.items() if slot.serving is None}
        return self.started and bool(self._slots) and not waiting, waiting

    def summary(self) -> str:
        """Return in one line what is served and what is not."""
        parts = []
        for name, slot in sorted(self._slots.items()):
            if slot.serving is not None:
                parts.append(f"{name} {slot.serving.loaded.version}")
            else:
                parts.append("{} not ready: {}".format(name, slot.error or "loading"))
        return "serves " + "; ".join(parts) if parts else "serves nothing yet"

    def index(self, management: bool) -> list[dict[str, Any]]:
        """Return the repository index: each model and, for management, each candidate."""
        entries: list[dict[str, Any]] = []
        for name, slot in sorted(self._slots.items()):
            if slot.serving is not None:
                entries.append({"name": name, "version": slot.serving.loaded.version, "state": "READY", "reason": ""})
            else:
                entries.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": slot.error or "loading"})
            if management and slot.candidate is not None:
                version = slot.candidate.loaded.version
                entries.append({"name": name, "version": version, "state": "READY", "reason": "candidate"})
        return entries

    # -- changing ---------------------------------------------------------------------------------------------------

    async def load_current(self, model: str, force: bool = False) -> dict[str, Any]:
        """Serve what ``models/<model>/current`` names. The old session serves until the new one is warm.

        Returns what happened: ``loaded``, ``promoted`` (the candidate was it) or ``unchanged``. Raises DeviceError (and
        keeps what serves) when the release cannot be verified or loaded, RequestError 404 without a ``current``.
        """
        target = loader.current_target(self.edge_root, model)
        if target is None:
            raise RequestError(404, f"models/{model}/current does not exist: nothing is active")
        slot = self._slots.setdefault(model, Slot())
        async with slot.change:
            self._slots[model] = slot  # an unload may have taken it out while we waited
            target = loader.current_target(self.edge_root, model) or target  # and the link may have moved
            digest = loader.digest_on_disk(self.edge_root, target)
            if not force and _is(slot.serving, target, digest):
                slot.error = None
                return {"result": "unchanged"}
            if not force and _is(slot.candidate, target, digest):
                candidate, slot.candidate = slot.candidate, None
                self._swap(model, slot, candidate, "promoted")
                return {"result": "promoted"}
            try:
                loaded = await self._load_in_thread(target)
            except DeviceError as exc:
                slot.error = exc.message
                self._metrics.swap(model, "refused")
                raise
            self._swap(model, slot, Serving(loaded, self._close_later), "loaded")
            return {"result": "loaded", "load_seconds": round(loaded.load_s, 4)}

    async def load_candidate(self, model: str, version: Any, variant: Any) -> dict[str, Any]:
        """Load a staged release beside the one that serves; it replaces an earlier candidate. Raises DeviceError."""
        target = loader.make_target(model, version, variant)
        if loader.digest_on_disk(self.edge_root, target) is None:
            raise RequestError(404, f"releases/{model}/{version} is not in the store: stage it first")
        slot = self._slots.setdefault(model, Slot())
        async with slot.change:
            self._slots[model] = slot
            if _is(slot.candidate, target, loader.digest_on_disk(self.edge_root, target)):
                return {"result": "unchanged"}
            self._drop_candidate(
                slot
            )  # before the load: three sessions at once are more than a device may have room for
            try:
                loaded = await self._load_in_thread(target)
            except DeviceError:
                self._forget_if_empty(model, slot)
                raise
            slot.candidate = Serving(loaded, self._close_later)
            asyncio.get_running_loop().call_later(CANDIDATE_S, self._forget_candidate, slot, slot.candidate)
            self._log.event("info", "candidate", model=model, version=version, variant=variant, digest=loaded.digest)
            return {"result": "candidate", "load_seconds": round(loaded.load_s, 4)}

    async def unload(self, model: str, candidate_only: bool) -> dict[str, Any]:
        """Drop the candidate, or the whole model. Requests under way are finished. RequestError 404 when unknown."""
        slot = self._slots.get(model)
        if slot is None:
            raise RequestError(404, f"model {model} is not loaded")
        async with slot.change:
            dropped = self._drop_candidate(slot)
            if not candidate_only and slot.serving is not None:
                self._swap(model, slot, None, "unloaded")
                dropped = True
            if not candidate_only:
                slot.error = "unloaded"
            self._forget_if_empty(model, slot)
            return {"result": "dropped" if dropped else "unchanged"}

    def _forget_if_empty(self, model: str, slot: Slot) -> None:
        empty = slot.serving is None and slot.candidate is None
        if empty and loader.current_target(self.edge_root, model) is None:
            self._slots.pop(model, None)

    def _forget_candidate(self, slot: Slot, candidate: Serving) -> None:
        """Drop a candidate that nobody promoted or dropped: whoever loaded it is gone, its memory need not be."""
        if slot.candidate is candidate:
            self._drop_candidate(slot)
            self._log.event("warning", "candidate_forgotten", version=candidate.loaded.version)

    def _drop_candidate(self, slot: Slot) -> bool:
        candidate, slot.candidate = slot.candidate, None
        if candidate is not None:
            candidate.retire()
        return candidate is not None

    def _swap(self, model: str, slot: Slot, new: Serving | None, result: str) -> None:
        """Make ``new`` what serves. No await in here: no request can see a state in between."""
        old, slot.serving = slot.serving, new
        slot.error = None
        self._metrics.serving(model, _labels(old), _labels(new))
        self._metrics.swap(model, result)
        if old is not None:
            old.retire()
        loaded = new.loaded if new is not None else None
        self._log.event(
            "info",
            "swap",
            model=model,
            result=result,
            version=loaded.version if loaded else None,
            variant=loaded.target.variant if loaded else None,
            digest=loaded.digest if loaded else None,
            details=loaded.session.details if loaded else None,
        )

    async def _load_in_thread(self, target: Target) -> Loaded:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._loader, self._load, self.edge_root, target)
        except DeviceError as exc:
            self._log.event(
                "error", "load_refused", model=target.model, version=target.version, code=exc.code, error=exc.message
            )
            raise

    def _close_later(self, loaded: Loaded) -> None:
        # Freeing a model can take milliseconds: not on the event loop.
        self._loader.submit(loaded.session.close)

    # -- start ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve every model that has a ``current`` link, without being asked."""
        for model in loader.models_with_current(self.edge_root):
            self._slots[model] = Slot()
            task = asyncio.get_running_loop().create_task(self._load_at_start(model))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.started = True

    async def _load_at_start(self, model: str) -> None:
        """Load, and try again ever more rarely: what was missing (memory, a trusted key) may come back."""
        pause = RETRY_FIRST_S
        while True:
            began = time.monotonic()
            slot = self._slots.get(model)
            if slot is None or slot.serving is not None:
                return
            try:
                await self.load_current(model)
                return
            except DeviceError as exc:
                slot.error = exc.message
            except Exception as exc:  # never let one model's surprise end the attempts, or go unseen
                slot.error = f"{type(exc).__name__}: {exc}"
                self._log.event("error", "load_failed", model=model, error=slot.error)
            await asyncio.sleep(max(pause, 10 * (time.monotonic() - began)))
            pause = min(pause * 2, RETRY_LAST_S)

    def stop(self) -> None:
        """Cancel attempts to load."""
        for task in self._tasks:
            task.cancel()


def _is(serving: Serving | None, target: Target, digest: str | None) -> bool:
    """Say whether ``serving`` was made from exactly this target and release."""
    return serving is not None and serving.loaded.target == target and serving.loaded.digest == digest


def _labels(serving: Serving | None) -> tuple[str, str, str] | None:
    if serving is None:
        return None
    return serving.loaded.version, serving.loaded.target.variant, serving.loaded.digest

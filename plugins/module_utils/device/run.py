# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""One call in progress: the state before and after, what was done, how long it took, and the answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .env import Env, GateRecord, ModelServer
from .errors import DeviceError
from .request import Request
from .state import Ref, State
from .transfer import Patience


@dataclass
class Result:
    """What model_release answers. ``missing`` only for a plan; ``golden_*`` only where a server serves."""

    changed: bool = False
    failed: bool = False
    result: str = "unchanged"
    msg: str = ""
    code: str | None = None
    variant: str | None = None
    variants_refused: dict[str, str] = field(default_factory=dict)
    gates: list[GateRecord] = field(default_factory=list)
    gates_run: bool = False
    reverted: bool = False
    golden_before: str | None = None
    golden_after: str | None = None
    golden_restored: bool | None = None
    transfer: dict[str, int] = field(default_factory=lambda: {"bytes": 0, "reused_bytes": 0, "blobs": 0})
    server: dict[str, Any] | None = None
    durations_ms: dict[str, float] = field(default_factory=dict)
    missing: list[dict[str, Any]] | None = None
    repairs: list[str] = field(default_factory=list)


def summary(state: State) -> dict[str, Any]:
    """What a diff shows: versions, and the active variant and digest."""
    return {
        "active": state.active.version if state.active else None,
        "variant": state.active.variant if state.active else None,
        "digest": state.active.digest if state.active else None,
        "previous": state.previous.version if state.previous else None,
        "unconfirmed": state.unconfirmed.version if state.unconfirmed else None,
    }


class Run:
    """A request, its surroundings, and the answer as it grows."""

    def __init__(self, request: Request, env: Env) -> None:
        self.request, self.env, self.store, self.server = request, env, env.store, env.server
        self.out = Result()
        self.started = time.monotonic()
        self.patience = Patience(self.started + request.timeout)
        self.before, self.out.repairs = self.store.examine(request.model)
        self.state = self.before

    @property
    def model(self) -> str:
        """The model this is about."""
        return self.request.model

    @property
    def dry(self) -> bool:
        """Check mode: say what would be done, write nothing."""
        return self.request.check_mode

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of a step to ``durations_ms``."""
        begin = time.monotonic()
        try:
            yield
        finally:
            spent = (time.monotonic() - begin) * 1000
            self.out.durations_ms[name] = round(self.out.durations_ms.get(name, 0.0) + spent, 3)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only operation on the model; settle what an interrupted one left. Check mode takes no lock."""
        if self.dry:
            yield
            return
        self.store.prepare()
        with self.store.operation(self.model, min(60.0, self.request.timeout)):
            self.before, self.out.repairs = self.store.examine(self.model)
            self.state = self.store.settle(self.model)
            yield

    def settle(self, result: str, changed: bool, msg: str, state: State | None = None) -> None:
        """The end of a success. ``state``: the state after it (predicted in check mode)."""
        self.out.result, self.out.changed, self.out.msg = result, changed, msg
        if state is not None:
            self.state = state

    def fail(self, error: DeviceError) -> None:
        """The end of a failure: refused, unless what was done says otherwise."""
        self.out.failed, self.out.code = True, error.code
        self.out.msg = f"{self.out.msg}; {error.message}" if self.out.msg else error.message
        if self.out.result == "unchanged":
            self.out.result = "refused"

    def answer(self) -> dict[str, Any]:
        """The module's result."""
        state = self.state if self.dry else self.store.read(self.model)
        out = self.out
        out.durations_ms["total"] = round((time.monotonic() - self.started) * 1000, 3)
        body: dict[str, Any] = dict(vars(out))
        if out.missing is None:
            del body["missing"]
        active = state.active
        body["gates"] = [dict(gate) for gate in out.gates]
        body["variant"] = out.variant or (active.variant if active else None)
        body["active"] = _plain(active)
        body["previous"] = _plain(state.previous)
        body["unconfirmed"] = state.unconfirmed.to_dict() if state.unconfirmed else None
        body["diff"] = {"before": summary(self.before), "after": summary(state)}
        return body

    # -- the server

    def needed_server(self) -> ModelServer:
        """The server, for a step that is only taken where there is one. Raises DeviceError(server)."""
        if self.server is None:
            raise DeviceError("server", f"model {self.model}: this device has no model server")
        return self.server

    def served(self) -> Mapping[str, Any] | None:
        """What the server serves now (None: nothing). Notes it for the answer."""
        body = self.needed_server().ready(self.model)
        self.out.server = {name: (body or {}).get(name) for name in ("digest", "start_id", "boot_id")} if body else None
        return body

    def serves(self, ref: Ref | None) -> bool:
        """Whether the server serves exactly this, or nothing if None."""
        body = self.served()
        if body is None or ref is None:
            return body is None and ref is None
        return body.get("digest") == ref.digest and body.get("variant") == ref.variant

    def load(self, ref: Ref | None) -> None:
        """Make the server serve what the store says, and see that it does. Raises DeviceError(server)."""
        server = self.needed_server()
        if ref is None:
            server.unload(self.model)
        else:
            server.load(self.model)
        if not self.serves(ref):
            raise DeviceError(
                "server",
                f"model {self.model}: after the load the server serves {self.out.server}, not {ref and ref.digest}",
            )


def _plain(ref: Ref | None) -> dict[str, Any] | None:
    return ref.to_dict() if ref else None

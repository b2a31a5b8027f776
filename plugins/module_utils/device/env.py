# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What an operation touches outside the store: settings, facts, keys, the model server and the gates.

Everything is injectable, so that decisions can be tested without a server; `make_env` builds the real one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..release.manifest import Manifest
from .settings import provisioned
from .state import Ref
from .states import RESERVE
from .store import Store
from .trust import LoadTrust, load_trust

GateRecord = Mapping[str, Any]


@dataclass(frozen=True)
class Staged:
    """A release in the store that a gate looks at."""

    manifest: Manifest
    variant: str
    directory: str


@dataclass(frozen=True)
class GateTask:
    """What a gate is told. ``settings``: how much to measure, and limits that only tighten the signed budget.

    ``incumbent``: what serves now (candidate phase). ``since``: the evidence that this phase continues.
    """

    release: Staged
    stratum: str
    settings: Mapping[str, Any]
    incumbent: Ref | None = None
    since: Mapping[str, Any] | None = None


class ModelServer(Protocol):
    """The device's model server and the gates that run against it. Every method raises DeviceError(server)."""

    def ready(self, model: str) -> Mapping[str, Any] | None:
        """What the server serves by default: version, variant, digest, start_id, boot_id; None when nothing."""

    def load(self, model: str) -> None:
        """Serve what ``current`` names."""

    def unload(self, model: str) -> None:
        """Serve nothing."""

    def drop_candidate(self, model: str) -> None:
        """Forget the candidate."""

    def golden_digest(self, release: Staged) -> str:
        """Hex digest of the default path's outputs on the release's own golden samples."""

    def gates(self, phase: str, task: GateTask) -> Sequence[GateRecord]:
        """Measure and judge one phase: ``candidate`` (loads it beside the incumbent), ``serving`` or ``soak``."""


@dataclass
class Env:
    """The surroundings of one device. ``server`` is None on a device whose device.json says ``"server": null``."""

    store: Store
    facts: Callable[[], Mapping[str, Any]]
    trust: LoadTrust
    server: ModelServer | None


def make_env(edge_root: str, timeout: float) -> Env:
    """The real surroundings. Raises DeviceError(bad_input or damaged) for a device that is not provisioned."""
    from .facts import device_facts
    from .serving import OipServer

    settings = provisioned(edge_root)
    reserve = RESERVE if settings.reserve_mib is None else settings.reserve_mib * 1024 * 1024
    return Env(
        store=Store(edge_root, lock_timeout=min(60.0, timeout), reserve=reserve),
        facts=lambda: device_facts(edge_root),
        trust=lambda: load_trust(os.path.join(edge_root, "trust")),
        server=None if settings.server is None else OipServer(edge_root, settings.server, timeout),
    )

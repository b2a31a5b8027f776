# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The device's real model server: managed over its unix socket, measured over the address that its users have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..release.errors import ReleaseError
from ..release.golden import GoldenSet, load_golden
from . import measure
from .client import Client
from .env import GateTask, Staged
from .errors import DeviceError
from .oip import ServerError
from .probe import run_gate
from .settings import ServerSettings
from .tls import local_tls

SOCKET = os.path.join("run", "server.sock")
CALL = 15.0


def _golden(release: Staged) -> GoldenSet:
    path = os.path.join(release.directory, release.manifest.golden.path)
    try:
        return load_golden(path)
    except ReleaseError as exc:
        raise DeviceError("damaged", str(exc)) from exc


class OipServer:
    """`env.ModelServer` over the Open Inference Protocol. ``timeout``: seconds that loading a model may take."""

    def __init__(self, edge_root: str, server: ServerSettings, timeout: float) -> None:
        root = os.path.abspath(edge_root)
        self._management = Client("unix:" + os.path.join(root, SOCKET), timeout=CALL)
        self._public = Client(server.local_url, timeout=CALL, tls=local_tls(root, server))
        self._timeout = timeout

    def ready(self, model: str) -> Mapping[str, Any] | None:
        """What the server serves by default at its public address; None when nothing."""
        told = self._public.ready(model)
        return dict(vars(told)) if told.ready else None

    def load(self, model: str) -> None:
        """Serve what ``current`` names."""
        self._management.load(model, timeout=self._timeout)

    def unload(self, model: str) -> None:
        """Serve nothing; a model that is not loaded is fine."""
        try:
            self._management.unload(model)
        except ServerError as exc:
            if exc.status != 404:
                raise

    def drop_candidate(self, model: str) -> None:
        """Forget the candidate."""
        self._management.drop_candidate(model)

    def golden_digest(self, release: Staged) -> str:
        """Hex digest of the default path's outputs on the release's own golden samples."""
        try:
            return measure.golden_outputs_digest(self._public, release.manifest, _golden(release))
        except ReleaseError as exc:
            raise DeviceError("server", f"{release.directory}: golden samples: {exc}") from exc

    def gates(self, phase: str, task: GateTask) -> Sequence[Mapping[str, Any]]:
        """Measure and judge one phase."""
        manifest = task.release.manifest
        incumbent = task.incumbent
        return run_gate(
            phase,
            self._management if phase == "candidate" else self._public,
            manifest,
            task.release.variant,
            _golden(task.release),
            manifest.budget(task.stratum, task.release.variant),
            settings=task.settings,
            incumbent={"version": incumbent.version, "digest": incumbent.digest} if incumbent else None,
            since=task.since,
        )

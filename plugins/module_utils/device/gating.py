# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The device gate: run it, keep its records, and pass only what passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .env import GateRecord, GateTask, Staged
from .errors import DeviceError
from .resolve import stored_release
from .run import Run
from .state import Ref


def gate_task(
    run: Run, release: Staged, stratum: str, incumbent: Ref | None = None, since: Mapping[str, Any] | None = None
) -> GateTask:
    """What a gate is told; its time is bounded by the whole call's."""
    settings = {name: value for name, value in vars(run.request.gate).items() if name != "enabled"}
    settings["timeout"] = max(0.001, min(run.request.gate.timeout, run.patience.left()))
    return GateTask(release, stratum, settings, incumbent, since)


def require_pass(run: Run, gates: Sequence[GateRecord], phase: str) -> None:
    """Keep the records. Raises DeviceError(gate) unless there is at least one and every verdict is ``pass``."""
    run.out.gates.extend(gates)
    run.out.gates_run = True
    refused = [gate for gate in gates if gate.get("verdict") != "pass"]
    if not gates:
        raise DeviceError("gate", f"{phase} phase: no gate gave a verdict; that does not pass")
    if refused:
        said = "; ".join(f"{gate.get('gate')} {gate.get('verdict')}: {gate.get('reason')}" for gate in refused)
        raise DeviceError("gate", f"{phase} phase: {said}")


def golden_of(run: Run, ref: Ref | None) -> str | None:
    """Digest of the default path's outputs on the golden samples of what serves; None unless that is ``ref``.

    An incumbent that cannot answer its own golden samples gives None too: it must not keep its successor away.
    """
    release = stored_release(run, ref)
    if run.server is None or release is None or not run.serves(ref):
        return None
    try:
        return run.server.golden_digest(release)
    except DeviceError:
        return None


def check_gate_settings(run: Run) -> None:
    """The controller alone cannot switch the gate off: only a device without a server has none."""
    if run.server is not None and not run.request.gate.enabled:
        raise DeviceError(
            "bad_input",
            "gate.enabled: false is refused: this device has a model server. Only a device whose device.json says "
            '"server": null runs without gates',
        )


def evidence_of(gates: Sequence[GateRecord]) -> dict[str, Any]:
    """Who was measured: the evidence of the first record, which a later phase continues."""
    return dict(gates[0].get("evidence") or {}) if gates else {}

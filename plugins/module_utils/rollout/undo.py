# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Taking a rollout back: which devices, in which order, and whether it came to an end. Reads and writes the ledger."""

from __future__ import annotations

from typing import Any

from .errors import RolloutError
from .ledger import Ledger, activated, finished, last_rollout, unsettled

SCOPES = {"unsettled": unsettled, "all": activated}


def resolve(ledger: Ledger, rollout: str | None) -> str:
    """The rollout meant: the given one if the ledger knows it, else the last; `RolloutError` when there is none."""
    found = rollout or last_rollout(ledger.records())
    if found is None:
        raise RolloutError(f"the ledger {ledger.path} has no rollout yet: there is nothing to take back")
    if rollout is not None and next(ledger.records(rollout), None) is None:
        raise RolloutError(
            f"rollout_id is {rollout!r}: the ledger {ledger.path} does not know it; leave it out for the last one"
        )
    if any(record["type"] == "rollout_started" and record["data"].get("kind") == "upgrade"
           for record in ledger.records(found)):  # fmt: skip
        raise RolloutError(
            f"rollout_id is {found!r}: that is an upgrade of K3s, whose devices go back by themselves; "
            "run edgeai.fleet.k3s_upgrade again to put right what was left in between"
        )
    return str(found)


def start(ledger: Ledger, rollout: str | None, scope: str, by: str, reason: str, check: bool) -> dict[str, Any]:
    """Find the devices that go back, newest wave first, and record the start.

    Returns rollout_id, hosts (in order), sizes (of the batches: one per wave) and targets (host -> what it took).
    ``check`` records nothing.
    """
    rollout = resolve(ledger, rollout)
    items = _targets(ledger, rollout, scope)
    sizes: list[int] = []
    wave: Any = object()
    for item in items:
        if item["wave"] != wave:
            sizes.append(0)
            wave = item["wave"]
        sizes[-1] += 1
    hosts = [item["host"] for item in items]
    if hosts and not check:
        ledger.append("rollback_started", {"hosts": hosts, "scope": scope, "by": by, "reason": reason}, rollout)
    return {"rollout_id": rollout, "hosts": hosts, "sizes": sizes, "targets": {item["host"]: item for item in items}}


def finish(ledger: Ledger, rollout: str, scope: str, hosts: list[str], by: str, check: bool) -> dict[str, Any]:
    """Record what came of it. A rollout that was open is closed as aborted once nothing is left to settle.

    ``hosts``: those `start` named. Returns settled and remaining (hosts), closed (whether the rollout was closed here).
    """
    left = {item["host"] for item in _targets(ledger, rollout, scope)}
    remaining = sorted(left) if not hosts else [host for host in hosts if host in left]
    settled = [host for host in hosts if host not in left]
    # one that stopped between two waves has nothing to settle, and may go on, unless all of it was taken back
    status = finished(ledger.records(rollout), rollout)
    closed = not left and (status is None or (status == "stopped" and scope == "all"))
    if not check:
        if hosts:
            ledger.append("rollback_finished", {"settled": settled, "remaining": remaining, "by": by}, rollout)
        if closed:
            ledger.append("rollout_finished", {"status": "aborted", "by": by}, rollout)
        if hosts or closed:
            ledger.checkpoint()
    return {"settled": settled, "remaining": remaining, "closed": closed}


def _targets(ledger: Ledger, rollout: str, scope: str) -> list[dict[str, Any]]:
    if scope not in SCOPES:
        raise RolloutError(f"scope is {scope!r}: it must be one of {', '.join(sorted(SCOPES))}")
    return SCOPES[scope](ledger.records(rollout), rollout)

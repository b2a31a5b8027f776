# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Going on with a rollout that stopped between two waves: the same plan and hash, from the next wave. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Stop = tuple[Mapping[str, Any], int]
"""(plan, the wave behind which it stopped)"""


def stopped(records: Iterable[Mapping[str, Any]], rollout: str) -> Stop | None:
    """Return where a rollout stopped, None when it did not, or when a stratum was halted: then a new plan is made."""
    plan: Mapping[str, Any] | None = None
    after: int | None = None
    halted = False
    for record in records:
        if record["rollout"] != rollout:
            continue
        data = record["data"]
        if record["type"] == "rollout_started":
            halted = halted and bool(data.get("continued"))
            plan, after = data.get("plan"), None
        elif record["type"] == "verdict":
            halted = halted or bool(data.get("halted_strata"))
        elif record["type"] == "stopped":
            after = int(data.get("after") or 0)
    return (plan, after) if plan and after is not None and not halted else None


def continued(fresh: Mapping[str, Any], stop: Stop) -> tuple[dict[str, Any], list[str]] | None:
    """Return the plan that stopped, with only the waves that are left in ``hosts`` and ``sizes``, and the devices that
    could change now but are in none of them; None when a new plan is needed.

    fresh: the plan made of the fleet as it is now. What was approved goes on, or less of it: a device of a wave that is
    left may be away or not to be changed now, as one may at any time. A new plan is needed by another release, policy
    or seed, a device of those waves that must not have the release or is no longer meant to, and a device that the plan
    did not know.
    """
    plan, after = stop
    if any(plan.get(name) != fresh[name] for name in ("model", "version", "digest", "policy", "seed")):
        return None
    left = [wave for wave in plan["waves"] if wave["number"] > after]
    hosts = [host for wave in left for host in wave["hosts"]]
    known = {*plan["wave_of"], *plan["unchanged"], *(entry["host"] for entry in plan["deferred"])}
    # whose group must not be changed now is not looked at again when a wave begins
    deferred = (entry["host"] for entry in fresh["deferred"] if entry["kind"] != "group_busy")
    may = {*fresh["hosts"], *fresh["unchanged"], *deferred}
    # what goes on has to have somebody to go on with
    if not set(hosts) <= may or not set(fresh["hosts"]) <= known or not set(hosts) & set(fresh["hosts"]):
        return None
    late = sorted(set(fresh["hosts"]) - set(hosts))
    return {**plan, "hosts": hosts, "sizes": [len(wave["hosts"]) for wave in left]}, late


def outcomes(plan: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, str]:
    """Return what is known of the devices in the waves before: those that have the release now confirmed it."""
    done = set(fresh["unchanged"])
    left = set(plan["hosts"])
    hosts = [host for wave in plan["waves"] for host in wave["hosts"] if host not in left]
    return {host: "confirmed" for host in hosts if host in done}

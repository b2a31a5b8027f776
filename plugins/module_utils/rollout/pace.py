# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How fast a wave may go: how many of a stratum, how many of a site at once, and when each device begins. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .policy import Policy, exact

GROWTH = "growth"


def allowed_next(policy: Policy, succeeded: int) -> int | None:
    """Return how many devices of a stratum may come after so many have succeeded; None for any number."""
    if not policy.growth_factor:
        return None
    return max(1, int(exact(policy.growth_factor) * succeeded))


def steps_of(targets: Sequence[int], policy: Policy, already: int = 0) -> list[int]:
    """Return the cumulative targets of a stratum with as many steps between as ``growth_factor`` asks for.

    targets: devices changed after the canary, then after each share; already: devices that had the release before.
    """
    found = list(targets[:1])
    for target in targets[1:]:
        while True:
            most = allowed_next(policy, already + found[-1])
            if most is None or target - found[-1] <= most:
                break
            found.append(found[-1] + most)
        found.append(target)
    return found


def too_many(
    plan: Mapping[str, Any], wave: int, outcomes: Mapping[str, str], ready: Sequence[str], policy: Policy
) -> dict[str, str]:
    """Return host -> reason for the devices of a growth wave that go beyond what has *succeeded* so far.

    outcomes: host -> outcome in the waves before; ready: the wave's devices that would begin now, in order. Devices
    that confirmed the release before this plan count as succeeded: a later run does not start from nothing.
    """
    this = plan["waves"][wave - 1]
    if not policy.growth_factor or this["kind"] == "canary":
        return {}
    waiting: dict[str, str] = {}
    stratum_of = plan["stratum_of"]
    done: dict[str, int] = {}
    for host in [*plan["unchanged"], *(host for host, outcome in outcomes.items() if outcome == "confirmed")]:
        stratum = stratum_of.get(host)
        done[stratum] = done.get(stratum, 0) + 1
    for stratum in this["strata"]:
        most = allowed_next(policy, done.get(stratum, 0)) or 0
        for host in [host for host in ready if stratum_of[host] == stratum][most:]:
            waiting[host] = (
                f"{done.get(stratum, 0)} devices of {stratum} have succeeded so far, so at most {most} may begin now "
                f"(growth_factor {policy.growth_factor:g})"
            )
    return waiting


def rounds(ready: Iterable[str], sites: Mapping[str, str | None], at_once: int) -> dict[str, int]:
    """Return host -> the round (from 1) in which it begins: never more than ``at_once`` of one site in one (0: all)."""
    seen: dict[str, int] = {}
    found = {}
    for host in ready:
        site = sites.get(host)
        if not at_once or not site:
            found[host] = 1
            continue
        found[host] = 1 + seen.get(site, 0) // at_once
        seen[site] = seen.get(site, 0) + 1
    return found


def delay(seed: str, host: str, jitter: int) -> float:
    """Return the seconds (0 to jitter) that a device waits before it begins; always the same for a rollout's seed."""
    if not jitter:
        return 0.0
    share = int.from_bytes(hashlib.sha256(f"{seed}\njitter\n{host}".encode()).digest()[:6], "big") / 2**48
    return round(share * jitter, 2)

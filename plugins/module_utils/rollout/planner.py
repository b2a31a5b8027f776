# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Compute the waves of a rollout. A pure function of devices, release, policy and seed: same in, same plan out.

What always holds:

* every host is in exactly one place: a wave, unchanged, deferred, refused or skipped; no wave is empty;
* no wave holds two members of one redundancy group, whatever their strata;
* a stratum's canary (``canary.per_stratum`` devices, or all of a smaller stratum) comes before anything else of it;
* shares are cumulative per stratum, of the devices that this plan changes: rounded up, never none, and a share
  below 1 never all;
* the last wave of a stratum completes it.

Order inside a stratum: devices that already hold the release unconfirmed come first (their deadline is running),
devices that failed by a condition of their own when last tried come last, before them those whose redundancy group
lacks a member, then one member of each group before the second of any, and then sha256(seed + host).
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from .errors import RolloutError
from .fleet import (
    CANDIDATE,
    DEFERRED,
    REFUSED,
    SKIPPED,
    UNCHANGED,
    Device,
    Quarantine,
    Release,
    degraded_groups,
    disposition,
    quarantine_reason,
    stratum_name,
)
from .pace import rounds, steps_of
from .policy import Policy, exact
from .stats import Sample, detectable_rate

FORMAT = 1
_FLAGS = [bytes([flags, 0, 0, 0, 0]) for flags in range(8)]
POWERS = (0.95, 0.8)
_SLOW_ROUND = 10.0
"""Seconds that a round of devices should have to stage, switch and measure."""
_VOLATILE = ("rollout_id", "plan_hash", "warnings", "hosts", "sizes", "wave_of", "stratum_of", "device_stratum_of")

Groups = dict[str, list[str]]


class _Sorted:
    """The devices by what happens to them."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, str]]] = {SKIPPED: [], DEFERRED: [], REFUSED: []}
        self.unchanged: dict[str, Device] = {}
        self.unchanged_stratum: dict[str, str] = {}
        self.candidates: dict[str, list[Device]] = {}
        self.strata: dict[str, dict[str, int]] = {}
        self.quarantined_yet_served: dict[str, int] = {}
        self.silent: list[str] = []


def make_plan(
    devices: Iterable[Device],
    release: Release,
    policy: Policy,
    rollout_id: str,
    quarantined: Quarantine | None = None,
    busy_groups: Mapping[str, str] | None = None,
    seed: str | None = None,
) -> dict[str, Any]:
    """Return the plan as plain JSON types (see docs for its fields).

    quarantined: (digest, stratum) -> reason; busy_groups: redundancy group -> why a member outside this plan forbids
    to change it now; seed: what the order is derived from (default: the rollout id).
    Raises RolloutError when a host comes twice.
    """
    # Much is allocated and nothing of it is cyclic garbage: the collector would only walk the fleet several times.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _make_plan(list(devices), release, policy, quarantined or {}, busy_groups or {}, (rollout_id, seed))
    finally:
        if collecting:
            gc.enable()


def _make_plan(
    known: list[Device],
    release: Release,
    policy: Policy,
    quarantined: Quarantine,
    busy_groups: Mapping[str, str],
    identity: tuple[str, str | None],
) -> dict[str, Any]:
    rollout_id, seed = identity[0], identity[1] or identity[0]
    hosts = {device.host for device in known}
    if len(hosts) != len(known):
        raise RolloutError(f"{len(known)} devices have only {len(hosts)} names: name every host once")
    lacking = degraded_groups(known)
    held = dict(busy_groups)
    if policy.degraded_groups == "defer":
        for group, away in lacking.items():
            held.setdefault(group, "{} of its redundancy group {} serves nothing now".format(", ".join(away), group))
    found = _sort(known, release, policy, quarantined, held)
    order = _orders(found.candidates, release, lacking, seed)
    stratum_of = {device.host: stratum for stratum, devices in order.items() for device in devices}
    already = {stratum: counts.get(UNCHANGED, 0) for stratum, counts in found.strata.items()}
    waves = _number(_steps(order, policy, already), stratum_of)
    _add_detectable(waves, policy)
    plan: dict[str, Any] = {
        "format": FORMAT,
        "rollout_id": rollout_id,
        "seed": seed,
        "model": release.model,
        "version": release.version,
        "digest": release.digest,
        "waves": waves,
        "unchanged": sorted(found.unchanged),
        "policy": policy.to_dict(),
    }
    for name, entries in found.lists.items():
        plan[name] = sorted(entries, key=lambda entry: entry["host"])
    _add_indexes(plan, [*order.values(), list(found.unchanged.values())], {**stratum_of, **found.unchanged_stratum})
    plan["strata"] = _strata(found, order, policy)
    plan["warnings"] = _warnings(found, lacking, plan["strata"], policy)
    plan["plan_hash"] = plan_hash(plan)
    return plan


def plan_hash(plan: Mapping[str, Any]) -> str:
    """Return ``sha256:`` + hex over the canonical JSON of what the plan decides.

    Left out: the id (it may hold a time), what is derived from the waves, and the wording of reasons, which may hold
    figures of the moment (free bytes). What stays: model, version, digest, seed, waves, who is deferred or refused and
    of which kind, and the policy.
    """
    kept = {key: value for key, value in plan.items() if key not in _VOLATILE}
    for name in (DEFERRED, REFUSED, SKIPPED):
        kept[name] = [[entry["host"], entry["kind"]] for entry in plan[name]]
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode("utf-8")).hexdigest()


def _sort(
    devices: Iterable[Device], release: Release, policy: Policy, quarantined: Quarantine, held: Mapping[str, str]
) -> _Sorted:
    found = _Sorted()
    for device in devices:
        what, kind, reason = disposition(device, release, quarantined)
        if held and what == CANDIDATE and device.redundancy_group in held:
            what, kind, reason = DEFERRED, "group_busy", held[str(device.redundancy_group)]
        stratum = device.stratum or "-"
        if device.stratum and policy.stratify_by:
            stratum = stratum_name(device.stratum, device.site, device.redundancy_group, policy.stratify_by)
        if what == CANDIDATE:
            found.candidates.setdefault(stratum, []).append(device)
            continue
        if what != SKIPPED:
            counts = found.strata.setdefault(stratum, {})
            counts[what] = counts.get(what, 0) + 1
        if what == UNCHANGED:
            found.unchanged[device.host] = device
            found.unchanged_stratum[device.host] = stratum
            if device.server_problem:
                found.silent.append(device.host)
            if quarantine_reason(device, release.digest, quarantined):
                found.quarantined_yet_served[stratum] = found.quarantined_yet_served.get(stratum, 0) + 1
        else:
            entry = {"host": device.host, "kind": kind, "reason": reason}
            if what == REFUSED:
                entry["stratum"] = stratum
            found.lists[what].append(entry)
    return found


def _orders(
    candidates: Mapping[str, list[Device]], release: Release, lacking: Groups, seed: str
) -> dict[str, list[Device]]:
    """Sort each stratum's devices as this module's text says."""
    prefix, sha256 = seed.encode("utf-8"), hashlib.sha256
    keys: dict[str, bytes] = {}
    members: dict[str, list[str]] = {}
    for stratum_devices in candidates.values():
        for device in stratum_devices:
            host, group = device.host, device.redundancy_group
            fresh = device.unconfirmed_digest != release.digest
            flags = (4 if device.suspect and fresh else 0) + (2 if fresh else 0) + (1 if group in lacking else 0)
            # flags, rank in the group (none yet), hash: bytes compare as the tuple would, in a third of the time
            keys[host] = _FLAGS[flags] + sha256(prefix + host.encode()).digest()
            if group:
                members.setdefault(group, []).append(host)
    for hosts in members.values():
        if len(hosts) > 1:
            hosts.sort(key=keys.__getitem__)
            for rank, host in enumerate(hosts[1:], 1):
                key = keys[host]
                keys[host] = key[:1] + rank.to_bytes(4, "big") + key[5:]
    return {stratum: sorted(candidates[stratum], key=lambda item: keys[item.host]) for stratum in sorted(candidates)}


def _targets(devices: int, policy: Policy, already: int) -> list[int]:
    """Return how many devices of a stratum are changed after each step: the canary, then every share of growth.

    already: how many had the release before; with ``growth_factor``, there are as many steps between as it asks for.
    """
    targets = [policy.canary.size(devices)]
    for share in policy.growth:
        wanted = ceil(exact(share) * devices)
        if share < 1.0:
            wanted = min(wanted, max(1, devices - 1))
        targets.append(max(targets[-1], wanted))
    return steps_of(targets, policy, already)


def _steps(
    order: Mapping[str, list[Device]], policy: Policy, already: Mapping[str, int]
) -> list[tuple[str, list[list[Device]]]]:
    """Return for each step its kind and its waves (more than one where groups or ``max_wave`` ask for it)."""
    pools = dict(order)
    targets = {stratum: _targets(len(found), policy, already.get(stratum, 0)) for stratum, found in order.items()}
    steps = []
    for index in range(max((len(found) for found in targets.values()), default=0)):
        taken: list[Device] = []
        groups: set[str] = set()
        for stratum, pool in pools.items():
            if index >= len(targets[stratum]):
                continue
            before = targets[stratum][index - 1] if index else 0
            chosen, pools[stratum] = _pick(pool, targets[stratum][index] - before, groups)
            taken.extend(chosen)
        if taken:
            steps.append(("canary" if index == 0 else "growth", _split(taken, policy.max_wave)))
    return steps


def _pick(pool: list[Device], need: int, groups: set[str]) -> tuple[list[Device], list[Device]]:
    """Take `need` devices, first those whose group is not in this step yet; return them and the rest, in order.

    groups: redundancy groups already in this step; those taken are added to it.
    """
    if need >= len(pool):
        groups.update(device.redundancy_group for device in pool if device.redundancy_group)
        return pool, []
    chosen: list[int] = []
    passed_over: list[int] = []
    stop = 0
    while len(chosen) < need and stop < len(pool):
        group = pool[stop].redundancy_group
        if group and group in groups:
            passed_over.append(stop)
        else:
            if group:
                groups.add(group)
            chosen.append(stop)
        stop += 1
    missing = need - len(chosen)
    chosen = sorted(chosen + passed_over[:missing]) if missing else chosen
    rest = [pool[index] for index in passed_over[missing:]]
    return [pool[index] for index in chosen], rest + pool[stop:]


def _split(taken: list[Device], max_wave: int) -> list[list[Device]]:
    """Put the devices of one step into as few waves as first fit gives: no group twice in one, none above max_wave."""
    waves: list[list[Device]] = [[]]
    next_of_group: dict[str, int] = {}
    limit = max_wave or len(taken)
    open_from = 0
    for device in taken:
        group = device.redundancy_group
        index = open_from
        if group:
            index = max(open_from, next_of_group.get(group, 0))
            while index < len(waves) and len(waves[index]) >= limit:
                index += 1
            next_of_group[group] = index + 1
        while index >= len(waves):
            waves.append([])
        waves[index].append(device)
        while open_from < len(waves) and len(waves[open_from]) >= limit:
            open_from += 1
    return [wave for wave in waves if wave]


def _number(steps: list[tuple[str, list[list[Device]]]], stratum_of: Mapping[str, str]) -> list[dict[str, Any]]:
    waves: list[dict[str, Any]] = []
    for kind, parts in steps:
        for part in parts:
            hosts = [device.host for device in part]
            strata: dict[str, list[str]] = {}
            for host in hosts:
                strata.setdefault(stratum_of[host], []).append(host)
            waves.append({"number": len(waves) + 1, "kind": kind, "hosts": hosts, "strata": strata})
    return waves


def _add_detectable(waves: list[dict[str, Any]], policy: Policy) -> None:
    """Say for each wave and stratum which failure rate would have been noticed by then, all waves so far together."""
    samples: dict[str, dict[Sample, int]] = {}
    for wave in waves:
        wave["detectable"] = {}
        for stratum, hosts in wave["strata"].items():
            so_far = samples.setdefault(stratum, {})
            sample = (len(hosts), policy.failures_allowed(len(hosts), wave["kind"] == "canary"))
            so_far[sample] = so_far.get(sample, 0) + 1
            rates = [detectable_rate(so_far, power) for power in POWERS]
            wave["detectable"][stratum] = {
                "failure_rate": rates[0],
                "power": POWERS[0],
                "failure_rate_at_80": rates[1],
                "devices": sum(n * times for (n, _allowed), times in so_far.items()),
            }


def _add_indexes(plan: dict[str, Any], present: Iterable[list[Device]], stratum_of: dict[str, str]) -> None:
    """Add what follows from the waves, and the strata of all devices that have, or get, the release."""
    waves = plan["waves"]
    plan["sizes"] = [len(wave["hosts"]) for wave in waves]
    plan["hosts"] = [host for wave in waves for host in wave["hosts"]]
    plan["wave_of"] = {host: wave["number"] for wave in waves for host in wave["hosts"]}
    plan["stratum_of"] = stratum_of
    plan["device_stratum_of"] = {device.host: device.stratum for devices in present for device in devices}


def _strata(found: _Sorted, order: Mapping[str, list[Device]], policy: Policy) -> dict[str, dict[str, Any]]:
    """Summarize each stratum: how many devices are changed, unchanged, deferred and refused, and its canary."""
    summary = {}
    for stratum in sorted(set(found.strata) | set(order)):
        counts = found.strata.get(stratum, {})
        planned = len(order.get(stratum, ()))
        canary = policy.canary.size(planned)
        note = ""
        if planned and canary == planned:
            note = f"the canary is the whole stratum: {canary} of {planned}"
        summary[stratum] = {
            "planned": planned,
            "unchanged": counts.get(UNCHANGED, 0),
            "deferred": counts.get(DEFERRED, 0),
            "refused": counts.get(REFUSED, 0),
            "canary": canary,
            "note": note,
        }
    return summary


def _warnings(found: _Sorted, lacking: Groups, strata: Mapping[str, Mapping[str, Any]], policy: Policy) -> list[str]:
    warnings = []
    if not policy.gate.enabled:
        warnings.append("gate.enabled is false: nothing is measured on the devices, a bad release is not noticed")
    for stratum, count in sorted(found.quarantined_yet_served.items()):
        warnings.append(f"{count} devices of {stratum} serve this release although it is quarantined there")
    if found.silent:
        warnings.append(
            "they have the release, but their server does not answer: {}".format(", ".join(sorted(found.silent)))
        )
    for group, away in sorted(lacking.items()):
        warnings.append("redundancy group {} lacks {}".format(group, ", ".join(away)))
    for stratum, counts in strata.items():
        if counts["note"]:
            warnings.append("{}: {}".format(stratum, counts["note"]))
    return warnings


def pace_warnings(
    plan: Mapping[str, Any], policy: Policy, forks: int, sites: Mapping[str, str | None] | None = None
) -> list[str]:
    """Warn of waves so large for this controller that their first devices go back before the last is done.

    forks: how many devices Ansible works on at once; sites: host -> its site, for ``site_concurrency``. A device's
    own deadline starts when it switches, its confirmation comes when the whole wave has switched and
    soaked: what is left of ``confirm_within`` is shared by the rounds.
    """
    warnings = []
    left = policy.confirm_within - policy.between - policy.deadlines.confirm - policy.jitter
    for wave in plan["waves"]:
        at_site = max(rounds(wave["hosts"], sites or {}, policy.site_concurrency).values())
        turns = max(at_site, ceil(len(wave["hosts"]) / max(1, forks)))
        if turns > 1 and left / turns < _SLOW_ROUND:
            size, pace = len(wave["hosts"]), left / turns
            who = f"{policy.site_concurrency} of a site" if turns == at_site else str(forks)
            warnings.append(
                f"wave {wave['number']}: {size} devices, {who} at a time, leave {pace:.1f} s for each round until "
                "the first devices go back by themselves: raise forks or confirm_within, or set max_wave"
            )
    return warnings

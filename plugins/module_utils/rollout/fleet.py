# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the planner knows about a device and a release, and whether one can take the other. Pure data and functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SKIPPED = "skipped"
DEFERRED = "deferred"
UNCHANGED = "unchanged"
REFUSED = "refused"
CANDIDATE = "candidate"

Quarantine = Mapping[tuple[str, str], str]
"""(release digest, stratum) -> reason."""


@dataclass(frozen=True)
class VariantNeed:
    """One variant of a release: where it can run and how many bytes the device has to hold for it."""

    runtime: str
    architectures: frozenset[str]
    size: int


@dataclass(frozen=True)
class Release:
    """The release that is wanted. digest carries the ``sha256:`` prefix; no variants means: do not check them."""

    model: str
    version: str
    digest: str
    security_counter: int = 0
    variants: tuple[VariantNeed, ...] = ()


@dataclass(frozen=True)
class Device:
    """One device as the inventory and its facts describe it.

    stratum: as the device itself reports it; reachable and reason: from gathering facts; trouble: (kind, reason) that
    keeps a reachable device out of this rollout; not_now: (kind, reason) of a closed window or a veto; not_wanted: why
    the release is not meant for it;
    active_digest, unconfirmed_digest, serving_digest: with prefix, None for nothing (serving: also for not known);
    serves: whether its server serves the model, None when it has no server; server_problem: why it does not answer;
    quarantined: digest -> reason, the device's own; stored: digests whose files are on the device already;
    suspect: it failed this release by a condition of its own (full disk, ...) when it was last tried.
    """

    host: str
    stratum: str | None = None
    redundancy_group: str | None = None
    site: str | None = None
    reachable: bool = True
    reason: str = ""
    trouble: tuple[str, str] | None = None
    not_now: tuple[str, str] | None = None
    not_wanted: str = ""
    active_digest: str | None = None
    active_version: str | None = None
    unconfirmed_digest: str | None = None
    serving_digest: str | None = None
    serves: bool | None = None
    server_problem: str = ""
    quarantined: Mapping[str, str] = field(default_factory=dict)
    stored: frozenset[str] = frozenset()
    free_bytes: int | None = None
    security_counter: int = 0
    architecture: str | None = None
    runtimes: frozenset[str] = frozenset()
    suspect: bool = False


class Disposition(NamedTuple):
    """What the plan does with a device: one of the words above, a machine-readable kind, and a reason for people."""

    what: str
    kind: str
    reason: str


_TAKE = Disposition(CANDIDATE, "", "")
_DONE = Disposition(UNCHANGED, "", "")


def stratum_name(stratum: str, site: str | None, group: str | None, stratify_by: Iterable[str]) -> str:
    """Return the stratum with the policy's additions: ``cpu/onnxruntime/x86_64/site=harbour``."""
    parts = [stratum]
    for key in stratify_by:
        value = site if key == "site" else group
        parts.append("{}={}".format(key, value or "-"))
    return "/".join(parts)


_EVERY_STRATIFICATION = (
    (),
    ("site",),
    ("redundancy_group",),
    ("site", "redundancy_group"),
    ("redundancy_group", "site"),
)


def quarantine_reason(device: Device, digest: str, quarantined: Quarantine) -> str | None:
    """Return why this release must not go to this device, None when it may.

    A stratum may have been quarantined under another ``stratify_by``: every name of the device's stratum counts, so
    an edit of the policy lifts nothing.
    """
    if quarantined and device.stratum:
        for stratify_by in _EVERY_STRATIFICATION:
            name = stratum_name(device.stratum, device.site, device.redundancy_group, stratify_by)
            if (digest, name) in quarantined:
                return f"quarantined for {name}: {quarantined[(digest, name)]}"
    if digest in device.quarantined:
        return f"quarantined by the device itself: {device.quarantined[digest]}"
    return None


def disposition(device: Device, release: Release, quarantined: Quarantine) -> Disposition:
    """Decide what happens to one device. The first rule that applies wins; the order is part of the contract."""
    if device.not_wanted:
        return Disposition(SKIPPED, "not_wanted", device.not_wanted)
    if not device.reachable:
        return Disposition(DEFERRED, "unreachable", device.reason or "unreachable")
    if device.trouble:
        return Disposition(DEFERRED, device.trouble[0], device.trouble[1])
    if not device.stratum:
        return Disposition(DEFERRED, "no_stratum", "it reports no stratum: no usable runtime; provision it again")
    settled = device.active_digest == release.digest and device.unconfirmed_digest is None
    if (
        settled
        and device.serving_digest in (None, release.digest)
        and (device.serves is not False or device.server_problem)
    ):
        return _DONE
    reason = quarantine_reason(device, release.digest, quarantined)
    if reason:
        return Disposition(REFUSED, "quarantined", reason)
    if release.security_counter < device.security_counter:
        text = "security counter %d of the release is below the device's %d: build a release with a higher one"
        return Disposition(REFUSED, "counter", text % (release.security_counter, device.security_counter))
    if device.not_now:
        return Disposition(DEFERRED, device.not_now[0], device.not_now[1])
    if device.server_problem:
        return Disposition(DEFERRED, "server", f"its model server does not answer: {device.server_problem}")
    return _fits(device, release)


def _fits(device: Device, release: Release) -> Disposition:
    """Check variants and free space, as far as they can be known without the device."""
    if not release.variants or device.architecture is None or not device.runtimes:
        return _TAKE
    sizes = [
        variant.size
        for variant in release.variants
        if variant.runtime in device.runtimes and device.architecture in variant.architectures
    ]
    if not sizes:
        text = "the release has no variant for %s on %s: build one, or do not want it here"
        return Disposition(REFUSED, "no_variant", text % (" or ".join(sorted(device.runtimes)), device.architecture))
    # the smallest variant is a lower bound: the device itself counts what it really needs before the first byte
    if device.free_bytes is not None and release.digest not in device.stored and device.free_bytes < min(sizes):
        text = "%d bytes free, at least %d needed: free space on the device; the next run catches up"
        return Disposition(DEFERRED, "no_space", text % (device.free_bytes, min(sizes)))
    return _TAKE


def degraded_groups(devices: Iterable[Device]) -> dict[str, list[str]]:
    """Return the redundancy groups that lack a member now: group -> hosts that are away or serve nothing."""
    lacking: dict[str, list[str]] = {}
    for device in devices:
        down = not device.reachable or (device.active_digest is not None and device.serves is False)
        if device.redundancy_group and down:
            lacking.setdefault(device.redundancy_group, []).append(device.host)
    return {group: sorted(hosts) for group, hosts in lacking.items()}

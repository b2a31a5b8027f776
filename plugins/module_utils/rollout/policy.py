# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The rollout policy (``edge_policy``): defaults, checks, and the arithmetic of its shares and budgets.

Every key is optional, unknown keys are refused, and every value is checked before a device is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from math import ceil
from typing import Any

from .ab_policy import AbTest, check_ab_test, check_ab_together
from .errors import RolloutError, field_error
from .policy_checks import Check, checked, choice, choices, flag, integer, number, section
from .promql_policy import Prometheus, check_section, check_together
from .windows import Window, check_window

DAY = 86400


def exact(share: float) -> Fraction:
    """Return the share as it was written, 0.1 as 1/10: ``ceil(0.1 * 30)`` in floating point is 4."""
    return Fraction(str(share))


@dataclass(frozen=True)
class Canary:
    """The first devices of every stratum.

    per_stratum: devices each stratum sends ahead (all of a smaller stratum); spare: so many more where the stratum is
    at least twice as large as its canary, so that one device with a full disk or a dead link does not hold it up.
    """

    per_stratum: int = 1
    spare: int = 0

    def size(self, devices: int) -> int:
        """Return how many of a stratum's devices go first, between 1 and all (0 of 0)."""
        with_spare = self.per_stratum + self.spare
        wanted = with_spare if 2 * with_spare <= devices else self.per_stratum
        return min(devices, wanted)


@dataclass(frozen=True)
class Budget:
    """What is tolerated: so many devices, or a share that must not be reached, whichever allows more."""

    count: int = 0
    share: float = 0.0

    def tolerated(self, devices: int) -> int:
        """Return the number tolerated among so many devices. A share counts as broken when it is *reached*."""
        below_share = max(0, ceil(exact(self.share) * devices) - 1)
        return max(self.count, below_share)

    def allowed(self, devices: int) -> int:
        """Return `tolerated`, but never all of them: a wave in which nothing passed has proved nothing."""
        return max(0, min(self.tolerated(devices), devices - 1))


@dataclass(frozen=True)
class DeviceGate:
    """What each device measures; limits left at None are those of the signed release, others can only tighten them."""

    enabled: bool = True
    samples: int = 64
    requests: int = 200
    warmup: int = 20
    timeout: int = 60
    p95_ratio: float | None = None
    p95_ms: float | None = None
    memory_mib: int | None = None
    shadow_agreement: float | None = None
    shadow_requests: int = 50
    shadow_seconds: int = 20

    def to_dict(self) -> dict[str, Any]:
        """Return what a device is told: no limit that is not set, nothing of shadow traffic that is not asked for."""
        told = {key: value for key, value in asdict(self).items() if value is not None}
        if self.shadow_agreement is None:
            told = {key: value for key, value in told.items() if not key.startswith("shadow_")}
        return told


@dataclass(frozen=True)
class Deadlines:
    """The longest each step may take on one device, in seconds."""

    facts: int = 60
    activate: int = 300
    confirm: int = 60
    revert: int = 120


@dataclass(frozen=True)
class Approval:
    """Where people have to approve before a rollout goes on.

    after: ``plan`` (before the first wave), ``canary`` (behind the last canary wave), ``every`` wave; people: how many
    different ones; wait: seconds that a run waits for them; valid: seconds that an approval counts.
    """

    after: tuple[str, ...] = ()
    people: int = 1
    wait: int = 0
    valid: int = DAY


@dataclass(frozen=True)
class Policy:
    """How a rollout proceeds. See docs for each key; defaults are the careful ones."""

    canary: Canary = field(default_factory=Canary)
    growth: tuple[float, ...] = (0.25, 0.5, 1.0)
    max_wave: int = 0
    stratify_by: tuple[str, ...] = ()
    failure_budget: Budget = field(default_factory=Budget)
    device_failure_budget: Budget = field(default_factory=lambda: Budget(count=1, share=0.1))
    smallest_sample: int = 1
    unreachable_budget: Budget = field(default_factory=lambda: Budget(count=1000000, share=1.0))
    degraded_groups: str = "last"
    soak: int = 0
    halt: str = "stratum"
    confirm_within: int = 900
    gate: DeviceGate = field(default_factory=DeviceGate)
    deadlines: Deadlines = field(default_factory=Deadlines)
    prometheus: Prometheus = field(default_factory=Prometheus)
    window: Window = field(default_factory=Window)
    approval: Approval = field(default_factory=Approval)
    pause_limit: int = 3600
    growth_factor: float = 0.0
    site_concurrency: int = 0
    jitter: int = 0
    ab_test: AbTest = field(default_factory=AbTest)

    @property
    def between(self) -> int:
        """The longest time from a wave's verdict to its confirmation, seconds: the soak, then asking Prometheus."""
        return self.soak + self.prometheus.takes

    @property
    def wave_takes(self) -> int:
        """The longest that one device's change may take, until it is confirmed or back, seconds."""
        slowest = max(self.deadlines.confirm, self.deadlines.revert)
        return self.jitter + self.deadlines.activate + self.between + slowest

    def failures_allowed(self, devices: int, canary: bool) -> int:
        """Return how many of a stratum's reached devices may fail in one wave; a canary never fails."""
        return 0 if canary else self.failure_budget.allowed(devices)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; `parse_policy` of it gives an equal policy."""
        raw = asdict(self)
        raw["growth"] = list(self.growth)
        raw["stratify_by"] = list(self.stratify_by)
        raw["gate"] = self.gate.to_dict()
        # what is not used is written as it was before there was any: plans keep their hash
        for name in _LATER:
            value = getattr(self, name)
            if value == _DEFAULTS[name]:
                raw.pop(name)
            elif hasattr(value, "to_dict"):
                raw[name] = value.to_dict()
        if "approval" in raw:
            raw["approval"]["after"] = list(self.approval.after)
        return raw


_LATER = ("prometheus", "window", "approval", "pause_limit", "growth_factor", "site_concurrency", "jitter", "ab_test")
_DEFAULTS = {name: getattr(Policy(), name) for name in _LATER}


def _factor(where: str, name: str, value: Any) -> float:
    factor: float = number(0.0, 1000.0)(where, name, value)
    if 0.0 < factor < 0.1:
        raise field_error(where, name, value, "write 0 for no such limit, or at least 0.1; 2 lets waves double")
    return factor


def _growth(where: str, name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 1000:
        raise field_error(
            where, name, value, "write a list of growing shares that ends with 1.0, e.g. [0.25, 0.5, 1.0]"
        )
    shares = tuple(number(0.0, 1.0)(where, f"{name}[{index}]", item) for index, item in enumerate(value))
    if shares[0] <= 0.0 or any(a >= b for a, b in zip(shares, shares[1:])):
        raise field_error(where, name, list(value), "each share must be above 0 and above the one before it")
    if shares[-1] != 1.0:
        raise field_error(where, name, list(value), "end with 1.0, or some devices would never get the release")
    return shares


_BUDGET = section(Budget, {"count": integer(0, 10**9), "share": number(0.0, 1.0)})
_SECONDS = integer(1, DAY)
_CHECKS: dict[str, Check] = {
    "canary": section(Canary, {"per_stratum": integer(1, 10**6), "spare": integer(0, 10**6)}),
    "growth": _growth,
    "max_wave": integer(0, 10**6),
    "stratify_by": choices("site", "redundancy_group"),
    "failure_budget": _BUDGET,
    "device_failure_budget": _BUDGET,
    "smallest_sample": integer(1, 10**6),
    "unreachable_budget": _BUDGET,
    "degraded_groups": choice("last", "defer"),
    "soak": integer(0, 7 * DAY),
    "halt": choice("stratum", "rollout"),
    "confirm_within": integer(1, 30 * DAY),
    "gate": section(
        DeviceGate,
        {
            "enabled": flag,
            "samples": integer(1, 10**6),
            "requests": integer(1, 10**6),
            "warmup": integer(0, 10**6),
            "timeout": _SECONDS,
            "p95_ratio": number(1.0, 1000.0),
            "p95_ms": number(0.001, 10**6),
            "memory_mib": integer(1, 10**7),
            "shadow_agreement": number(0.001, 1.0),
            "shadow_requests": integer(1, 10**5),
            "shadow_seconds": integer(1, 3600),
        },
    ),
    "deadlines": section(Deadlines, {item.name: _SECONDS for item in fields(Deadlines)}),
    "prometheus": check_section,
    "window": check_window,
    "approval": section(
        Approval,
        {
            "after": choices("plan", "canary", "every"),
            "people": integer(1, 100),
            "wait": integer(0, 7 * DAY),
            "valid": integer(1, 365 * DAY),
        },
    ),
    "pause_limit": integer(1, 7 * DAY),
    "growth_factor": _factor,
    "site_concurrency": integer(0, 10**6),
    "jitter": integer(0, 3600),
    "ab_test": check_ab_test,
}


def parse_policy(raw: Any, where: str = "edge_policy") -> Policy:
    """Return the checked policy.

    raw: the mapping a user wrote (None or {} for all defaults); where: what to name in an error.
    Raises RolloutError for an unknown key, a wrong type, a value out of range, or values that contradict each other.
    """
    if raw is None:
        raw = {}
    if not isinstance(raw, Mapping):
        raise RolloutError(
            "{} is {!r}: write a mapping with the keys {}".format(where, raw, ", ".join(sorted(_CHECKS)))
        )
    policy = Policy(**checked(where, "", raw, _CHECKS))
    _check_together(where, policy)
    return policy


def _check_together(where: str, policy: Policy) -> None:
    longest = policy.jitter + policy.between + policy.deadlines.activate + policy.deadlines.confirm
    asking = " + prometheus.deadline" if policy.prometheus.queries else ""
    asking += " + jitter" if policy.jitter else ""
    if policy.confirm_within <= longest:
        raise field_error(
            where,
            "confirm_within",
            policy.confirm_within,
            "a device would go back by itself before it can be confirmed: make it more than soak + deadlines.activate"
            f" + deadlines.confirm{asking} = {longest} s, or shorten those",
        )
    if policy.smallest_sample > policy.canary.per_stratum:
        raise field_error(
            where,
            "smallest_sample",
            policy.smallest_sample,
            f"no canary could ever pass: raise canary.per_stratum ({policy.canary.per_stratum}) to at least as many",
        )
    if policy.gate.timeout >= policy.deadlines.activate:
        raise field_error(
            where,
            "gate.timeout",
            policy.gate.timeout,
            f"the gate is part of the activation: make it less than deadlines.activate, {policy.deadlines.activate} s",
        )
    if policy.gate.shadow_agreement is not None and 2 * policy.gate.shadow_seconds >= policy.gate.timeout:
        fix = f"it is part of the gate, and may take up to half of gate.timeout, {policy.gate.timeout} s"
        raise field_error(where, "gate.shadow_seconds", policy.gate.shadow_seconds, fix)
    check_together(where, policy.prometheus, policy.soak)
    check_ab_together(where, policy.ab_test, policy.growth, policy.prometheus)

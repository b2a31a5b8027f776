# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which variant of a release a device runs: pure, from facts and manifest, with a reason for every other one."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import DeviceError
from .version_range import in_range

if TYPE_CHECKING:
    from ..release.manifest import Manifest, Variant


@dataclass(frozen=True)
class Choice:
    """The variant to run (None when none fits) and, for every variant not chosen, why."""

    variant: Variant | None
    reasons: dict[str, str] = field(default_factory=dict)

    def explain(self) -> str:
        """All reasons in one line, for an error message."""
        return "; ".join("{}: {}".format(*pair) for pair in self.reasons.items())


def choose(facts: Mapping[str, Any], manifest: Manifest, forbidden: AbstractSet[str] = frozenset()) -> Choice:
    """The first variant in the manifest's order of preference that the device can run.

    ``facts`` is facts.device_facts()'s answer; ``forbidden`` holds variant ids that must not be chosen.
    Only variants of the device's runtime are considered, pinned or not: its stratum names that runtime, and evidence
    counts per stratum.
    """
    chosen: Variant | None = None
    reasons: dict[str, str] = {}
    for variant in manifest.variants:
        reason = why_not(facts, variant)
        if variant.id in forbidden:
            reason = "forbidden on this device"
        if reason is None and chosen is None:
            chosen = variant
        else:
            reasons[variant.id] = reason or "fits too, but %s is preferred by the release" % (chosen and chosen.id)
    return Choice(chosen, reasons)


def why_not(facts: Mapping[str, Any], variant: Variant) -> str | None:
    """Why a device cannot run a variant, or None when it can. Checks go from what never changes to what is settable."""
    requires = variant.requires
    if facts["architecture"] not in variant.architectures:
        return "architecture {}, the variant is for {}".format(facts["architecture"], ", ".join(variant.architectures))
    wanted = tuple(requires.accelerators or ())
    # Every device has a CPU; cpu-int8 is a CPU with int8 dot products.
    if wanted and not {"cpu", facts["accelerator"]} & set(wanted):
        return "accelerator {}, the variant needs {}".format(facts["accelerator"], " or ".join(wanted))
    flags = tuple(requires.cpu_flags_any or ())
    if flags and not set(flags) & set(facts["cpu_flags"]):
        return "the CPU has none of {}".format(", ".join(flags))
    if requires.memory_mib and facts["memory_mib"] and facts["memory_mib"] < requires.memory_mib:
        return f"{facts['memory_mib']} MiB of memory, the variant needs {requires.memory_mib}"
    return _runtime_problem(facts, variant)


def _runtime_problem(facts: Mapping[str, Any], variant: Variant) -> str | None:
    runtime = variant.runtime
    if facts.get("runtime") != runtime:
        if facts.get("runtime_pinned"):
            return "the device is set to runtime {}".format(facts["runtime"])
        if runtime in facts["runtimes"]:
            return "the device is served by {}; set its runtime to {} to use this".format(facts.get("runtime"), runtime)
        return f"runtime {runtime} is not installed"
    info = facts["runtimes"].get(runtime)
    if info is None:
        return f"runtime {runtime} is not installed"
    if not info.get("usable", True):
        return "runtime {} does not work here: {}".format(runtime, info.get("reason", "unknown"))
    try:
        if in_range(str(info["version"]), variant.requires.runtime_version):
            return None
    except DeviceError as error:
        return error.message
    return "{} {} is installed, the variant needs {}".format(runtime, info["version"], variant.requires.runtime_version)

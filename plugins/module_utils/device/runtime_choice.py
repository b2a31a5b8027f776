# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Decide which runtime a device gets: pure, over the facts of `runtime_facts` and the table of `runtime_table`.

Accelerators are tried in the order of their rank, and for each the table's rows in theirs. What was passed over is
reported with its reason, so that "why not the GPU?" has an answer; nothing ends on the CPU in silence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from .accelerators import rank
from .errors import DeviceError
from .runtime_table import ROWS, SERVED, Row, Version, version_of

OVERRIDES = (*SERVED, "tensorrt")


class Choice(NamedTuple):
    """What a device gets. ``source`` is where its packages come from: index, wheelhouse or system packages.

    ``version`` is None when the distribution decides (source ``system``). ``passed_over``: texts, best-ranked first.
    """

    runtime: str
    package: str
    version: str | None
    provider: str
    accelerator: str
    source: str
    system_packages: tuple[str, ...]
    why: str
    passed_over: tuple[str, ...]
    overridden: bool


class Wishes(NamedTuple):
    """What the inventory asks for; empty texts ask for nothing. They win over the table and are reported."""

    runtime: str = ""
    accelerator: str = ""
    version: str = ""


NO_WISHES = Wishes()


def numbers(text: str) -> Version:
    """The first version number in a text as integers: ``L4T 36.4.3`` is (36, 4, 3), no number is ()."""
    match = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group(0).split(".")) if match else ()


def driver_version(record: Mapping[str, Any]) -> Version:
    """The version of an accelerator's driver: what follows the first space (``nvidia 580.95``, ``L4T 36.4.3``)."""
    return numbers(str(record.get("driver") or "").partition(" ")[2])


def _python(facts: Mapping[str, Any]) -> Version:
    return tuple(int(part) for part in str(facts["python"]["version"]).split(".")[:2])


def _dotted(version: Version) -> str:
    return ".".join(str(part) for part in version)


def _refusal(
    row: Row, record: Mapping[str, Any], facts: Mapping[str, Any], version: str | None, stocked: Collection[str] | None
) -> str | None:
    """Why a row does not fit this device; None when it does."""
    if row.source == "declared":
        return row.why
    if facts["architecture"] not in row.architectures:
        return f"{row.package} exists for {' and '.join(row.architectures)}, not for {facts['architecture']}"
    if _python(facts) < row.python:
        return f"{row.package} needs Python {_dotted(row.python)}, the device has {facts['python']['version']}"
    driver = driver_version(record)
    if row.driver and not driver:
        return f"the version of its driver is not known ({record.get('driver')}); {row.package} needs " + _dotted(
            row.driver
        )
    if row.driver and driver < row.driver:
        return f"{row.package} needs driver {_dotted(row.driver)}, the device has {_dotted(driver)}"
    if row.below and driver >= row.below:
        return f"{row.package} is for drivers before {_dotted(row.below)}, the device has {_dotted(driver)}"
    if row.source == "vendor" and f"{row.package}=={version}" not in (stocked or ()):
        return f"{row.why}: no wheelhouse is given that has {row.package} {version} for this device"
    absent = [name for name in row.system if name not in facts["packages"]]
    if row.source == "system" and absent and not facts["system_packages"]:
        return f"{', '.join(absent)} is not installed, and nothing may be installed from the distribution here"
    if row.source != "system" and version is None:
        return f"there is no {row.package} for Python {facts['python']['version']}"
    return _missing_library(row, facts)


def _missing_library(row: Row, facts: Mapping[str, Any]) -> str | None:
    installable = set(row.system) if facts.get("system_packages") else set()
    for library, brought_by in row.libraries:
        if not facts["libraries"].get(library) and brought_by not in installable:
            return f"{library} is not on the device: install {brought_by}"
    return None


def _candidates(facts: Mapping[str, Any], wishes: Wishes) -> list[Mapping[str, Any]]:
    """The accelerators to try, best first. A Coral that waits for its firmware counts: first use loads it."""
    records: list[Mapping[str, Any]] = []
    for record in facts["accelerators"]:
        asleep = record["kind"] == "coral" and "firmware" in str(record["reason"])
        records.append({**record, "usable": record["usable"] or asleep})
    records.sort(key=lambda record: rank(record["kind"]))
    if wishes.accelerator:
        wanted = wishes.accelerator.replace("cpu-int8", "cpu")
        records = [record for record in records if record["kind"] == wanted]
        if not records:
            found = ", ".join(record["kind"] for record in facts["accelerators"])
            raise DeviceError(
                "bad_input", f"accelerator {wishes.accelerator!r} is wanted and was not detected (found: {found})"
            )
    return records


def choose(facts: Mapping[str, Any], wishes: Wishes = NO_WISHES, stocked: Collection[str] | None = None) -> Choice:
    """Return what the device gets.

    :param facts: of `runtime_facts.gather`
    :param stocked: ``package==version`` that the wheelhouse has for this Python and architecture; None without one

    Raises DeviceError(bad_input) for a wish that cannot be met, DeviceError(no_variant) when nothing fits at all.
    """
    if wishes.runtime and wishes.runtime not in OVERRIDES:
        raise DeviceError(
            "bad_input", f"runtime {wishes.runtime!r} is not known; use one of {', '.join(SERVED)}, or leave it out"
        )
    passed: list[str] = []
    for record in _candidates(facts, wishes):
        kind = record["kind"]
        if not record["usable"]:
            passed.append(f"{kind} ({record['name']}): {record['reason']}")
            continue
        reasons: list[str] = []
        for row in ROWS:
            if row.accelerator != kind or wishes.runtime not in ("", row.runtime):
                continue
            version = _version(row, facts, wishes, stocked)
            refusal = _refusal(row, record, facts, version, stocked)
            if refusal is None:
                return _chosen(row, record, version, wishes, stocked, passed)
            reasons.append(refusal)
        what = f"with {wishes.runtime}: " if wishes.runtime else ""
        passed.append(f"{kind} ({record['name']}): {what}{'; '.join(dict.fromkeys(reasons)) or 'nothing drives it'}")
    asked = f" with {wishes.runtime}" if wishes.runtime else ""
    raise DeviceError(
        "bad_input" if wishes.runtime or wishes.accelerator else "no_variant",
        f"no runtime fits this device{asked}: {' | '.join(passed)}",
    )


def _version(row: Row, facts: Mapping[str, Any], wishes: Wishes, stocked: Collection[str] | None) -> str | None:
    """The wished version, else the table's; a vendor's wheel has whatever version the wheelhouse was given."""
    if wishes.version:
        return wishes.version
    version = version_of(row, _python(facts), facts["architecture"])
    if row.source == "vendor" and f"{row.package}=={version}" not in (stocked or ()):
        have = sorted(item for item in stocked or () if item.startswith(row.package + "=="))
        return have[-1].partition("==")[2] if have else version
    return version


def _chosen(
    row: Row,
    record: Mapping[str, Any],
    version: str | None,
    wishes: Wishes,
    stocked: Collection[str] | None,
    passed: list[str],
) -> Choice:
    wished = [f"{name} {value}" for name, value in wishes._asdict().items() if value]
    why = f"{record['name']}: {row.why}"
    if wished:
        why += f" (set in the inventory: {', '.join(wished)})"
    source = "system" if row.source == "system" else "index" if stocked is None else "wheelhouse"
    return Choice(
        row.runtime,
        row.package,
        None if source == "system" else version,
        row.provider,
        row.accelerator,
        source,
        row.system,
        why,
        tuple(passed),
        bool(wished),
    )

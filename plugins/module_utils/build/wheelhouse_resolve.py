# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Resolve an environment for another machine: pip picks wheels, and their own metadata says whether all are there.

pip evaluates the conditions of dependencies (``python_version < "3.11"``) for the Python that runs it, also when asked
for another one. So every wheel's dependencies are evaluated here once more for the target, and what is missing is asked
for by name until nothing is; what only the running Python needs is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..device.runtime_lock import Package, normal_name
from ..device.runtime_table import GLIBC, OMITTED
from ..release.errors import ReleaseError
from .wheelhouse import Target

ROUNDS = 6


class Resolved(NamedTuple):
    """One wheel that was picked: its name, version, file, hash, where it is, and what it depends on."""

    package: Package
    url: str
    requires: tuple[str, ...]
    extras: tuple[str, ...]


def platforms(target: Target) -> list[str]:
    """The platform tags that fit every supported distribution with this Python, oldest first."""
    newest = GLIBC.get(target.version, (2, 28))[1]
    aliases = ("linux", "manylinux1", "manylinux2010", "manylinux2014")  # "linux": a vendor's own, no index has it
    tags = [f"{name}_{target.architecture}" for name in aliases]
    return tags + [f"manylinux_2_{minor}_{target.architecture}" for minor in range(5, newest + 1)]


def full_python(target: Target) -> str:
    """A version with a patch number: no supported distribution has .0 or .1, which some packages exclude."""
    return f"{target.python}.2"


def pip_options(target: Target) -> list[str]:
    """The options that make pip pick wheels for a target, and never a source distribution."""
    options = ["--only-binary=:all:", "--python-version", full_python(target), "--implementation", "cp", "--no-input",
               "--disable-pip-version-check", "--quiet"]  # fmt: skip
    for tag in platforms(target):
        options += ["--platform", tag]
    return options


def run_pip(arguments: Sequence[str], failed: str) -> None:
    """Run this interpreter's pip. Raises ReleaseError with its last words."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        said = [line for line in lines if "Requires-Python" not in line][-3:]
        raise ReleaseError(f"{failed}: {' | '.join(said)[:1500]}")


def _report(requirements: Sequence[str], target: Target, indexes: Sequence[str], links: str | None) -> list[Resolved]:
    with tempfile.TemporaryDirectory(prefix="edgeai-resolve-") as work:
        report = os.path.join(work, "report.json")
        arguments = ["install", "--dry-run", "--ignore-installed", "--target", work, "--report", report,
                     *pip_options(target), *indexes]  # fmt: skip
        if links:
            arguments += ["--find-links", links]
        run_pip([*arguments, *requirements], f"no wheels for Python {target.python} on {target.architecture}")
        with open(report, encoding="utf-8") as stream:
            document = json.load(stream)
    return [_resolved(item) for item in document["install"]]


def _resolved(item: Mapping[str, Any]) -> Resolved:
    from urllib.parse import unquote, urlsplit

    url = str(item["download_info"]["url"])
    file = unquote(os.path.basename(urlsplit(url).path))
    digest = item["download_info"]["archive_info"].get("hashes", {}).get("sha256", "")
    if not digest:
        raise ReleaseError(f"{file}: the package index gives no SHA-256 for it; use an index that does")
    metadata = item["metadata"]
    package = Package(normal_name(metadata["name"]), metadata["version"], file, 0, digest)
    return Resolved(package, url, tuple(metadata.get("requires_dist") or ()), tuple(item.get("requested_extras") or ()))


def _environment(target: Target) -> dict[str, str]:
    """What markers are evaluated with: PEP 508's names, for CPython on Linux."""
    full = full_python(target)
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": target.architecture,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": target.python,
        "sys_platform": "linux",
    }


def needed(found: Iterable[Resolved], asked: Sequence[str], target: Target) -> tuple[set[str], list[str]]:
    """What an environment really consists of: (names reached from what was asked for, requirements nothing meets)."""
    from packaging.requirements import Requirement

    by_name = {item.package.name: item for item in found}
    environment = _environment(target)
    reached: set[tuple[str, str]] = set()
    unmet: list[str] = []
    pending = [Requirement(text) for text in asked]
    while pending:
        requirement = pending.pop()
        name = normal_name(requirement.name)
        if name in OMITTED:
            continue
        item = by_name.get(name)
        if item is None or not requirement.specifier.contains(item.package.version, prereleases=True):
            unmet.append(f"{requirement.name}{requirement.specifier}")
            continue
        for extra in sorted({"", *requirement.extras}):
            if (name, extra) in reached:
                continue
            reached.add((name, extra))
            for text in item.requires:
                child = Requirement(text)
                marker = child.marker
                if marker.evaluate({**environment, "extra": extra}) if marker else extra == "":
                    pending.append(child)
    return {name for name, _extra in reached}, list(dict.fromkeys(unmet))


def resolve(
    asked: Sequence[str], target: Target, indexes: Sequence[str] = (), links: str | None = None
) -> list[Resolved]:
    """Pick the wheels of one environment.

    :param asked: requirements as ``name==version``, extras allowed
    :param indexes: pip's index options
    :param links: a directory of further wheels (a vendor's)

    Raises ReleaseError when there is no wheel for something, or the dependencies do not close.
    """
    requirements = list(asked)
    for _round in range(ROUNDS):
        found = _report(requirements, target, indexes, links)
        names, unmet = needed(found, asked, target)
        if not unmet:
            return sorted((item for item in found if item.package.name in names), key=lambda item: item.package.name)
        requirements += unmet
    raise ReleaseError(
        f"the dependencies of {', '.join(asked)} for Python {target.python} on {target.architecture} do not close: "
        f"{', '.join(unmet)}"
    )

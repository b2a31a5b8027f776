# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Build a wheelhouse: resolve or take the lock, fetch, check every wheel, sign, verify, and put it in place as a whole.

What is there and right is kept: a second build asks no index. A build that fails leaves the wheelhouse as it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..device.errors import DeviceError
from ..device.exchange import replace_directory
from ..device.fsutil import temp_name
from ..device.runtime_lock import Package, misfit
from ..device.runtime_table import GLIBC, PINS, ROWS, SERVED, SERVER, Row, pinned, requirements, version_of
from ..device.runtime_wheel import describe_wheel
from ..release.errors import ReleaseError
from ..release.keys import Trust
from ..release.model import SIGNATURE_NAME
from ..release.signing import Signer, utc_now
from .wheelhouse import (
    ARCHITECTURES,
    LISTING,
    WHEELS,
    Environment,
    Target,
    Wheelhouse,
    dump,
    open_wheelhouse,
    sign,
    wheel_path,
)
from .wheelhouse_resolve import pip_options, resolve, run_pip


class Wish(NamedTuple):
    """An environment that is wanted: a package of the table, its version, and what it is for."""

    runtime: str
    package: str
    version: str
    target: Target

    @property
    def requirements(self) -> tuple[str, ...]:
        """What is asked for, by name and version."""
        row = next(item for item in ROWS if item.package == self.package)
        return tuple(requirements(row, self.version, self.target.version, self.target.architecture))


class Built(NamedTuple):
    """The outcome: whether and why something was (would be) written, the environments, and bytes of all wheels."""

    changed: bool
    reasons: tuple[str, ...]
    house: Wheelhouse | None
    key_id: str
    size: int


def _row(name: str, architecture: str, python: tuple[int, int], field: str) -> Row:
    """The row of a package or a runtime (its CPU row), for an architecture. Raises ReleaseError."""
    rows = [row for row in ROWS if row.source in ("wheels", "vendor") and architecture in row.architectures]
    exact = [row for row in rows if row.package == name and python >= row.python]
    cpu = [row for row in rows if row.accelerator == "cpu" and row.runtime == name]
    if not exact + cpu:
        known = sorted({*SERVED, *(row.package for row in rows)})
        raise ReleaseError(f"{field}: {name!r} has no wheels for {architecture}; use one of {', '.join(known)}")
    return (exact + cpu)[0]


def read_wishes(values: Iterable[Mapping[str, Any]]) -> list[Wish]:
    """The environments that are asked for, each once: {runtime or package, python, architecture, version?}.

    Raises ReleaseError that names the field.
    """
    wishes = []
    for index, value in enumerate(values):
        field = f"environments[{index}]"
        target = Target(str(value.get("python")), str(value.get("architecture")))
        if target.architecture not in ARCHITECTURES:
            raise ReleaseError(f"{field}.architecture: {target.architecture!r}; use one of {', '.join(ARCHITECTURES)}")
        parts = target.python.split(".")
        if len(parts) != 2 or not all(part.isdigit() for part in parts) or target.version not in GLIBC:
            known = ", ".join(".".join(map(str, item)) for item in GLIBC)
            raise ReleaseError(f"{field}.python: {target.python!r}; use one of {known}")
        name = str(value.get("package") or value.get("runtime"))
        row = _row(name, target.architecture, target.version, field)
        bare = row.package.partition("[")[0]
        version = str(value.get("version") or "") or version_of(row, target.version, target.architecture)
        if version is None or not (value.get("version") or dict(row.pins).get(bare) or pinned(bare, target.version)):
            raise ReleaseError(f"{field}: there is no {row.package} for Python {target.python}; name a version")
        wishes.append(Wish(row.runtime, row.package, version, target))
    return list(dict.fromkeys(wishes))


def _locked(wish: Wish, locks: Wheelhouse | None) -> Environment | None:
    """The environment that a file of locks has for a wish, None when it has none for just that."""
    for item in locks.environments if locks else ():
        if (item.package, item.version, item.target) == (wish.package, wish.version, wish.target):
            return item if item.requirements == wish.requirements else None
    return None


class Builder:
    """One build. ``old``: the wheelhouse that is there and verified, None without one."""

    def __init__(
        self,
        work: str,
        old: Wheelhouse | None,
        locks: Wheelhouse | None,
        vendor: str | None,
        indexes: Sequence[str],
    ) -> None:
        self.work, self.old, self.locks = work, old, locks
        self.vendor, self.indexes = vendor, list(indexes)
        self.wheels: dict[str, Package] = {}

    def environment(self, wish: Wish) -> Environment:
        """Bring the wheels of one environment into the new wheelhouse. Raises ReleaseError."""
        kept = _locked(wish, self.old)
        if kept is not None and self.old is not None:
            for file in kept.wheels:
                self._keep(self.old, file)
            return kept
        locked = _locked(wish, self.locks)
        if locked is not None and self.locks is not None:
            wanted = {file: self.locks.wheels[file].sha256 for file in locked.wheels}
        else:
            found = resolve(wish.requirements, wish.target, self.indexes, self.vendor)
            wanted = {item.package.file: item.package.sha256 for item in found}
        self._fetch(wish, wanted)
        files = tuple(sorted(wanted))
        return Environment(wish.runtime, wish.package, wish.version, wish.target, wish.requirements, files)

    def _keep(self, old: Wheelhouse, file: str) -> None:
        target = wheel_path(self.work, file)
        if not os.path.lexists(target):
            os.link(wheel_path(old.where, file), target)
        self.wheels[file] = old.wheels[file]

    def _fetch(self, wish: Wish, wanted: Mapping[str, str]) -> None:
        """Download what is not there yet, by hash, and describe each wheel."""
        for file, digest in wanted.items():
            if self.old is not None and file in self.old.wheels and self.old.wheels[file].sha256 == digest:
                self._keep(self.old, file)
        missing = [file for file in sorted(wanted) if file not in self.wheels]
        if missing:
            self._download(wish, {file: wanted[file] for file in missing})
        for file in missing:
            package = self._described(wish, file)
            if package.sha256 != wanted[file]:
                raise ReleaseError(f"{file}: has SHA-256 {package.sha256}, wanted is {wanted[file]}")
            self.wheels[file] = package

    def _download(self, wish: Wish, wanted: Mapping[str, str]) -> None:
        lock = os.path.join(self.work, "lock.txt")
        with open(lock, "w", encoding="utf-8") as stream:
            for file, digest in wanted.items():
                name, version = file.split("-")[:2]
                stream.write(f"{name}=={version} --hash=sha256:{digest}\n")
        links = ["--find-links", self.vendor] if self.vendor else []
        options = [*pip_options(wish.target), *self.indexes, *links]
        run_pip(
            ["download", "--require-hashes", "--no-deps", *options, "--dest", os.path.join(self.work, WHEELS),
             "-r", lock],
            f"the wheels of {wish.package} {wish.version} cannot be fetched",
        )  # fmt: skip
        os.unlink(lock)

    def _described(self, wish: Wish, file: str) -> Package:
        path = wheel_path(self.work, file)
        if not os.path.isfile(path):
            raise ReleaseError(f"{file}: pip brought another file for it; resolve again (refresh)")
        try:
            reason = misfit(file, wish.target.version, wish.target.architecture, GLIBC[wish.target.version])
            if reason:
                raise ReleaseError(reason)
            os.chmod(path, 0o644)
            return describe_wheel(path)
        except DeviceError as error:
            raise ReleaseError(error.message) from error


def _reasons(wishes: Sequence[Wish], old: Wheelhouse | None, why_not: str, key_id: str, signed_by: str) -> list[str]:
    """Why the wheelhouse is built (again); empty when it is as wanted."""
    if old is None:
        return [why_not]
    reasons = [f"add {_label(wish)}" for wish in wishes if _locked(wish, old) is None]
    wanted = {(wish.package, wish.version, wish.target) for wish in wishes}
    reasons += [
        f"remove {item.label}" for item in old.environments if (item.package, item.version, item.target) not in wanted
    ]
    if signed_by != key_id:
        reasons.append("it is signed by another key")
    return reasons


def _label(wish: Wish) -> str:
    return f"{wish.package}=={wish.version} for Python {wish.target.python} on {wish.target.architecture}"


def build(
    directory: str,
    wishes: Sequence[Wish],
    signer: Signer,
    locks: Wheelhouse | None = None,
    vendor: str | None = None,
    indexes: Sequence[str] = (),
    refresh: bool = False,
    check: bool = False,
    trust: Trust | None = None,
) -> Built:
    """Make ``directory`` the wheelhouse of exactly the wished environments.

    :param locks: what to fetch for environments that it has; others are resolved now
    :param vendor: directory of wheels that no index has
    :param refresh: resolve again, keep nothing
    :param trust: what the result is verified with; the signer's own key when None

    Raises ReleaseError; the wheelhouse is then as it was.
    """
    trust = trust or Trust(keys=(signer.key.public_key(),))
    old, signed_by, why_not = None, "", "it is not there"
    if os.path.isdir(directory) and os.listdir(directory):
        try:
            old, signed_by = open_wheelhouse(directory, trust, utc_now(), whole=True)
        except ReleaseError as error:
            why_not = f"what is there cannot be used ({error})"
    if refresh and old is not None:
        old, why_not = None, "it is to be resolved again"
    reasons = _reasons(wishes, old, why_not, signer.key_id, signed_by)
    if not reasons or check:
        return Built(bool(reasons), tuple(reasons), old, signer.key_id, _size(old))
    house = _write(directory, wishes, signer, trust, Builder("", old, locks, vendor, indexes))
    return Built(True, tuple(reasons), house, signer.key_id, _size(house))


def _size(house: Wheelhouse | None) -> int:
    return sum(package.size for package in house.wheels.values()) if house else 0


def _refuse_strangers(directory: str) -> None:
    """Raise ReleaseError for a directory that is no wheelhouse: it would be replaced as a whole."""
    strange = set(os.listdir(directory)) - {LISTING, WHEELS, SIGNATURE_NAME} if os.path.isdir(directory) else set()
    if strange:
        raise ReleaseError(f"{directory}: holds {sorted(strange)[0]!r}, which is no part of a wheelhouse; use another")


def _write(directory: str, wishes: Sequence[Wish], signer: Signer, trust: Trust, builder: Builder) -> Wheelhouse:
    """Build beside, verify every byte there, then replace the directory in one step."""
    directory = os.path.abspath(directory)
    _refuse_strangers(directory)
    work = temp_name(directory)
    try:
        os.makedirs(os.path.join(work, WHEELS))
        builder.work = work
        environments = [builder.environment(wish) for wish in wishes]
        created = utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")
        with open(os.path.join(work, LISTING), "wb") as sink:
            sink.write(dump(created, environments, builder.wheels))
        sign(work, signer)
        os.sync()
        open_wheelhouse(work, trust, utc_now(), whole=True)
        replace_directory(work, directory)
        return open_wheelhouse(directory, trust, utc_now()).house
    except OSError as error:
        raise ReleaseError(f"{error.filename or directory}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def all_wishes() -> list[Wish]:
    """Every environment of the table that an index has wheels for: what the collection's locks hold."""
    wishes = []
    for python in GLIBC:
        for architecture in ARCHITECTURES:
            for row in ROWS:
                if row.source != "wheels" or architecture not in row.architectures or python < row.python:
                    continue
                version = version_of(row, python, architecture)
                if version is not None:
                    target = Target(".".join(map(str, python)), architecture)
                    wishes.append(Wish(row.runtime, row.package, version, target))
    return list(dict.fromkeys(wishes))


_HEADS = {
    "server": "What every device's model server needs, whatever its runtime. "
    "Python 3.9 is the oldest that is supported.",
    "onnxruntime": "A device that runs models in ONNX Runtime on the CPU.",
    "openvino": "A device that runs models in OpenVINO (CPU; Intel GPU and NPU need their drivers beside it).",
    "litert": "A device that runs models in LiteRT (TensorFlow Lite).",
}


def _pin_lines(package: str) -> list[str]:
    """A package's pins as lines of a requirements file, with the condition on Python that tells them apart."""
    lines, newer = [], ""
    for oldest, version in PINS[package]:
        text = ".".join(map(str, oldest))
        last = oldest == PINS[package][-1][0]
        if not newer:
            marker = "" if last else f'python_version >= "{text}"'
        elif last:
            marker = f'python_version < "{newer}"'
        else:
            marker = f'python_version == "{text}"'
        lines.append(f"{package}=={version}" + (f"; {marker}" if marker else ""))
        newer = text
    return lines


def requirement_files() -> dict[str, str]:
    """The content of requirements/runtime-*.txt, which virtual environments of local devices are made from."""
    packages = {"server": list(SERVER)}
    for runtime in SERVED:
        packages[runtime] = [next(row.package for row in ROWS if (row.accelerator, row.runtime) == ("cpu", runtime))]
    files = {}
    for name, names in packages.items():
        lines = [f"# {_HEADS[name]}"] + ([] if name == "server" else ["-r runtime-server.txt"])
        for package in names:
            lines += _pin_lines(package)
        files[f"runtime-{name}.txt"] = "\n".join(lines) + "\n"
    return files

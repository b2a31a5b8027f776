# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Bring a device to the runtime environment of a lock, or say what that takes: all of runtime_environment."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from . import fsutil
from .cpu import normal_architecture
from .errors import DeviceError
from .hostfs import Tree
from .runtime_choice import numbers
from .runtime_env import (
    CURRENT,
    PREVIOUS,
    STASH,
    Status,
    adopt,
    build,
    check_space,
    drop_inboxes,
    drop_stash,
    find_wheels,
    inspect,
    link_target,
    locked,
    prune,
    switch,
)
from .runtime_facts import ask_python, installed_packages
from .runtime_lock import Lock, Package, misfit, read_lock
from .runtime_proof import Proof, prove
from .runtime_tree import Report


class Request(NamedTuple):
    """What is wanted. ``inbox``: wheels that arrived, by SHA-256. ``wheels``: directory to take wheels from, by name.

    ``plan``: when wheels are missing say so and stop. ``indexes``: which to ask (url, extra_urls); None: none.
    """

    home: str
    lock: Mapping[str, Any]
    provider: str
    python: str
    inbox: str | None = None
    wheels: str | None = None
    plan: bool = False
    indexes: Mapping[str, Any] | None = None
    check: bool = False


class Outcome(NamedTuple):
    """What was done, or in check mode would be. ``missing``: wheels the device needs (then nothing was done)."""

    changed: bool
    did: tuple[str, ...]
    name: str
    before: str | None
    report: Report
    proof: Proof | None
    missing: tuple[Package, ...]
    removed: tuple[str, ...]


def ensure(request: Request) -> Outcome:
    """Make the lock's environment the current one, whole and proven. Raises DeviceError: nothing was switched."""
    python = ask_python(request.python)
    lock = _with_system(read_lock(request.lock), request.check)
    _check_fit(lock, python)
    if not request.check:
        with locked(request.home):
            return _ensure(request, lock, python)
    return _predict(request, lock)


def _check_fit(lock: Lock, python: Mapping[str, Any]) -> None:
    """Raise DeviceError(bad_input) for a lock that is for another Python, architecture or libc than this device's."""
    version = numbers(str(python["version"]))[:2]
    if numbers(lock.python) != version:
        raise DeviceError(
            "bad_input", f"the lock is for Python {lock.python}, {python['executable']} is {python['version']}"
        )
    libc = python["libc"]
    if lock.packages and (len(libc) != 2 or libc[0] != "glibc"):
        raise DeviceError("bad_input", "wheels of runtimes need glibc; this device has another C library (musl?)")
    machine = normal_architecture(os.uname().machine)
    if python["bits"] == 32:
        machine = {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)
    for package in lock.packages:
        reason = misfit(package.file, version, machine, numbers(libc[1]))
        if reason:
            raise DeviceError("bad_input", reason)


def _with_system(lock: Lock, check: bool) -> Lock:
    """Fill in the versions of the distribution's packages that the lock names; they are part of what it is.

    Raises DeviceError when one is not installed, or its files are not those that were installed.
    """
    if not lock.system:
        return lock
    names = [name for name, _version in lock.system]
    found = installed_packages(Tree("/"), names)
    missing = [name for name in names if name not in found]
    if missing and not check:
        raise DeviceError("bad_input", f"packages of the distribution are missing: apt-get install {' '.join(missing)}")
    if not missing:
        altered = _altered(names)
        if altered:
            raise DeviceError(
                "damaged", f"files of the distribution's packages were altered: {', '.join(altered[:5])}; "
                f"apt-get install --reinstall {' '.join(names)}"
            )  # fmt: skip
    runtime = next((name for name in names if name.endswith(lock.runtime)), names[0])
    version = re.sub(r"^\d+:", "", found.get(runtime, "0"))
    return lock._replace(version=version, system=tuple((name, found.get(name, "")) for name in names))


def _altered(names: Sequence[str]) -> list[str]:
    """Files of installed Debian packages whose hash is not that of the package; configuration files do not count."""
    done = subprocess.run(["dpkg", "--verify", *names], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return [line.split()[-1] for line in lines if line.split() and "c" not in line.split()[1:-1]]


def _did(status: Status, lock: Lock) -> list[str]:
    done = []
    if not status.present:
        done.append(f"install {lock.name}")
    elif not status.report.good:
        done.append(f"repair {lock.name}: " + _shown(status.report.damaged))
    if status.current != lock.name:
        done.append(f"switch {CURRENT} from {status.current or 'nothing'} to {lock.name}")
    return done


def _shown(damaged: Mapping[str, str]) -> str:
    some = [f"{path} {said}" for path, said in list(damaged.items())[:5]]
    return ", ".join(some) + (f" and {len(damaged) - 5} more" if len(damaged) > 5 else "")


def _predict(request: Request, lock: Lock) -> Outcome:
    """What `_ensure` would do; a whole environment is proven, for that changes nothing."""
    status = inspect(request.home, lock)
    proof = (
        prove(os.path.join(status.path, "bin/python"), lock.runtime, request.provider) if status.report.good else None
    )
    doomed = tuple(prune(request.home, check=True)) if status.good else ()
    did = _did(status, lock)
    return Outcome(bool(did), tuple(did), lock.name, status.current, status.report, proof, (), doomed)


def _ensure(request: Request, lock: Lock, python: Mapping[str, Any]) -> Outcome:
    home = request.home
    status = inspect(home, lock)
    did = _did(status, lock)
    before, report = status.current, status.report
    if status.report.good:
        proof = prove(os.path.join(status.path, "bin/python"), lock.runtime, request.provider)
    else:
        drop_inboxes(home, status.needed, but=request.inbox)
        if request.inbox:
            adopt(home, status.needed, request.inbox)
        places = [os.path.join(home, STASH), *([request.wheels] if request.wheels else [])]
        missing = _absent(status.needed, places)
        if missing and request.plan:
            check_space(home, status.needed, missing)
            return Outcome(False, (), lock.name, before, report, None, missing, ())
        check_space(home, status.needed, missing)
        if missing and request.indexes is not None:
            download(home, missing, python, request.indexes)
            missing = _absent(status.needed, places)
        if missing:
            names = ", ".join(item.file for item in missing[:5])
            raise DeviceError("bad_input", f"{len(missing)} wheels are missing on the device: {names}")
        proof, report = build(home, lock, python, request.provider, status, find_wheels(status.needed, places))
    switch(home, lock.name)
    drop_stash(home)
    return Outcome(bool(did), tuple(did), lock.name, before, report, proof, (), tuple(prune(home)))


def _absent(needed: Sequence[Package], places: Sequence[str]) -> tuple[Package, ...]:
    found = find_wheels(needed, places)
    return tuple(item for item in needed if item.file not in found)


def download(home: str, packages: Sequence[Package], python: Mapping[str, Any], index: Mapping[str, Any]) -> None:
    """Fetch wheels from a package index into the stash, with pip: only these, only with their hash, never a source.

    Raises DeviceError(unreachable) with pip's last words.
    """
    with tempfile.TemporaryDirectory(prefix=fsutil.TEMP_PREFIX + "index-", dir=home) as work:
        pip = _pip(str(python["executable"]), work)
        lines = [f"{item.name}=={item.version} --hash=sha256:{item.sha256}" for item in packages]
        requirements, inbox = os.path.join(work, "lock.txt"), os.path.join(work, "wheels")
        with open(requirements, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
        command = [*pip, "download", "--require-hashes", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input",
                   "--disable-pip-version-check", "--no-cache-dir", "--dest", inbox, "-r", requirements]  # fmt: skip
        if index.get("url"):
            command += ["--index-url", str(index["url"])]
        for url in index.get("extra_urls") or ():
            command += ["--extra-index-url", str(url)]
        _run(command, "the wheels cannot be fetched from the package index")
        for package in packages:
            arrived = os.path.join(inbox, package.file)
            if os.path.isfile(arrived):
                os.rename(arrived, os.path.join(inbox, package.sha256))
        adopt(home, packages, inbox)


def _pip(executable: str, work: str) -> list[str]:
    """A pip: the interpreter's own, else one in a throw-away virtual environment. Raises DeviceError without any."""
    own = [executable, "-I", "-m", "pip"]
    if subprocess.run([*own, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
        return own
    place = os.path.join(work, "pip")
    _run([executable, "-m", "venv", place], "there is no pip: install python3-venv, or use a wheelhouse")
    return [os.path.join(place, "bin/python"), "-I", "-m", "pip"]


def _run(command: Sequence[str], failed: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()[-4:]
        raise DeviceError("unreachable", f"{failed}: {' | '.join(said)[:1000]}")


def describe(home: str, name: str | None, report: Report | None) -> str:
    """What a diff shows of a device's environments."""
    lines = [f"{CURRENT}: {name or 'nothing'}", f"{PREVIOUS}: {link_target(home, PREVIOUS) or 'nothing'}"]
    if report is not None:
        lines += [f"{path} {said}" for path, said in sorted(report.damaged.items())[:20]]
    return "\n".join(lines) + "\n"

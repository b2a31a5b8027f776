# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Make the image of a `Recipe` with mmdebstrap and podman, and save it as an archive beside a note about it.

Nothing is left in the machine's own container storage, and no container is run.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..build.wheelhouse import Target, Wheelhouse, open_wheelhouse, wheel_path
from ..device import fsutil
from ..device.errors import DeviceError
from ..device.runtime_lock import Lock
from ..device.runtime_tree import site_packages
from ..device.runtime_wheel import hash_file, unpack
from ..release.keys import Trust
from ..release.signing import utc_now
from .errors import WorkloadError
from .image import DEBIAN, HOOKS, PACKAGES, PLATFORMS, SUITES, Recipe, containerfile, recipe_for, skeleton

BUILD_S = 3600.0
_NOTE_BYTES = 1 << 16
_PTH = "import sys; sys.dont_write_bytecode = True\n"


def note_path(archive: str) -> str:
    """The note beside an archive."""
    return archive[: -len(".tar")] + ".json"


def read_note(archive: str) -> dict[str, Any]:
    """What was noted about an archive, {} when there is none that can be read."""
    try:
        body = json.loads(fsutil.read_bounded(note_path(archive), _NOTE_BYTES))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def whole(archive: str, recipe: Recipe) -> bool:
    """Whether the archive is there, was made by this recipe and has the bytes that were noted."""
    note = read_note(archive)
    if note.get("inputs") != recipe.inputs or not os.path.isfile(archive):
        return False
    return note.get("sha256") == _digest(archive)


def build(
    recipe: Recipe, lock: Lock, wheels: Mapping[str, str], archive: str, cache: str, mirror: str
) -> dict[str, Any]:
    """Build the image and write ``archive`` and its note, each by rename; returns the note.

    ``wheels``: where each file of the lock lies; ``cache``: directory for root file systems, by what is in them;
    ``mirror``: of Debian, empty for mmdebstrap's own. Raises WorkloadError.
    """
    umask = os.umask(0o022)
    try:
        os.makedirs(os.path.dirname(archive), exist_ok=True)
        os.makedirs(cache, exist_ok=True)
        # podman takes no path of more than 50 characters for what it keeps while it runs: not below the cache's
        with tempfile.TemporaryDirectory(prefix="image-", dir=cache) as work, tempfile.TemporaryDirectory() as run:
            context = os.path.join(work, "context")
            _fill(os.path.join(context, "runtime"), recipe, lock, wheels)
            if not recipe.base:
                os.link(_root_file_system(recipe, cache, mirror), os.path.join(context, "base.tar"))
            return _podman(work, run, context, recipe, archive)
    except DeviceError as error:
        raise WorkloadError(error.message) from error
    except OSError as error:
        raise WorkloadError(f"{error.filename or archive}: {error.strerror or error}") from error
    finally:
        os.umask(umask)


def _fill(tree: str, recipe: Recipe, lock: Lock, wheels: Mapping[str, str]) -> None:
    """The runtime environment, each file hashed on its way from its wheel."""
    site = os.path.join(tree, site_packages(lock.python))
    os.makedirs(site)
    os.makedirs(os.path.join(tree, "bin"))
    os.symlink(recipe.interpreter, os.path.join(tree, "bin", "python"))
    os.symlink("python", os.path.join(tree, "bin", "python3"))
    files = {**skeleton(recipe), f"{site_packages(lock.python)}/edgeai-immutable.pth": _PTH}
    for name, text in files.items():
        with open(os.path.join(tree, name), "x", encoding="utf-8") as stream:
            stream.write(text)
    for package in lock.packages:
        unpack(wheels[package.file], package, site, tree)


def _packages(recipe: Recipe) -> list[str]:
    return sorted({*PACKAGES, *recipe.packages})


def _root_path(recipe: Recipe, cache: str, mirror: str) -> str:
    """Where the tar of Debian packages lies, by what is asked to be in it."""
    content = json.dumps([_packages(recipe), HOOKS, recipe.suite, recipe.architecture, mirror])
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    return os.path.join(cache, f"base-{recipe.suite}-{recipe.architecture}-{key}.tar")


def _root_file_system(recipe: Recipe, cache: str, mirror: str) -> str:
    """The tar of Debian packages, made when the cache has none."""
    packages = _packages(recipe)
    target = _root_path(recipe, cache, mirror)
    with fsutil.flocked(f"{target}.lock", timeout=BUILD_S, purpose="another run makes the root file system"):
        if os.path.exists(target):
            return target
        partial = fsutil.temp_name(target)
        command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=essential"]
        command += [f"--architectures={DEBIAN[recipe.architecture]}", "--include=" + ",".join(packages)]
        command += [f"--customize-hook={hook}" for hook in HOOKS]
        try:
            _run([*command, recipe.suite, partial, *([mirror] if mirror else [])], _epoch(recipe))
            os.replace(partial, target)
        finally:
            fsutil.unlink_quietly(partial)
    return target


def _podman(work: str, run: str, context: str, recipe: Recipe, archive: str) -> dict[str, Any]:
    """Build with a storage of its own below ``work`` (and ``run``), save, note."""
    epoch = _epoch(recipe)
    with open(os.path.join(context, "Containerfile"), "x", encoding="utf-8") as stream:
        stream.write(containerfile(recipe))
    podman = ["podman", f"--root={work}/storage", f"--runroot={run}/run", f"--tmpdir={run}/tmp"]
    podman += ["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
    partial = fsutil.temp_name(archive)
    try:
        options = [
            f"--platform={PLATFORMS[recipe.architecture]}",
            f"--timestamp={epoch}",
            "--format=docker",
            "--layers=false",
            "--quiet",
        ]
        _run([*podman, "build", *options, f"--tag={recipe.reference}", context], epoch)
        saved = [f"--output={partial}", recipe.reference]
        _run([*podman, "save", "--quiet", "--format=docker-archive", *saved], epoch)
        note = {
            "inputs": recipe.inputs,
            "image": recipe.reference,
            "runtime": recipe.runtime,
            "architecture": recipe.architecture,
            "sha256": _digest(partial),
            "size": os.path.getsize(partial),
        }
        os.replace(partial, archive)
        fsutil.write_atomic(note_path(archive), json.dumps(note, indent=1, sort_keys=True).encode() + b"\n")
        return note
    finally:
        fsutil.unlink_quietly(partial)
        shutil.rmtree(os.path.join(work, "storage"), ignore_errors=True)


def _epoch(recipe: Recipe) -> int:
    """Seconds that every file and the image itself are dated with: the wheelhouse's."""
    return calendar.timegm(time.strptime(recipe.created, "%Y-%m-%dT%H:%M:%SZ"))


def _run(command: Sequence[str], epoch: int) -> None:
    """Run a tool to its end. Raises WorkloadError with its last words."""
    environment = dict(os.environ, SOURCE_DATE_EPOCH=str(epoch), LC_ALL="C.UTF-8")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=BUILD_S, env=environment, check=False
        )
    except FileNotFoundError as error:
        raise WorkloadError(
            f"{command[0]}: is not here; install it, or build the image on a machine that has it"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise WorkloadError(f"{command[0]}: not done after {BUILD_S:g} s") from error
    if done.returncode:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-1500:]
        raise WorkloadError(f"{command[0]}: exit status {done.returncode}: {words}")


def _digest(path: str) -> str:
    with open(path, "rb") as stream:
        return hash_file(stream)[0]


def find_lock(house: Wheelhouse, runtime: str, version: str | None, target: Target) -> Lock:
    """The one environment of a wheelhouse for a runtime. Raises WorkloadError that says what there is."""
    found = [
        item
        for item in house.environments
        if item.runtime == runtime and item.target == target and version in (None, item.version)
    ]
    if len(found) != 1:
        have = ", ".join(sorted(item.label for item in house.environments)) or "nothing"
        wanted = f"{runtime}{'==' + version if version else ''} for Python {target.python} on {target.architecture}"
        fix = "name the version" if found else "build the wheelhouse (edgeai.fleet.wheelhouse) with such a device"
        raise WorkloadError(f"{house.where}: has {len(found)} environments of {wanted}; it has {have}; {fix}")
    return house.lock(found[0].package, found[0].version, target)


def ensure(params: Mapping[str, Any], trust: Trust, check: bool) -> dict[str, Any]:
    """Bring the archive that ``params`` (of module server_image) ask for; returns the module's result.

    Raises ReleaseError for a wheelhouse that does not verify, WorkloadError for the rest.
    """
    house, _key = open_wheelhouse(params["wheelhouse"], trust, utc_now(), whole=False)
    target = Target(params["python"] or SUITES.get(params["suite"], ""), params["architecture"])
    lock = find_lock(house, params["runtime"], params["version"], target)
    options = {name: params[name] for name in ("name", "base", "interpreter", "suite")}
    recipe = recipe_for(lock, target.architecture, house.created, packages=tuple(params["packages"]), **options)
    archive = os.path.join(params["dest"], recipe.archive)
    result = {"image": recipe.reference, "path": archive, "inputs": recipe.inputs}
    if not params["refresh"] and whole(archive, recipe):
        return {**read_note(archive), **result, "changed": False}
    if check:
        return dict(result, changed=True)
    wheels = {package.file: wheel_path(params["wheelhouse"], package.file) for package in lock.packages}
    cache = os.path.abspath(params["cache"])
    if params["refresh"] and not recipe.base:
        fsutil.unlink_quietly(_root_path(recipe, cache, params["mirror"]))
    return dict(build(recipe, lock, wheels, archive, cache, params["mirror"]), changed=True, path=archive)

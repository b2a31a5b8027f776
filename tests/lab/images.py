# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""Device images, made from Debian packages alone and kept as tar files under the hash of what decides their content."""

from __future__ import annotations

import os
import time
from pathlib import Path

from . import plan
from .host import run, say
from .state import held

BUILD_TIMEOUT = {True: 900, False: 3600}  # seconds; by "native": emulated dpkg is slow


CHECKOUT = Path(__file__).resolve().parent.parent.parent


def cache_directory() -> Path:
    """Where image tars are kept: EDGEAI_LAB_CACHE, or build/lab/images below the checkout."""
    return Path(os.environ.get("EDGEAI_LAB_CACHE") or CHECKOUT / "build" / "lab" / "images")


def image_tar(
    suite: str, arch: str, native: str, packages: tuple[str, ...] = plan.PACKAGES, more_hooks: tuple[str, ...] = ()
) -> Path:
    """The image's tar file, built when the cache has none. Raises LabError when mmdebstrap fails."""
    hooks = [*plan.image_hooks(arch, native), *more_hooks]
    key = plan.image_key(packages, suite, arch, hooks)
    cache = cache_directory()
    target = cache / f"{suite}-{arch}-{key}.tar"
    if not target.exists():
        with held(cache / f".{target.name}.lock", BUILD_TIMEOUT[arch == native]):  # another lab may be building it
            if not target.exists():
                _build(target, suite, arch, packages, hooks, arch == native)
    return target


def _build(target: Path, suite: str, arch: str, packages: tuple[str, ...], hooks: list[str], native: bool) -> None:
    say(f"building the image {target.name} from Debian packages" + ("" if native else " (emulated: minutes)"))
    started = time.monotonic()
    partial = target.with_name(f".part.{target.name}")
    limit = BUILD_TIMEOUT[native]
    command = ["timeout", "--kill-after=10", str(limit)]  # with all its children
    command += ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--architectures={arch}"]
    command += ["--include=" + ",".join(packages)]
    command += [f"--customize-hook={hook}" for hook in hooks]
    command += [suite, str(partial)]
    if os.environ.get("EDGEAI_LAB_MIRROR"):
        command.append(os.environ["EDGEAI_LAB_MIRROR"])
    try:
        run(command, timeout=limit + 30)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    say(f"image {target.name}: {target.stat().st_size >> 20} MiB in {time.monotonic() - started:.0f} s")

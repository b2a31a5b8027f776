# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Images in containerd's store, brought as archives: a device without a network pulls none."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress

from .errors import KubeedgeError

NAMESPACE = "k8s.io"  # where the CRI looks
_IMPORT_SECONDS = 1800


def _ctr(arguments: Sequence[str], seconds: float) -> str:
    command = ["ctr", "--namespace", NAMESPACE, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise KubeedgeError(f"ctr {arguments[0]}: no end after {seconds:g} s; see containerd") from error
    except OSError as error:
        raise KubeedgeError(f"ctr: {error.strerror}; install containerd") from error
    if done.returncode:
        raise KubeedgeError("ctr {}: {}".format(" ".join(arguments), (done.stderr or done.stdout).strip()[-400:]))
    return done.stdout


def present() -> set[str]:
    """Return the names of the images that are there. Raises KubeedgeError when containerd does not answer."""
    return {line.strip() for line in _ctr(["images", "list", "--quiet"], 60).splitlines() if line.strip()}


def bring(archive: str, names: Sequence[str]) -> None:
    """Import an archive, and see that it held what it should. Raises KubeedgeError naming what it did hold."""
    before = present()
    _ctr(["images", "import", archive], _IMPORT_SECONDS)
    after = present()
    missing = [name for name in names if name not in after]
    if missing:
        held = ", ".join(sorted(after - before)) or "nothing new"
        raise KubeedgeError(f"{archive}: does not hold {', '.join(missing)}, but {held}; name what it holds")


def containers() -> list[str]:
    """Return the containers of pods, running or not. Raises KubeedgeError when containerd does not answer."""
    return sorted(_ctr(["containers", "list", "--quiet"], 60).split())


def end(container: str) -> None:
    """Kill a container's processes and remove it; one that is half gone already is no error."""
    for arguments in (["tasks", "delete", "--force", container], ["containers", "delete", container]):
        with suppress(KubeedgeError):
            _ctr(arguments, 60)


def forget(names: Sequence[str]) -> None:
    """Remove images. Raises KubeedgeError."""
    _ctr(["images", "remove", *names], 300)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Taking a device's directory away, and nothing but a device's directory.

``edge_root: /var/lib`` is one slip of a finger away from ``edge_root: /var/lib/edgeai``. So a directory that holds
something else is neither set up nor removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from typing import NamedTuple

from . import fsutil
from .errors import DeviceError
from .settings import SETTINGS_FILE

#: Everything that the collection puts directly below edge_root, and what a file system of its own has there.
KNOWN = frozenset(
    (
        "blobs",
        "engine",
        "journal.jsonl",
        "journal.jsonl.damaged",
        "lib",
        "log",
        "models",
        "releases",
        "run",
        "tls",
        "trust",
        "venv",
        SETTINGS_FILE,
        "lost+found",
    )
)
#: Held by a supervisor and by a model server for as long as they run.
LOCKS = ("run/supervisor.pid", "run/server.lock")
FOREIGN = ("lost+found",)
SHALLOW = ("bin", "boot", "dev", "etc", "home", "lib", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv")
SYSTEM = frozenset(("/", *("/" + name for name in SHALLOW), "/sys", "/tmp", "/usr", "/var"))


class Look(NamedTuple):
    """What is at a path: its entries (None when nothing is there), and whether it is a link or a mount point."""

    entries: tuple[str, ...] | None
    link: bool = False
    mount: bool = False
    directory: bool = True


def look(path: str) -> Look:
    """Look at ``path``. Raises DeviceError(bad_input) when it cannot be read."""
    if not os.path.lexists(path):
        return Look(None)
    if not os.path.isdir(path):
        return Look((), os.path.islink(path), False, False)
    try:
        entries = tuple(sorted(os.listdir(path)))
    except OSError as error:
        raise DeviceError("bad_input", f"{path}: {error.strerror}; see that it can be read") from error
    return Look(entries, os.path.islink(path), os.path.ismount(path))


def _strangers(entries: tuple[str, ...]) -> list[str]:
    return [name for name in entries if name not in KNOWN and not name.startswith(fsutil.TEMP_PREFIX)]


def _place(path: str) -> str:
    if not os.path.isabs(path) or os.path.normpath(path) in SYSTEM:
        return "give a directory of its own, for example /var/lib/edgeai"
    return ""


def setup_refusal(path: str, found: Look) -> str:
    """Why ``path`` must not become a device's directory; empty when it may. Pure."""
    if _place(path) or not found.directory:
        return _place(path) or "it is not a directory; move it away"
    strangers = _strangers(found.entries or ())
    if strangers and SETTINGS_FILE not in (found.entries or ()):
        return f"it holds other things ({_few(strangers)}); give a directory of its own, or move them away"
    return ""


def removal_refusal(path: str, found: Look) -> str:
    """Why ``path`` must not be removed; empty when it may: it is a device's directory and holds nothing else. Pure."""
    if _place(path):
        return "it is no device's directory and stays; " + _place(path)
    if found.link or not found.directory:
        return "it is no directory; remove it by hand when it is no longer needed"
    strangers = _strangers(found.entries or ())
    if strangers:
        return f"it holds things that are not of edgeai.fleet ({_few(strangers)}) and stays; move them away"
    mine = [name for name in found.entries or () if name not in FOREIGN]
    if mine and not {SETTINGS_FILE, "trust", "blobs", "releases", "engine"} & set(mine):
        return f"it does not look like a device's directory ({_few(mine)}) and stays; remove it by hand"
    return ""


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _is_locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def plan_removal(path: str) -> list[str]:
    """What would be removed: entries below ``path``, and ``.`` for itself (a mount point stays). Reads only.

    Raises DeviceError: bad_input when it must not be removed, busy while its processes run.
    """
    found = look(path)
    if found.entries is None:
        return []
    refused = removal_refusal(path, found)
    if refused:
        raise DeviceError("bad_input", f"edge_root: {path!r}: {refused}")
    if any(_is_locked(os.path.join(path, name)) for name in LOCKS):
        raise DeviceError("busy", f"{path}: its supervisor or model server runs; stop it first, then remove it")
    names = [name for name in found.entries if name not in FOREIGN or not found.mount]
    return names if found.mount else [*names, "."]


def remove(path: str, names: list[str]) -> None:
    """Remove what `plan_removal` named. The settings go last: what is left after a crash is still known as a device's.

    Raises DeviceError(bad_input) for what cannot be removed.
    """
    try:
        for name in sorted(set(names) - {"."}, key=lambda name: (name == SETTINGS_FILE, name)):
            entry = os.path.join(path, name)
            if os.path.isdir(entry) and not os.path.islink(entry):
                shutil.rmtree(entry)
            else:
                fsutil.remove(entry)
        if "." in names:
            os.rmdir(path)
            fsutil.fsync_dir(os.path.dirname(os.path.normpath(path)))
    except OSError as error:
        raise DeviceError("bad_input", f"{error.filename or path}: {error.strerror}; see who still uses it") from error

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Guarded, read-only access to sysfs, procfs and the device tree below a root that can be moved."""

from __future__ import annotations

import os
import stat

READ_LIMIT = 4 * 1024 * 1024  # /proc/cpuinfo of a 512-core server is about 1 MiB; nothing read here is larger
_MAX_LINKS = 40


class Tree:
    """A file tree of a machine: ``/`` itself, or a directory that holds (part of) one.

    Paths are given as on the machine (``/sys/class/accel``). Below a root other than ``/`` symbolic links are resolved
    as chroot would, because ``/proc/device-tree`` is an absolute link: followed naively, it answers for this machine.
    Nothing here raises: what cannot be read is absent. Only regular files are opened, never a device node.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.abspath(root)

    @property
    def is_host(self) -> bool:
        """True when the tree is this machine's own."""
        return self.root == "/"

    def locate(self, path: str, follow: bool = True) -> str | None:
        """The path on this machine which ``path`` names, its links resolved inside the root; None for a link loop.

        With ``follow=False`` the last component is not resolved.
        """
        if self.is_host:
            return path
        pending = [part for part in reversed(path.split("/")) if part]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == ".":
                continue
            if part == "..":
                del done[-1:]
                continue
            here = os.path.join(self.root, *done, part)
            target = _readlink(here) if pending or follow else None
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            if target.startswith("/"):
                done = []
            pending.extend(piece for piece in reversed(target.split("/")) if piece)
        return os.path.join(self.root, *done)

    def read(self, path: str) -> bytes | None:
        """The bytes of a regular file (at most READ_LIMIT), or None."""
        place = self.locate(path)
        if place is None:
            return None
        try:
            if not stat.S_ISREG(os.stat(place).st_mode):
                return None
            with open(place, "rb") as handle:
                return handle.read(READ_LIMIT)
        except OSError:
            return None

    def text(self, path: str) -> str | None:
        """The file as stripped text, undecodable bytes replaced; NULs (device tree) are stripped at the ends."""
        raw = self.read(path)
        return None if raw is None else raw.decode("utf-8", "replace").strip("\x00 \t\r\n")

    def strings(self, path: str) -> list[str]:
        """A device-tree string list: NUL-separated, no empty members."""
        raw = self.read(path)
        if raw is None:
            return []
        return [piece.decode("utf-8", "replace") for piece in raw.split(b"\x00") if piece]

    def names(self, path: str) -> list[str]:
        """Sorted entries of a directory; empty when it is absent or unreadable."""
        place = self.locate(path)
        try:
            return sorted(os.listdir(place)) if place is not None else []
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Whether anything (file, directory, device node) is there."""
        place = self.locate(path)
        return place is not None and os.path.exists(place)

    def link_name(self, path: str) -> str | None:
        """The last component of where a symbolic link points (the way sysfs names a driver), or None."""
        place = self.locate(path, follow=False)
        target = _readlink(place) if place is not None else None
        return os.path.basename(target.rstrip("/")) or None if target else None


def _readlink(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None

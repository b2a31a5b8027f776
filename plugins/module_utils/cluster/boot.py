# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The kernel's command line of a Raspberry Pi: one line in one file, which only counts after a reboot."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..device import fsutil
from ..device.hostfs import Tree
from .errors import ClusterError

#: Newer systems first: where /boot/firmware is mounted, a cmdline.txt in /boot is only a note that it has moved.
PLACES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
CGROUP = ("cgroup_memory=1", "cgroup_enable=memory")


class Found(NamedTuple):
    """The file, its text now and as it is to be, and the arguments that the running kernel lacks."""

    path: str
    before: str
    after: str
    missing: list[str]

    @property
    def changed(self) -> bool:
        """Whether the file is to be written."""
        return self.before != self.after


def look(root: str, wanted: Sequence[str]) -> Found:
    """Compare a machine's tree with what is wanted. Raises ClusterError."""
    tree = Tree(root)
    path = place([item for item in PLACES if tree.exists(item)])
    before = (tree.read(path) or b"").decode("utf-8", "replace")
    return Found(path, before, with_arguments(before, wanted, path), missing(tree.text("/proc/cmdline") or "", wanted))


def write(root: str, found: Found) -> None:
    """Write the file, whole or not at all: half a command line boots nothing. Raises ClusterError."""
    place_here = Tree(root).locate(found.path) or found.path
    try:
        mode = os.stat(place_here).st_mode & 0o777
        fsutil.write_atomic(place_here, found.after.encode("utf-8"), mode)
    except OSError as error:
        raise ClusterError(f"{found.path}: {error.strerror}; see that the boot partition is writable") from error


def missing(line: str, wanted: Sequence[str]) -> list[str]:
    """The arguments that a command line lacks; cgroup_enable=cpuset does not stand for cgroup_enable=memory."""
    there = line.split()
    return [argument for argument in wanted if argument not in there]


def with_arguments(text: str, wanted: Sequence[str], path: str) -> str:
    """The text of cmdline.txt with the arguments in it, on its single line; unchanged when they are there already.

    What takes an argument back (cgroup_disable=memory) is removed: the kernel heeds it whatever else is said.
    Raises ClusterError for a file of several lines or none: the firmware reads the first line only.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        raise ClusterError(f"{path}: has {len(lines)} lines, the firmware reads one; mend it by hand and run again")
    words = lines[0].split()
    kept = [word for word in words if word not in _opposites(wanted)]
    added = missing(lines[0], wanted)
    if kept == words and not added:
        return text
    return " ".join([*kept, *added]) + "\n"


def _opposites(wanted: Iterable[str]) -> set[str]:
    pairs = (word.partition("=") for word in wanted)
    return {
        f"{name.replace('_enable', '_disable')}={value}" for name, mark, value in pairs if "_enable" in name and mark
    }


def place(exists: Sequence[str]) -> str:
    """The file that the firmware reads, of those that are there. Raises ClusterError when there is none."""
    for path in PLACES:
        if path in exists:
            return path
    raise ClusterError(
        "no {}: this is no Raspberry Pi, or its boot partition is not mounted; mount it, or leave boot "
        "arguments out".format(" and no ".join(PLACES))
    )

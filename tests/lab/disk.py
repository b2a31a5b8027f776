# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""The small disk of a device, for /var/lib/edgeai: an ext4 image, or a tmpfs where loop devices are missing."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import LabError
from .host import Namespace, say

MIB = 1 << 20
# The journal is not written by itself every five seconds: a power cut loses whatever was not synced, every time.
OPTIONS = "loop,commit=600"
BALLAST = "ballast"
# linux/ext4: go down at once and write nothing more, not even the journal. What was not synced is lost.
SHUTDOWN = 0x8004587D
SHUTDOWN_NO_LOG_FLUSH = 2
PYTHON_SHUTDOWN = (
    "import fcntl,os,struct,sys;"
    f"fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),{SHUTDOWN},struct.pack('I',{SHUTDOWN_NO_LOG_FLUSH}))"
)


class Disk:
    """One device's disk. ``root`` is what the device sees; the ballast of ``fill`` lies beside it, out of its sight."""

    def __init__(self, directory: Path, mib: int, namespace: Namespace) -> None:
        self.image = directory / "disk.ext4"
        self.mount_point = directory / "disk"
        self.root = self.mount_point / "root"
        self.mib = mib
        self.namespace = namespace

    def kind(self) -> str | None:
        """The file system that is mounted (ext4 or tmpfs), None when none is."""
        words = ["findmnt", "--noheadings", "--output", "FSTYPE", "--mountpoint", str(self.mount_point)]
        return self.namespace.run(words, check=False).stdout.strip() or None

    def ensure(self) -> None:
        """Make and mount the disk; one that is mounted stays as it is."""
        if self.kind():
            return
        self.mount_point.mkdir(parents=True, exist_ok=True)
        if not self.image.exists():
            self._format()
        mounted = self.namespace.run(["mount", "-o", OPTIONS, str(self.image), str(self.mount_point)], check=False)
        if mounted.returncode != 0:
            say(f"no loop device ({mounted.stderr.strip()}): a tmpfs instead; a power cut loses nothing of it")
            size = f"size={self.mib}m,mode=0755"
            self.namespace.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.mount_point)])
        self.namespace.run(["mkdir", "-p", "-m", "0755", str(self.root)])

    def _format(self) -> None:
        partial = self.image.with_suffix(".part")
        with open(partial, "wb") as handle:
            handle.truncate(self.mib * MIB)
        options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
        self.namespace.run(["mkfs.ext4", *options, str(partial)])
        os.replace(partial, self.image)

    def unmount(self) -> None:
        if self.kind():
            self.namespace.run(["umount", str(self.mount_point)])

    def lose_power(self) -> None:
        """Drop what was not synced, as a disk does that loses power, and mount again: the journal is replayed.

        Call it when no process uses the disk any more. A tmpfs keeps everything.
        """
        if self.kind() != "ext4":
            return
        self.stop_writes()
        self.unmount()
        self.ensure()

    def stop_writes(self) -> None:
        self.namespace.run(["python3", "-c", PYTHON_SHUTDOWN, str(self.mount_point)])

    def fill(self, leave_mib: float) -> None:
        """Take the free space, all but ``leave_mib`` MiB."""
        self.drain()
        ballast = self.mount_point / BALLAST
        size = self.free() - int(leave_mib * MIB)
        if size <= 0:
            raise LabError(
                f"{self.mount_point}: only {self.free() / MIB:.1f} MiB are free, less than --leave-mib {leave_mib:g}"
            )
        self.namespace.run(["fallocate", "--length", str(size), str(ballast)])

    def drain(self) -> None:
        """Give back what fill took."""
        self.namespace.run(["rm", "-f", str(self.mount_point / BALLAST)])

    def free(self) -> int:
        """Bytes that the device can still write."""
        done = self.namespace.run(["stat", "-f", "-c", "%a %S", str(self.mount_point)])
        blocks, size = done.stdout.split()
        return int(blocks) * int(size)

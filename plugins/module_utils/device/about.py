# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which program is running: its version, the file it was started from, and that file's digest."""

from __future__ import annotations

import hashlib
import os
import sys

VERSION = "0.1.0"  # the collection's version in galaxy.yml


def program_path() -> str:
    """Return the absolute path this program was started from (the bundle, or a directory with a __main__.py)."""
    return os.path.abspath(sys.argv[0])


def file_digest(path: str) -> str | None:
    """Return ``sha256:<hex>`` of a small file, None when it cannot be read as one."""
    try:
        with open(path, "rb") as handle:
            return "sha256:" + hashlib.sha256(handle.read()).hexdigest()
    except OSError:
        return None


def read_boot_id(path: str = "/proc/sys/kernel/random/boot_id") -> str:
    """Return the kernel's id of this boot, ``unknown`` where there is none."""
    try:
        with open(path, encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return "unknown"

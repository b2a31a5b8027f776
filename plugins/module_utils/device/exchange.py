# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Put a new directory in the place of an old one in one step."""

from __future__ import annotations

import ctypes
import os

from .fsutil import fsync_dir, remove_tree, temp_name

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def _exchange(one: str, other: str) -> bool:
    """Let two names change places atomically; False where the kernel, libc or file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def replace_directory(new: str, path: str) -> None:
    """Make the directory ``new`` be ``path``; what was there is removed. Both lie in the same directory; durable.

    Where names cannot be exchanged, there is a moment without ``path`` between two renames. Raises OSError.
    """
    if not os.path.lexists(path):
        os.rename(new, path)
        fsync_dir(os.path.dirname(path))
        return
    if not _exchange(new, path):
        aside = temp_name(path)
        os.rename(path, aside)
        os.rename(new, path)
        new = aside
    fsync_dir(os.path.dirname(path))
    remove_tree(new)

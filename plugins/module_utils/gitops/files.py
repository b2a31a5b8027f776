# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Read and write files below a directory that others work in too: never through a symbolic link, never half."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile

from .errors import RepoError

MAX_FILE = 16 * 1024 * 1024


def read(root: str, path: str) -> bytes | None:
    """Return a file's content, None when it is not there. Raises RepoError for what is not a plain small file."""
    full = _inside(root, path)
    try:
        with open(os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as handle:
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                raise RepoError(f"{full}: is not a plain file: move it away")
            data = handle.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RepoError(
            f"{full}: cannot be read: {error.strerror}; is it a link or a directory? Move it away"
        ) from error
    if len(data) > MAX_FILE:
        raise RepoError(f"{full}: more than {MAX_FILE} bytes: that is not a file of a fleet repository")
    return data


def write(root: str, path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file as a whole or not at all; makes its directories. Raises RepoError."""
    full = _inside(root, path)
    try:
        os.makedirs(os.path.dirname(full), exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=os.path.dirname(full), prefix=".edgeai-")
        try:
            with open(descriptor, "wb") as handle:
                handle.write(content)
                os.fchmod(handle.fileno(), mode)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(name, full)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise RepoError(f"{full}: cannot be written: {error.strerror}") from error


def remove(root: str, path: str) -> None:
    """Remove a file, and directories that are empty then. Raises RepoError."""
    full = _inside(root, path)
    try:
        os.unlink(full)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RepoError(f"{full}: cannot be removed: {error.strerror}") from error
    folder = os.path.dirname(full)
    with contextlib.suppress(OSError):
        while folder != root and folder.startswith(root):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _inside(root: str, path: str) -> str:
    """The full path, after a look that no directory on the way is a link that leads elsewhere."""
    current = root
    for part in path.split("/")[:-1]:
        current = os.path.join(current, part)
        if os.path.islink(current):
            raise RepoError(f"{current}: is a symbolic link, and files behind it are not touched: replace the link")
    return os.path.join(root, path)

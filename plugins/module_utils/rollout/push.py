# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the controller sends when a release travels over the Ansible connection. Reads files, talks to no device."""

from __future__ import annotations

import base64
import os
import secrets
import shlex
from dataclasses import dataclass
from typing import Any

from ..release.manifest import FileEntry, parse_manifest
from .errors import RolloutError

MAX_SIGNATURE = 4 * 1024 * 1024
MAX_MANIFEST = 4 * 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """One file to send: where it lies here, what it is called there."""

    local: str
    sha256: str
    size: int


@dataclass(frozen=True)
class PushRelease:
    """A release on the controller, ready to be sent: the two small files inline (base64), the rest by name."""

    directory: str
    manifest: str
    signature: str
    files: dict[str, FileEntry]

    def check_missing(self, missing: Any) -> list[Blob]:
        """The blobs the device asked for, each once; `RolloutError` when it asks for what the release does not list.

        A device names relative paths, and this side opens files by them: only listed ones, with the listed digest.
        """
        blobs: dict[str, Blob] = {}
        for item in missing if isinstance(missing, list) else []:
            path, digest = str(item.get("path")), str(item.get("sha256"))
            entry = self.files.get(path)
            if entry is None or entry.sha256 != digest:
                raise RolloutError(
                    f"the device asks for {path!r} ({digest}), which is not in {self.directory}/release.json"
                )
            local = os.path.join(self.directory, *path.split("/"))
            try:
                size = os.stat(local).st_size
            except OSError as error:
                raise RolloutError(f"{local}: {error.strerror}; the release directory is not complete") from error
            if size != entry.size:
                raise RolloutError(f"{local} has {size} bytes, release.json says {entry.size}: build the release again")
            blobs[digest] = Blob(local, digest, size)
        return list(blobs.values())


def open_release(directory: str, digest: str | None) -> PushRelease:
    """Read release.json and model.sig; `RolloutError`/`ReleaseError` when they are not there or not the release meant.

    ``digest``: the expected release digest (``sha256:…``), None to accept any.
    """
    raw = _read(os.path.join(directory, "release.json"), MAX_MANIFEST)
    signature = _read(os.path.join(directory, "model.sig"), MAX_SIGNATURE)
    manifest = parse_manifest(raw, os.path.join(directory, "release.json"))
    if digest and manifest.digest != digest:
        raise RolloutError(
            f"{directory}/release.json is {manifest.digest}, the plan says {digest}: "
            "the release was changed after it was planned; plan again"
        )
    entries = manifest.files([variant.id for variant in manifest.variants])
    return PushRelease(
        directory, base64.b64encode(raw).decode("ascii"), base64.b64encode(signature).decode("ascii"),
        {entry.path: entry for entry in entries},
    )  # fmt: skip


def release_directory(releases: Any, model: Any, version: Any) -> str:
    """``<edge_releases>/<model>/<version>``; `RolloutError` when one of the three is not known."""
    if not releases:
        raise RolloutError(
            "source type push needs edge_releases (the controller's directory of releases) or source.path"
        )
    if not model or not version:
        raise RolloutError("source type push needs model and version to find the release under edge_releases")
    return os.path.join(str(releases), str(model), str(version))


def inbox_path(edge_root: str) -> str:
    """A fresh directory name under the device's ``inbox``."""
    return edge_root.rstrip("/") + "/inbox/" + secrets.token_hex(16)


def make_inbox_command(inbox: str) -> str:
    """The shell command that makes the inbox, entered by nobody else; fails when edge_root does not exist."""
    parent = os.path.dirname(inbox)
    base = os.path.dirname(parent)
    return "cd {} && umask 077 && mkdir -p {} && mkdir {}".format(
        *tuple(shlex.quote(path) for path in (base, parent, inbox))
    )


def positive(value: Any) -> int:
    """A number of seconds, 0 when there is none."""
    try:
        return max(0, int(value))
    except (TypeError, ValueError):
        return 0


def truth(value: Any) -> bool:
    """A yes or no that may have come as text."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "no", "off", "false", "n", "f")
    return bool(value)


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as handle:
            content = handle.read(limit + 1)
    except OSError as error:
        raise RolloutError(f"{path}: {error.strerror}; is this a signed release directory?") from error
    if len(content) > limit:
        raise RolloutError(f"{path} is larger than {limit} bytes")
    return content

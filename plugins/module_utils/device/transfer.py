# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Where a device takes a release from: a directory it can read, an HTTPS server, or what the controller pushed.

Every source gives the manifest and its signature first (small, bounded), and then single files into a `BlobSink`, in
pieces, never more bytes than the manifest lists. Nothing here trusts anything: the caller verifies the signature before
the first `fetch`, and the sink verifies the digest.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..release.digests import open_regular, read_limited
from ..release.errors import ReleaseError
from ..release.model import MANIFEST_NAME, MAX_MANIFEST, SIGNATURE_NAME
from .blobs import BlobSink
from .errors import DeviceError
from .readback import CHUNK

if TYPE_CHECKING:
    from ..release.manifest import FileEntry

MAX_SIGNATURE = 4 * 1024 * 1024


class Source(Protocol):
    """One release, wherever it is."""

    def manifest(self) -> bytes:
        """The bytes of release.json."""

    def signature(self) -> bytes:
        """The bytes of model.sig."""

    def fetch(self, entry: FileEntry, sink: BlobSink) -> None:
        """Write the file to the sink, from ``sink.offset`` on where the source can. Raises DeviceError."""

    def finish(self) -> None:
        """The release is in the store: leftovers of the transfer can go."""


@dataclass(frozen=True)
class Patience:
    """How long a transfer may take: ``until`` on the monotonic clock, ``socket`` seconds for one network operation."""

    until: float
    socket: float = 30.0

    def check(self, what: str) -> None:
        """Raise DeviceError(deadline) when the time is over."""
        if time.monotonic() >= self.until:
            raise DeviceError("deadline", f"{what}: not finished in time; run again to continue where it stopped")

    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.until - time.monotonic())


class FileSource:
    """A release directory on a file system of the device: ``path`` itself, or ``path/<model>/<version>``."""

    def __init__(self, path: str, model: str, version: str, patience: Patience) -> None:
        below = os.path.join(path, model, version)
        direct = os.path.isfile(os.path.join(path, MANIFEST_NAME))
        self.path = path if direct else below
        self._patience = patience
        if not os.path.isfile(os.path.join(self.path, MANIFEST_NAME)):
            raise DeviceError("unreachable", f"source.path: neither {path} nor {below} holds a {MANIFEST_NAME}")

    def _read(self, name: str, limit: int) -> bytes:
        try:
            return read_limited(os.path.join(self.path, name), limit)
        except ReleaseError as exc:
            raise DeviceError("unreachable", f"source.path: {exc}") from exc

    def manifest(self) -> bytes:
        """The bytes of release.json."""
        return self._read(MANIFEST_NAME, MAX_MANIFEST)

    def signature(self) -> bytes:
        """The bytes of model.sig."""
        return self._read(SIGNATURE_NAME, MAX_SIGNATURE)

    def fetch(self, entry: FileEntry, sink: BlobSink) -> None:
        """Copy the file in pieces, always from its start: reading it again costs less than a doubt."""
        sink.restart()
        path = os.path.join(self.path, entry.path)
        try:
            with open_regular(path) as handle:
                _copy(handle, entry, sink, self._patience)
        except ReleaseError as exc:
            raise DeviceError("unreachable", f"source.path: {exc}") from exc

    def finish(self) -> None:
        """Nothing to do: the directory belongs to somebody else."""


class PushSource:
    """What the controller sent: manifest and signature inline, the missing files in the directory ``inbox``.

    A file is called by its hex digest there. It is taken over by a rename when nobody else can write to it, and copied
    otherwise (with `become`, the connection's own user still owns what it uploaded).
    """

    def __init__(self, manifest: str, signature: str, inbox: str | None, edge_root: str, patience: Patience) -> None:
        self._manifest = _decode("source.manifest", manifest, MAX_MANIFEST)
        self._signature = _decode("source.signature", signature, MAX_SIGNATURE)
        self.inbox = inbox
        self._owned = os.path.join(os.path.abspath(edge_root), "inbox")
        self._patience = patience

    def manifest(self) -> bytes:
        """The bytes of release.json."""
        return self._manifest

    def signature(self) -> bytes:
        """The bytes of model.sig."""
        return self._signature

    def fetch(self, entry: FileEntry, sink: BlobSink) -> None:
        """Take the file out of the inbox."""
        path = os.path.join(self.inbox, entry.sha256) if self.inbox else None
        try:
            if path is None:
                raise FileNotFoundError
            if sink.adopt(path):
                return
            sink.restart()
            with open_regular(path) as handle:
                _copy(handle, entry, sink, self._patience)
        except (FileNotFoundError, ReleaseError) as exc:
            raise DeviceError(
                "unreachable",
                f"{entry.path}: was not pushed (looked for {path or 'an inbox; source.inbox is not set'}); "
                "ask with source.plan=true what is missing, upload that, and run again",
            ) from exc

    def finish(self) -> None:
        """Remove the inbox when it is below ``<edge_root>/inbox``: its files have their place in the store now."""
        if self.inbox is None or os.path.dirname(os.path.abspath(self.inbox)) != self._owned:
            return
        from .fsutil import remove_tree

        try:
            remove_tree(self.inbox)
        except OSError:
            return  # left over, not harmful; the next recovery or the controller removes it


def _decode(field: str, text: Any, limit: int) -> bytes:
    if not isinstance(text, str) or not text:
        raise DeviceError("bad_input", f"{field}: is missing; with source.type=push it holds the file in base64")
    if len(text) > limit * 4 // 3 + 4:
        raise DeviceError("bad_input", f"{field}: longer than {limit} bytes")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise DeviceError("bad_input", f"{field}: is no base64 ({exc})") from exc


def _copy(handle: Any, entry: FileEntry, sink: BlobSink, patience: Patience) -> None:
    size = os.fstat(handle.fileno()).st_size
    if size != entry.size:
        raise DeviceError(
            "digest_mismatch", f"{entry.path}: the source has {size} bytes, release.json lists {entry.size}; refused"
        )
    buffer = memoryview(bytearray(CHUNK))
    while sink.offset < entry.size:
        patience.check(entry.path)
        count = handle.readinto(buffer[: min(CHUNK, entry.size - sink.offset)])
        if not count:
            raise DeviceError("digest_mismatch", f"{entry.path}: the source became shorter while it was read")
        sink.write(buffer[:count])


def open_source(raw: dict[str, Any], model: str, version: str, edge_root: str, patience: Patience) -> Source:
    """The source that the module's ``source`` argument describes. Raises DeviceError(bad_input)."""
    from .http_source import HttpSource

    kind = raw.get("type")
    if kind == "file":
        return FileSource(_need(raw, "path", "file"), model, version, patience)
    if kind == "push":
        return PushSource(raw.get("manifest") or "", raw.get("signature") or "", raw.get("inbox"), edge_root, patience)
    if kind == "https":
        url = _need(raw, "url", "https")
        return HttpSource(
            url, model, version, patience, raw.get("ca_path"), raw.get("headers_file"), bool(raw.get("allow_http"))
        )
    raise DeviceError("bad_input", f"source.type: {kind!r} is none of file, https, push")


def _need(raw: dict[str, Any], name: str, kind: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        raise DeviceError("bad_input", f"source.{name}: is missing; source.type={kind} needs it")
    return value

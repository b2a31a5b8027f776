# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The certificate a server shows: read, watched for renewal, and the identity of clients on this device."""

from __future__ import annotations

import os
import ssl
import subprocess

from ..device import fsutil, pem
from ..device.errors import DeviceError
from ..device.settings import Tls
from ..device.tls import LOCAL_CLIENT, Pair, read_pair, server_context
from . import loader

_TIMEOUT_S = 30.0

Stamp = tuple[tuple[int, int, int], ...]


class CertificateKeeper:
    """Certificate, key and client CA of one server process. ``pair`` is what it shows now."""

    def __init__(self, edge_root: str, tls: Tls) -> None:
        self._root = edge_root
        self._tls = tls
        self._stamp: Stamp = ()
        self._local_client: str | None = None
        self.pair: Pair

    def first_context(self) -> ssl.SSLContext:
        """Read everything and return the context to listen with. Raises DeviceError when there is no way to listen."""
        if self._tls.client_ca:
            self._local_client = make_local_client(self._root)
        return self.load()

    def load(self) -> ssl.SSLContext:
        """Read the files again and return a context with what they hold now. Raises DeviceError and keeps the old."""
        self._stamp = self._look()
        pair = read_pair(self._tls)
        context = server_context(pair, self._local_client)
        self.pair = pair
        return context

    def changed(self) -> bool:
        """Whether the files are others than when they were last read (also when they could not be used then)."""
        return self._look() != self._stamp

    def _look(self) -> Stamp:
        return tuple(_stat(path) for path in (self._tls.certificate, self._tls.key, self._tls.client_ca) if path)


def _stat(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def make_local_client(edge_root: str) -> str:
    """Write ``run/client.pem``, the identity of clients on this device for as long as this server runs.

    Returns its certificate (PEM). Only this server accepts it. Made in a short-lived process, so that the server does
    not keep the cryptography library in memory. Raises DeviceError(server).
    """
    path = os.path.join(edge_root, LOCAL_CLIENT)
    command = [*loader.program(), "local-client", "--root", edge_root]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False)
        failed = done.stderr.decode("utf-8", "replace")[-500:] if done.returncode else ""
        text = "" if failed else fsutil.read_bounded(path, 1 << 16).decode("ascii")
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise DeviceError("server", f"{path}: could not be made: {exc}") from exc
    if failed:
        raise DeviceError("server", f"{path}: could not be made: {failed}")
    pem.certificates(text, path)
    # The file holds the key first: whoever trusts the certificate must not be given that.
    return text[text.index("-----BEGIN CERTIFICATE-----") :]

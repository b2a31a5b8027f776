# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a service tells systemd about itself (sd_notify), and what systemd hands it: watchdog interval and sockets.

Without systemd (``NOTIFY_SOCKET`` is not set) everything here does nothing and says so. No error is ever raised: a
service must not fail because its manager did not listen.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import Any

#: The first descriptor systemd passes with socket activation (SD_LISTEN_FDS_START).
FIRST_FD = 3
_SEND_TIMEOUT_S = 1.0


def notify(environ: Mapping[str, str] | None = None, **fields: Any) -> bool:
    """Send ``fields`` to the service manager; returns whether it was sent.

    Names are sd_notify's in any case (``notify(ready=1, status="serving")`` sends ``READY=1`` and ``STATUS=serving``);
    a value of None is left out, True is 1. A line break in a value becomes a space: it would begin another field.
    The message is a datagram: when this returns True the manager has it queued, in order.
    """
    path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    message = encode(fields)
    if not path or path[0] not in "/@" or not message:
        return False
    # A leading @ is the abstract namespace, which the kernel writes with a NUL.
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(_SEND_TIMEOUT_S)  # a manager that does not read must not hold the service up for ever
            sock.connect(address)
            sock.sendall(message)
    except OSError:
        return False
    return True


def encode(fields: Mapping[str, Any]) -> bytes:
    """Return the bytes of one message: ``NAME=value`` lines."""
    lines = []
    for name, value in fields.items():
        if value is not None:
            text = str(int(value) if isinstance(value, bool) else value)
            lines.append("{}={}".format(name.upper(), " ".join(text.splitlines())))
    return "\n".join(lines).encode("utf-8", "replace")


def watchdog_interval(environ: Mapping[str, str] | None = None, pid: int | None = None) -> float | None:
    """Return within how many seconds systemd wants a WATCHDOG=1, None when it does not watch this process.

    Send one at least every half of it.
    """
    env = os.environ if environ is None else environ
    text = env.get("WATCHDOG_USEC", "")
    watched = env.get("WATCHDOG_PID", "")
    if not _is_count(text) or int(text) == 0:
        return None
    if watched and (not _is_count(watched) or int(watched) != (os.getpid() if pid is None else pid)):
        return None  # meant for the process that started this one
    return int(text) / 1e6


def listen_fds(environ: MutableMapping[str, str] | None = None, pid: int | None = None) -> dict[int, str]:
    """Return the descriptors that systemd opened for this process (socket activation), each with its name.

    They are made non-inheritable, and the variables are removed, so that no child takes them for its own.
    """
    env = os.environ if environ is None else environ
    count, meant_for = env.get("LISTEN_FDS", ""), env.get("LISTEN_PID", "")
    if not _is_count(count) or meant_for != str(os.getpid() if pid is None else pid):
        return {}
    names = env.get("LISTEN_FDNAMES", "").split(":")
    found = {}
    for index in range(int(count)):
        descriptor = FIRST_FD + index
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            continue
        found[descriptor] = names[index] if index < len(names) and names[index] else "unknown"
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        env.pop(name, None)
    return found


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Ask systemd about the model server's unit, and have it started once more."""

from __future__ import annotations

import os
import subprocess

from . import units
from .errors import DeviceError

UNIT = "edgeai-server.service"
BOOTED = "/run/systemd/system"
_TIMEOUT_S = 20.0


def managed(booted: str = BOOTED) -> bool:
    """Say whether this machine is run by systemd."""
    return os.path.isdir(booted)


def _systemctl(*arguments: str) -> tuple[int, str]:
    """Run systemctl; its exit status and output. Raises DeviceError (unreachable) when systemd does not answer."""
    try:
        done = subprocess.run(
            ["systemctl", "--no-pager", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            env=dict(os.environ, LC_ALL="C", SYSTEMD_COLORS="0"),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise DeviceError("unreachable", f"systemctl {arguments[0]}: {exc}") from exc
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def show(unit: str = UNIT) -> dict[str, str] | None:
    """The unit's properties (`units.PROPERTIES`), None when there is no such unit. Raises DeviceError (unreachable)."""
    status, text = _systemctl("show", *[f"--property={name}" for name in units.PROPERTIES], unit)
    if status:
        raise DeviceError("unreachable", f"systemctl show {unit}: {text[-500:]}")
    found = units.parse_show(text)
    return None if found["LoadState"] in ("not-found", "") else found


def start_again(unit: str = UNIT) -> None:
    """Clear systemd's count of failures and start the unit without waiting. Raises DeviceError (unreachable)."""
    for arguments in (("reset-failed", unit), ("start", "--no-block", unit)):
        status, text = _systemctl(*arguments)
        if status:
            raise DeviceError("unreachable", "systemctl {}: {}".format(" ".join(arguments), text[-500:]))

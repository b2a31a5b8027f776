# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Time on a device whose clock may be wrong, stopped, or set back to 1970.

Two questions, two answers:

* *How long has a release been unconfirmed?* `Deadline`: measured with the boot clock (``CLOCK_BOOTTIME``: counts
  suspend, cannot be set by anybody) and the kernel's boot id. The wall clock takes no part, so a wrong one neither
  shortens nor extends it. A reboot restarts the count from the boot itself, so it never lasts longer than the whole
  after the last boot; a device that reboots again and again because of what it serves runs out after `MAX_REBOOTS`.
* *Is a certificate valid now?* `trusted_now`: the controller's time when it came with the request, else the wall clock,
  and never earlier than the floor, which is the latest `created` of any release that was verified here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from .errors import DeviceError

BOOT_ID = "/proc/sys/kernel/random/boot_id"
MAX_REBOOTS = 3
MAX_SECONDS = 30 * 86400.0
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class ClockReading:
    """One look at all clocks: seconds since boot (suspend included), the boot's id, seconds since the epoch."""

    boottime: float
    boot_id: str
    wall: float


@dataclass(frozen=True)
class Deadline:
    """``seconds`` of boot time from the moment it was made; ``wall`` is only there for people to read.

    ``boottime`` and ``boot_id`` say when and in which boot the count began, ``reboots`` how many boots it has outlived.
    """

    seconds: float
    boottime: float
    boot_id: str
    wall: float
    reboots: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The JSON form kept in state.json and in the journal."""
        return {
            "seconds": self.seconds,
            "boottime": self.boottime,
            "boot_id": self.boot_id,
            "wall": self.wall,
            "reboots": self.reboots,
        }

    @classmethod
    def from_dict(cls, raw: Any, where: str = "deadline") -> Deadline:
        """Parse `to_dict`'s form. Raises DeviceError(damaged) for anything else, naming ``where``."""
        names = {"seconds", "boottime", "boot_id", "wall", "reboots"}
        if not isinstance(raw, Mapping) or set(raw) != names:
            raise DeviceError("damaged", f"{where}: expected the fields {sorted(names)}, found {raw!r}")
        for name in sorted(names - {"boot_id"}):
            if isinstance(raw[name], bool) or not isinstance(raw[name], (int, float)):
                raise DeviceError("damaged", f"{where}: {name} is no number: {raw[name]!r}")
        if not isinstance(raw["boot_id"], str):
            raise DeviceError("damaged", f"{where}: boot_id is not text: {raw['boot_id']!r}")
        return cls(
            float(raw["seconds"]), float(raw["boottime"]), raw["boot_id"], float(raw["wall"]), int(raw["reboots"])
        )


def read_clock(boot_id_path: str = BOOT_ID) -> ClockReading:
    """Read the real clocks. Without ``CLOCK_BOOTTIME`` (not Linux) the monotonic clock stands in."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    try:
        with open(boot_id_path, encoding="ascii") as handle:
            boot_id = handle.read(64).strip()
    except (OSError, UnicodeDecodeError):
        boot_id = "unknown"
    return ClockReading(time.clock_gettime(clock), boot_id, time.time())


def make_deadline(seconds: float, now: ClockReading) -> Deadline:
    """A deadline ``seconds`` from ``now``. Raises DeviceError(bad_input) unless 0 < seconds <= 30 days."""
    if not 0 < seconds <= MAX_SECONDS:
        raise DeviceError("bad_input", f"confirm_within: {seconds!r} is not between 0 and {MAX_SECONDS:.0f} seconds")
    return Deadline(float(seconds), now.boottime, now.boot_id, now.wall)


def _same_boot(deadline: Deadline, now: ClockReading) -> bool:
    # A boot clock that stands before the start is another boot under the same id (a restored virtual machine).
    return now.boot_id == deadline.boot_id and now.boottime >= deadline.boottime


def remaining(deadline: Deadline, now: ClockReading) -> float:
    """Seconds left; 0 or less when it has passed. Pure.

    In the boot it was made in: seconds - (now - start). In a later boot the time before the reboot is unknown (the wall
    clock could tell, but cannot be trusted), so the count restarts at that boot: seconds - time since boot.
    """
    same = _same_boot(deadline, now)
    if deadline.reboots + (0 if same else 1) > MAX_REBOOTS:
        return 0.0
    return deadline.seconds - (now.boottime - deadline.boottime if same else now.boottime)


def expired(deadline: Deadline, now: ClockReading) -> bool:
    """Whether the time is over. Pure; see `remaining`."""
    return remaining(deadline, now) <= 0


def rebase(deadline: Deadline, now: ClockReading) -> Deadline:
    """The same deadline, carried into this boot and counted as one more reboot; unchanged in its own boot. Pure."""
    if _same_boot(deadline, now):
        return deadline
    return replace(deadline, boottime=0.0, boot_id=now.boot_id, reboots=deadline.reboots + 1)


def parse_time(text: str, where: str) -> datetime:
    """Parse an ISO 8601 time with a zone (``Z`` or an offset). Raises DeviceError(bad_input) naming ``where``."""
    try:
        value = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except (ValueError, TypeError):
        raise DeviceError("bad_input", f"{where}: {text!r} is no ISO 8601 time such as 2026-11-23T11:00:00Z") from None
    if value.tzinfo is None:
        raise DeviceError("bad_input", f"{where}: {text!r} has no time zone; add Z for UTC")
    return value.astimezone(timezone.utc)


def format_time(wall: float) -> str:
    """Seconds since the epoch as ISO 8601 UTC with whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(0.0, wall)))


def trusted_now(now: ClockReading, time_floor: str, controller_time: str | None = None) -> datetime:
    """The time to judge certificates by: the controller's when given, else the wall clock; never before the floor."""
    floor = parse_time(time_floor, "time_floor")
    if controller_time:
        return max(floor, parse_time(controller_time, "controller_time"))
    return max(floor, datetime.fromtimestamp(max(0.0, now.wall), timezone.utc))


def raise_floor(time_floor: str, created: str) -> str:
    """The later of the floor and a verified release's ``created``: the floor only ever rises."""
    later = max(parse_time(time_floor, "time_floor"), parse_time(created, "created"))
    return format_time(later.timestamp())

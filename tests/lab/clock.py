# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""A wrong clock. The kernel's clock is the host's, so a preloaded library lies to the processes of one device.

``TARGET`` holds the time at which every boot begins, as on a board without a battery. A unit prepares the library
early in the boot, before the journal starts, below /run: process 1 has started by then and keeps the true time.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from . import clocklib
from .errors import LabError

TARGET = "etc/edgeai-lab-clock"
PRELOAD = "run/edgeai-lab/preload"
UNIT = "edgeai-lab-clock.service"
LIBRARY = "usr/local/lib/edgeai-lab-clock.so"
PROGRAM = "usr/local/lib/edgeai-lab-clock"

SCRIPT = """#!/usr/bin/python3
# Make every process that starts from now on see the time in /{target}.
import os
import struct

os.makedirs("/run/edgeai-lab", exist_ok=True)
with open("/run/edgeai-lab/now", "w") as stamp:
    now = int(os.fstat(stamp.fileno()).st_mtime)  # the kernel's time, whatever a library says
with open("/{target}") as target:
    shift = int(target.read()) - now
with open("/{library}", "rb") as source:
    library = bytearray(source.read())
library[{at}:{at} + 8] = struct.pack("<q", shift)
for path, content in (("/run/edgeai-lab/clock.so", bytes(library)), ("/{preload}", b"/run/edgeai-lab/clock.so\\n")):
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.chmod(path + ".new", 0o755)
    os.replace(path + ".new", path)
"""
SERVICE = f"""[Unit]
Description=The lab's wrong clock
DefaultDependencies=no
Before=systemd-journald.service sysinit.target
ConditionPathExists=/{TARGET}

[Service]
Type=oneshot
ExecStart=/{PROGRAM}
"""
# A link's path and target. While there is nothing under /run, the loader passes over it.
LINKS = {
    f"etc/systemd/system/sysinit.target.wants/{UNIT}": f"../{UNIT}",
    "etc/ld.so.preload": f"/{PRELOAD}",
}


def files(arch: str) -> Iterator[tuple[str, bytes, int]]:
    """Path, content and mode of what a device of this architecture needs."""
    at = clocklib.constant_at(arch)
    yield PROGRAM, SCRIPT.format(target=TARGET, library=LIBRARY, preload=PRELOAD, at=at).encode(), 0o755
    yield LIBRARY, clocklib.library(arch), 0o755
    yield f"etc/systemd/system/{UNIT}", SERVICE.encode(), 0o644


def seconds(text: str) -> int | None:
    """Seconds since 1970 of an ISO date or time in UTC (``1970-01-01``, ``2031-05-01T12:00``); None for ``now``."""
    if text == "now":
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise LabError(f"clock {text!r}: give a date or a time as 1970-01-01 or 2031-05-01T12:00, or now") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return int(moment.timestamp())

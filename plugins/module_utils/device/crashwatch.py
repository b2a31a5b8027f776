# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Crashes of a server that systemd restarts, told from what ``systemctl show`` says now and said before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .restarts import Crashes, after_crash, after_revert

_INNOCENT = ("0", "4")
"""Exit statuses no release is blamed for: told to stop, or another server has the address."""


@dataclass(frozen=True)
class Watch:
    """What is remembered: systemd's count of restarts (None: not looked yet), when it last changed (monotonic s),
    whether the end that the next restart follows was nobody's fault, and the crashes."""

    restarts: int | None = None
    changed: float = 0.0
    innocent: bool = False
    crashes: Crashes = field(default_factory=Crashes)


@dataclass(frozen=True)
class Verdict:
    """``crashed``: crashes since the last look. ``suspect``: an unconfirmed release is to be taken for the cause.
    ``down``: systemd has given the server up."""

    watch: Watch
    crashed: int
    suspect: bool
    down: bool


def judge(watch: Watch, show: Mapping[str, str], now: float) -> Verdict:
    """Compare ``show`` (properties of the server's unit) at ``now`` (monotonic s) with ``watch``."""
    count = int(show["NRestarts"]) if show["NRestarts"].isdigit() else 0
    down = show["ActiveState"] == "failed" and show["Result"] != "success"
    ended = show["SubState"] == "auto-restart"
    innocent = ended and show["ExecMainStatus"] in _INNOCENT and show["Result"] in ("success", "exit-code")
    if watch.restarts is None or count < watch.restarts:  # the first look, or somebody started it by hand
        return Verdict(Watch(count, now, innocent, watch.crashes), 0, down, down)
    crashed = count - watch.restarts
    crashes, suspect = watch.crashes, down
    for number in range(0 if not watch.innocent else 1, crashed):
        lifetime = (now - watch.changed) / crashed
        decision = after_crash(crashes, now - lifetime * (crashed - 1 - number), lifetime, 0.0)
        crashes, suspect = decision.crashes, suspect or decision.suspect
    if crashed:
        watch = Watch(count, now, innocent, crashes)
    elif ended:
        watch = replace(watch, innocent=innocent)
    return Verdict(watch, crashed, suspect, down)


def forgive(watch: Watch) -> Watch:
    """Forget the crashes: another release is to be judged now."""
    return replace(watch, crashes=after_revert(watch.crashes))

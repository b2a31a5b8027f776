# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How often and how soon a crashed server is started again, as pure data: crashes in, delays and verdicts out."""

from __future__ import annotations

from dataclasses import dataclass, replace

RAPID_S = 15.0
"""A server that lived shorter than this crashed rapidly, seconds."""
REVERT_AFTER = 3
"""Rapid crashes in a row after which an unconfirmed release is taken for the cause."""
SLOW_WINDOW_S = 600.0
SLOW_CRASHES = 5
FIRST_DELAY_S = 0.2
LAST_DELAY_S = 60.0


@dataclass(frozen=True)
class Crashes:
    """What is remembered about crashes: rapid ones in a row, and the times (monotonic s) of the recent ones."""

    rapid: int = 0
    recent: tuple[float, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What to do after a crash: wait ``delay`` seconds; ``suspect`` the unconfirmed release."""

    crashes: Crashes
    delay: float
    suspect: bool


def after_crash(crashes: Crashes, now: float, lifetime: float, jitter: float) -> Decision:
    """Decide after a crash at ``now`` of a server that lived ``lifetime`` s. ``jitter`` is random in 0..1. Pure.

    The delay doubles with every rapid crash up to a minute, plus up to half of it as jitter, so that the devices of a
    site that share a fault do not all start at once.
    """
    rapid = crashes.rapid + 1 if lifetime < RAPID_S else 1
    recent = (*tuple(t for t in crashes.recent if now - t < SLOW_WINDOW_S), now)
    recent = recent[-SLOW_CRASHES:]
    suspect = rapid >= REVERT_AFTER or len(recent) >= SLOW_CRASHES
    delay = min(FIRST_DELAY_S * 2.0 ** min(rapid - 1, 16), LAST_DELAY_S)
    return Decision(Crashes(rapid, recent), delay * (1.0 + 0.5 * jitter), suspect)


def after_revert(crashes: Crashes) -> Crashes:
    """Forget the crashes that a reverted release is blamed for."""
    return replace(crashes, rapid=0, recent=())

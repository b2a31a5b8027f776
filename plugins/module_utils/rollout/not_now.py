# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which devices must be left alone now: their site's vetoes, then their maintenance window. Pure, at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from .policy import Policy
from .vetoes import parse_vetoes, recorded_vetoes, veto_reason
from .windows import Window, check_window, closed_reason

WINDOW = "window"
VETO = "veto"


class NotNow:
    """Answers for one moment of the controller's clock, one policy and one model."""

    def __init__(self, policy: Policy, model: str, now: datetime, records: Iterable[Mapping[str, Any]] = ()) -> None:
        """records: the ledger's, oldest first; a veto in it counts beside those of the inventory."""
        self._policy, self._model, self._now = policy, model, now
        self._recorded = recorded_vetoes(records)
        self._windows: list[tuple[Any, Window]] = []

    def reason(self, host: str, window: Any, vetoes: Any) -> tuple[str, str] | None:
        """Return (kind, reason) when nothing may begin on this device now, else None.

        window, vetoes: the host's ``edge_window`` (None: the policy's counts) and ``edge_vetoes``. Raises RolloutError.
        """
        where = f"host {host}"
        said = veto_reason([*parse_vetoes(where, "edge_vetoes", vetoes), *self._recorded.get(host, ())], self._now,
                           self._model)  # fmt: skip
        if said:
            return VETO, said
        checked = self._policy.window if window is None else self._window(where, window)
        said = closed_reason(checked, self._now, self._policy.wave_takes)
        return (WINDOW, said) if said else None

    def _window(self, where: str, raw: Any) -> Window:
        """The checked window; a fleet has few different ones."""
        found = next((known for seen, known in self._windows if seen == raw), None)
        if found is None:
            found = check_window(where, "edge_window", raw)
            self._windows.append((raw, found))
        return found

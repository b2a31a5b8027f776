# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which devices must be left alone now: their site's vetoes, then their maintenance window. Pure, at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from .policy import Policy
from .vetoes import parse_vetoes, recorded_vetoes, veto_reason
from .windows import check_window, closed_reason

WINDOW = "window"
VETO = "veto"


class NotNow:
    """Answers for one moment of the controller's clock, one policy and one model."""

    def __init__(self, policy: Policy, model: str, now: datetime, records: Iterable[Mapping[str, Any]] = ()) -> None:
        """records: the ledger's, oldest first; a veto in it counts beside those of the inventory."""
        self._policy, self._model, self._now = policy, model, now
        self._recorded = recorded_vetoes(records)
        self._own = closed_reason(policy.window, now, policy.wave_takes)
        self._closed: list[tuple[Any, str]] = []

    def reason(self, host: str, window: Any, vetoes: Any) -> tuple[str, str] | None:
        """Return (kind, reason) when nothing may begin on this device now, else None.

        window, vetoes: the host's ``edge_window`` (None: the policy's counts) and ``edge_vetoes``. Raises RolloutError.
        """
        where = f"host {host}"
        said = veto_reason([*parse_vetoes(where, "edge_vetoes", vetoes), *self._recorded.get(host, ())], self._now,
                           self._model)  # fmt: skip
        if said:
            return VETO, said
        said = self._own if window is None else self._reason(where, window)
        return (WINDOW, said) if said else None

    def _reason(self, where: str, raw: Any) -> str:
        """Why a host's own window is closed; a fleet has few different ones, and it is one moment."""
        found = next((said for seen, said in self._closed if seen == raw), None)
        if found is None:
            found = closed_reason(check_window(where, "edge_window", raw), self._now, self._policy.wave_takes)
            self._closed.append((raw, found))
        return found

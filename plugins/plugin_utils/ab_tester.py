# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The controller's side of an A/B test: when its time is over it asks Prometheus, and records what was found."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import ab_test
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.control import clock
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, quarantined
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql import FAIL, PASS
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_http import Client

AB_TEST, AB_FAILED = "ab_test", "ab_failed"
_AGAIN = 60.0
"""Seconds between two comparisons of a run that waits for a clearer one."""


class AbTester:
    """What a plan's A/B test says before a wave: nothing, wait, or go back.

    read: returns the text of a file; wait: sleeps so many seconds, or raises when there is no reason to go on.
    """

    def __init__(
        self,
        plan: dict[str, Any],
        policy: Policy,
        ledger: Ledger,
        read: Callable[[str], str],
        wait: Callable[[float], None],
    ) -> None:
        self._plan, self._policy, self._ledger, self._read, self._wait = plan, policy, ledger, read, wait
        self._behind = ab_test.boundary(plan, policy.ab_test.share) if policy.ab_test.share else None
        self._compared: tuple[float, str] | None = None
        if self._behind is not None:
            records = ledger.records(plan["rollout_id"])
            self._standing = ab_test.standing(records, plan["rollout_id"], self._behind)

    def obstacle(self, wave: int) -> tuple[str, str]:
        """Return (why, reason) for this wave not to begin now; empty texts when the comparison is not in its way."""
        if self._behind is None or wave <= self._behind or self._standing.passed:
            return "", ""
        test = self._policy.ab_test
        pending = ab_test.pending(test, self._standing, clock())
        if pending:
            return AB_TEST, pending
        if self._compared and time.monotonic() - self._compared[0] < _AGAIN:
            return AB_TEST, self._compared[1]
        verdict, reason, metrics = self._compare()
        if verdict not in (PASS, FAIL) and ab_test.overdue(test, self._standing, clock()):
            verdict, reason = FAIL, f"not shown to be no worse within {test.limit} s: {reason}"
        self._record(self._behind, verdict, reason, metrics)
        self._standing = self._standing._replace(passed=verdict == PASS)
        self._compared = (time.monotonic(), f"A/B test behind wave {self._behind}: {verdict}: {reason}")
        return {PASS: "", FAIL: AB_FAILED}.get(verdict, AB_TEST), "" if verdict == PASS else self._compared[1]

    def _compare(self) -> tuple[str, str, list[dict[str, Any]]]:
        """Ask about every metric, all at one moment."""
        test, prometheus = self._policy.ab_test, self._policy.prometheus
        client = Client(prometheus, self._read, self._wait)
        now = client.now()
        if isinstance(now, str):
            metrics = ab_test.unasked(test, now)
        else:
            metrics = ab_test.judge(test, prometheus, ab_test.sides(self._plan, self._behind or 0), client.ask, now)
        return (*ab_test.overall(metrics), metrics)

    def _record(self, behind: int, verdict: str, reason: str, metrics: list[dict[str, Any]]) -> None:
        """Write it down; a release that was found to be worse is quarantined for every stratum of the plan."""
        strata = sorted({stratum for wave in self._plan["waves"] for stratum in wave["strata"]})
        rollout = self._plan["rollout_id"]
        about = {"wave": behind, "verdict": verdict, "reason": reason, "strata": strata, "metrics": metrics}
        self._ledger.append("ab_test", about, rollout)
        if verdict != FAIL:
            return
        release = {name: self._plan[name] for name in ("model", "version", "digest")}
        standing = quarantined(self._ledger.records())
        for stratum in strata:
            if (release["digest"], stratum) not in standing:
                entry = {**release, "stratum": stratum, "reason": f"A/B test: {reason}"}
                self._ledger.append("quarantine", entry, rollout)

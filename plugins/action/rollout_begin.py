# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of rollout_begin: may this wave begin, with which devices, in which order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import control, pace
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.approvers import load_approvers
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger_format import timestamp
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.not_now import NotNow
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.notify import notice
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy, parse_policy
from ansible_collections.edgeai.fleet.plugins.plugin_utils.ab_tester import AB_FAILED, AB_TEST, AbTester
from ansible_collections.edgeai.fleet.plugins.plugin_utils.notifier import send
from ansible_collections.edgeai.fleet.plugins.plugin_utils.rollout_action import Listener, RolloutAction, everything

ARGUMENT_SPEC: dict[str, Any] = {
    "wave": {"type": "int", "required": True},
    "plan": {"type": "dict"},
    "state": {"type": "dict"},
    "ledger": {"type": "path"},
    "ledger_key": {"type": "path"},
}
ABORT, PAUSE, APPROVAL = "abort", "pause", "approval"
BACK = (ABORT, AB_FAILED)
"""What takes back everything that the rollout changed."""


class ActionModule(RolloutAction):
    """Stands between two waves; see the module's documentation for arguments and result."""

    ARGUMENTS = ARGUMENT_SPEC

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return who begins now, or that the rollout ends here."""
        plan = self.read_plan(args)
        if not 1 <= args["wave"] <= len(plan["waves"]):
            raise RolloutError(f"wave is {args['wave']}: the plan has waves 1 to {len(plan['waves'])}")
        ledger = self.read_ledger(args)
        state = dict(args["state"] or self.controller_var("edge_gate") or {})
        return self._begin(plan, args["wave"], state, ledger)

    def _begin(self, plan: dict[str, Any], wave: int, state: dict[str, Any], ledger: Ledger | None) -> dict[str, Any]:
        policy = parse_policy(plan["policy"], "plan.policy")
        halted = set(state.get("halted_strata") or ())
        live = any(stratum not in halted for stratum in plan["waves"][wave - 1]["strata"])
        if live and ledger and not self._task.check_mode:
            why, reason = self._stand(plan, wave, policy, ledger)
            if why:
                return self._ends(plan, wave, state, ledger, (why, reason))
        deferred = self._deferred(plan, wave, state, policy, ledger) if live else {}
        if ledger and not self._task.check_mode:
            about = {name: plan[name] for name in ("model", "version", "digest")}
            for host, (kind, reason) in deferred.items():
                entry = {"host": host, "kind": kind, "reason": reason, "stratum": plan["stratum_of"][host]}
                ledger.append("deferred", {**entry, "wave": wave, **about}, plan["rollout_id"], host)
        ready = [host for host in plan["waves"][wave - 1]["hosts"] if host not in deferred]
        sites = {host: self.site(host) for host in ready} if policy.site_concurrency else {}
        round_of = pace.rounds(ready, sites, policy.site_concurrency)
        outcomes = {**(state.get("outcomes") or {}), **dict.fromkeys(deferred, "deferred")}
        listed = [{"host": host, "kind": kind, "reason": reason} for host, (kind, reason) in deferred.items()]
        return {
            "changed": False, "wave": wave, "halt": False, "why": "", "msg": f"wave {wave}: {len(ready)} devices begin",
            "deferred": listed, "rounds": max(round_of.values(), default=0), "round_of": round_of,
            "delays": {host: pace.delay(plan["seed"], host, policy.jitter) for host in ready},
            "state": {**state, "outcomes": outcomes},
        }  # fmt: skip

    # -- what people say -------------------------------------------------------------------------------------------

    def _stand(self, plan: dict[str, Any], wave: int, policy: Policy, ledger: Ledger) -> tuple[str, str]:
        """Wait while something stands in the way; return (why, reason) for the rollout to end here, or empty texts."""
        listener = Listener(ledger, plan["rollout_id"])
        tester = AbTester(plan, policy, ledger, self._loader.get_text_file_contents, self.wait)
        self._keys = load_approvers(self.variable("edge_approvers"))
        since: dict[str, float] = {}
        limits = {PAUSE: policy.pause_limit, AB_TEST: policy.ab_test.wait, APPROVAL: policy.approval.wait}
        first = bool(plan["hosts"]) and plan["wave_of"][plan["hosts"][0]] == wave
        while True:
            why, reason = self._obstacle(plan, wave, policy, listener, tester)
            if why in ("", *BACK):
                return why, reason
            if why not in since:
                since[why] = time.monotonic()
                # a run that begins in a pause has nothing to wait with: whoever resumes runs it again
                if (why == PAUSE and first) or not limits[why]:
                    return why, reason
                about = {"after": wave - 1, "why": why, "reason": reason, "seconds": limits[why]}
                ledger.append("waiting", about, plan["rollout_id"])
                Display().display(f"Waiting up to {limits[why]} s before wave {wave}: {reason}")
                more = {"wave": wave, "why": why, "reason": reason, "seconds": limits[why]}
                waits = notice(plan, "waiting", f"waits before wave {wave}: {reason}", timestamp(), **more)
                send(self, self.variable("edge_notify"), [waits], ledger)
            elif time.monotonic() - since[why] > limits[why]:
                return why, f"{reason}; waited {limits[why]} s"
            self.wait(1.0)

    def _obstacle(
        self, plan: dict[str, Any], wave: int, policy: Policy, listener: Listener, tester: AbTester
    ) -> tuple[str, str]:
        if listener.grown():
            records = listener.ledger.records
            self._abort = control.abort_asked(records(plan["rollout_id"]), plan["rollout_id"])
            self._pause = control.paused(records(), plan["model"])
            self._given = control.approvals(records(), plan["plan_hash"], self._keys)
        if self._abort:
            return ABORT, f"aborted by {self._abort.by}: {self._abort.reason}"
        if self._pause:
            return PAUSE, f"paused by {self._pause.by}: {self._pause.reason}"
        compared = tester.obstacle(wave)
        if compared[0]:
            return compared
        after = control.approval_due(policy.approval, plan, wave)
        missing = (
            "" if after is None else control.missing_approval(policy.approval, self._given, after, control.clock())
        )
        return (APPROVAL, f"{missing}; plan {plan['plan_hash']}") if missing else ("", "")

    def _ends(
        self, plan: dict[str, Any], wave: int, state: dict[str, Any], ledger: Ledger, found: tuple[str, str]
    ) -> dict[str, Any]:
        why, reason = found
        back = everything(plan, ledger) if why in BACK else []
        if why not in BACK:
            ledger.append("stopped", {"after": wave - 1, "why": why, "reason": reason}, plan["rollout_id"])
        said = f"the rollout {'is taken back' if why in BACK else 'stops'} before wave {wave}: {reason}"
        return {
            "changed": False, "wave": wave, "halt": True, "why": why, "msg": said, "halt_reason": reason,
            "deferred": [], "rounds": 0, "round_of": {}, "delays": {}, "rollback": back,
            "state": {**state, "rollback": [*back, *(h for h in state.get("rollback") or () if h not in back)]},
        }  # fmt: skip

    # -- which devices ---------------------------------------------------------------------------------------------

    def _deferred(
        self, plan: dict[str, Any], wave: int, state: Mapping[str, Any], policy: Policy, ledger: Ledger | None
    ) -> dict[str, tuple[str, str]]:
        """Host -> (kind, reason) for the wave's devices that must not begin now."""
        not_now = NotNow(policy, plan["model"], control.clock(), ledger.records() if ledger else ())
        found: dict[str, tuple[str, str]] = {}
        ready = []
        for host in plan["waves"][wave - 1]["hosts"]:
            window, vetoes = (self.host_variable(host, name) for name in ("edge_window", "edge_vetoes"))
            reason = not_now.reason(host, window, vetoes)
            if reason:
                found[host] = reason
            else:
                ready.append(host)
        if not self._task.check_mode:
            excess = pace.too_many(plan, wave, state.get("outcomes") or {}, ready, policy)
            found.update({host: (pace.GROWTH, reason) for host, reason in excess.items()})
        return found

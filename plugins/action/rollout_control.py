# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Action of rollout_control: writes what a person says into the ledger, and waits for a run that it ends."""

from __future__ import annotations

import getpass
from dataclasses import replace
from typing import Any

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import control, control_apply
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.approvers import load_approvers
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.watchdog_lock import living
from ansible_collections.edgeai.fleet.plugins.plugin_utils.rollout_action import RolloutAction

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "required": True, "choices": list(control_apply.STATES)},
    "ledger": {"type": "path", "required": True},
    "ledger_key": {"type": "path"},
    "by": {"type": "str"},
    "reason": {"type": "str", "default": ""},
    "model": {"type": "str"},
    "rollout_id": {"type": "str"},
    "plan_hash": {"type": "str"},
    "wave": {"type": "int"},
    "signature": {"type": "str"},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "expires": {"type": "str"},
    "wait": {"type": "int", "default": 0},
}


class ActionModule(RolloutAction):
    """See the module's documentation for arguments and result."""

    ARGUMENTS = ARGUMENT_SPEC

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Record it, and say what it means."""
        ledger = Ledger(args["ledger"], args["ledger_key"])
        order = control_apply.Order(
            by=args["by"] or getpass.getuser(),
            reason=args["reason"],
            now=control.clock(),
            check=bool(self._task.check_mode),
            model=args["model"],
            rollout=args["rollout_id"],
            plan_hash=args["plan_hash"],
            wave=args["wave"],
            hosts=args["hosts"],
            until=args["expires"],
            signature=args["signature"],
        )
        if args["state"] == "approved":
            order = replace(order, approvers=load_approvers(self.variable("edge_approvers")))
        result = control_apply.apply(ledger, args["state"], order)
        if args["state"] == "aborted":
            running = self._running(ledger, str(result["rollout_id"]), args["wait"])
            if running and not self._task.check_mode:
                raise RolloutError(
                    f"{result['msg']}, but its run is still at work after {args['wait']} s: it takes back what it "
                    "changed as soon as the tasks in flight are done; run this again to see that it has"
                )
        return result

    def _running(self, ledger: Ledger, rollout: str, seconds: int) -> bool:
        """Wait for the end of the run that does this rollout (its watchdog lives as long); whether it still goes on."""
        found = control.current(ledger.records(rollout), None, rollout)
        model = str(found.plan.get("model")) if found else ""

        def gone() -> bool:
            return not model or (living(ledger.directory, model) or {}).get("rollout") != rollout

        if not self._task.check_mode:
            self.wait(seconds, gone)
        return not gone()

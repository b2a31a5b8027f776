# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Action of rollout_undo: runs where the ledger is, on the controller, whatever host the task is for."""

from __future__ import annotations

import getpass
from typing import Any

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import undo
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.plugin_utils.rollout_action import RolloutAction

ARGUMENT_SPEC: dict[str, Any] = {
    "stage": {"type": "str", "required": True, "choices": ["start", "finish"]},
    "ledger": {"type": "path", "required": True},
    "ledger_key": {"type": "path"},
    "rollout_id": {"type": "str"},
    "scope": {"type": "str", "choices": ["unsettled", "all"], "default": "unsettled"},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "by": {"type": "str"},
    "reason": {"type": "str", "default": ""},
}


class ActionModule(RolloutAction):
    """stage=start says which devices go back; stage=finish says whether they did."""

    ARGUMENTS = ARGUMENT_SPEC

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """See the module's documentation for arguments and result."""
        by = args["by"] or getpass.getuser()
        check = bool(self._task.check_mode)
        ledger = Ledger(args["ledger"], args["ledger_key"])
        if args["stage"] == "start":
            result = undo.start(ledger, args["rollout_id"], args["scope"], by, args["reason"], check)
            return {"changed": False, **result}
        rollout = undo.resolve(ledger, args["rollout_id"])
        result = undo.finish(ledger, rollout, args["scope"], args["hosts"], by, check)
        failed = bool(result["remaining"]) and not check
        msg = f"not settled: {', '.join(result['remaining'][:20])}" if failed else "every device is settled"
        return {"changed": False, "failed": failed, "msg": msg, **result}

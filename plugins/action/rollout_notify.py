# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of rollout_notify: results of a rollout in, notifications out."""

from __future__ import annotations

from typing import Any

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger_format import plain, timestamp
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.notify import notices
from ansible_collections.edgeai.fleet.plugins.plugin_utils.notifier import send
from ansible_collections.edgeai.fleet.plugins.plugin_utils.rollout_action import RolloutAction

ARGUMENT_SPEC: dict[str, Any] = {
    "about": {"type": "list", "elements": "dict", "required": True},
    "plan": {"type": "dict"},
    "ledger": {"type": "path"},
}


class ActionModule(RolloutAction):
    """See the module's documentation for arguments and result."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Tell who wants to know."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.prepare(task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENT_SPEC)
        hooks = self.variable("edge_notify")
        plan = plain(args["plan"] or self.controller_var("edge_plan") or {})
        told = notices(plain(args["about"]), plan, timestamp()) if hooks else []
        if self._task.check_mode:
            return {
                **result,
                "changed": False,
                "sent": [],
                "failed_notices": [],
                "told": [item["event"] for item in told],
            }
        directory = args["ledger"] or self.variable("edge_ledger")
        found = send(self, hooks, told, Ledger(str(directory)) if directory else None)
        events = [item["event"] for item in told]
        return {**result, "changed": False, "sent": found["sent"], "failed_notices": found["failed"], "told": events}

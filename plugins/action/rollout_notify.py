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

    ARGUMENTS = ARGUMENT_SPEC

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Tell who wants to know."""
        hooks = self.variable("edge_notify")
        plan = plain(args["plan"] or self.controller_var("edge_plan") or {})
        told = notices(plain(args["about"]), plan, timestamp()) if hooks else []
        events = [item["event"] for item in told]
        if self._task.check_mode:
            return {"changed": False, "sent": [], "failed_notices": [], "told": events}
        directory = args["ledger"] or self.variable("edge_ledger")
        found = send(self, hooks, told, Ledger(str(directory)) if directory else None)
        return {"changed": False, "sent": found["sent"], "failed_notices": found["failed"], "told": events}

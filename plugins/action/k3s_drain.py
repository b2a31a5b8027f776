# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of k3s_drain: cordoning is the first that an upgrade does to a device, so its intent comes before."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.edgeai.fleet.plugins.plugin_utils.k3s_upgrade_action import UpgradeAction


class ActionModule(UpgradeAction):
    """Records the drain and runs it, on a server. That a server is away is no fault of the host."""

    MODULE = "edgeai.fleet.k3s_drain"

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Drain, or take back the cordon. A drain that fails has settled its host: it was not touched."""
        drains = args.get("state") == "drained"
        if drains:
            self.intend("drain")
        started = time.monotonic()
        try:
            result = self.module(args)
        except AnsibleConnectionFailure as error:
            result = {"failed": True, "changed": False, "code": "server", "msg": f"the server was not reached: {error}"}
        if result.get("unreachable"):
            msg = f"the server was not reached: {result.get('msg')}"
            result = {"failed": True, "changed": False, "code": "server", "msg": msg}
        if result.get("failed") and drains:
            result["result"] = "refused"
            result["code"] = result.get("code") or "busy"
            self.record("result", "drain", result, started)
        elif result.get("failed") and args.get("state") == "uncordoned":
            self.record("cordon_left", "uncordon", result, started)
        return result

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of k3s_switch: the intent is on disk before the machine is touched, and what came of it after."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.edgeai.fleet.plugins.plugin_utils.k3s_upgrade_action import UpgradeAction


class ActionModule(UpgradeAction):
    """Records the switch and runs it."""

    MODULE = "edgeai.fleet.k3s_switch"

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """The switch between its two records. Whatever ends it, a result is written."""
        self.intend("switch")
        started = time.monotonic()
        try:
            result = self.module(args)
        except BaseException as error:
            # Also a task's timeout, which is no Exception. The process may be about to end: record, then let it.
            lost = {"failed": True, "unreachable": isinstance(error, AnsibleConnectionFailure), "msg": str(error)}
            self.record("result", "switch", lost, started)
            raise
        self.record("result", "switch", result, started)
        return result

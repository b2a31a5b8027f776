# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the actions that change a machine in an upgrade of K3s share: the intent before, and what came of it."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.upgrade_plan import ACTION, MODEL
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger

KEPT = ("result", "changed", "code", "cause", "proven", "served", "durations", "journal")
MAX_MSG = 4096


class UpgradeAction(ActionBase):  # type: ignore[misc]
    """Base: reads ``k3s_upgrade_run``, writes the ledger, runs the module of the same name."""

    MODULE = ""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host; see the module's documentation for arguments and result."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._run_of = self._templar.template(self._vars.get("k3s_upgrade_run") or {})
        self._ledger: Ledger | None = None
        if self._run_of.get("ledger") and not self._task.check_mode:
            self._ledger = Ledger(str(self._run_of["ledger"]), self._run_of.get("ledger_key"))
        try:
            return self.act(dict(self._task.args))
        except RolloutError as error:
            raise AnsibleActionFail(str(error), result={"result": "refused", "code": "controller"}) from error

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the task's result. Raises RolloutError when it cannot be recorded."""
        raise NotImplementedError

    def module(self, args: dict[str, Any]) -> dict[str, Any]:
        """Run the module where the task runs."""
        result: dict[str, Any] = self._execute_module(module_name=self.MODULE, module_args=args, task_vars=self._vars)
        return result

    def intend(self, step: str) -> None:
        """Have it on the controller's disk that this host is about to be changed. Raises RolloutError."""
        if self._ledger is None and not self._task.check_mode:
            raise RolloutError(
                "an upgrade is recorded before a machine is touched: set k3s_upgrade_run.ledger (the playbook does)"
            )
        if self._ledger:
            self._ledger.append("intent", {**self._about(), "step": step}, self._run_of.get("id"), self._host)

    def record(self, kind: str, step: str, result: dict[str, Any], started: float) -> None:
        """Write what came of it. Raises RolloutError."""
        if self._ledger is None:
            return
        data = {**self._about(), "step": step, **{name: result[name] for name in KEPT if name in result}}
        data.update(failed=bool(result.get("failed")), unreachable=bool(result.get("unreachable")))
        data.update(msg=str(result.get("msg") or "")[:MAX_MSG], seconds=round(time.monotonic() - started, 3))
        self._ledger.append(kind, data, self._run_of.get("id"), self._host)
        result["ledger_recorded"] = True

    @property
    def _host(self) -> str:
        return str(self._vars.get("inventory_hostname"))

    def _about(self) -> dict[str, Any]:
        run = self._run_of
        about = {name: run.get(name) for name in ("from", "to", "wave", "stratum", "digest")}
        return {**about, "action": ACTION, "model": MODEL, "version": run.get("to")}

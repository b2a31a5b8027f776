# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the actions of a running rollout share: the plan, the ledger, variables of hosts, and waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.control import Word, abort_asked
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, activated
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger_format import plain
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import plan_hash

CONTROLLER = "localhost"


class RolloutAction(ActionBase):  # type: ignore[misc]
    """Base of an action that runs once, on the controller: it checks its arguments, and does what ``act`` says.

    ARGUMENTS: the argument spec. What a domain raises is the task's failure, in its own words.
    """

    ARGUMENTS: ClassVar[dict[str, Any]] = {}

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task; see the module's documentation for arguments and result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars, self._parent = task_vars or {}, os.getppid()
        _validation, args = self.validate_argument_spec(self.ARGUMENTS)
        try:
            result.update(self.act(args))
        except (RolloutError, ReleaseError) as error:
            raise AnsibleActionFail(str(error)) from error
        return result

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the task's result for its checked arguments. Raises RolloutError or ReleaseError."""
        raise NotImplementedError

    def controller_var(self, name: str) -> Any:
        """A variable of localhost, where the playbook keeps what belongs to the whole rollout."""
        hostvars = self._vars["hostvars"]
        return hostvars[CONTROLLER].get(name) if CONTROLLER in hostvars else None

    def variable(self, name: str) -> Any:
        """A variable as this task sees it, None when it is not set."""
        return self._templar.template(self._vars[name]) if name in self._vars else None

    def host_variable(self, host: str, name: str) -> Any:
        """A host's variable, templated, None when it is not set."""
        hostvars = self._vars["hostvars"]
        raw = hostvars.raw_get(host) if host in hostvars else {}
        if name not in raw:
            return None
        return self._templar.copy_with_new_env(available_variables=raw).template(raw[name])

    def site(self, host: str) -> str | None:
        """A host's site: of the inventory, else what the device says of itself."""
        named = self.host_variable(host, "edge_site")
        if named not in (None, ""):
            return str(named)
        hostvars = self._vars["hostvars"]
        facts = hostvars.raw_get(host).get("edge_facts") if host in hostvars else None
        device = facts.get("device") if isinstance(facts, Mapping) else None
        return str(device["site"]) if isinstance(device, Mapping) and device.get("site") else None

    def read_plan(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The plan that is given, or kept by the playbook; RolloutError when it is none, or was altered."""
        plan = args["plan"] or self.controller_var("edge_plan")
        if not isinstance(plan, Mapping) or "plan_hash" not in plan:
            raise RolloutError(
                "plan: there is none: give the plan of rollout_plan, or keep it in localhost's edge_plan"
            )
        copied: dict[str, Any] = plain(plan)
        if plan_hash(copied) != copied["plan_hash"]:
            raise RolloutError(f"plan: its hash is not {copied['plan_hash']}: it was altered after it was made")
        if args.get("rollout_id") and args["rollout_id"] != plan["rollout_id"]:
            raise RolloutError(f"rollout_id is {args['rollout_id']!r}, the plan's is {plan['rollout_id']!r}")
        return copied

    def read_ledger(self, args: Mapping[str, Any]) -> Ledger | None:
        """The ledger that is given, or that of the rollout; only a check run may do without."""
        run = self.variable("edge_rollout") or {}
        directory = args["ledger"] or run.get("ledger") or self.variable("edge_ledger")
        key = args["ledger_key"] or run.get("ledger_key") or self.variable("edge_ledger_key")
        if not directory and not self._task.check_mode:
            raise RolloutError(
                "a verdict that is not recorded does not count: set edge_ledger (or the argument ledger)"
            )
        return Ledger(str(directory), key) if directory else None

    def wait(self, seconds: float, done: Callable[[], Any] | None = None) -> None:
        """Sleep, as long as the run is there, and until ``done`` says something."""
        until = time.monotonic() + seconds
        while True:
            remaining = until - time.monotonic()
            if remaining <= 0 or (done is not None and done()):
                return
            if os.getppid() != self._parent:
                # The run was killed around this worker; the watchdog waits for tasks in flight, so do not wait on.
                raise RolloutError("the run that waited here is gone")
            # short steps: an interrupt is noticed, and a suspended controller does not oversleep
            time.sleep(min(1.0, remaining))


class Listener:
    """Hears what people say to a rollout: reads the ledger again only when it has grown."""

    def __init__(self, ledger: Ledger, rollout: str) -> None:
        self.ledger, self.rollout = ledger, rollout
        self._size = -1
        self._word: Word | None = None

    def grown(self) -> bool:
        """Whether the ledger has grown since this was asked last."""
        size = os.path.getsize(self.ledger.path) if os.path.exists(self.ledger.path) else 0
        grown, self._size = size != self._size, size
        return grown

    def abort(self) -> Word | None:
        """Who asked to abort."""
        if self.grown():
            self._word = abort_asked(self.ledger.records(self.rollout), self.rollout)
        return self._word


def everything(plan: Mapping[str, Any], ledger: Ledger) -> list[str]:
    """Every device that this rollout changed and that is not back, newest wave first."""
    hosts = [item["host"] for item in activated(ledger.records(plan["rollout_id"]), plan["rollout_id"])]
    return sorted(hosts, key=lambda host: (-plan["wave_of"].get(host, 0), host))

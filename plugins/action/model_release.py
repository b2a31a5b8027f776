# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The controller's half of model_release: the ledger around the change, the watchdog before it, and the bytes.

The order is what matters: nothing reaches a device before the intent to change it is on the controller's disk, and
nothing that came back from a device is lost. What cannot be recorded is not done.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from types import FrameType
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import push
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, lifted
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.watchdog_lock import require_watchdog

MODULE = "edgeai.fleet.model_release"
INTENTS = {"active": "activate", "confirmed": "confirm", "reverted": "revert"}
OTHERS = {"staged": "stage", "absent": "remove"}
CONTROLLER_ARGS = ("ledger", "ledger_key", "watchdog", "wave")
# Of a module's result, what the ledger keeps.
KEPT = (
    "result", "changed", "failed", "gates", "transfer", "durations_ms", "golden_before", "golden_after",
    "golden_restored", "code", "active", "previous", "unconfirmed", "server", "variant", "variants_refused", "reverted",
)  # fmt: skip
MAX_MSG = 4096
# What a call may take beyond the module's own limit: connecting, sending the module, reading its answer.
MARGIN = 60


class DeadlinePassed(Exception):
    """The whole call took longer than it may; what the device did is not known."""


class ActionModule(ActionBase):
    """Writes intent and result, moves missing blobs, runs the module."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host; see the module's documentation for arguments and result."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        args = dict(self._task.args)
        context = self._context(args)
        for name in CONTROLLER_ARGS:
            args.pop(name, None)
        if context["rollout"] is not None:
            args.setdefault("rollout_id", context["rollout"])
        args.setdefault("controller_time", datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
        try:
            if self._task.check_mode or context["ledger"] is None:
                return self._change(args, {})
            return self._recorded(args, context)
        except (RolloutError, ReleaseError) as error:
            # The device is as it was, and it is not the device's fault: a verdict must be able to tell.
            raise AnsibleActionFail(str(error), result={"result": "refused", "code": "controller"}) from error

    def _context(self, args: dict[str, Any]) -> dict[str, Any]:
        """Where this change is recorded: ledger, rollout id, wave, whether a watchdog must stand behind it."""
        run = self._variable("edge_rollout") or {}
        ledger = args.get("ledger") or run.get("ledger") or self._variable("edge_ledger")
        state = args.get("state") or "active"
        if not ledger and state in INTENTS and not self._task.check_mode:
            raise AnsibleActionFail(
                f"state={state} changes what the device serves and there is no ledger to record it in: "
                "set edge_ledger (or the argument ledger) to a directory, or give ledger=none to change it unrecorded",
                result={"result": "refused", "code": "controller"},
            )
        key = args.get("ledger_key") or run.get("ledger_key") or self._variable("edge_ledger_key")
        rollout = args.get("rollout_id") or run.get("id")
        required = args.get("watchdog", run.get("watchdog", True))
        return {
            "action": INTENTS.get(state) or OTHERS.get(state, state),
            "ledger": None if not ledger or str(ledger).lower() == "none" else Ledger(str(ledger), key),
            "rollout": str(rollout) if rollout else None,
            "wave": args.get("wave") or run.get("wave"),
            "delay": float(run.get("delay") or 0) if state == "active" and not self._task.check_mode else 0.0,
            "watchdog": state == "active" and rollout is not None and push.truth(required),
        }

    def _variable(self, name: str) -> Any:
        return self._templar.template(self._vars[name]) if name in self._vars else None

    def _recorded(self, args: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
        """The change between its two records. Whatever ends it, a result is written."""
        time.sleep(context["delay"])  # the policy's jitter: not every device of a wave asks the source at once
        ledger, host = context["ledger"], str(self._task.delegate_to or self._vars.get("inventory_hostname"))
        about = {name: args.get(name) for name in ("model", "version", "digest", "stratum")}
        about.update(action=context["action"], wave=context["wave"])
        if context["watchdog"]:
            require_watchdog(ledger.directory, str(args.get("model")), context["rollout"])
        if context["action"] in INTENTS.values():
            ledger.append("intent", about, context["rollout"], host)
        started = time.monotonic()
        progress = {"touched": False}
        try:
            result = self._change(args, progress)
            if result.get("code") == "quarantined" and self._lifted(ledger, args):
                result = self._change({**args, "lift_quarantine": True}, progress)
        except BaseException as error:
            # Also a task's timeout, which is no Exception. The process may be about to end: record, then let it.
            lost = {"failed": True, "unreachable": isinstance(error, AnsibleConnectionFailure), "msg": str(error)}
            ledger.append("result", self._result_data(about, lost, started, progress), context["rollout"], host)
            raise
        data = self._result_data(about, result, started, progress)
        try:
            ledger.append("result", data, context["rollout"], host)
        except RolloutError as error:
            did = result.get("result") or result.get("msg")
            result.update(failed=True, msg=f"the device answered '{did}', but that could not be recorded: {error}")
            return result
        result["ledger_recorded"] = True
        return result

    def _lifted(self, ledger: Ledger, args: dict[str, Any]) -> bool:
        """Whether a person lifted what the device still refuses. The ledger is read only when a device refuses."""
        pair = (str(args.get("digest")), str(args.get("stratum")))
        return (args.get("state") or "active") in ("active", "staged") and pair in lifted(ledger.records())

    def _result_data(
        self, about: dict[str, Any], result: dict[str, Any], started: float, progress: dict[str, bool]
    ) -> dict[str, Any]:
        data = {**about, **{name: result[name] for name in KEPT if name in result}}
        data["failed"] = bool(result.get("failed"))
        data["unreachable"] = bool(result.get("unreachable"))
        data["touched"] = progress["touched"]
        data["seconds"] = round(time.monotonic() - started, 3)
        if not self._task.no_log:
            data["msg"] = str(result.get("msg") or "")[:MAX_MSG]
        return data

    def _change(self, args: dict[str, Any], progress: dict[str, bool]) -> dict[str, Any]:
        """Move the bytes if this is a push, and run the module, within the task's limit."""
        with _deadline(args, self._task.timeout):
            source = dict(args.get("source") or {"type": "push"})
            if source.get("type") != "push" or (args.get("state") or "active") not in ("active", "staged"):
                progress["touched"] = True
                return self._module(args)
            return self._push(args, source, progress)

    def _module(self, args: dict[str, Any]) -> dict[str, Any]:
        return self._execute_module(module_name=MODULE, module_args=args, task_vars=self._vars)

    def _push(self, args: dict[str, Any], source: dict[str, Any], progress: dict[str, bool]) -> dict[str, Any]:
        """Bring the release over the connection: only what the device lacks travels, a file at a time, streamed."""
        directory = source.get("path") or push.release_directory(
            self._variable("edge_releases"), args.get("model"), args.get("version")
        )
        if self._connection.transport == "local":
            # The module sees the controller's own files: it reads them where they are.
            progress["touched"] = True
            return self._module({**args, "source": {"type": "file", "path": str(directory)}})
        release = push.open_release(str(directory), args.get("digest"))
        inline = {"type": "push", "manifest": release.manifest, "signature": release.signature}
        if self._task.check_mode:
            return self._module({**args, "source": inline})
        # A plan that misses nothing goes on and does all of the work: a device that has the blobs costs one trip.
        progress["touched"] = True
        planned = self._module({**args, "source": {**inline, "plan": True}})
        if not planned.get("missing"):
            return planned
        progress["touched"] = False
        missing = release.check_missing(planned["missing"])
        with self._inbox(str(args.get("edge_root"))) as inbox:
            for entry in missing:
                self._connection.put_file(entry.local, self._connection._shell.join_path(inbox, entry.sha256))
            self._readable(inbox, [entry.sha256 for entry in missing])
            progress["touched"] = True
            return self._module({**args, "source": {**inline, "inbox": inbox}})

    @contextlib.contextmanager
    def _inbox(self, edge_root: str) -> Iterator[str]:
        """A directory on the device that only its owner enters, gone afterwards whatever happens.

        It lies under edge_root, on the store's file system. With another become user, the connection's user cannot
        write there: then it is one of Ansible's own temporary directories.
        """
        if self._becomes_another():
            inbox, sudoable = self._make_tmp_path(), False
        else:
            inbox, sudoable = push.inbox_path(edge_root), True
            made = self._low_level_execute_command(push.make_inbox_command(inbox), sudoable=True)
            if made.get("rc", 1) != 0:
                raise AnsibleActionFail(
                    f"cannot make {inbox} on the device: {(made.get('stderr') or made.get('stdout') or '').strip()}; "
                    "is edge_root provisioned and writable for this user?"
                )
        try:
            yield inbox
        finally:
            with contextlib.suppress(AnsibleConnectionFailure):
                remove = self._connection._shell.remove(inbox, recurse=True)
                self._low_level_execute_command(remove, sudoable=sudoable)

    def _becomes_another(self) -> bool:
        become = self._connection.become
        return become is not None and self.get_become_option("become_user") not in (None, self._get_remote_user())

    def _readable(self, inbox: str, names: list[str]) -> None:
        if self._becomes_another():
            paths = [inbox, *(self._connection._shell.join_path(inbox, name) for name in names)]
            self._fixup_perms2(paths, execute=False)


@contextlib.contextmanager
def _deadline(args: dict[str, Any], task_timeout: int | None) -> Iterator[None]:
    """End the whole call at the module's `timeout` and a margin. A task with a `timeout` of its own needs no second."""
    seconds = push.positive(args.get("timeout"))
    if task_timeout or not seconds or signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, None):
        yield
        return

    def passed(_signal: int, _frame: FrameType | None) -> None:
        raise DeadlinePassed(f"no answer within {seconds + MARGIN} seconds; what the device did is not known")

    signal.signal(signal.SIGALRM, passed)
    signal.alarm(seconds + MARGIN)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

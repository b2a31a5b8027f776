# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The controller's half of runtime_environment: send the wheels that the device lacks, each hashed before it goes.

Wheels travel in batches, and the device keeps what arrived: a cut connection costs one wheel, not all of them.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import WHEELS, check_wheel
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_lock import Package, read_lock
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.plugin_utils.inbox import InboxAction

MODULE = "edgeai.fleet.runtime_environment"
BATCH = 48 * 1024 * 1024
INTERNAL = ("inbox", "wheels", "plan", "offline")


class ActionModule(InboxAction):
    """Runs the module, and brings what it misses."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host; see the module's documentation for arguments and result."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        args = dict(self._task.args)
        for name in INTERNAL:
            if name in args:
                raise AnsibleActionFail(f"{name} is set by this action itself; leave it out")
        house = args.get("wheelhouse")
        if not house or args.get("state") == "absent":
            return self._module(args)
        house = os.path.expanduser(os.path.expandvars(str(house)))
        house = os.path.abspath(house) if os.path.isdir(house) else self._loader.path_dwim(house)
        args["offline"] = True
        if self._connection.transport == "local" and not self.becomes_another():
            return self._module({**args, "wheels": os.path.join(house, WHEELS)})
        if self._task.check_mode:
            return self._module(args)
        try:
            return self._push(args, house)
        except (DeviceError, ReleaseError) as error:
            raise AnsibleActionFail(str(error)) from error

    def _module(self, args: dict[str, Any]) -> dict[str, Any]:
        return self._execute_module(module_name=MODULE, module_args=args, task_vars=self._vars)

    def _push(self, args: dict[str, Any], house: str) -> dict[str, Any]:
        """Ask what is missing, send it batch by batch; the module does all the work as soon as nothing is missing."""
        listed = {item.file: item for item in read_lock(args["lock"]).packages}
        result = self._module({**args, "plan": True})
        sent: dict[str, int] = {}
        while result.get("missing") and not result.get("failed"):
            batch = _batch(result["missing"], listed, house)
            again = [package.file for _path, package in batch if package.file in sent]
            if again:
                raise AnsibleActionFail(f"the device still misses {again[0]} after it was sent; is its disk sound?")
            with self.inbox(str(args["home"]), secrets.token_hex(8)) as inbox:
                for path, package in batch:
                    self._connection.put_file(path, self._connection._shell.join_path(inbox, package.sha256))
                    sent[package.file] = os.path.getsize(path)
                self.readable(str(args["home"]), inbox, [package.sha256 for _path, package in batch])
                result = self._module({**args, "plan": True, "inbox": inbox})
        result.pop("missing", None)
        result["pushed"] = {"wheels": len(sent), "bytes": sum(sent.values())}
        return result


def _batch(missing: Any, listed: dict[str, Package], house: str) -> list[tuple[str, Package]]:
    """The next wheels to send, hashed now; at least one, and not more than BATCH bytes otherwise.

    Raises ReleaseError for a wheel that is not what the lock says, AnsibleActionFail for one that is not in the lock.
    """
    batch: list[tuple[str, Package]] = []
    size = 0
    for item in missing:
        package = listed.get(str(item.get("file")))
        if package is None or package.sha256 != item.get("sha256"):
            raise AnsibleActionFail(f"the device asks for {item.get('file')!r}, which is not in the lock")
        if batch and size + package.size > BATCH:
            break
        batch.append((check_wheel(house, package), package))
        size += package.size
    return batch

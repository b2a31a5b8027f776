# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The controller's half of runtime_environment: send the wheels that the device lacks, each hashed before it goes.

Wheels travel in batches, and the device keeps what arrived: a cut connection costs one wheel, not all of them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from collections.abc import Iterator
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import WHEELS, check_wheel
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_lock import Package, read_lock
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError

MODULE = "edgeai.fleet.runtime_environment"
BATCH = 48 * 1024 * 1024
INTERNAL = ("inbox", "wheels", "plan", "offline")


class ActionModule(ActionBase):
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
        if self._connection.transport == "local" and not self._becomes_another():
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
            with self._inbox(str(args["home"])) as inbox:
                for path, package in batch:
                    self._connection.put_file(path, self._connection._shell.join_path(inbox, package.sha256))
                    sent[package.file] = os.path.getsize(path)
                if self._becomes_another() and not inbox.startswith(str(args["home"])):
                    paths = [self._connection._shell.join_path(inbox, item.sha256) for _path, item in batch]
                    self._fixup_perms2([inbox, *paths], execute=False)
                result = self._module({**args, "plan": True, "inbox": inbox})
        result.pop("missing", None)
        result["pushed"] = {"wheels": len(sent), "bytes": sum(sent.values())}
        return result

    @contextlib.contextmanager
    def _inbox(self, home: str) -> Iterator[str]:
        """A directory on the device that only the connection's user (and root) enters, gone afterwards.

        It lies below ``home``: what arrived before the connection was cut is found there by the next run. Where the
        become user cannot make one for the connection's user, it is one of Ansible's own temporary directories.
        """
        inbox, sudoable = f"{home.rstrip('/')}/.inbox-{secrets.token_hex(8)}", True
        user = self._get_remote_user() if self._becomes_another() else ""
        command = f"umask 022 && mkdir -p {shlex.quote(home)} && mkdir -m 0700 {shlex.quote(inbox)}"
        if user:
            command += f" && chown {shlex.quote(user)} {shlex.quote(inbox)}"
        if user is None or self._low_level_execute_command(command, sudoable=True).get("rc", 1) != 0:
            inbox, sudoable = self._make_tmp_path(), False
        try:
            yield inbox
        finally:
            with contextlib.suppress(AnsibleConnectionFailure):
                self._low_level_execute_command(f"rm -rf {shlex.quote(inbox)}", sudoable=sudoable)

    def _becomes_another(self) -> bool:
        become = self._connection.become
        return become is not None and self.get_become_option("become_user") not in (None, self._get_remote_user())


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

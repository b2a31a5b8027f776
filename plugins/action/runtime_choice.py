# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The controller's half of runtime_choice: verify the wheelhouse, decide, find the lock."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import (
    Target,
    Wheelhouse,
    open_wheelhouse,
    read_locks,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_choice import Choice, Wishes, choose
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_lock import (
    Lock,
    check_wheel_name,
    dump_lock,
    misfit,
    normal_name,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_table import GLIBC
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now

LOCKS = os.path.join(os.path.dirname(__file__), "..", "..", "requirements", "locks.json")


class ActionModule(ActionBase):
    """Facts from the device, the decision here."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host; see the module's documentation for arguments and result."""
        super().run(tmp, task_vars)
        args = self._task.args
        try:
            house = self._stock(args)
            vendor = _vendor_wheels(self._path(args["vendor"])) if args.get("vendor") else None
        except ReleaseError as error:
            raise AnsibleActionFail(str(error)) from error
        result = self._execute_module(module_name="edgeai.fleet.runtime_choice", module_args=args, task_vars=task_vars)
        if result.get("failed"):
            return result
        device = result["device"]
        target = Target(".".join(str(device["python"]["version"]).split(".")[:2]), device["architecture"])
        wishes = Wishes(*(str(args.get(name) or "") for name in Wishes._fields))
        try:
            stocked = house.stocked(target) if house and args.get("wheelhouse") else None
            if vendor is not None:
                stocked = (stocked or set()) | _fitting(vendor, target)
            choice = choose(device, wishes, stocked)
            if house is not None:
                result["lock"] = dump_lock(_lock(choice, house, target))
        except (DeviceError, ReleaseError) as error:
            raise AnsibleActionFail(str(error), result={"device": device}) from error
        missing = [name for name in choice.system_packages if name not in device["packages"]]
        result["choice"] = {**choice._asdict(), "missing_packages": missing}
        return result

    def _stock(self, args: dict[str, Any]) -> Wheelhouse | None:
        """The wheelhouse, verified, or the file of locks; None when no lock is asked for. Raises ReleaseError."""
        if not args.get("wheelhouse"):
            wanted = boolean(args.get("lock", True))
            return read_locks(self._path(args.get("locks") or LOCKS)) if wanted else None
        trust = Trust.from_files(
            [self._path(item) for item in args.get("trust_keys") or ()],
            [self._path(item) for item in args.get("trust_roots") or ()],
        )
        if not trust.keys and not trust.roots:
            raise ReleaseError(
                "trust_keys: a wheelhouse needs a key that it is verified with; set edge_trust_keys in the inventory"
            )
        return open_wheelhouse(self._path(args["wheelhouse"]), trust, utc_now()).house

    def _path(self, value: Any) -> str:
        """A path on the controller: as it is, or relative to where the command runs, or to the playbook."""
        path = os.path.expanduser(os.path.expandvars(str(value)))
        return os.path.abspath(path) if os.path.exists(path) else str(self._loader.path_dwim(path))


def _vendor_wheels(directory: str) -> list[str]:
    """The wheels in a directory, by name. Raises ReleaseError when it cannot be listed."""
    try:
        return [name for name in os.listdir(directory) if name.endswith(".whl")]
    except OSError as error:
        raise ReleaseError(f"vendor: {directory}: cannot be listed ({error.strerror})") from error


def _fitting(wheels: list[str], target: Target) -> set[str]:
    """``package==version`` of the wheels that fit a target."""
    found = set()
    for name in wheels:
        match = check_wheel_name(name)
        if misfit(name, target.version, target.architecture, GLIBC.get(target.version, (2, 28))) is None:
            found.add(f"{normal_name(match['name'])}=={match['version']}")
    return found


def _lock(choice: Choice, house: Wheelhouse, target: Target) -> Lock:
    if choice.source == "system":
        return Lock(choice.runtime, "0", target.python, (), tuple((name, "") for name in choice.system_packages))
    return house.lock(choice.package, str(choice.version), target)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The controller's half of artifact_file: verify the signature, and send the file when the device lacks it."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.directory import Opened, open_artifacts
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError, as_artifact_error
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.manifest import Entry
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now
from ansible_collections.edgeai.fleet.plugins.plugin_utils.inbox import InboxAction

MODULE = "edgeai.fleet.artifact_file"
REQUIRED = ("artifacts", "component", "version", "file", "dest")
INTERNAL = ("candidates", "inbox")


class ActionModule(InboxAction):
    """Decides what may be installed; the module installs it."""

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
        for name in REQUIRED:
            if not args.get(name):
                raise AnsibleActionFail(f"{name} is missing or empty")
        try:
            return self._install(args)
        except ArtifactError as error:
            raise AnsibleActionFail(str(error)) from error

    def _install(self, args: dict[str, Any]) -> dict[str, Any]:
        opened = self._open(args)
        found = opened.manifest.candidates(*(str(args[name]) for name in ("component", "version", "file")))
        here = self._connection.transport == "local" and not self.becomes_another()
        candidates: dict[str, dict[str, Any]] = {}
        for architecture, entry in found.items():
            candidates[architecture] = {"sha256": entry.sha256, "size": entry.size}
            if here:  # the module reads it where it lies, and hashes what it wrote
                candidates[architecture]["source"] = opened.path(entry)
        args["candidates"] = candidates
        result = self._module(args)
        if not result.get("missing") or result.get("failed"):
            return result
        return self._push(args, opened, self._asked(found, result["missing"]))

    def _module(self, args: dict[str, Any]) -> dict[str, Any]:
        return self._execute_module(module_name=MODULE, module_args=args, task_vars=self._vars)

    def _open(self, args: dict[str, Any]) -> Opened:
        """The directory, its signature verified; a file in it is hashed when it is sent."""
        with as_artifact_error():
            trust = Trust.from_files(
                [self._path(item) for item in args.get("public_keys") or ()],
                [self._path(item) for item in args.get("ca_certificates") or ()],
            )
            return open_artifacts(self._path(args["artifacts"]), trust, utc_now())

    def _asked(self, found: dict[str, Entry], missing: Any) -> Entry:
        """The entry that the device asks for, which has to be one that it was offered."""
        for entry in found.values():
            if entry.sha256 == missing:
                return entry
        raise AnsibleActionFail(f"the device asks for {missing!r}, which it was not offered")

    def _push(self, args: dict[str, Any], opened: Opened, entry: Entry) -> dict[str, Any]:
        """Send the file, and let the module install it."""
        path, home = opened.checked(entry), os.path.dirname(str(args["dest"]))
        with self.inbox(home, entry.sha256[:16]) as inbox:
            self._connection.put_file(path, self._connection._shell.join_path(inbox, entry.sha256))
            self.readable(home, inbox, [entry.sha256])
            result = self._module({**args, "inbox": inbox})
        if result.get("missing"):
            raise AnsibleActionFail(f"the device still misses {entry.path} after it was sent; is its disk sound?")
        return result

    def _path(self, value: Any) -> str:
        """A path on the controller: as it is, or relative to where the command runs, or to the playbook."""
        path = os.path.expanduser(os.path.expandvars(str(value)))
        return os.path.abspath(path) if os.path.exists(path) else str(self._loader.path_dwim(path))

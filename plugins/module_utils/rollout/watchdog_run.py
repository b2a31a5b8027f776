# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""One run of the rollback playbook by the watchdog, through ansible-runner, as the run before it was called."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import MutableMapping
from typing import Any

# Set by a runner around the first run; in a nested one they would send its events to the wrong place.
RUNNER_VARIABLES = (
    "AWX_ISOLATED_DATA_DIR", "ANSIBLE_CALLBACK_PLUGINS", "RUNNER_OMIT_EVENTS", "RUNNER_ONLY_FAILED_EVENTS",
    "ANSIBLE_STDOUT_CALLBACK", "ANSIBLE_RETRY_FILES_ENABLED", "ANSIBLE_CACHE_PLUGIN", "ANSIBLE_CACHE_PLUGIN_CONNECTION",
)  # fmt: skip
TAIL = 4000


def clean_environment(environment: MutableMapping[str, str]) -> None:
    """Take a runner's variables out of ``environment``, and find this interpreter's own Ansible first."""
    under_runner = "AWX_ISOLATED_DATA_DIR" in environment
    for name in RUNNER_VARIABLES:
        if under_runner or not name.startswith("ANSIBLE_"):
            environment.pop(name, None)
    if environment.get("ANSIBLE_STDOUT_CALLBACK") == "awx_display":
        del environment["ANSIBLE_STDOUT_CALLBACK"]
    own = os.path.dirname(sys.executable)
    environment["PATH"] = os.pathsep.join([own, environment.get("PATH", os.defpath)])


class RollbackRun:
    """How the rollback playbook is called: the arguments of the run before it, its secrets in files of a directory
    nobody else enters, which is gone afterwards."""

    def __init__(self, run: dict[str, Any], rollout: str) -> None:
        """``run``: cwd, playbook, inventory[], options[], extra_vars[], vault[[label, secret]], become_password,
        connection_password, collections_path, config (see the callback, which makes it)."""
        self.run = run
        self.rollout = rollout

    def start(self, limit: float) -> dict[str, Any]:
        """Run the playbook to its end, for at most ``limit`` seconds; returns status, rc and the output's tail."""
        import ansible_runner

        private = tempfile.mkdtemp(prefix="edgeai-rollback-")
        try:
            run = ansible_runner.run(
                private_data_dir=private,
                project_dir=self.run["cwd"],
                playbook=self.run["playbook"],
                cmdline=shlex.join(self.arguments(private)),
                envvars=self._environment(),
                settings={"job_timeout": int(limit), "idle_timeout": 0},
                quiet=True,
                ident="rollback",
            )
            return {"status": str(run.status), "rc": run.rc, "output": self._tail(run)}
        except Exception as error:  # whatever a library raises, the watchdog must go on: another attempt, then the end
            return {"status": "error", "rc": None, "output": f"{type(error).__name__}: {error}"[:TAIL]}
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def arguments(self, private: str) -> list[str]:
        """The command line; what is secret goes into files under ``private`` (mode 0600)."""
        arguments: list[str] = []
        for source in self.run.get("inventory", []):
            arguments += ["-i", source]
        arguments += self.run.get("options", [])
        for number, (label, secret) in enumerate(self.run.get("vault", [])):
            arguments += ["--vault-id", f"{label}@{_keep(private, f'vault{number}', secret)}"]
        for option in ("become", "connection"):
            if self.run.get(f"{option}_password"):
                path = _keep(private, option, self.run[f"{option}_password"])
                arguments += [f"--{option}-password-file", path]
        for number, extra in enumerate(self.run.get("extra_vars", [])):
            # Files are named again, text given on the command line may hold secrets.
            path = extra["file"] if "file" in extra else _keep(private, f"extra{number}.yml", extra["yaml"])
            arguments += ["-e", f"@{path}"]
        ours = {"rollout_id": self.rollout, "edge_rollback_by": "watchdog"}
        return [*arguments, "-e", f"@{_keep(private, 'rollout.json', json.dumps(ours))}"]

    def _environment(self) -> dict[str, str]:
        environment = {"ANSIBLE_COLLECTIONS_PATH": self.run["collections_path"], "ANSIBLE_NOCOLOR": "1"}
        if self.run.get("config"):
            environment["ANSIBLE_CONFIG"] = self.run["config"]
        return environment

    def _tail(self, run: Any) -> str:
        with contextlib.suppress(OSError), open(run.stdout.name, "rb") as output:
            output.seek(max(0, os.fstat(output.fileno()).st_size - TAIL))
            return output.read().decode("utf-8", "replace")
        return ""


def _keep(directory: str, name: str, content: str) -> str:
    path = os.path.join(directory, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        handle.write(content)
    return path

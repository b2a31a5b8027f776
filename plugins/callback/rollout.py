# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Callback edgeai.fleet.rollout: the ledger's eyes in the main process, and who starts the watchdog."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout
type: notification
short_description: Records a rollout as it happens and puts a watchdog behind it
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Writes waves, unreachable devices and failed tasks into the ledger, each as it happens.
  - When P(edgeai.fleet.rollout_plan#module) has planned a rollout with waves, it starts a watchdog, a process in a
    session of its own. If the run ends without a verdict (interrupted, terminated, killed, crashed, out of hosts), the
    watchdog waits for the tasks in flight and runs the playbook C(edgeai.fleet.rollback) with the run's own inventory,
    extra variables, vault secrets, user, key and passwords, for every device that has an intent and no outcome in the
    ledger.
  - P(edgeai.fleet.model_release#module) activates nothing while no watchdog of its rollout lives.
  - If the watchdog cannot be started, the run ends before the first device is touched.
  - In a container, everything ends with the container, this watchdog too. The net below it is the device's own
    deadline.
  - Hosts that exist only in memory (C(add_host)) are not known to the watchdog's run.
requirements:
  - enabled by C(callbacks_enabled = edgeai.fleet.rollout)
  - ansible-runner
options:
  watchdog:
    description:
      - Whether to start a watchdog.
      - Without one, activations must be told so (O(edgeai.fleet.model_release#module:watchdog=false)).
    type: bool
    default: true
    env:
      - name: EDGEAI_FLEET_WATCHDOG
    ini:
      - section: edgeai_fleet
        key: watchdog
  rollback_deadline:
    description:
      - For how many seconds the watchdog tries devices again that it cannot reach.
      - V(0) means the plan's C(confirm_within). After that, the devices go back by themselves anyway.
    type: int
    default: 0
    env:
      - name: EDGEAI_FLEET_ROLLBACK_DEADLINE
    ini:
      - section: edgeai_fleet
        key: rollback_deadline
  in_flight:
    description:
      - For how many seconds the tasks in flight may go on after the run is gone.
      - V(0) means the plan's deadline of an activation and half a minute.
    type: int
    default: 0
    env:
      - name: EDGEAI_FLEET_IN_FLIGHT
    ini:
      - section: edgeai_fleet
        key: in_flight
  stall:
    description:
      - A run without any event for so many seconds (and the plan's soak) counts as stuck. It is killed and rolled back.
        While it waits for people, in a pause or for an approval, it may be silent for as long as it said in the ledger.
      - V(0) never does that.
    type: int
    default: 3600
    env:
      - name: EDGEAI_FLEET_STALL
    ini:
      - section: edgeai_fleet
        key: stall
  wait:
    description:
      - Whether a run that comes to its end without a verdict waits for the watchdog's rollback.
      - In a CI job or a container, what is not waited for dies with the job.
    type: bool
    default: true
    env:
      - name: EDGEAI_FLEET_WAIT
    ini:
      - section: edgeai_fleet
        key: wait
"""

import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.parsing.splitter import parse_kv
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar
from ansible.utils.collection_loader import AnsibleCollectionConfig

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import watchdog_main
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, finished
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger_format import plain

PLAYBOOK = "edgeai.fleet.rollback"
START_LIMIT = 60
MAX_MSG = 2048
CLI_OPTIONS = {
    "remote_user": "--user",
    "private_key_file": "--private-key",
    "connection": "--connection",
    "timeout": "--timeout",
    "ssh_common_args": "--ssh-common-args",
    "ssh_extra_args": "--ssh-extra-args",
    "sftp_extra_args": "--sftp-extra-args",
    "scp_extra_args": "--scp-extra-args",
    "become_method": "--become-method",
    "become_user": "--become-user",
    "forks": "--forks",
}


class CallbackModule(CallbackBase):
    """One object for a whole ansible-playbook run. Idle until a plan with waves appears."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "edgeai.fleet.rollout"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loader: Any = None
        self._play_context: Any = None
        self._plan: dict[str, Any] = {}
        self._ledger: Ledger | None = None
        self._wave: int | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._last_sign = 0.0

    def set_play_context(self, play_context: Any) -> None:
        """Keep the passwords that were typed for this run."""
        self._play_context = play_context

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Keep the loader: it holds the vault's secrets."""
        self._loader = playbook._loader

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A batch of the play that is marked with edge_wave_play begins: that is a wave."""
        self._wave = None
        if self._ledger is None or not play.vars.get("edge_wave_play"):
            return
        hosts = play.get_variable_manager().get_vars(play=play).get("ansible_play_batch") or []
        hosts = [host for host in hosts if host in self._plan.get("wave_of", {})]
        waves = sorted({self._plan["wave_of"][host] for host in hosts})
        self._wave = waves[0] if waves else None
        self._append("wave_started", {"wave": self._wave, "hosts": hosts})
        self._ledger.checkpoint()

    def v2_runner_on_ok(self, result: Any) -> None:
        """A plan starts the recording; anything else is a sign of life."""
        if result.task.action in ("edgeai.fleet.rollout_plan", "rollout_plan"):
            self._planned(result)
        self._sign()

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A sign of life."""
        self._sign()

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Recorded with the task, because what was under way on the device matters."""
        self._sign()
        if "results" not in result.result:  # a loop over other devices: each of them has its own record
            self._append("unreachable", self._about(result), result.host.get_name())

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Recorded unless the action plugin has recorded the whole result itself."""
        self._sign()
        recorded = result.result.get("ledger_recorded") or (
            "results" in result.result and result.task.action.endswith("model_release")
        )
        if self._ledger is not None and not recorded:
            self._append("task_failed", {**self._about(result), "ignored": bool(ignore_errors)}, result.host.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run came to its end by itself: with a verdict the watchdog may go, without one it goes to work now."""
        if self._ledger is None:
            return
        status = finished(self._ledger.records(self._plan["rollout_id"]), self._plan["rollout_id"])
        self._ledger.checkpoint()
        watchdog = self._watchdog
        if watchdog is None or watchdog.stdin is None:
            return
        if status is not None:
            self._write(b"end\n")
            watchdog.stdin.close()
            watchdog.wait(timeout=30)
            return
        self._display.warning(
            f"The run ended without a verdict. The watchdog (process {watchdog.pid}) takes back what is unsettled; "
            f"its log is {self._log()}."
        )
        watchdog.stdin.close()
        if self.get_option("wait"):
            self._wait(watchdog)

    def _wait(self, watchdog: subprocess.Popen[bytes]) -> None:
        if watchdog.wait() == 0:
            self._display.display("The watchdog has settled every device.", color=C.COLOR_CHANGED)
        else:
            self._display.error(
                f"The watchdog could not settle every device (see {self._log()}); they go back by their own deadline. "
                "Try again with: ansible-playbook edgeai.fleet.rollback"
            )

    def _log(self) -> str:
        return os.path.join(self._ledger.directory if self._ledger else "", f"watchdog-{self._plan.get('model')}.log")

    def _about(self, result: Any) -> dict[str, Any]:
        about = {"task": result.task_name, "action": result.task.action, "wave": self._wave}
        if "censored" not in result.result:
            about["msg"] = str(result.result.get("msg") or "")[:MAX_MSG]
        return about

    def _append(self, record_type: str, data: dict[str, Any], host: str | None = None) -> None:
        if self._ledger is not None:
            self._ledger.append(record_type, data, self._plan["rollout_id"], host)

    def _planned(self, result: Any) -> None:
        """Start recording; with waves in the plan, put a watchdog behind the run or end it."""
        plan = result.result.get("plan") or {}
        args = result.task_fields.get("args") or {}
        directory = result.result.get("ledger") or args.get("ledger")
        if (
            result.task_fields.get("check_mode")
            or context.CLIARGS.get("check")
            or not plan.get("waves")
            or not directory
        ):
            return
        key = result.result.get("ledger_key") or args.get("ledger_key")
        self._plan, self._ledger = plain(plan), Ledger(str(directory), str(key) if key else None)
        if not self.get_option("watchdog"):
            self._append("watchdog", {"event": "switched_off"})
            return
        try:
            self._start_watchdog()
        except (RolloutError, OSError, ValueError) as error:
            self._append("watchdog", {"event": "not_armed", "reason": str(error)})
            self._display.error(f"No watchdog, so nothing is rolled out: {error}")
            # An exception of a callback is only a warning to Ansible, and the run would go on without its net.
            raise SystemExit(3) from error

    def _variable(self, result: Any, name: str) -> Any:
        """A variable as the plan's task saw it."""
        variables = result.task.play.get_variable_manager().get_vars(
            play=result.task.play, host=result.host, task=result.task
        )
        return (
            Templar(loader=self._loader, variables=variables).template(variables[name]) if name in variables else None
        )

    def _start_watchdog(self) -> None:
        config = json.dumps(self._config()).encode()
        watchdog = subprocess.Popen(
            [sys.executable, os.path.abspath(watchdog_main.__file__)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/", close_fds=True,
        )  # fmt: skip
        self._watchdog = watchdog
        self._write(config + b"\n")
        answer = _answer(watchdog)
        if "armed" not in answer:
            self._watchdog = None
            watchdog.kill()
            watchdog.wait()
            raise RolloutError(str(answer.get("refused") or "the watchdog did not start"))

    def _config(self) -> dict[str, Any]:
        """What the watchdog must know (see module_utils/rollout/watchdog.py). Holds secrets: it goes through a pipe."""
        if self._ledger is None:
            raise RolloutError("there is no ledger")
        policy = self._plan.get("policy") or {}
        deadlines = policy.get("deadlines") or {}
        stall = self.get_option("stall")
        asking = float((policy.get("prometheus") or {}).get("deadline", 0))
        return {
            "ledger": os.path.abspath(self._ledger.directory),
            "ledger_key": os.path.abspath(self._ledger.signing_key_path) if self._ledger.signing_key_path else None,
            "rollout": self._plan["rollout_id"],
            "model": self._plan["model"],
            "pid": os.getpid(),
            "in_flight": self.get_option("in_flight")
            or float(deadlines.get("activate", 300)) + 30 + float(policy.get("jitter", 0)),
            "stall": stall + float(policy.get("soak", 0)) + asking if stall else 0,
            "deadline": self.get_option("rollback_deadline") or float(policy.get("confirm_within", 900)),
            "run": {
                "cwd": os.getcwd(),
                "playbook": PLAYBOOK,
                "inventory": [str(source) for source in context.CLIARGS.get("inventory") or ()],
                "options": _options(),
                "extra_vars": [_extra(str(text)) for text in context.CLIARGS.get("extra_vars") or () if text],
                "vault": self._vault(),
                "become_password": _text(getattr(self._play_context, "become_pass", None)),
                "connection_password": _text(getattr(self._play_context, "password", None)),
                "collections_path": os.pathsep.join(str(path) for path in AnsibleCollectionConfig.collection_paths),
                "config": str(C.CONFIG_FILE) if C.CONFIG_FILE else None,
            },
        }

    def _vault(self) -> list[list[str]]:
        secrets = getattr(getattr(self._loader, "_vault", None), "secrets", None) or []
        return [[str(label or "default"), _text(secret.bytes) or ""] for label, secret in secrets if secret.bytes]

    def _sign(self) -> None:
        """A sign of life, at most one a second; a watchdog that has died is replaced at the first event after it."""
        if self._watchdog is None:
            return
        now = time.monotonic()
        if self._watchdog.poll() is None:
            if now - self._last_sign < 1.0:
                return
            if self._write(b"\n"):
                self._last_sign = now
                return
        self._append("watchdog", {"event": "lost", "pid": self._watchdog.pid})
        self._display.warning("The watchdog has died; starting another one.")
        self._start_watchdog()

    def _write(self, data: bytes) -> bool:
        stdin = self._watchdog.stdin if self._watchdog else None
        if stdin is None:
            return False
        try:
            stdin.write(data)
            stdin.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True


def _answer(watchdog: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The watchdog's one line: {"armed": pid} or {"refused": reason}; empty when none came in time."""
    stdout = watchdog.stdout
    if stdout is None:
        return {}
    line = b""
    until = time.monotonic() + START_LIMIT
    while not line.endswith(b"\n") and select.select([stdout], [], [], max(0.0, until - time.monotonic()))[0]:
        block = os.read(stdout.fileno(), 4096)
        if not block:
            break
        line += block
    stdout.close()
    content = json.loads(line) if line.endswith(b"\n") else {}
    return content if isinstance(content, dict) else {}


def _options() -> list[str]:
    """The run's connection and become options, as arguments."""
    options = [f"{flag}={context.CLIARGS[name]}" for name, flag in CLI_OPTIONS.items() if context.CLIARGS.get(name)]
    return options + (["--become"] if context.CLIARGS.get("become") else [])


def _extra(text: str) -> dict[str, str]:
    """One ``-e``: a file stays a file, text becomes the content of one."""
    if text.startswith("@"):
        return {"file": os.path.abspath(os.path.expanduser(text[1:]))}
    return {"yaml": text if text[0] in "[{" else json.dumps(plain(parse_kv(text)))}


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)

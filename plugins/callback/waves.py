# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Callback edgeai.fleet.waves: what a person watches."""

from __future__ import annotations

DOCUMENTATION = r"""
name: waves
type: stdout
short_description: A rollout on one screen, whatever the fleet's size
version_added: 0.1.0
author: edgeai.fleet contributors (@edgeai-fleet)
description:
  - Shows the plan, then a line per stratum for each wave, the verdicts with their reasons, the first failures in
    detail, and a summary. Counts, not a line per device.
  - On a terminal, the wave is redrawn in place. Elsewhere, for example in a CI job, lines are appended as things are
    decided.
  - Other tasks take one line each. Their errors are shown in full, equal ones once with the hosts they befell.
  - Works for any playbook. Colors follow Ansible's settings and E(NO_COLOR).
options:
  live:
    description:
      - V(auto) redraws on a terminal, V(always) and V(never) do what they say.
    type: str
    choices: [auto, always, never]
    default: auto
    env:
      - name: EDGEAI_FLEET_LIVE
    ini:
      - section: edgeai_fleet
        key: live
  max_failures:
    description: How many failed devices of a wave are described.
    type: int
    default: 5
    env:
      - name: EDGEAI_FLEET_MAX_FAILURES
    ini:
      - section: edgeai_fleet
        key: max_failures
  result_format:
    name: Format of the task result
    description: Format in which the result of a failed task is shown.
    default: yaml
    type: str
    choices: [json, yaml]
    env:
      - name: ANSIBLE_CALLBACK_RESULT_FORMAT
    ini:
      - section: defaults
        key: callback_result_format
"""

import shutil
import sys
import time
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.utils.color import stringc

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import waves_text
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.waves_model import Rollout, Wave, outcome_of
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.waves_tasks import TaskLog

COLORS = {
    "head": "bright blue", "dim": "bright gray", "ok": C.COLOR_OK, "done": C.COLOR_CHANGED, "bad": C.COLOR_ERROR,
    "away": C.COLOR_UNREACHABLE,
}  # fmt: skip
QUIET = frozenset(
    ("set_fact", "assert", "meta", "include_tasks", "import_tasks", "include_role", "import_role", "add_host")
)
REDRAW = 0.1
PROGRESS = 20


class CallbackModule(CallbackBase):
    """Feeds results into the model of a rollout and prints what changed."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "edgeai.fleet.waves"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rollout = Rollout()
        self._wave: Wave | None = None
        self._batch: list[str] = []
        self._drawn = 0
        self._drawn_at = 0.0
        self._answered = self._told = 0
        self._shown = False
        self._started = self._wave_began = time.monotonic()
        self._tasks = TaskLog()
        self._is_wave_play = False

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        """Read the options; decide once whether to redraw."""
        super().set_options(task_keys, var_options, direct)
        live = self.get_option("live")
        self._live = live == "always" or (live == "auto" and sys.stdout.isatty())
        self._unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"

    # Output

    def _paint(self, line: waves_text.Line) -> str:
        return "".join(stringc(text, COLORS[style]) if style in COLORS and text else text for text, style in line)

    def _print(self, lines: list[waves_text.Line]) -> None:
        for line in lines:
            self._display.display(self._paint(line))

    def _say(self, text: str, color: str | None = None, stderr: bool = False) -> None:
        """Text above the live block."""
        self._erase()
        self._display.display(text, color=color, stderr=stderr)

    def _erase(self) -> None:
        if self._drawn:
            sys.stdout.write(f"\x1b[{self._drawn}A\x1b[J")
            sys.stdout.flush()
            self._drawn = 0

    def _draw(self, force: bool = False) -> None:
        """Redraw the wave in place, at most ten times a second."""
        now = time.monotonic()
        if not self._live or self._wave is None or (not force and now - self._drawn_at < REDRAW):
            return
        self._drawn_at = now
        size = shutil.get_terminal_size()
        lines = self._wave_lines(self._wave)[: max(3, size.lines - 2)]
        self._erase()
        for line in lines:
            sys.stdout.write(self._paint(waves_text.cut(line, size.columns - 1)) + "\n")
        sys.stdout.flush()
        self._drawn = len(lines)

    def _wave_lines(self, wave: Wave) -> list[waves_text.Line]:
        elapsed = time.monotonic() - self._wave_began
        waves = len(self._rollout.plan.get("waves") or [])
        limit = self.get_option("max_failures")
        lines = waves_text.wave_lines(wave, waves, limit, self._unicode, f"{elapsed:.0f} s")
        for stage in ("activation", "metrics", "soak"):
            lines += waves_text.query_lines(wave, stage) + waves_text.verdict_lines(wave, stage)
        return lines

    def _close_wave(self) -> None:
        """The wave is over: its last state stays on the screen."""
        wave, self._wave = self._wave, None
        self._erase()
        if wave is not None and wave.outcomes and (self._live or not self._shown):
            self._print(self._wave_lines(wave))

    def _open_wave(self, wave: Wave) -> None:
        self._close_wave()
        self._wave, self._wave_began, self._answered, self._told, self._shown = wave, time.monotonic(), 0, 0, False
        if not self._live and wave.number is not None:
            strata = f"{len(wave.strata)} {waves_text.plural('stratum', len(wave.strata))}"
            devices = f"{wave.total} {waves_text.plural('device', wave.total)}"
            self._print([[(f"Wave {wave.number} starts: {devices} in {strata}", "head")]])
        self._draw(True)

    # Plays and tasks

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A wave, or some other play."""
        self._flush_task()
        self._is_wave_play = bool(play.vars.get("edge_wave_play"))
        if self._is_wave_play and self._rollout.plan.get("waves"):
            hosts = play.get_variable_manager().get_vars(play=play).get("ansible_play_batch") or []
            self._open_wave(self._rollout.wave_started(hosts))
        elif self._wave is not None and self._wave.number is not None:
            self._close_wave()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Print what the task before came to."""
        self._flush_task()
        self._tasks.start(task.get_name().strip(), task.action)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Handlers are tasks."""
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Nothing to do in this play. In a rollout that is a plan without waves; else it deserves a word."""
        if not self._rollout.plan and not self._rollout.status:
            self._say("skipping: no hosts matched", color=C.COLOR_SKIP)

    def _flush_task(self) -> None:
        for text, color in self._tasks.finish(quiet=self._quiet_task(), verbosity=self._display.verbosity):
            self._say(text, color=color)
        if self._tasks.name:
            self._draw()

    def _quiet_task(self) -> bool:
        return _short(self._tasks.action) in QUIET or self._tasks.action.startswith("edgeai.fleet.rollout_")

    # Results

    def v2_runner_on_ok(self, result: Any) -> None:
        """Feed the model, or count."""
        if not self._fleet(result, failed=False):
            self._tasks.count("changed" if result.is_changed() else "ok", result.host.get_name())
        self._details(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Feed the model, or count."""
        if not self._fleet(result, failed=False, skipped=True):
            self._tasks.count("skipped", result.host.get_name())

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Feed the model, or show."""
        if not self._fleet(result, failed=True, unreachable=True):
            message = str(result.result.get("msg") or "").strip()
            self._tasks.problem("unreachable", self.host_label(result), message, C.COLOR_UNREACHABLE)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Feed the model, or show in full."""
        if self._fleet(result, failed=True):
            return
        if ignore_errors:
            self._tasks.problem("ignored", self.host_label(result), _message(result.result), C.COLOR_SKIP)
            return
        label, text, key = self.host_label(result), self._dump_results(result.result), self._key(result.result)
        if self._tasks.problem("failed", label, text, C.COLOR_ERROR, key) and "censored" not in result.result:
            self._erase()
            self._handle_warnings_and_exception(result)

    def _key(self, result: Any) -> str:
        """The result without what differs between hosts that failed in the same way."""
        return self._dump_results(
            {name: value for name, value in result.items() if name not in ("start", "end", "delta")}
        )

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """A device that another one's task took back; else what there is to say: warnings, words of a debug task."""
        self._errand(result, failed=False)
        self._details(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """A loop's failed item, in full; the loop itself comes afterwards."""
        if self._errand(result, failed=True):
            return
        label = f"{self.host_label(result)} (item={self._get_item_label(result.result)})"
        self._tasks.problem("failed", label, self._dump_results(result.result), C.COLOR_ERROR)

    def v2_runner_retry(self, result: Any) -> None:
        """One line for each retry."""
        left = result.result.get("retries", 0) - result.result.get("attempts", 0)
        self._say(f"retrying: {self.host_label(result)}: {result.task_name} ({left} left)", color=C.COLOR_DEBUG)

    def v2_on_file_diff(self, result: Any) -> None:
        """Diffs, equal ones of many hosts once."""
        # ansible-core 2.19 sends a loop's items one by one, other versions the loop as a whole
        for item in result.result.get("results") or [result.result]:
            if isinstance(item, dict) and item.get("diff"):
                self._tasks.diff(result.host.get_name(), self._get_diff(item["diff"]))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The summary of a rollout, and the totals of whatever else ran."""
        self._flush_task()
        self._close_wave()
        hosts = sorted(stats.processed)
        per_host = {host: stats.summarize(host) for host in hosts}
        if self._rollout.plan or self._rollout.status:
            self._print(waves_text.summary_lines(self._rollout, time.monotonic() - self._started))
        for text, color in self._tasks.totals(per_host, bool(self._rollout.plan)):
            self._say(text, color=color)
        if context.CLIARGS.get("check"):
            self._say("check mode: nothing was changed", color=C.COLOR_SKIP)

    def _details(self, result: Any) -> None:
        """Warnings, debug output, and with -v the results of other tasks."""
        if result.result.get("warnings") or result.result.get("deprecations"):
            self._erase()
            self._handle_warnings(result.result)
        if self._run_is_verbose(result):
            self._clean_results(result.result, result.task.action)
            self._tasks.say(self.host_label(result), self._dump_results(result.result))

    def _fleet(self, result: Any, failed: bool, unreachable: bool = False, skipped: bool = False) -> bool:
        """True when the result was one of a rollout's own tasks and went into the model."""
        action = _short(result.task.action)
        if action == "rollout_plan" and not failed and not skipped:
            self._plan(result)
        elif action == "model_release" and (self._is_wave_play or self._state(result) == "reverted"):
            if "results" not in result.result:  # a loop's items were told one by one
                self._release(result, failed, unreachable, skipped)
        elif action == "rollout_gate" and (result.result.get("strata") is not None or result.result.get("status")):
            self._judge(result.result)
        elif action == "rollout_begin" and not failed and not skipped:
            self._begun(result.result)
        elif action == "rollout_undo":
            self._rollout.undone(result.result)
            return not failed
        else:
            return False
        return True

    def _begun(self, result: Any) -> None:
        """Who of the wave was deferred, or that the rollout ends before it."""
        self._rollout.begun(result)
        lines = waves_text.begun_lines(result)
        if lines:
            self._erase()
            self._print(lines)
            self._draw(True)

    def _errand(self, result: Any, failed: bool) -> bool:
        """True when the item of a loop was a device of an earlier wave that goes back."""
        if _short(result.task.action) != "model_release":
            return False
        self._release(result, failed, bool(result.result.get("unreachable")), False)
        return True

    def _state(self, result: Any) -> str:
        return str((result.task_fields.get("args") or {}).get("state") or result.task.args.get("state") or "active")

    def _plan(self, result: Any) -> None:
        plan = result.result.get("plan")
        if plan:
            self._rollout.planned(plan)
            self._erase()
            self._print(waves_text.plan_lines(plan, bool(context.CLIARGS.get("check"))))

    def _release(self, result: Any, failed: bool, unreachable: bool, skipped: bool) -> None:
        state = self._state(result)
        if skipped and state == "reverted":
            return
        outcome = outcome_of(state, result.result, failed, unreachable, skipped)
        # A loop's item is the device that another device's task takes back.
        host = str(result.result["item"]) if "ansible_loop_var" in result.result else result.host.get_name()
        wave = self._rollout.released(host, state, outcome, result.result, self._is_wave_play)
        if wave is not self._wave:
            self._open_wave(wave)
        self._progress(wave)
        self._draw()

    def _progress(self, wave: Wave) -> None:
        """Without a terminal: a line at each quarter of a large wave's answers."""
        if self._live or wave.total < PROGRESS:
            return
        self._answered += 1
        quarter = wave.total // 4
        if self._answered % quarter == 0 and self._answered <= 4 * quarter:
            line: waves_text.Line = [(f"  {self._answered}/{wave.total} answered  ", "dim")]
            self._print([line + waves_text.count_pieces(wave.counts())])

    def _judge(self, result: Any) -> None:
        self._rollout.judged(result)
        wave = self._wave
        stages = [str(part.get("stage")) for part in [*(result.get("before") or []), result]]
        told = [stage for stage in stages if wave and any(verdict.stage == stage for verdict in wave.verdicts)]
        if wave is not None and not self._live and told:
            for stage in told:
                if stage != "soak" or "confirmed" in wave.outcomes.values():
                    limit = self.get_option("max_failures")
                    self._print(waves_text.stage_lines(wave, limit, self._unicode, stage, self._told))
                    self._told = len(wave.failures)
            self._answered, self._told, self._shown = 0, len(wave.failures), True
        self._draw(True)


def _short(action: str) -> str:
    return str(action).rsplit(".", 1)[-1]


def _message(result: Any) -> str:
    return " ".join(str(result.get("msg") or result.get("censored") or "").split())

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of k3s_upgrade_gate: may the next machine begin, and how did the upgrade end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import upgrade, upgrade_plan
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.gates import preview, wave_verdict
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.history import read_progress
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import parse_policy
from ansible_collections.edgeai.fleet.plugins.plugin_utils.rollout_action import Listener, RolloutAction

ARGUMENT_SPEC: dict[str, Any] = {
    "stage": {"type": "str", "required": True, "choices": ["before", "after", "wave", "finish"]},
    "server": {"type": "str"},
    "servers": {"type": "dict"},
    "wave": {"type": "int"},
    "plan": {"type": "dict", "required": True},
    "state": {"type": "dict", "required": True},
    "ledger": {"type": "path"},
    "ledger_key": {"type": "path"},
}
KEPT = ("wave", "kind", "stage", "verdict", "strata", "halted_strata", "failed_strata", "held_strata", "rollback",
        "halt", "halt_reason", "unreachable_budget")  # fmt: skip


class ActionModule(RolloutAction):
    """Judges on the controller; see the module's documentation for arguments and result."""

    ARGUMENTS = ARGUMENT_SPEC

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return whether anything new may start, or how the upgrade ended."""
        plan, ledger = self.read_plan(args), self.read_ledger(args)
        if self._task.check_mode:
            ledger = None
        state = dict(args["state"])
        if args["stage"] == "finish":
            return self._finish(plan, state, ledger)
        if args["stage"] == "wave":
            return self._wave(plan, int(args["wave"] or 0), state, ledger)
        return self._server(args, plan, state, ledger)

    # -- servers ---------------------------------------------------------------------------------------------------

    def _server(
        self, args: Mapping[str, Any], plan: Mapping[str, Any], state: dict[str, Any], ledger: Ledger | None
    ) -> dict[str, Any]:
        """Judge the quorum, and after a switch what came of it."""
        name, stage = str(args["server"]), args["stage"]
        said, away = {}, []
        for host, found in (args["servers"] or {}).items():
            node = found.get("node") if isinstance(found, Mapping) else None
            if node is None:
                away.append(host)
            else:
                said[host] = upgrade.ServerState(node["api"], node["etcd"], node["members"])
        if stage == "before" and name in plan["resumed"]:
            found = upgrade.Quorum(True, "", "it was left in between, so it is put right whatever the others say")
        else:
            found = upgrade.judge_quorum(said, away)
        reason = found.reason
        if stage == "after":
            result = self.host_variable(name, "k3s_upgrade_result") or {}
            if not self._task.check_mode and result.get("result") not in ("upgraded", "unchanged"):
                reason = (str(result.get("msg") or "") or "nothing is known of its switch").splitlines()[0]
        if ledger:
            about = {"server": name, "stage": stage, "fine": not reason, "reason": reason, "note": found.note}
            ledger.append("quorum", about, plan["rollout_id"], name)
        msg = f"server {name}, {stage}: {reason or found.note}"
        if reason and not state["halt"]:
            state.update(halt=True, halt_reason=f"server {name}: {reason}")
        return {"changed": False, "halt": state["halt"], "state": state, "msg": msg}

    # -- waves of agents -------------------------------------------------------------------------------------------

    def _wave(self, plan: Mapping[str, Any], wave: int, state: dict[str, Any], ledger: Ledger | None) -> dict[str, Any]:
        policy = parse_policy(plan["policy"], "plan.policy")
        answers = {host: self._answer(host) for item in plan["waves"][:wave] for host in item["hosts"]}
        outcomes = state.get("outcomes") or {}
        results = {}
        for host, answer in answers.items():
            deferred = {"outcome": "deferred"} if outcomes.get(host) == "deferred" else None
            results[host] = deferred or upgrade_plan.entry_of(answer, plan["digest"]) or {}
        if self._task.check_mode:
            planned = {host: {"outcome": "confirmed"} for host in results}
            verdict = preview(planned, plan, wave, "soak", policy)
        else:
            verdict = wave_verdict(results, plan, wave, "soak", policy, state.get("halted_strata") or ())
        # A device that does not take the new version is back already, by itself; what was proven stays.
        verdict.update(rollback=[], quarantine=[])
        here = [answers[host] for host in plan["waves"][wave - 1]["hosts"]]
        away = upgrade_plan.api_away(here)
        if away and not verdict["halt"]:
            verdict.update(halt=True, halt_reason=f"nothing new starts: {away}")
        if ledger:
            ledger.append("verdict", {name: verdict[name] for name in KEPT}, plan["rollout_id"])
            if not verdict["halt"] and wave < len(plan["waves"]):
                listener = Listener(ledger, str(plan["rollout_id"]))
                self.wait(policy.soak, listener.abort)
        state.update(halted_strata=verdict["halted_strata"], halt=verdict["halt"], halt_reason=verdict["halt_reason"])
        said = "; ".join(f"{name}: {found['reason']}" for name, found in verdict["strata"].items())
        msg = f"wave {wave}: {verdict['verdict']}; {said}"
        return {"changed": False, **verdict, "state": state, "msg": msg}

    def _answer(self, host: str) -> Any:
        """What came of a host: of its drain when that failed, else of its switch."""
        drained = self.host_variable(host, "k3s_upgrade_drained") or {}
        if drained.get("failed") or drained.get("unreachable"):
            return drained
        return self.host_variable(host, "k3s_upgrade_result")

    # -- the end ---------------------------------------------------------------------------------------------------

    def _finish(self, plan: Mapping[str, Any], state: Mapping[str, Any], ledger: Ledger | None) -> dict[str, Any]:
        work = bool(plan["waves"] or plan["servers"])
        if ledger is None:
            status = "succeeded" if work else "nothing_to_do"
            return {"changed": False, "status": status, "desired": True, "msg": f"check mode: would end as {status}"}
        rollout = str(plan["rollout_id"])
        progress = read_progress(ledger.records(rollout), rollout)
        if not progress.started:
            left = _excused(plan)
            msg = f"K3s {plan['version']}: nothing to do{left}"
            return {"changed": False, "status": "nothing_to_do", "desired": not left, "msg": msg}
        status, why = _status(plan, state, progress, work)
        touched = {record["host"] for record in ledger.records(rollout) if record["type"] == "intent"}
        waiting = [host for host in plan["hosts"] if host not in touched and host not in progress.deferred]
        here = {*plan["servers"], *plan["hosts"], *(entry["host"] for entry in plan["deferred"])}
        between = sorted(here & set(upgrade_plan.in_between(ledger.records())))
        for host in waiting:
            about = {name: plan[name] for name in ("model", "version", "digest")}
            entry = {"host": host, "kind": "held", "reason": why or "the upgrade ended before its wave"}
            ledger.append("deferred", {**entry, "stratum": plan["stratum_of"][host], **about}, rollout, host)
        ended = {"planned": len(plan["hosts"]), "deferred": len(waiting), "unsettled": len(between), "why": why}
        ledger.append("rollout_finished", {"status": status, **ended}, rollout)
        ledger.checkpoint()
        msg = f"K3s {plan['version']} ({rollout}): {status}{': ' + why if why else ''}{_excused(plan)}"
        if waiting:
            msg += f". Never started: {', '.join(waiting)}"
        if between:
            msg += f". In between, the next run puts them right: {', '.join(between)}"
        desired = status == "succeeded" and not between and not _excused(plan)
        return {"changed": False, "status": status, "desired": desired, "deferred": waiting, "unsettled": between,
                "msg": msg}  # fmt: skip


def _status(plan: Mapping[str, Any], state: Mapping[str, Any], progress: Any, work: bool) -> tuple[str, str]:
    """(status, why) of an upgrade that has come to its end."""
    if progress.aborted:
        return "aborted", progress.aborted
    if progress.stopped:
        return "stopped", f"{progress.stopped}; run it again to go on"
    if state.get("halt"):
        return "halted", str(state.get("halt_reason") or "")
    if progress.halted_strata:
        return "halted", f"held in {', '.join(sorted(progress.halted_strata))}"
    judged = all((wave["number"], "soak") in progress.verdicts for wave in plan["waves"])
    if not judged:
        return "aborted", "a wave was never judged"
    return ("succeeded" if work else "nothing_to_do"), ""


def _excused(plan: Mapping[str, Any]) -> str:
    """Who could not be upgraded now, for the last sentence."""
    entries = [f"{entry['host']} ({entry['reason']})" for entry in plan["deferred"]]
    return f". Deferred: {'; '.join(entries[:5])}" + ("" if len(entries) <= 5 else " ...") if entries else ""

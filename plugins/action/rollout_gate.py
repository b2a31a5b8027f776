# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of rollout_gate: the devices' results in, the wave's verdict out and into the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.findings import outcome_of
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.gates import combined, preview, wave_verdict
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.history import Progress, final_status, read_progress
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import (
    Ledger,
    activated,
    quarantined,
    taken_back,
    unsettled,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy, parse_policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_gate import Target, judge, targets, unasked
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_http import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_template import variables
from ansible_collections.edgeai.fleet.plugins.plugin_utils.rollout_action import Listener, RolloutAction, everything

ARGUMENT_SPEC: dict[str, Any] = {
    "stage": {"type": "str", "required": True, "choices": ["activation", "soak", "finish"]},
    "wave": {"type": "int"},
    "plan": {"type": "dict"},
    "state": {"type": "dict"},
    "results": {"type": "dict"},
    "halted_strata": {"type": "list", "elements": "str"},
    "soak": {"type": "int"},
    "ledger": {"type": "path"},
    "ledger_key": {"type": "path"},
    "rollout_id": {"type": "str"},
}
KEPT = ("wave", "kind", "stage", "verdict", "strata", "halted_strata", "failed_strata", "held_strata", "rollback",
        "halt", "halt_reason", "unreachable_budget")  # fmt: skip


class ActionModule(RolloutAction):
    """Judges a wave on the controller; see the module's documentation for arguments and result."""

    ARGUMENTS = ARGUMENT_SPEC

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the verdict, or with ``stage: finish`` how the rollout ended."""
        plan = self.read_plan(args)
        ledger = self.read_ledger(args)
        return self._finish(plan, ledger) if args["stage"] == "finish" else self._judge(args, plan, ledger)

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _results(self, args: Mapping[str, Any], plan: Mapping[str, Any], outcomes: Mapping[str, str]) -> dict[str, Any]:
        """What each device answered: whole for this wave, only the outcome for those before it, where it is known."""
        given = args["results"]
        if given is not None:
            return {str(host): entry for host, entry in given.items()}
        results: dict[str, Any] = {}
        hostvars = self._vars["hostvars"]
        for wave in plan["waves"][: args["wave"]]:
            for host in wave["hosts"]:
                if host in outcomes and (wave["number"] < args["wave"] or outcomes[host] == "deferred"):
                    results[host] = {"outcome": outcomes[host]}
                elif host in hostvars:
                    raw = hostvars.raw_get(host)
                    results[host] = {
                        "outcome": raw.get("edge_outcome"),
                        "result": raw.get("edge_result"),
                        "confirm": raw.get("edge_confirm"),
                    }
        return results

    # -- a wave ----------------------------------------------------------------------------------------------------

    def _judge(self, args: dict[str, Any], plan: dict[str, Any], ledger: Ledger | None) -> dict[str, Any]:
        if args["wave"] is None:
            raise RolloutError(f"wave: is missing: stage {args['stage']} judges one wave of the plan")
        state = args["state"] or self.controller_var("edge_gate") or {}
        outcomes = dict(state.get("outcomes") or {})
        results = self._results(args, plan, outcomes)
        policy = parse_policy(plan["policy"], "plan.policy")
        seconds, client = self._soak_of(args, policy), self._client(args, policy)
        if self._task.check_mode:
            verdict = preview(results, plan, args["wave"], args["stage"], policy)
        else:
            halted = self._halted(args, plan, state, ledger)
            verdict = wave_verdict(results, plan, args["wave"], args["stage"], policy, halted)
            if ledger:
                _record(ledger, plan, verdict)
        listener = Listener(ledger, plan["rollout_id"]) if ledger and not self._task.check_mode else None
        verdicts, soaked = [verdict], self._soak(seconds, args, verdict, listener)
        if soaked and client and not (listener and listener.abort()):
            metrics = self._metrics(client, policy, plan, args["wave"], verdict, seconds)
            before = verdict["halted_strata"]
            verdict = wave_verdict(results, plan, args["wave"], args["stage"], policy, before, metrics)
            if ledger:
                _record(ledger, plan, verdict)
            verdicts.append(verdict)
        back = [host for each in verdicts for host in [*each["rollback"], *_taken_before(plan, each, ledger)]]
        waiting = {*(state.get("rollback") or ()), *back}
        if waiting and ledger:
            waiting -= taken_back(ledger.records(), plan["rollout_id"])
        rollback = _newest_first(waiting, plan)
        outcomes.update(_outcomes(results, args["stage"]))
        if listener and ledger and listener.abort():
            return self._aborted(plan, ledger, combined(verdicts), listener, outcomes)
        return {
            "changed": False,
            **combined(verdicts),
            "rollback": rollback,
            "rollback_sizes": _sizes(rollback, plan),
            "errands": _errands(rollback, plan, verdict, args["stage"]),
            "state": {"halted_strata": verdict["halted_strata"], "rollback": rollback, "outcomes": outcomes},
            "soaked": soaked,
            "msg": " ".join(_message(each) for each in verdicts),
        }

    def _aborted(
        self,
        plan: dict[str, Any],
        ledger: Ledger,
        verdict: dict[str, Any],
        listener: Listener,
        outcomes: dict[str, str],
    ) -> dict[str, Any]:
        """Somebody asked for the end: nothing is confirmed, and all that this rollout changed goes back."""
        word = listener.abort()
        reason = f"aborted by {word.by}: {word.reason}" if word else ""
        back = everything(plan, ledger)
        return {
            "changed": False, **verdict, "confirm": [], "halt": True, "halt_reason": reason, "aborted": True,
            "rollback": back, "rollback_sizes": _sizes(back, plan), "errands": {}, "soaked": 0.0, "msg": reason,
            "state": {"halted_strata": verdict["halted_strata"], "rollback": back, "outcomes": outcomes},
        }  # fmt: skip

    def _halted(
        self, args: Mapping[str, Any], plan: Mapping[str, Any], state: Mapping[str, Any], ledger: Ledger | None
    ) -> set[str]:
        """Every stratum halted so far: from argument, playbook, and, when they know nothing, the ledger."""
        halted = set(args["halted_strata"] or ()) | set(state.get("halted_strata") or ())
        halted |= set(self.controller_var("edge_halted") or ())
        if ledger and "halted_strata" not in state:
            halted |= read_progress(ledger.records(), plan["rollout_id"]).halted_strata
        return halted

    def _soak_of(self, args: Mapping[str, Any], policy: Policy) -> int:
        """The seconds to wait; queries look at that time, so it cannot be made too short for them."""
        seconds = policy.soak if args["soak"] is None else int(args["soak"])
        longest = max((query.window or policy.soak for query in policy.prometheus.queries), default=0)
        if args["stage"] == "activation" and seconds < longest:
            raise RolloutError(
                f"soak is {seconds}: queries of edge_policy.prometheus look back {longest} s; wait longer"
            )
        return seconds

    def _soak(
        self, seconds: int, args: Mapping[str, Any], verdict: Mapping[str, Any], listener: Listener | None
    ) -> float:
        """Wait between the activation's verdict and the confirmation, if there is one; an abort ends it."""
        if args["stage"] != "activation" or self._task.check_mode or not verdict["confirm"] or seconds <= 0:
            return 0.0
        started = time.monotonic()
        self.wait(seconds, listener.abort if listener else None)
        return round(time.monotonic() - started, 3)

    # -- Prometheus ------------------------------------------------------------------------------------------------

    def _client(self, args: Mapping[str, Any], policy: Policy) -> Client | None:
        """Who asks, with its credentials read: a missing file is an error before the soak, not after it."""
        if args["stage"] != "activation" or not policy.prometheus.queries:
            return None
        return Client(policy.prometheus, self._loader.get_text_file_contents, self.wait)

    def _metrics(
        self, client: Client, policy: Policy, plan: dict[str, Any], wave: int, verdict: Mapping[str, Any], soak: int
    ) -> dict[str, list[dict[str, Any]]]:
        """Ask every query about every stratum that would be confirmed next."""
        asked = targets(plan, wave, verdict, soak)
        now = client.now()
        if isinstance(now, str):
            return {stratum: unasked(policy.prometheus, target, now) for stratum, target in asked.items()}
        if any("site" in variables(query.expr + query.samples) for query in policy.prometheus.queries):
            asked = {name: replace(target, sites=self._sites(target)) for name, target in asked.items()}
        return {stratum: judge(policy.prometheus, target, client.ask, now) for stratum, target in asked.items()}

    def _sites(self, target: Target) -> dict[str, str]:
        """The sites of the devices of a target, for those that have one."""
        named = {host: self.host_variable(host, "edge_site") for host in (*target.hosts, *target.control)}
        return {host: str(site or "") for host, site in named.items() if site is not None}

    # -- the end ---------------------------------------------------------------------------------------------------

    def _finish(self, plan: dict[str, Any], ledger: Ledger | None) -> dict[str, Any]:
        if self._task.check_mode or ledger is None:
            status = "succeeded" if plan["waves"] else "nothing_to_do"
            empty: dict[str, Any] = {"failed_strata": [], "held_strata": [], "desired": not plan["refused"]}
            return {"changed": False, "status": status, **empty, "msg": f"check mode: would end as {status}"}
        rollout = plan["rollout_id"]
        progress = read_progress(ledger.records(), rollout)
        status = progress.status or final_status(plan, progress)
        waiting = [host for host in plan["hosts"] if host not in progress.intents]
        open_hosts = [item["host"] for item in unsettled(ledger.records(), rollout)]
        if progress.status is None:
            for host in waiting:
                if host not in progress.deferred:
                    ledger.append("deferred", _left_out(plan, host, progress), rollout, host)
            counts = {"planned": len(plan["hosts"]), "deferred": len(waiting), "unsettled": len(open_hosts)}
            about = {"failed_strata": sorted(progress.failed), "held_strata": sorted(progress.held)}
            ledger.append("rollout_finished", {"status": status, **counts, **about}, rollout)
            ledger.checkpoint()
        ended = {
            "status": status,
            "failed_strata": sorted(progress.failed),
            "held_strata": sorted(progress.held),
            "deferred": waiting,
            "unsettled": open_hosts,
            "taken_back": sorted(taken_back(ledger.records(rollout), rollout)),
        }
        ended["why"] = progress.aborted or progress.stopped or progress.worse
        desired = status in ("succeeded", "nothing_to_do") and not plan["refused"] and not open_hosts
        return {"changed": False, **ended, "desired": desired, "msg": _ending(plan, ended)}


def _ending(plan: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    """One sentence per thing that a person has to know about how the rollout ended."""
    said = [f"Rollout {plan['rollout_id']} of {plan['model']} {plan['version']}: {ended['status']}."]
    if ended["why"]:
        again = "; run edgeai.fleet.rollout again to go on" if ended["status"] == "stopped" else ""
        said.append(f"{ended['why']}{again}.")
    for name, text in (("failed_strata", "Failed in"), ("held_strata", "Held, for want of evidence, in")):
        if ended[name]:
            said.append(f"{text} {', '.join(ended[name])}.")
    if plan["refused"]:
        reasons = sorted({str(entry["reason"]) for entry in plan["refused"]})
        more = f" (and {len(reasons) - 3} more reasons)" if len(reasons) > 3 else ""
        said.append(f"Refused on {len(plan['refused'])} devices: {'; '.join(reasons[:3])}{more}.")
    if ended["unsettled"]:
        said.append(f"Not settled: {', '.join(ended['unsettled'])}; run edgeai.fleet.rollback.")
    return " ".join(said)


def _left_out(plan: Mapping[str, Any], host: str, progress: Progress) -> dict[str, Any]:
    stratum = plan["stratum_of"][host]
    reason = "the rollout ended before its wave"
    if stratum in progress.halted_strata:
        reason = f"stratum {stratum} was halted before its wave"
    elif progress.aborted or progress.stopped or progress.worse:
        reason += f": {progress.aborted or progress.stopped or progress.worse}"
    about = {name: plan[name] for name in ("model", "version", "digest")}
    return {"host": host, "kind": "held", "stratum": stratum, "reason": reason, **about}


def _record(ledger: Ledger, plan: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
    ledger.append("verdict", {name: verdict[name] for name in KEPT}, plan["rollout_id"])
    if verdict["quarantine"]:
        standing = quarantined(ledger.records())
        for pair in verdict["quarantine"]:
            if (pair["digest"], pair["stratum"]) not in standing:
                ledger.append("quarantine", pair, plan["rollout_id"])


def _taken_before(plan: Mapping[str, Any], verdict: Mapping[str, Any], ledger: Ledger | None) -> list[str]:
    """Devices that confirmed in an earlier, interrupted run of this rollout and belong to what failed now."""
    back = set(verdict["halted_strata"] if plan["policy"]["halt"] == "rollout" else verdict["failed_strata"])
    if not verdict["failed_strata"] or ledger is None:
        return []
    taken = [item["host"] for item in activated(ledger.records(), plan["rollout_id"])]
    return [host for host in taken if host not in plan["wave_of"] and plan["stratum_of"].get(host) in back]


def _outcomes(results: Mapping[str, Any], stage: str) -> dict[str, str]:
    found = {}
    for host, entry in results.items():
        judged = (outcome_of(entry.get("confirm")) if stage == "soak" else None, outcome_of(entry.get("result")))
        outcome = entry.get("outcome") or next((item for item in judged if item not in (None, "held")), None)
        if outcome:
            found[host] = str(outcome)
    return found


def _newest_first(hosts: Iterable[str], plan: Mapping[str, Any]) -> list[str]:
    """Everybody who still has to go back, newest wave first. Who confirmed in an earlier run comes last."""
    return sorted(hosts, key=lambda host: (-plan["wave_of"].get(host, 0), host))


def _errands(
    rollback: list[str], plan: Mapping[str, Any], verdict: Mapping[str, Any], stage: str
) -> dict[str, list[str]]:
    """Who of this wave takes whom back, as the wave closes: other strata go on, and what is bad must not wait for them.

    A play's batch holds the hosts of one wave only, so the tasks of this wave's hosts are delegated to the condemned
    ones. Behind the last wave, or a halt of everything, the rollback play follows at once.
    """
    if stage != "soak" or verdict["halt"] or verdict["wave"] >= len(plan["waves"]):
        return {}
    runners = plan["waves"][verdict["wave"] - 1]["hosts"]
    errands: dict[str, list[str]] = {}
    for number, host in enumerate(rollback):
        errands.setdefault(runners[number % len(runners)], []).append(host)
    return errands


def _sizes(rollback: Iterable[str], plan: Mapping[str, Any]) -> list[int]:
    """The sizes of the waves in `rollback`, for ``serial``."""
    counts: dict[int, int] = {}
    for host in rollback:
        wave = plan["wave_of"].get(host, 0)
        counts[wave] = counts.get(wave, 0) + 1
    return list(counts.values())


def _message(verdict: Mapping[str, Any]) -> str:
    parts = [f"{stratum}: {found['verdict']} ({found['reason']})" for stratum, found in verdict["strata"].items()]
    return f"wave {verdict['wave']} after {verdict['stage']}: {verdict['verdict']}; " + "; ".join(parts)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of k3s_upgrade_plan: what machines said and the signed artifacts in, one plan out."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.directory import read_listing
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError, as_artifact_error
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import upgrade, upgrade_plan
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import utc_now
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import desired
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ab_policy import AbTest
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.not_now import NotNow
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan, plan_hash
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_policy import Prometheus
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.table import plan_table
from ansible_collections.edgeai.fleet.plugins.plugin_utils.rollout_action import RolloutAction

ARGUMENT_SPEC: dict[str, Any] = {
    "version": {"type": "str", "required": True},
    "servers": {"type": "list", "elements": "str", "required": True},
    "agents": {"type": "list", "elements": "str", "required": True},
    "kubeedge": {"type": "list", "elements": "str", "default": []},
    "artifacts": {"type": "str", "required": True},
    "public_keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
    "expect_plan_hash": {"type": "str"},
    "rollout_id": {"type": "str"},
    "ledger": {"type": "path"},
    "ledger_key": {"type": "path"},
}
_NO_GATE = "gate.enabled is false"


class ActionModule(RolloutAction):
    """Plans on the controller; see the module's documentation for arguments and result."""

    ARGUMENTS = ARGUMENT_SPEC

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the plan; write it to the ledger outside check mode."""
        try:
            return self._plan(args)
        except (ClusterError, ArtifactError) as error:
            raise AnsibleActionFail(str(error)) from error

    def _plan(self, args: dict[str, Any]) -> dict[str, Any]:
        version = args["version"]
        upgrade.parse(version)
        digest = self._digest(args)
        ledger = self.read_ledger(args)
        began = upgrade_plan.in_between(ledger.records()) if ledger else {}
        open_id, ended = upgrade_plan.open_upgrade(ledger.records(), digest) if ledger else (None, 0)
        facts = {host: self._facts(host) for host in [*args["servers"], *args["agents"]]}
        servers = self._servers(args, facts, began)
        policy = self._policy(args["agents"] or args["servers"])
        devices = self._devices(args, facts, began, digest, policy, ledger)
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        rollout_id = args["rollout_id"] or open_id or f"{upgrade_plan.MODEL}-{version}-{stamp}"
        release = Release(upgrade_plan.MODEL, version, digest)
        plan = make_plan(devices, release, policy, rollout_id, seed=f"{digest}#{ended}")
        plan["servers"] = servers
        concerned = [*servers, *plan["hosts"]]
        nodes = {host: (facts[host] or {}).get("node") or {} for host in concerned}
        plan["from"] = {host: upgrade_plan.way_back(nodes[host], version, began.get(host)) for host in concerned}
        plan["resumed"] = sorted(
            host for host in concerned if host in began and not upgrade_plan.whole(nodes[host], began[host])
        )
        plan["warnings"] = [text for text in plan["warnings"] if not text.startswith(_NO_GATE)]
        plan["plan_hash"] = plan_hash(plan)
        self._check_approved(plan, args["expect_plan_hash"])
        work = bool(concerned)
        if ledger and not self._task.check_mode and (work or open_id):
            self._record(ledger, plan)
        told = {host: (item or {}).get("node") or {} for host, item in facts.items()}
        return {
            "changed": False,
            "plan": plan,
            "table": _table(plan),
            "state": {"halted_strata": [], "outcomes": {}, "halt": False, "halt_reason": ""},
            "recorded": work or bool(open_id),
            "api_server": next((host for host in args["servers"] if not told[host].get("api")), args["servers"][0]),
            "msg": f"{len(servers)} servers, {len(plan['hosts'])} agents in {len(plan['waves'])} waves",
        }

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _digest(self, args: Mapping[str, Any]) -> str:
        """One digest over the signed programs of this version."""
        with as_artifact_error():
            trust = Trust.from_files([self._path(item) for item in args["public_keys"]], [])
            opened = read_listing(self._path(args["artifacts"]), trust, utc_now())
        found = opened.manifest.candidates(upgrade_plan.MODEL, args["version"], "k3s")
        return upgrade_plan.digest_of({architecture: entry.sha256 for architecture, entry in found.items()})

    def _path(self, value: Any) -> str:
        path = os.path.expanduser(str(value))
        return os.path.abspath(path) if os.path.exists(path) else str(self._loader.path_dwim(path))

    def _facts(self, host: str) -> Any:
        hostvars = self._vars["hostvars"]
        return hostvars.raw_get(host).get("k3s_upgrade_facts") if host in hostvars else None

    def _trouble(self, host: str) -> str:
        return str(self.host_variable(host, "k3s_upgrade_trouble") or "")

    def _servers(self, args: Mapping[str, Any], facts: Mapping[str, Any], began: Mapping[str, Any]) -> list[str]:
        """The servers to change, those that were left in between first. Raises ClusterError when one cannot be."""
        if not args["servers"]:
            raise ClusterError("k3s_servers: the group is empty; an upgrade begins with the servers")
        version = args["version"]
        running, wrong = {}, []
        for host in args["servers"]:
            found = facts[host] if isinstance(facts[host], Mapping) else {}
            node = found.get("node")
            if node is None:
                wrong.append(f"{host}: {found.get('msg') or 'it was not asked; with --limit, name every server'}")
                continue
            missing = version not in node["versions"] and not self._task.check_mode
            if self._trouble(host) or missing:
                wrong.append(f"{host}: {self._trouble(host) or version + ' is not on it'}")
            running[host] = node["version"] or (began.get(host) or {}).get("from") or node["link"]
        if wrong:
            lines = "".join(f"\n- {line}" for line in wrong)
            raise ClusterError(f"nothing was changed: the servers cannot be upgraded{lines}")
        agents = {
            host: facts[host]["node"]["version"]
            for host in args["agents"]
            if isinstance(facts[host], Mapping) and (facts[host].get("node") or {}).get("version")
        }
        upgrade.check_skew(version, running, agents, args["kubeedge"])
        todo = []
        for host in args["servers"]:
            node = facts[host]["node"]
            if host in began or node["link"] != version or node["version"] != version or node["lacks"]:
                todo.append(host)
        return sorted(todo, key=lambda host: host not in began)

    def _policy(self, hosts: list[str]) -> Policy:
        """The fleet's policy, without what is about models: an upgrade's gate is the node and what it serves."""
        policy = desired.one_policy({host: self.host_variable(host, "edge_policy") for host in hosts})
        gate = replace(policy.gate, enabled=False)
        return replace(policy, gate=gate, halt="rollout", prometheus=Prometheus(), ab_test=AbTest())

    def _devices(
        self,
        args: Mapping[str, Any],
        facts: Mapping[str, Any],
        began: Mapping[str, Any],
        digest: str,
        policy: Policy,
        ledger: Ledger | None,
    ) -> list[Any]:
        now = datetime.now(timezone.utc)
        not_now = NotNow(policy, upgrade_plan.MODEL, now, ledger.records() if ledger else ())
        devices = []
        for host in args["agents"]:
            window, vetoes = (self.host_variable(host, name) for name in ("edge_window", "edge_vetoes"))
            about = {
                "site": self.site(host),
                "group": desired.group_name(
                    host, self.host_variable(host, "edge_redundancy_group"), "edge_redundancy_group"
                ),
                # one that was left in between is put right at any time
                "not_now": None if host in began else not_now.reason(host, window, vetoes),
                "trouble": self._trouble(host),
            }
            wanted = (args["version"], digest)
            preloaded = not self._task.check_mode
            devices.append(upgrade_plan.device_of(host, about, facts[host], wanted, began.get(host), preloaded))
        return devices

    # -- outputs ---------------------------------------------------------------------------------------------------

    def _check_approved(self, plan: Mapping[str, Any], expected: str | None) -> None:
        if expected and expected != plan["plan_hash"] and (plan["waves"] or plan["servers"]):
            raise RolloutError(
                f"the plan is now {plan['plan_hash']}, approved was {expected}: machines, ledger or policy changed "
                "since; look at the new plan and approve it"
            )

    def _record(self, ledger: Ledger, plan: Mapping[str, Any]) -> None:
        started = {name: plan[name] for name in ("plan_hash", "model", "version", "digest")}
        ledger.append(
            "rollout_started",
            {
                **started,
                "kind": upgrade_plan.ACTION,
                "playbook": "k3s_upgrade",
                "user": getpass.getuser(),
                "plan": plan,
            },
            plan["rollout_id"],
        )
        for entry in plan["deferred"]:
            data = {**entry, **{name: plan[name] for name in ("model", "version", "digest")}}
            ledger.append("deferred", data, plan["rollout_id"], entry["host"])


def _table(plan: Mapping[str, Any]) -> list[str]:
    lines = plan_table(plan)
    head = [f"servers, one by one: {', '.join(plan['servers']) or 'none to change'}"]
    if plan["resumed"]:
        head.append(f"left in between by a run before: {', '.join(plan['resumed'])}")
    return [*lines[:2], *head, *lines[2:]]

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of rollout_plan: inventory, facts and ledger in, one plan out. Nothing runs on a device."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible import constants as C
from ansible import context as cli_context

from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.release.signing import Verified, verify_release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import desired, resume
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ab_test import ab_warnings
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.approvers import load_approvers
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.history import History, read_history
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.not_now import NotNow
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.notify import parse_hooks
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan, pace_warnings
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_http import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.table import plan_diff, plan_table
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.vetoes import parse_moment
from ansible_collections.edgeai.fleet.plugins.plugin_utils.rollout_action import RolloutAction

ARGUMENT_SPEC: dict[str, Any] = {
    "hosts": {"type": "list", "elements": "str"},
    "facts": {"type": "str", "default": "edge_facts"},
    "model": {"type": "str"},
    "releases": {"type": "path"},
    "trust_keys": {"type": "list", "elements": "path"},
    "trust_roots": {"type": "list", "elements": "path"},
    "policy": {"type": "dict"},
    "rollout_id": {"type": "str"},
    "expect_plan_hash": {"type": "str"},
    "at": {"type": "str"},
    "ledger": {"type": "path"},
    "ledger_key": {"type": "path"},
}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_LATE = "it could change now, but the plan that goes on was made without it: the next run catches it up"
# Beyond a device's own deadline, what an unsettled record of another run may still mean.
_GRACE = 120


@dataclass
class HostInput:
    """What the inventory says about one host, templated; `facts` is what was registered."""

    edge_models: Any
    edge_model: Any
    policy: Any
    site: str | None
    group: str | None
    window: Any
    vetoes: Any
    facts: Any
    release_settings: dict[str, Any]


class ActionModule(RolloutAction):
    """Plans on the controller; see the module's documentation for arguments and result."""

    ARGUMENTS = ARGUMENT_SPEC

    def act(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the plan; write it to the ledger outside check mode."""
        _check_id(args["rollout_id"])
        names = list(args["hosts"] if args["hosts"] is not None else self._vars.get("ansible_play_hosts_all", ()))
        inputs = {host: self._read_host(host, args) for host in names}
        wanted = {
            host: desired.wanted_release(host, item.edge_models, args["model"] or item.edge_model)
            for host, item in inputs.items()
        }
        model, version = desired.one_release(wanted)
        concerned = [host for host, wish in wanted.items() if wish is not None]
        first = inputs[concerned[0]]
        policy = desired.one_policy(
            {concerned[0]: args["policy"]} if args["policy"] else {host: inputs[host].policy for host in concerned}
        )
        if policy.prometheus.queries or policy.ab_test.share:
            Client(policy.prometheus, self._loader.get_text_file_contents)  # a missing file is noticed here and now
        for name, check in (("edge_notify", parse_hooks), ("edge_approvers", load_approvers)):
            check(self.variable(name))
        directory, verified = _verify(args, first.release_settings, model, version)
        release = desired.release_of(verified.manifest)
        ledger = self._ledger(args, first.release_settings)
        history = read_history(ledger.records(), model, release.digest) if ledger else History()
        past = {"lifted": history.lifted, "suspects": history.suspects}
        not_now = NotNow(policy, model, self._moment(args["at"]), ledger.records() if ledger else ())
        devices = [
            desired.device_of(
                host,
                {
                    "site": item.site,
                    "group": item.group,
                    "wanted": wanted[host] is not None,
                    "not_now": not_now.reason(host, item.window, item.vetoes),
                },
                item.facts,
                release,
                past,
            )
            for host, item in inputs.items()
        ]
        rollout_id, seed = _identity(args["rollout_id"], history, release)
        busy = self._busy_groups(inputs, history, policy)
        plan = make_plan(devices, release, policy, rollout_id, history.quarantined, busy, seed)
        sites = {device.host: device.site for device in devices}
        plan["warnings"] += pace_warnings(plan, policy, int(cli_context.CLIARGS.get("forks") or C.DEFAULT_FORKS), sites)
        plan["warnings"] += ab_warnings(plan, policy)
        stop = resume.stopped(ledger.records(rollout_id), rollout_id) if ledger and history.open_id else None
        found = resume.continued(plan, stop) if stop else None
        again, late = found or (None, [])
        state = {"halted_strata": [], "rollback": [], "outcomes": resume.outcomes(again, plan) if again else {}}
        if again:
            plan = {**again, "warnings": [*again["warnings"], *(f"{host}: {_LATE}" for host in late)]}
        _check_approved(plan, policy, args["expect_plan_hash"])
        if not self._task.check_mode and ledger:
            _record(ledger, plan, again is not None, late)
        versions = {device.host: device.active_version for device in devices}
        answer = _answer(plan, versions, directory, verified.key_id, rollout_id == history.open_id)
        return {**answer, "continued": again is not None, "state": state}

    def _moment(self, at: str | None) -> datetime:
        """When windows and vetoes are looked at: now by the controller's clock, unless somebody only looks."""
        if at is None:
            return datetime.now(timezone.utc)
        if not self._task.check_mode:
            raise RolloutError(f"at is {at!r}: only a check run looks at another moment; leave it out to roll out now")
        return parse_moment("rollout_plan", "at", at)

    def _read_host(self, host: str, args: Mapping[str, Any]) -> HostInput:
        """Template only what is needed of a host's variables: a fleet has many hosts with many variables."""
        hostvars = self._vars["hostvars"]
        if host not in hostvars:
            raise RolloutError(f"hosts: {host!r} is not in the inventory")
        raw = hostvars.raw_get(host)
        templar = self._templar.copy_with_new_env(available_variables=raw)

        def value(name: str) -> Any:
            return templar.template(raw[name]) if name in raw else None

        names = ("edge_releases", "edge_trust_keys", "edge_trust_roots", "edge_ledger", "edge_ledger_key")
        settings = _LazySettings({name: raw[name] for name in names if name in raw}, templar)
        return HostInput(
            edge_models=value("edge_models"),
            edge_model=value("edge_model"),
            policy=None if args["policy"] else value("edge_policy"),
            site=desired.group_name(host, value("edge_site"), "edge_site"),
            group=desired.group_name(host, value("edge_redundancy_group"), "edge_redundancy_group"),
            window=value("edge_window"),
            vetoes=value("edge_vetoes"),
            facts=raw.get(args["facts"]),
            release_settings=settings,
        )

    def _ledger(self, args: Mapping[str, Any], settings: Mapping[str, Any]) -> Ledger | None:
        directory = args["ledger"] or settings.get("edge_ledger")
        if directory:
            return Ledger(str(directory), args["ledger_key"] or settings.get("edge_ledger_key"))
        if self._task.check_mode:
            return None
        raise RolloutError("a rollout is recorded before it starts: set edge_ledger (or the argument ledger)")

    def _busy_groups(self, planned: Mapping[str, Any], history: History, policy: Policy) -> dict[str, str]:
        """Redundancy groups with a member outside this plan (``--limit``) that another run may be changing now."""
        busy: dict[str, str] = {}
        hostvars = self._vars["hostvars"]
        now = datetime.now(timezone.utc)
        for host, (rollout, time) in history.unsettled.items():
            if host in planned or host not in hostvars or _age(time, now) > policy.confirm_within + _GRACE:
                continue
            named = self.host_variable(host, "edge_redundancy_group")
            group = desired.group_name(host, named, "edge_redundancy_group")
            if group:
                busy[group] = (
                    f"{host} of its redundancy group {group} is not in this plan and is unsettled in {rollout}: "
                    "settle that first, or plan both"
                )
        return busy


class _LazySettings(dict):  # type: ignore[type-arg]
    """Variables that are templated when they are asked for, which is for one host of the fleet only."""

    def __init__(self, raw: Mapping[str, Any], templar: Any) -> None:
        super().__init__(raw)
        self._templar = templar

    def get(self, key: str, default: Any = None) -> Any:
        return self._templar.template(self[key]) if key in self else default


def _verify(args: Mapping[str, Any], settings: Mapping[str, Any], model: str, version: str) -> tuple[str, Verified]:
    """Verify the wanted release whole, before anything is planned with what it says about itself."""
    releases = args["releases"] or settings.get("edge_releases")
    keys = args["trust_keys"] or settings.get("edge_trust_keys") or []
    roots = args["trust_roots"] or settings.get("edge_trust_roots") or []
    if not releases:
        raise RolloutError("where releases are is not known: set edge_releases (or the argument releases)")
    if not keys and not roots:
        raise RolloutError("whom to trust is not known: set edge_trust_keys to the paths of public keys (PEM)")
    directory = os.path.join(os.path.expanduser(str(releases)), model, version)
    if not os.path.isdir(directory):
        raise RolloutError(
            f"{directory}: there is no release {version} of {model}: build and sign it, or correct edge_models"
        )
    trust = Trust.from_files(
        [os.path.expanduser(str(path)) for path in keys], [os.path.expanduser(str(path)) for path in roots]
    )
    verified = verify_release(directory, trust, datetime.now(timezone.utc))
    found = (verified.manifest.model, verified.manifest.version)
    if found != (model, version):
        raise RolloutError(
            f"{directory}: is release {found[1]} of {found[0]}, not {version} of {model}: move it to where it belongs"
        )
    return directory, verified


def _check_id(given: str | None) -> None:
    if given is not None and not _ID.fullmatch(given):
        raise RolloutError(
            f"rollout_id is {given!r}: use up to 128 letters, digits and . _ + -, and begin with no sign"
        )


def _identity(given: str | None, history: History, release: Any) -> tuple[str, str]:
    """Return (rollout id, seed of the order).

    The seed holds no time, so a check run and the run after it give the same plan; it changes with every rollout of
    the release that ended, so that the same device is not the canary for ever.
    """
    if history.open_id is not None and given in (None, history.open_id):
        return history.open_id, history.open_seed or history.open_id
    if given is not None:
        return given, given
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return f"{release.model}-{release.version}-{stamp}", f"{release.digest}#{history.finished}"


def _check_approved(plan: Mapping[str, Any], policy: Policy, expected: str | None) -> None:
    # A plan without waves changes nothing: a pipeline that runs again after it succeeded needs no new approval.
    if expected and expected != plan["plan_hash"] and plan["waves"]:
        raise RolloutError(
            f"the plan is now {plan['plan_hash']}, approved was {expected}: devices, facts, ledger or policy changed "
            "since; look at the new plan and approve it"
        )
    away = sum(entry["kind"] == "unreachable" for entry in plan["deferred"])
    total = sum(len(plan[name]) for name in ("hosts", "unchanged", "deferred", "refused"))
    allowed = policy.unreachable_budget.tolerated(total)
    if away > allowed:
        raise RolloutError(
            f"{away} of {total} devices are unreachable, edge_policy.unreachable_budget allows {allowed}"
        )


def _record(ledger: Ledger, plan: Mapping[str, Any], again: bool, late: list[str]) -> None:
    started = {name: plan[name] for name in ("plan_hash", "model", "version", "digest")}
    playbooks = [os.path.basename(str(path)) for path in cli_context.CLIARGS.get("args") or ()]
    if again:
        started["continued"] = True
    started.update(playbook=" ".join(playbooks), user=_user(), plan=plan)
    ledger.append("rollout_started", started, plan["rollout_id"])
    waiting = [{"host": host, "kind": "late", "reason": _LATE} for host in late]
    for kind, entries in (("deferred", [*plan["deferred"], *waiting]), ("refused", plan["refused"])):
        for entry in entries:
            if entry["kind"] != "late" and entry["host"] in late:
                continue
            data = {**entry, **{name: plan[name] for name in ("model", "version", "digest")}}
            ledger.append(kind, data, plan["rollout_id"], entry["host"])


def _user() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _age(time: str, now: datetime) -> float:
    """Seconds since a ledger time; a time that cannot be read is old."""
    try:
        return (now - datetime.fromisoformat(time.replace("Z", "+00:00"))).total_seconds()
    except ValueError:
        return float("inf")


def _answer(
    plan: dict[str, Any], versions: Mapping[str, str | None], directory: str, key_id: str, resumed: bool
) -> dict[str, Any]:
    return {
        "changed": False,
        "plan": plan,
        "table": plan_table(plan),
        "resumed": resumed,
        "release_dir": directory,
        "key_id": key_id,
        "diff": plan_diff(plan, versions),
        "msg": f"{len(plan['hosts'])} devices in {len(plan['waves'])} waves",
    }

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Controller side of policy_check: inventory, rules and declarations in, verdicts out. No device is touched."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.edgeai.fleet.plugins.module_utils.policy import gather
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.checks import CATALOGUE, variables_of
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.errors import PolicyError, field_error
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.evaluate import Evaluation, Finding, evaluate
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.facts import DeviceFacts, Fleet, Place, ReleaseFacts
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.governance import read_approvals, read_governance
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.inputs import (
    SHIPPED,
    find_repository,
    inside,
    rule_files,
    wanted_models,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.markdown import to_markdown, verdict_line
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.observe import encrypted_at_rest
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.ruleset import Rules, combine, read_ruleset
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.sarif import to_sarif
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.yamlfile import Document, load_yaml
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError

ARGUMENT_SPEC: dict[str, Any] = {
    "hosts": {"type": "list", "elements": "str"},
    "repository": {"type": "path"},
    "rules": {"type": "list", "elements": "str"},
    "governance": {"type": "path"},
    "approvals": {"type": "path"},
    "release_dirs": {"type": "list", "elements": "path"},
    "releases": {"type": "path"},
    "trust_keys": {"type": "list", "elements": "path"},
    "trust_roots": {"type": "list", "elements": "path"},
    "ledger": {"type": "path"},
    "ledger_public_key": {"type": "path"},
    "plan": {"type": "path"},
    "markdown": {"type": "path"},
    "sarif": {"type": "path"},
    "fail_on": {"type": "str", "choices": ["error", "warning", "note", "never"], "default": "error"},
    "enforce": {"type": "bool", "default": True},
    "as_of": {"type": "str"},
}
COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VERSION = "0.1.0"
FLEET_VARIABLES = ("edge_releases", "edge_trust_keys", "edge_trust_roots", "edge_ledger", "edge_ledger_key",
                   "edge_ledger_public_key")  # fmt: skip
_LINES = 40

try:
    # Where a variable was written. Not part of Ansible's public interface, so a report does without where it is gone.
    from ansible._internal._datatag._tags import Origin
except ImportError:  # pragma: no cover
    Origin = None  # type: ignore[assignment,misc]


class Host:
    """One host's variables, templated one at a time, and only those that are asked for."""

    def __init__(self, name: str, raw: Mapping[str, Any], templar: Any) -> None:
        self.name, self.raw = name, raw
        self._templar = templar.copy_with_new_env(available_variables=raw)

    def value(self, name: str) -> Any:
        """Return a variable; None when it is not set. Raises PolicyError naming host and variable."""
        if name not in self.raw:
            return None
        try:
            return self._templar.template(self.raw[name])
        except AnsibleError as error:
            fix = "give the vault password (--vault-id), or correct the variable"
            raise PolicyError(f"host {self.name}: {name} cannot be read ({error}); {fix}") from error


class Inventory:
    """The hosts, and where their variables were written."""

    def __init__(self, task_vars: Mapping[str, Any], templar: Any, root: str, fallback: Place) -> None:
        self._hostvars, self._templar, self._root, self.fallback = task_vars["hostvars"], templar, root, fallback

    def host(self, name: str) -> Host:
        """Return a host. Raises PolicyError for one that nobody knows."""
        if name not in self._hostvars:
            raise PolicyError(f"hosts: {name!r} is not in the inventory; correct the name")
        return Host(name, self._hostvars.raw_get(name), self._templar)

    def place(self, value: Any) -> Place:
        """Return where a value was written; the inventory itself when that is not known."""
        origin = Origin.get_tag(value) if Origin is not None else None
        if origin is None or not origin.path:
            return self.fallback
        return Place(inside(str(origin.path), self._root), int(origin.line_num or 1))


class ActionModule(ActionBase):
    """Checks on the controller; see the module's documentation for arguments and result."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Evaluate, write the reports (not in check mode), and fail when a finding blocks."""
        result = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _validation, args = self.validate_argument_spec(ARGUMENT_SPEC)
        try:
            evaluation = self._evaluate(args)
            blocking = evaluation.blocking(args["fail_on"])
            reports = _reports(args, evaluation)
            before = {path: _current(path) for path in reports}
            changed = [path for path, data in reports.items() if before[path] != data]
            if not self._task.check_mode:
                for path in changed:
                    gather.write_atomic(path, reports[path])
        except (PolicyError, ReleaseError, RolloutError) as error:
            raise AnsibleActionFail(str(error)) from error
        result.update(_answer(args, evaluation, blocking), changed=bool(changed))
        if self._task.diff:
            result["diff"] = [
                {"before_header": path, "after_header": path, "before": gather.sha256(before[path]),
                 "after": gather.sha256(reports[path])} for path in changed
            ]  # fmt: skip
        result["failed"] = bool(blocking) and args["enforce"]
        return result

    def _evaluate(self, args: Mapping[str, Any]) -> Evaluation:
        directory = str(self._vars.get("inventory_dir") or os.getcwd())
        root = os.path.abspath(args["repository"] or find_repository(directory))
        if not os.path.isdir(root):
            raise field_error("arguments", "repository", root, "name the directory of the fleet repository")
        rules = self._rules(args["rules"], root)
        names = list(args["hosts"] if args["hosts"] is not None else self._vars.get("ansible_play_hosts_all", ()))
        fallback = Place(inside(str(self._vars.get("inventory_file") or directory), root))
        inventory = Inventory(self._vars, self._templar, root, fallback)
        return evaluate(rules, self._fleet(args, root, names, inventory, rules))

    def _document(self, path: str, shown: str) -> Document:
        """Read a YAML file through Ansible's loader, which decrypts one that is vaulted."""
        if not os.path.isfile(path):
            raise PolicyError(
                f"{shown}: there is no such file; write it (docs/policy.md shows how), or correct the path"
            )
        try:
            return load_yaml(str(self._loader.get_text_file_contents(path)), shown)
        except AnsibleError as error:
            raise PolicyError(f"{shown}: cannot be read ({error})") from error

    def _rules(self, given: list[str] | None, root: str) -> Rules:
        found, queue, seen = [], rule_files(given, root, COLLECTION), set()
        while queue:
            path = queue.pop(0)
            if path in seen:
                continue
            seen.add(path)
            document = self._document(path, inside(path, root, COLLECTION))
            ruleset = read_ruleset(document, CATALOGUE)
            found.append((ruleset, document))
            for name in ruleset.uses:
                if name not in SHIPPED:
                    raise field_error(document.at("uses"), "uses", name, "shipped rule sets are " + ", ".join(SHIPPED))
                queue.append(os.path.join(COLLECTION, "rulesets", name + ".yml"))
        return combine(found, CATALOGUE)

    def _fleet(self, args: Mapping[str, Any], root: str, names: list[str], inventory: Inventory, rules: Rules) -> Fleet:
        now = _now(args["as_of"])
        path = os.path.join(root, args["governance"] or "governance.yml")
        governance = read_governance(self._document(path, inside(path, root)))
        devices, wanted, shared = _devices(inventory, names, rules)
        common = _common(args, inventory, shared)
        trust = None
        if common["trust_keys"] or common["trust_roots"]:
            trust = Trust.from_files(common["trust_keys"], common["trust_roots"])
        releases = tuple(_releases(args, common["edge_releases"], wanted, trust, now, inventory.fallback))
        ledger_place = common["ledger_place"]
        ledger = gather.gather_ledger(common["ledger"], common["signed"], common["public_key"], ledger_place)
        keys = gather.gather_keys(
            "release", common["trust_keys"], gather.release_key_uses(releases), common["key_place"]
        )
        if common["public_key"]:
            uses = gather.ledger_key_uses(common["ledger"])
            keys += gather.gather_keys("ledger", [common["public_key"]], uses, ledger_place)
        plan = gather.read_plan(args["plan"]) if args["plan"] else None
        if plan is not None:
            gather.check_plan(plan, releases, args["plan"])
        return Fleet(
            now=now,
            governance=governance,
            releases=releases,
            devices=tuple(devices),
            keys=tuple(keys),
            ledger=ledger,
            approvals=gather.check_approvals(self._approvals(args, root), governance, os.path.dirname(path)),
            plan=plan,
            plan_place=Place(inside(args["plan"] or "plan.json", root)),
            host_key_checking=bool(C.config.get_config_value("HOST_KEY_CHECKING")),
        )

    def _approvals(self, args: Mapping[str, Any], root: str) -> Any:
        path = os.path.join(root, args["approvals"] or "approvals.yml")
        if args["approvals"] is None and not os.path.exists(path):
            return ()
        return read_approvals(self._document(path, inside(path, root)))


def _devices(
    inventory: Inventory, names: Iterable[str], rules: Rules
) -> tuple[list[DeviceFacts], dict[tuple[str, str], Place], dict[str, list[Any]]]:
    """Return the devices, the releases they want with the place that says so, and each value of the fleet's variables.

    One pass: to gather a host's variables takes milliseconds, and a fleet has many hosts.
    """
    looked_at = sorted(variables_of(rules.rules))
    devices: list[DeviceFacts] = []
    wanted: dict[tuple[str, str], Place] = {}
    shared: dict[str, list[Any]] = {name: [] for name in FLEET_VARIABLES}
    for name in names:
        host = inventory.host(name)
        models = host.value("edge_models")
        found = wanted_models(name, models)
        for model, version in found.items():
            wanted.setdefault((model, version), inventory.place(models[model]["release"]))
        devices.append(_device(inventory, host, tuple(found), looked_at))
        for variable, values in shared.items():
            value = host.value(variable)
            if value not in (None, "", []) and value not in values:
                values.append(value)
    return devices, wanted, shared


def _device(inventory: Inventory, host: Host, models: tuple[str, ...], looked_at: Iterable[str]) -> DeviceFacts:
    site = host.value("edge_site")
    if site is not None and not isinstance(site, str):
        raise field_error(f"host {host.name}", "edge_site", site, "write the site's name as a text")
    values = {name: host.value(name) for name in looked_at if name in host.raw}
    places = {name: inventory.place(value) for name, value in values.items()}
    root = host.value("edge_root") if "ansible_facts" in host.raw else None
    seen = encrypted_at_rest(host.raw.get("ansible_facts"), str(root or "/var/lib/edgeai"))
    place = inventory.place(site) if site is not None else inventory.fallback
    return DeviceFacts(host.name, site or None, models, values, places, place, seen)


def _common(args: Mapping[str, Any], inventory: Inventory, shared: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return what is one for the whole fleet: where releases and the ledger are, and whom to trust."""
    for name in ("edge_releases", "edge_ledger", "edge_ledger_key", "edge_ledger_public_key"):
        if len(shared[name]) > 1:
            raise field_error("inventory", name, shared[name], "hosts differ: set it once, or check them one by one")
    key = _first(shared["edge_ledger_key"])
    public = args["ledger_public_key"] or _first(shared["edge_ledger_public_key"])
    if public is None and isinstance(key, str) and key.endswith(".pem"):
        public = key[: -len(".pem")] + ".pub.pem"
    return {
        "edge_releases": args["releases"] or _first(shared["edge_releases"]),
        "trust_keys": _paths(args["trust_keys"], shared["edge_trust_keys"]),
        "trust_roots": _paths(args["trust_roots"], shared["edge_trust_roots"]),
        "ledger": _expanded(args["ledger"] or _first(shared["edge_ledger"])),
        "signed": key is not None,
        "public_key": _expanded(public),
        "ledger_place": inventory.place(_first(shared["edge_ledger"])),
        "key_place": inventory.place(_first(_first(shared["edge_trust_keys"]) or [])),
    }


def _first(values: Any) -> Any:
    return values[0] if values else None


def _expanded(path: Any) -> str | None:
    return os.path.expanduser(str(path)) if path else None


def _paths(given: list[str] | None, found: list[Any]) -> list[str]:
    lists = [given] if given is not None else found
    return list(dict.fromkeys(os.path.expanduser(str(path)) for paths in lists for path in paths))


def _now(as_of: str | None) -> datetime.datetime:
    if as_of is None:
        return datetime.datetime.now(datetime.timezone.utc)
    try:
        day = datetime.date.fromisoformat(as_of)
    except ValueError:
        raise field_error("arguments", "as_of", as_of, "write a day such as 2026-01-31") from None
    return datetime.datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=datetime.timezone.utc)


def _releases(
    args: Mapping[str, Any],
    base: Any,
    wanted: Mapping[tuple[str, str], Place],
    trust: Trust | None,
    now: datetime.datetime,
    fallback: Place,
) -> Iterable[ReleaseFacts]:
    if args["release_dirs"] is not None:
        for directory in args["release_dirs"]:
            version = os.path.basename(os.path.abspath(directory))
            model = os.path.basename(os.path.dirname(os.path.abspath(directory)))
            place = wanted.get((model, version), fallback)
            yield gather.gather_release(model, version, directory, trust, now, place)
        return
    if wanted and not base:
        raise PolicyError("where releases are is not known: set edge_releases (or the argument releases)")
    for (model, version), place in sorted(wanted.items(), key=lambda item: item[0]):
        directory = os.path.join(os.path.expanduser(str(base)), model, version)
        yield gather.gather_release(model, version, directory, trust, now, place)


def _reports(args: Mapping[str, Any], evaluation: Evaluation) -> dict[str, bytes]:
    reports = {}
    if args["markdown"]:
        reports[args["markdown"]] = to_markdown(evaluation, args["fail_on"]).encode("utf-8")
    if args["sarif"]:
        log = to_sarif(evaluation, VERSION, args["fail_on"])
        reports[args["sarif"]] = json.dumps(log, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"
    return reports


def _current(path: str) -> bytes | None:
    return gather.read_bytes(path, "report", 1 << 30) if os.path.exists(path) else None


def _line(finding: Finding) -> str:
    state = "waived" if finding.waiver else finding.verdict
    until = f" [until {finding.waiver.expires}, {finding.waiver.approver}]" if finding.waiver else ""
    return f"{finding.rule.severity} {state}: {finding.rule.id}: {finding.subject}: {finding.text}{until}"


def _answer(args: Mapping[str, Any], evaluation: Evaluation, blocking: list[Finding]) -> dict[str, Any]:
    summary = verdict_line(evaluation, args["fail_on"])
    unmet = [finding for finding in evaluation.findings if finding.open or finding.waiver]
    lines = [_line(finding) for finding in unmet]
    lines += [f"waiver without effect: {w.rule} {w.subject}: {why}" for w, why in evaluation.idle_waivers]
    return {
        "passed": not blocking,
        "counts": evaluation.counts(),
        "summary": summary,
        "lines": lines[:_LINES] + ([f"and {len(lines) - _LINES} more: see the reports"] if len(lines) > _LINES else []),
        "findings": [_told(finding) for finding in evaluation.findings],
        "msg": "; ".join([f"policy: {summary}", *(_line(finding) for finding in blocking[:3])]),
    }


def _told(finding: Finding) -> dict[str, Any]:
    waiver = finding.waiver
    return {
        "rule": finding.rule.id,
        "severity": finding.rule.severity,
        "verdict": finding.verdict,
        "subject": finding.subject,
        "hosts": list(finding.hosts),
        "message": finding.text,
        "file": finding.place.path,
        "line": finding.place.line,
        "waived": None if waiver is None else {
            "reason": waiver.reason, "approver": waiver.approver, "expires": waiver.expires.isoformat(),
        },
    }  # fmt: skip

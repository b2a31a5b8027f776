# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""From inventory variables and gathered facts to what the planner takes. Pure: variables in, data out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..release.errors import ReleaseError
from ..release.model import Manifest
from ..release.paths import check_name, check_version
from .errors import RolloutError, field_error
from .fleet import Device, Release, VariantNeed
from .policy import Policy, parse_policy

_MODEL_KEYS = frozenset(("release",))
_SHOWN = 5


def wanted_release(host: str, edge_models: Any, model: str | None) -> tuple[str, str] | None:
    """Return (model, version) that the inventory wants on a host; None when the model is not for this host.

    edge_models: the host's variable, ``{digits: {release: "1.2.0"}}`` or None; model: which one this rollout is about,
    None for the only one. Raises RolloutError for anything else, naming host and field.
    """
    where = f"host {host}"
    if edge_models is None:
        return None
    if not isinstance(edge_models, Mapping):
        raise field_error(where, "edge_models", edge_models, 'write {NAME: {release: "1.0.0"}}')
    if model is None:
        if len(edge_models) > 1:
            names = ", ".join(sorted(map(str, edge_models)))
            raise RolloutError(f"{where}: edge_models wants several models ({names}): say which with edge_model")
        if not edge_models:
            return None
        model = str(next(iter(edge_models)))
    if model not in edge_models:
        return None
    field = f"edge_models.{model}"
    wish = edge_models[model]
    if not isinstance(wish, Mapping) or set(wish) != _MODEL_KEYS:
        raise field_error(where, field, wish, 'write {release: "1.0.0"} and nothing else')
    version = wish["release"]
    if not isinstance(version, str):
        raise field_error(where, field + ".release", version, 'put the version in quotes: release: "1.10.0"')
    try:
        return check_name(model, where, field), check_version(version, where, field + ".release")
    except ReleaseError as error:
        raise RolloutError(str(error)) from error


def one_release(wanted: Mapping[str, tuple[str, str] | None]) -> tuple[str, str]:
    """Return the one (model, version) of this rollout. A rollout is about one model and one release.

    wanted: host -> (model, version) or None. Raises RolloutError, with the hosts, when there are several or none.
    """
    by_release: dict[tuple[str, str], list[str]] = {}
    for host, wish in wanted.items():
        if wish is not None:
            by_release.setdefault(wish, []).append(host)
    if not by_release:
        raise RolloutError(f"none of {len(wanted)} hosts has this model in edge_models: nothing is wanted here")
    if len(by_release) > 1:
        parts = [f"{model} {version} on {_some(hosts)}" for (model, version), hosts in sorted(by_release.items())]
        raise RolloutError(
            f"the hosts want different releases ({'; '.join(parts)}): a rollout is about one release; "
            "choose with --limit, or with edge_model when the models differ"
        )
    return next(iter(by_release))


def one_policy(policies: Mapping[str, Any]) -> Policy:
    """Return the one policy of these hosts (host -> its ``edge_policy`` or None).

    Raises RolloutError when hosts disagree: budgets and waves are about all of them together.
    """
    parsed: dict[Policy, list[str]] = {}
    known: list[tuple[Any, Policy]] = []
    for host, raw in policies.items():
        policy = next((seen for value, seen in known if value == raw), None)
        if policy is None:
            policy = parse_policy(raw, f"host {host}: edge_policy")
            known.append((raw, policy))
        parsed.setdefault(policy, []).append(host)
    if len(parsed) > 1:
        groups = " and ".join(_some(hosts) for hosts in parsed.values())
        raise RolloutError(f"edge_policy differs between {groups}: set it once for all, or choose with --limit")
    return next(iter(parsed), Policy())


def release_of(manifest: Manifest) -> Release:
    """Return what the planner needs to know of a verified release."""
    common = manifest.golden.size + len(manifest.raw)
    needs = [
        VariantNeed(variant.runtime, frozenset(variant.architectures), variant.size + common)
        for variant in manifest.variants
    ]
    return Release(manifest.model, manifest.version, manifest.digest, manifest.security_counter, tuple(needs))


def device_of(
    host: str, variables: Mapping[str, Any], facts: Any, release: Release, history: Mapping[str, Any] | None = None
) -> Device:
    """Return the planner's view of one device.

    variables: the host's ``site``, ``group``, ``wanted`` (False: not meant for it) and ``not_now`` (kind and reason
    of a closed window or a veto, or None); facts: what was registered from ``model_release_info`` (None: it was never
    asked); history: ``lifted`` (pairs whose quarantine a person lifted) and
    ``suspects`` (hosts) from the ledger.
    """
    site, group = variables.get("site"), variables.get("group")
    if not variables.get("wanted", True):
        reason = f"its edge_models does not name {release.model}"
        return Device(host, site=site, redundancy_group=group, not_wanted=reason)
    problem = _no_answer(facts)
    if problem:
        kind, reason = problem
        if kind == "unreachable":
            return Device(host, site=site, redundancy_group=group, reachable=False, reason=reason)
        return Device(host, site=site, redundancy_group=group, trouble=(kind, reason))
    device = _mapping(facts.get("device")) or facts
    state = _mapping(_mapping(device.get("models")).get(release.model))
    stratum, runtimes = device.get("stratum"), _runtimes(device)
    past = history or {}
    serving = _mapping(state.get("serving"))
    has_server = bool(device.get("server")) and "serving" in state
    return Device(
        host,
        stratum=str(stratum) if stratum and runtimes else None,
        redundancy_group=group or device.get("redundancy_group"),
        site=site or device.get("site"),
        active_digest=_digest(state, "active"),
        active_version=_mapping(state.get("active")).get("version"),
        not_now=variables.get("not_now"),
        unconfirmed_digest=_digest(state, "unconfirmed"),
        serving_digest=serving.get("digest"),
        serves=bool(serving.get("digest")) if has_server else None,
        server_problem=str(device.get("server_problem") or ""),
        quarantined=_quarantined(state, past.get("lifted") or ()),
        stored=_stored(state),
        free_bytes=device.get("free_bytes"),
        security_counter=int(state.get("security_counter") or 0),
        architecture=device.get("architecture"),
        runtimes=runtimes,
        suspect=host in (past.get("suspects") or ()),
    )


def group_name(host: str, value: Any, field: str) -> str | None:
    """Return a site or redundancy group as text, None for none. Raises RolloutError for anything but text or number."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise field_error(f"host {host}", field, value, "write one name")
    return str(value)


def _no_answer(facts: Any) -> tuple[str, str] | None:
    if not isinstance(facts, Mapping) or facts.get("skipped"):
        return "unreachable", "it was never asked for its facts"
    if facts.get("unreachable"):
        return "unreachable", str(facts.get("msg") or "unreachable")
    if facts.get("failed"):
        return "no_facts", "its facts could not be gathered: {}".format(facts.get("msg") or "no message")
    return None


def _runtimes(device: Mapping[str, Any]) -> frozenset[str]:
    found = _mapping(device.get("runtimes"))
    usable = {str(name) for name, about in found.items() if not isinstance(about, Mapping) or about.get("usable", True)}
    if device.get("runtime"):
        # a pinned runtime is the only one the device's server loads
        return frozenset([str(device["runtime"])]) if device.get("runtime_pinned", True) else frozenset(usable)
    return frozenset()


def _quarantined(state: Mapping[str, Any], lifted: Iterable[tuple[str, str]]) -> dict[str, str]:
    free = set(lifted)
    entries = [_mapping(entry) for entry in state.get("quarantine") or ()]
    return {
        str(entry.get("digest")): str(entry.get("reason"))
        for entry in entries
        if (str(entry.get("digest")), str(entry.get("stratum"))) not in free
    }


def _stored(state: Mapping[str, Any]) -> frozenset[str]:
    digests = {_digest(state, name) for name in ("active", "previous", "unconfirmed")}
    digests.update(_mapping(state.get("staged")).values())
    return frozenset(str(digest) for digest in digests if digest)


def _digest(state: Mapping[str, Any], name: str) -> str | None:
    digest = _mapping(state.get(name)).get("digest")
    return str(digest) if digest else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _some(hosts: list[str]) -> str:
    shown = ", ".join(sorted(hosts)[:_SHOWN])
    return shown if len(hosts) <= _SHOWN else f"{shown} and {len(hosts) - _SHOWN} more"

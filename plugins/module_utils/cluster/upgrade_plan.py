# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""From what machines say to what the planner takes, and from what they answer to what a verdict takes. Pure.

An upgrade is planned, recorded and judged as a rollout of the model ``k3s``: the same planner, policy, pauses,
windows and ledger. Its records have the action ``upgrade``, which no fold over releases counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..rollout.fleet import Device
from .upgrade_switch import LOST, REFUSED, REVERTED, SERVER, UNCHANGED, UPGRADED

MODEL = "k3s"
ACTION = "upgrade"
#: Results after which a device is not in between.
SETTLED = frozenset((UPGRADED, UNCHANGED, REVERTED, REFUSED))

Record = Mapping[str, Any]


def digest_of(files: Mapping[str, str]) -> str:
    """One digest for a version: architecture to hex SHA-256 of its program, as it was signed."""
    text = json.dumps(dict(files), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def in_between(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Hosts that an upgrade began to change and that nobody knows to be settled: host to from, to, rollout.

    The way back is that of the first intent since the device was last settled: a second one may have seen a link that
    was moved already.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        host, data = record["host"], record["data"]
        if host is None or data.get("action") != ACTION:
            continue
        if record["type"] == "intent":
            began = found.setdefault(host, {"from": data.get("from")})
            began.update(to=data.get("to"), rollout=record["rollout"])
        elif record["type"] == "result" and data.get("result") in SETTLED and data.get("proven") is not False:
            # one that was put back while nobody could see it ready is looked at again
            found.pop(host, None)
    return found


def open_upgrade(records: Iterable[Record], digest: str) -> tuple[str | None, int]:
    """(id of the newest upgrade to this version that has not ended, how many have)."""
    opened: dict[str, None] = {}
    ended = 0
    for record in records:
        data, rollout = record["data"], record["rollout"]
        if record["type"] == "rollout_started" and data.get("model") == MODEL and data.get("digest") == digest:
            opened.pop(rollout, None)
            opened[rollout] = None
        elif record["type"] == "rollout_finished" and rollout in opened:
            opened.pop(rollout)
            ended += 1
    return next(reversed(list(opened)), None), ended


def way_back(facts: Mapping[str, Any], wanted: str, began: Mapping[str, Any] | None) -> str:
    """The version to go back to: of the intent, else what is in use, else what the node reports.

    A device that is to return to where it came from has only the version that it was on its way to.
    """
    if began and began.get("from"):
        return str(began["from"] if began["from"] != wanted else began.get("to"))
    link = str(facts.get("link") or "")
    return link if link != wanted else str(facts.get("version") or "")


def whole(node: Mapping[str, Any], began: Mapping[str, Any]) -> bool:
    """Whether a machine that a run left is as before it all the same: nothing was switched, or it is back already."""
    before = began.get("from")
    return bool(before) and node.get("link") == node.get("version") == before and not node.get("lacks")


def device_of(
    host: str,
    about: Mapping[str, Any],
    facts: Any,
    wanted: tuple[str, str],
    began: Mapping[str, Any] | None,
    preloaded: bool,
) -> Device:
    """The planner's view of an agent.

    about: ``site``, ``group``, ``not_now`` (kind and reason) and ``trouble`` (what preloading said, empty if nothing);
    facts: what `k3s_upgrade_facts` registered; wanted: (version, digest); began: of `in_between`;
    preloaded: whether the new program has to be there (not in a check run).
    """
    version, digest = wanted
    common: dict[str, Any] = {"host": host, "site": about.get("site"), "redundancy_group": about.get("group")}
    if not isinstance(facts, Mapping) or facts.get("unreachable"):
        reason = str(facts.get("msg") or "unreachable") if isinstance(facts, Mapping) else "it was never asked"
        return Device(**common, reachable=False, reason=reason)
    if facts.get("failed") or "node" not in facts:
        return Device(**common, trouble=("no_facts", f"its facts could not be gathered: {facts.get('msg')}"))
    node = facts["node"]
    settled = began is None and node["link"] == version and node["version"] == version and not node["lacks"]
    trouble = None if settled else _trouble(node, about, version, began, preloaded)
    return Device(
        **common,
        stratum=str(node["stratum"]),
        architecture=node.get("architecture"),
        trouble=trouble,
        not_now=about.get("not_now"),
        active_digest=digest if settled else None,
        active_version=str(node["version"]),
        unconfirmed_digest=digest if began is not None else None,
    )


def _trouble(
    node: Mapping[str, Any], about: Mapping[str, Any], version: str, began: Mapping[str, Any] | None, preloaded: bool
) -> tuple[str, str] | None:
    if about.get("trouble"):
        return "not_preloaded", str(about["trouble"])
    if preloaded and version not in node["versions"]:
        return "not_preloaded", f"{version} is not on the device"
    if not node["link"]:
        return "not_installed", "K3s is not installed here: run edgeai.fleet.cluster"
    if began is None and node["lacks"]:
        return "not_ready", f"it is not as it should be before: {node['lacks']}"
    back = way_back(node, version, began)
    if back not in node["versions"] or back == version:
        return "no_way_back", f"the program of {back or 'the version before'} is not on the device"
    return None


def entry_of(result: Any, digest: str) -> dict[str, Any] | None:
    """What a device answered, in the words that `gates.wave_verdict` judges; None when it was not asked."""
    if not isinstance(result, Mapping) or not result or result.get("skipped"):
        return None
    if result.get("unreachable"):
        return {"outcome": "unreachable", "result": {"msg": str(result.get("msg") or "unreachable")}}
    named, code = result.get("result"), str(result.get("code") or "")
    msg = "".join(str(result.get("msg") or "").splitlines()[:1])  # the journal is with the result
    if named in (UPGRADED, UNCHANGED) and not result.get("failed"):
        return {"outcome": "confirmed", "result": {"result": "confirmed", "active": {"digest": digest}}}
    told: dict[str, Any] = {"msg": msg, "code": code}
    if named in (REFUSED, REVERTED) and code:
        outcome = "refused" if named == REFUSED else "reverted"
        return {"outcome": outcome, "result": told}
    if named in (REFUSED, REVERTED, LOST):
        told["gates"] = [{"gate": MODEL, "verdict": "fail", "reason": msg}]
        return {"outcome": "reverted" if named == REVERTED else "failed", "result": told}
    return {"outcome": "failed", "result": told}


def api_away(results: Iterable[Any]) -> str:
    """What a device said of an API server that does not answer; empty when none did."""
    for result in results:
        if isinstance(result, Mapping) and result.get("code") == SERVER:
            return "".join(str(result.get("msg") or "the API server does not answer").splitlines()[:1])
    return ""

"""Upgrades of K3s: versions, quorum, what a plan takes and a verdict gets, and the switch with its way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import (
    nodes,
    readiness,
    upgrade,
    upgrade_machine,
    upgrade_nodes,
    upgrade_plan,
    upgrade_switch,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.upgrade import ServerState, judge_quorum
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.upgrade_switch import Broken, Task, switch
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import ledger_folds
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.gates import wave_verdict
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.history import read_history
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import parse_policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.report import fold

OLD, NEW = "v1.32.0+k3s1", "v1.32.2+k3s1"
DIGEST = "sha256:" + "ab" * 32

# Versions


def test_versions_are_ordered_as_they_were_made() -> None:
    tags = ["v1.31.9+k3s1", "v1.32.0-rc1+k3s1", "v1.32.0+k3s1", "v1.32.0+k3s2", "v1.32.10+k3s1", "v2.0.0+k3s1"]
    assert sorted({*tags}, key=upgrade.parse) == tags
    with pytest.raises(ClusterError, match=r"k3s_version is '1\.32'"):
        upgrade.parse("1.32")


@pytest.mark.parametrize(
    ("wanted", "servers", "agents", "kubeedge", "said"),
    [
        (NEW, {"s": OLD}, {"a": OLD, "b": "v1.29.1+k3s1"}, ["cloud"], []),
        (NEW, {"s": NEW}, {"a": NEW}, [], []),
        ("v1.33.0+k3s1", {"s": OLD}, {}, [], []),
        (OLD, {"s": NEW}, {}, [], ["server s runs v1.32.2+k3s1: a server's data"]),
        ("v1.34.0+k3s1", {"s": OLD}, {}, [], ["skips a minor version of Kubernetes; go to v1.33 first"]),
        (OLD, {"s": OLD}, {"a": NEW}, [], ["agent a runs v1.32.2+k3s1, newer than"]),
        (NEW, {"s": OLD}, {"a": "v1.28.1+k3s1"}, [], ["more than 3 minor versions behind"]),
        ("v1.33.0+k3s1", {"s": OLD}, {}, ["cloud"], ["KubeEdge's cloud side (cloud)"]),
        ("v1.35.0+k3s1", {"s": OLD, "t": OLD}, {}, ["c"], ["3 problems", "server s", "server t", "KubeEdge"]),
    ],
    ids=["ok", "same", "next-minor", "downgrade", "skip", "agent-newer", "agent-behind", "kubeedge", "all-at-once"],
)
def test_skew(wanted: str, servers: Any, agents: Any, kubeedge: list[str], said: list[str]) -> None:
    if not said:
        upgrade.check_skew(wanted, servers, agents, kubeedge)
        return
    with pytest.raises(ClusterError) as caught:
        upgrade.check_skew(wanted, servers, agents, kubeedge)
    assert all(text in str(caught.value) for text in said)


# Quorum

WHOLE = ["s1", "s2", "s3"]


def servers(count: int, members: list[str] | None, **wrong: ServerState) -> dict[str, ServerState]:
    return {f"s{number}": ServerState("", "", members) for number in range(1, count + 1)} | wrong


@pytest.mark.parametrize(
    ("said", "away", "fine", "words"),
    [
        (servers(3, WHOLE), [], True, "3 of 3 members"),
        (servers(1, ["s1"]), [], True, "a single server"),
        (servers(1, None), [], True, "a single server"),
        (servers(2, None), [], True, "no embedded etcd"),
        (servers(2, ["s1", "s2"]), [], False, "2 members of etcd do not survive losing one"),
        (servers(2, WHOLE), ["s3"], False, "s3 was not reached"),
        (servers(3, [*WHOLE, "gone"]), [], False, "counts 4 members of etcd"),
        (servers(3, WHOLE, s2=ServerState("down", "", WHOLE)), [], False, "s2: down"),
        (servers(3, WHOLE, s2=ServerState("", "no leader", [])), [], False, "s2: no leader"),
    ],
    ids=["three", "single", "sqlite", "external", "two", "away", "stranger", "api", "etcd"],
)
def test_quorum(said: Any, away: list[str], fine: bool, words: str) -> None:
    found = judge_quorum(said, away)
    assert found.fine is fine and words in (found.note if fine else found.reason)


# What the planner takes


def facts(**changes: Any) -> dict[str, Any]:
    node = {"link": OLD, "versions": [OLD, NEW], "version": OLD, "lacks": "", "stratum": "cpu", "architecture": None}
    return {"node": {**node, **changes}}


def device(told: Any, began: Any = None, preloaded: bool = True, **about: Any) -> Any:
    return upgrade_plan.device_of("a", about, told, (NEW, DIGEST), began, preloaded)


@pytest.mark.parametrize(
    ("told", "began", "kind"),
    [
        (facts(), None, None),
        (facts(versions=[OLD]), None, "not_preloaded"),
        (facts(versions=[NEW]), None, "no_way_back"),
        (facts(lacks="is not Ready"), None, "not_ready"),
        (facts(link=""), None, "not_installed"),
        (facts(link=NEW, lacks="is not Ready", version=""), None, "not_ready"),
        (facts(link=NEW, lacks="is not Ready", version=""), {"from": OLD, "to": NEW}, None),
        ({"failed": True, "msg": "no python"}, None, "no_facts"),
    ],
    ids=["fits", "not-preloaded", "no-way-back", "not-ready", "none", "lost", "in-between", "no-facts"],
)
def test_what_keeps_an_agent_out(told: Any, began: Any, kind: str | None) -> None:
    found = device(told, began)
    assert (found.trouble and found.trouble[0]) == kind
    assert found.unconfirmed_digest == (DIGEST if began else None)


def test_agents_that_are_done_or_away() -> None:
    done = device(facts(link=NEW, version=NEW))
    assert done.active_digest == DIGEST and done.trouble is None
    assert device(facts(versions=[OLD]), preloaded=False).trouble is None
    assert device(facts(), trouble="disk full").trouble == ("not_preloaded", "disk full")
    assert not device({"unreachable": True, "msg": "no route"}).reachable and not device(None).reachable


def plan_of(*told: Any) -> dict[str, Any]:
    policy = parse_policy({"growth": [1.0], "gate": {"enabled": False}, "halt": "rollout"})
    return make_plan(told, Release("k3s", NEW, DIGEST), policy, "k3s-1")


def test_who_was_left_in_between_comes_first() -> None:
    began = {"e": {"from": OLD, "to": NEW}}
    told = [upgrade_plan.device_of(name, {}, facts(), (NEW, DIGEST), began.get(name), True) for name in "abcdefg"]
    assert plan_of(*told)["hosts"][0] == "e"


def record(named: str, host: str | None, rollout: str = "k3s-1", /, **data: Any) -> dict[str, Any]:
    return {"type": named, "host": host, "rollout": rollout, "time": "2026-11-24T02:00:00.000Z", "data": data}


def intent(old: str = OLD, new: str = NEW) -> dict[str, Any]:
    return record("intent", "a", **{"action": "upgrade", "from": old, "to": new})


@pytest.mark.parametrize(
    ("results", "left"),
    [
        ([], True),
        ([{"result": "upgraded"}], False),
        ([{"result": "reverted", "proven": True}], False),
        ([{"result": "reverted", "proven": False}], True),
        ([{"result": "refused"}], False),
        ([{"result": "refused", "proven": False}], True),
        ([{"result": "lost"}], True),
        ([{"unreachable": True, "failed": True}], True),
    ],
    ids=["nothing", "upgraded", "reverted", "unseen", "refused", "refused-again", "lost", "unreachable"],
)
def test_in_between(results: list[dict[str, Any]], left: bool) -> None:
    records = [intent(), *(record("result", "a", action="upgrade", **data) for data in results)]
    assert ("a" in upgrade_plan.in_between(records)) is left


def test_the_way_back_is_that_of_the_first_intent() -> None:
    began = upgrade_plan.in_between([intent(), intent(old=NEW)])["a"]
    assert upgrade_plan.way_back(facts(link=NEW)["node"], NEW, began) == OLD
    # back to where it came from: there is only the version that it was on its way to
    assert upgrade_plan.way_back(facts(link=NEW)["node"], OLD, began) == NEW
    assert upgrade_plan.way_back(facts()["node"], NEW, None) == OLD
    assert upgrade_plan.way_back(facts(link=NEW)["node"], NEW, None) == OLD


def test_a_machine_that_was_left_and_is_as_before_is_treated_as_any() -> None:
    began = {"from": OLD, "to": NEW}
    assert upgrade_plan.whole(facts()["node"], began)
    for changes in ({"link": NEW}, {"version": NEW}, {"version": ""}, {"lacks": "is not Ready"}):
        assert not upgrade_plan.whole(facts(**changes)["node"], began)


# What a verdict gets


def verdict_of(*results: Any) -> dict[str, Any]:
    told = [upgrade_plan.device_of(f"d{number}", {}, facts(), (NEW, DIGEST), None, True) for number in range(9)]
    plan = plan_of(*told)
    hosts = plan["waves"][1]["hosts"]
    padded = [*results, *({"result": "upgraded"} for _rest in range(len(hosts) - len(results)))]
    entries = {host: upgrade_plan.entry_of(item, DIGEST) or {} for host, item in zip(hosts, padded)}
    entries[plan["waves"][0]["hosts"][0]] = upgrade_plan.entry_of({"result": "upgraded"}, DIGEST) or {}
    return wave_verdict(entries, plan, 2, "soak", parse_policy(plan["policy"]))


@pytest.mark.parametrize(
    ("results", "verdict", "halt"),
    [
        ([], "pass", False),
        ([{"result": "unchanged"}], "pass", False),
        ([{"result": "reverted", "failed": True, "msg": "it crashed"}], "fail", True),
        ([{"result": "lost", "failed": True, "msg": "neither"}], "fail", True),
        ([{"result": "refused", "failed": True, "code": "", "msg": "says that it is v0"}], "fail", True),
        ([{"result": "refused", "failed": True, "code": "busy", "msg": "a budget"}], "pass", False),
        ([{"unreachable": True, "msg": "no route"}], "pass", False),
        ([{"result": "reverted", "failed": True, "code": "server", "msg": "API away"}], "inconclusive", True),
        ([{"failed": True, "msg": "Traceback"}], "inconclusive", True),
        ([None], "inconclusive", True),
    ],
    ids=["all", "unchanged", "reverted", "lost", "untrue", "budget", "away", "api-away", "crash", "nothing"],
)
def test_verdicts(results: list[Any], verdict: str, halt: bool) -> None:
    found = verdict_of(*results)
    assert (found["verdict"], found["halt"] or bool(found["halted_strata"])) == (verdict, halt)


def test_an_api_server_that_is_away_is_heard() -> None:
    assert (
        upgrade_plan.api_away([None, {"result": "upgraded", "code": ""}, {"code": "server", "msg": "away"}]) == "away"
    )
    assert upgrade_plan.api_away([{"result": "reverted", "code": ""}]) == ""


# Folds over releases


def test_folds_over_releases_do_not_count_upgrades() -> None:
    release = [
        record("rollout_started", None, "digits-1", model="digits", digest="sha256:1"),
        record("intent", "a", "digits-1", action="activate", digest="sha256:1", wave=1),
    ]
    upgraded = [
        record("rollout_started", None, model="k3s", digest=DIGEST, kind="upgrade", plan={}),
        intent(),
        record("result", "a", action="upgrade", result="unchanged"),
        record("rollout_finished", None, status="succeeded"),
    ]
    both = [*release, *upgraded]
    assert ledger_folds.last_rollout(both) == "digits-1"
    assert ledger_folds.unsettled(both, "digits-1")[0]["host"] == "a" and not ledger_folds.activated(both, "k3s-1")
    history = read_history(both, "digits", "sha256:1")
    assert "a" in history.unsettled and history.open_id == "digits-1"
    shown = fold(both).rollouts["k3s-1"]
    assert (shown.model, shown.status, shown.devices["a"].outcome) == ("k3s", "succeeded", "unchanged")
    assert upgrade_plan.open_upgrade(both, DIGEST) == (None, 1)
    assert upgrade_plan.open_upgrade(both[:-1], DIGEST) == ("k3s-1", 0)


# Nodes


def test_what_a_node_said_before_its_restart_does_not_count() -> None:
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-24T02:00:10Z"}
    node = {"status": {"conditions": [ready], "nodeInfo": {"kubeletVersion": OLD}}}
    assert not nodes.lacks(node, OLD) and not nodes.lacks(node, OLD, "2026-11-24T02:00:10Z")
    assert "said nothing since" in nodes.lacks(node, OLD, "2026-11-24T02:00:11Z")


def test_whose_cordon() -> None:
    ours = {"metadata": {"annotations": {upgrade_nodes.MARK: "k3s-1"}}, "spec": {"unschedulable": True}}
    assert upgrade_nodes.mark_of(ours) == "k3s-1" and upgrade_nodes.cordoned(ours)
    assert not upgrade_nodes.mark_of({"metadata": {}, "spec": {"unschedulable": True}})
    assert not upgrade_nodes.cordoned({})


def test_a_server_with_sqlite_has_no_members(tmp_path: Path) -> None:
    """K3s keeps its name in etcd's directory whatever its datastore is."""
    home = tmp_path / "server" / "db" / "etcd"
    home.mkdir(parents=True)
    (home / "name").write_text("server-1-5e3a")
    assert upgrade_nodes.etcd_members(str(tmp_path)) is None
    (home / "member").mkdir()
    with pytest.raises(ClusterError, match="ask a server with embedded etcd"):
        upgrade_nodes.etcd_members(str(tmp_path))


def test_the_api_server_is_asked_past_a_k3s_that_does_not_run(tmp_path: Path) -> None:
    """An agent's kubeconfig names its own K3s's load balancer; and a broken program is no kubectl either."""
    for version, answers in (
        (OLD, 'case "$*" in *--server=https://10.0.0.9:6443*) printf ok; exit 0;; esac'),
        (NEW, ""),
    ):
        program = tmp_path / version / "k3s"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{answers}\nexit 1\n")
        program.chmod(0o755)
    (tmp_path / "current").symlink_to(NEW)
    config = tmp_path / "agent" / "kubelet.kubeconfig"
    (tmp_path / "agent" / "etc").mkdir(parents=True)
    config.touch()
    node = readiness.Wanted("agent", "u", "n", "", f"{tmp_path}/current/k3s", str(tmp_path), True, 0.0)
    machine = upgrade_machine.Host(node, str(tmp_path), "", 0.0)
    assert "does not answer (no output)" in machine.api(OLD)
    balancer = tmp_path / "agent" / "etc" / "k3s-agent-load-balancer.json"
    balancer.write_text('{"ServerAddresses": ["10.0.0.8:6443", "10.0.0.9:6443"]}')
    assert machine.api(OLD) == "" and "does not answer" in machine.api(NEW)


# The switch


class Double:
    """A machine that says what it is told to say, version by version."""

    def __init__(self, **how: str) -> None:
        self.how, self.at, self.running, self.done = how, OLD, OLD, []
        self.served_by: dict[str, Any] = {OLD: {"m": {"digest": "d", "golden": "g"}}}
        self.served_by[NEW] = self.served_by[OLD]
        self.api_says: dict[str, str] = {}

    def link(self) -> str:
        return self.at

    def lacks(self, version: str) -> str:
        return self.how.get("lacks", "") if version == self.how.get("of", NEW) else ""

    def relink(self, version: str) -> None:
        if self.how.get("relink") == version:
            raise OSError(28, "No space left on device")
        self.done.append(f"link {version}")
        self.at = version

    def restart(self) -> str:
        self.done.append(f"restart {self.at}")
        self.running = self.at
        return ""

    def api(self, version: str) -> str:
        assert version == OLD, "a program that is not proven says nothing about the API server"
        return self.api_says.get(self.running, "")

    def look(self, version: str) -> str:
        if self.how.get("before"):
            return self.how["before"]
        return "" if version in ("", self.running) else f"reports version {self.running}"

    def prove(self, version: str, since: str) -> None:
        assert since == "now"
        if version in self.how.get("broken", ""):
            raise Broken(f"{version} is not ready", "configuration", ["its last words"])
        if version in self.how.get("crash", ""):
            raise ValueError("an answer that nobody expected")

    def runs(self) -> str:
        return self.how.get("runs", "")

    def now(self) -> str:
        return "now"

    def served(self) -> Any:
        return self.served_by[self.running]

    def snapshot(self, name: str) -> None:
        self.done.append(f"snapshot {name}")
        if self.how.get("snapshot"):
            raise Broken("the disk is full", "snapshot")


TASK = Task(NEW, OLD, probe=0.0, settle=0.0)
SWITCHED = [f"link {NEW}", f"restart {NEW}"]
BACK = [f"link {OLD}", f"restart {OLD}"]


def test_a_good_version() -> None:
    machine = Double()
    answer = switch(machine, TASK._replace(snapshot="before"))
    assert (answer["result"], answer["failed"], machine.done) == ("upgraded", False, ["snapshot before", *SWITCHED])
    assert answer["served"] == {"m": "d"}
    machine.done.clear()
    again = switch(machine, TASK)
    assert (again["result"], again["changed"], machine.done) == ("unchanged", False, [])


@pytest.mark.parametrize(
    "how", [{"broken": NEW}, {"crash": NEW}, {"relink": NEW}], ids=["not-ready", "surprise", "disk-full"]
)
def test_a_bad_version_comes_back(how: dict[str, str]) -> None:
    machine = Double(**how)
    answer = switch(machine, TASK)
    assert (answer["result"], answer["proven"], answer["code"], answer["failed"]) == ("reverted", True, "", True)
    assert machine.at == machine.running == OLD and machine.done[-2:] == BACK
    if "broken" in how:
        assert answer["cause"] == "configuration" and answer["journal"] == ["its last words"]


@pytest.mark.parametrize(
    ("served", "said"),
    [
        ({}, "model m is not served any more"),
        ({"m": {"digest": "other", "golden": "g"}}, "serves other, before d"),
        ({"m": {"digest": "d", "golden": "x"}}, "golden outputs are not those from before"),
    ],
    ids=["nothing", "other", "outputs"],
)
def test_a_model_that_is_not_served_as_before_is_a_reason_to_go_back(served: Any, said: str) -> None:
    machine = Double()
    machine.served_by[NEW] = served
    answer = switch(machine, TASK)
    assert answer["result"] == "reverted" and said in answer["msg"] and machine.done == [*SWITCHED, *BACK]


def test_a_pod_that_the_new_kubelet_stops_after_it_is_ready_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubelet looks at its pods after its node is Ready: until then the old one's server answers."""
    clock = iter(range(1000))
    monkeypatch.setattr(upgrade_switch.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(upgrade_switch.time, "sleep", lambda seconds: None)
    machine = Double()
    answers = [machine.served_by[OLD]] * 3

    def served() -> Any:
        return machine.served_by[OLD] if machine.running == OLD else answers.pop() if answers else {}

    machine.served = served  # type: ignore[method-assign]
    answer = switch(machine, TASK._replace(probe=20.0, settle=10.0))
    assert (answer["result"], answer["cause"], machine.at) == ("reverted", "probe", OLD) and not answers


@pytest.mark.parametrize(
    ("how", "task", "code"),
    [
        ({"lacks": "is not there"}, TASK, ""),
        ({"lacks": "is not there", "of": OLD}, TASK, "busy"),
        ({}, TASK._replace(back=""), "busy"),
        ({}, TASK._replace(back=NEW), "busy"),
        ({"before": "is not Ready"}, TASK, "busy"),
        ({"snapshot": "full"}, TASK._replace(snapshot="before"), "busy"),
    ],
    ids=["no-program", "no-way-back", "unknown-way-back", "same", "not-ready-before", "no-snapshot"],
)
def test_nothing_is_touched(how: dict[str, str], task: Task, code: str) -> None:
    machine = Double(**how)
    answer = switch(machine, task)
    assert (answer["result"], answer["code"], answer["changed"]) == ("refused", code, False)
    assert not [line for line in machine.done if not line.startswith("snapshot")] and machine.at == OLD


def test_nothing_begins_without_the_api_server() -> None:
    machine = Double()
    machine.api_says = {OLD: "it does not answer"}
    answer = switch(machine, TASK)
    assert (answer["result"], answer["code"], machine.done) == ("refused", upgrade_switch.SERVER, [])


def test_without_the_api_server_the_way_back_is_taken_and_not_claimed() -> None:
    machine = Double(broken=f"{OLD} {NEW}")
    machine.api_says = {NEW: "away", OLD: ""}
    before = machine.api

    def away_since_the_switch(version: str) -> str:
        return "away" if machine.done else before(version)

    machine.api = away_since_the_switch  # type: ignore[method-assign]
    answer = switch(machine, TASK)
    assert machine.done == [*SWITCHED, *BACK] and machine.at == OLD
    assert (answer["result"], answer["code"], answer["proven"]) == ("reverted", "server", False)
    assert "not known" in answer["msg"]


def test_a_server_that_is_silent_itself_has_no_excuse() -> None:
    machine = Double(broken=NEW)
    machine.api_says = {NEW: "away"}
    answer = switch(machine, TASK._replace(own_api=True))
    assert (answer["result"], answer["code"], answer["proven"]) == ("reverted", "", True)
    machine = Double(broken=f"{OLD} {NEW}")
    machine.api_says = {NEW: "away"}
    assert switch(machine, TASK._replace(own_api=True))["result"] == "lost"


def test_neither_runs() -> None:
    machine = Double(broken=f"{OLD} {NEW}", runs="k3s-agent.service is failed")
    answer = switch(machine, TASK)
    assert (answer["result"], answer["proven"]) == ("lost", False) and machine.at == OLD


def test_one_that_was_cut_off_is_switched_whatever_it_says() -> None:
    machine = Double(before="is not Ready")
    machine.at = NEW
    answer = switch(machine, TASK._replace(resumed=True))
    assert answer["result"] == "upgraded" and machine.done == SWITCHED
    machine = Double(broken=NEW)
    machine.at = NEW
    assert switch(machine, TASK._replace(resumed=True))["result"] == "reverted" and machine.at == OLD
    gone = switch(Double(lacks="is not there", of=OLD), TASK._replace(resumed=True))
    assert gone["result"] == "refused" and gone["proven"] is False

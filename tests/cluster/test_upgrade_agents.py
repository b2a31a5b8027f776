# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The playbook k3s_upgrade over real agents, which serve a release from their pods: kubelets, drains, the way back.

The tests build on each other, in this order: every one leaves the agents Ready in one version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.cluster_fleet import CLOUD, Client, Given, Missing
from support.cluster_lab import ClusterLab
from support.cluster_upgrade import AGENTS, EMPTY, NEW, NEXT, OLD, UpgradeFleet
from support.fleet import ROOT, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import verify

SERVES = dict.fromkeys(AGENTS, "1.0.0")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpgradeFleet]:
    """A server and three agents in the old version; every agent serves release 1.0.0."""
    try:
        given = Given(Path(os.environ["EDGEAI_ARTIFACTS"]))
    except Missing as error:
        pytest.skip(str(error))
    lab = ClusterLab(ROOT / "build" / "lab-upgrade", given.flannel)
    try:
        lab.up(1 + len(AGENTS), 0)
        made = UpgradeFleet(tmp_path_factory.mktemp("upgrade"), lab, given)
        made.make()
        made.release("1.0.0")
        made.run("rollout")
        yield made
    except Missing as error:
        pytest.skip(str(error))
    finally:
        lab.down()


def are_whole(fleet: UpgradeFleet, versions: dict[str, str]) -> None:
    """Agents run what they should, Ready and open for pods, serve the release; and the ledger is verified."""
    assert {host: fleet.link(host) for host in versions} == versions
    seen = {host: fleet.node(host) for host in versions}
    assert seen == {host: ("True", version, False, False) for host, version in versions.items()}
    assert fleet.serving() == SERVES and all(fleet.verified(host) for host in AGENTS)
    report = verify(str(fleet.ledger_file), (fleet.home / "ledger.pub.pem").read_bytes())
    assert report.ok, report.problems


def results(fleet: UpgradeFleet) -> list[dict[str, Any]]:
    """What came of the agents in the last upgrade, in the order of the ledger."""
    last = fleet.records("rollout_finished")[-1]["rollout"]
    found = [record for record in fleet.records("result") if record["rollout"] == last]
    return [{**record["data"], "host": record["host"]} for record in found if record["host"] in AGENTS]


def came_back(fleet: UpgradeFleet, starts: dict[str, str]) -> dict[str, Any]:
    """The one agent that tried the version, proven on the old one again; the others were not started at all."""
    (result,) = results(fleet)
    assert (result["result"], result["proven"], result["code"]) == ("reverted", True, ""), result
    others = [host for host in AGENTS if host != result["host"]]
    now = fleet.starts()
    assert now[result["host"]] != starts[result["host"]] and all(now[host] == starts[host] for host in others)
    ended = fleet.records("rollout_finished")[-1]["data"]
    assert (ended["status"], ended["deferred"], ended["unsettled"]) == ("halted", len(others), 0), ended
    last = fleet.records("rollout_finished")[-1]["rollout"]
    assert sorted(record["host"] for record in fleet.records("deferred") if record["rollout"] == last) == others
    assert fleet.records("verdict")[-1]["data"]["verdict"] == "fail"
    return result


def noticed(clients: dict[str, Client], touched: set[str]) -> None:
    """A device that was not touched answered everything, and one that was is away for its own restart at most."""
    for host, client in clients.items():
        said = f"{host}: {client.answers}, {len(client.wrong)} without one, at most {client.gap:.1f} s apart"
        print(said)
        assert set(client.answers) == {1.0}, said
        assert not client.wrong if host not in touched else client.gap < 180, (said, client.wrong[:3])


def pods(fleet: UpgradeFleet) -> dict[str, str]:
    """The names of the pods that serve, by node."""
    return {host: (fleet.pod(host) or ("", 0))[0] for host in AGENTS}


def test_a_program_that_does_not_run_on_agents_comes_back_from_the_first(fleet: UpgradeFleet) -> None:
    """It says that it is the version, and is it on the server."""
    starts, before = fleet.starts(), pods(fleet)
    with fleet.clients() as clients:
        done = fleet.playbook("k3s_upgrade", "-e", f"k3s_version={EMPTY}", timeout=1800)
    assert done.rc == 2, done
    assert fleet.link(CLOUD) == EMPTY and EMPTY in fleet.kubectl("get --raw /version")
    result = came_back(fleet, starts)
    are_whole(fleet, dict.fromkeys(AGENTS, OLD))
    assert pods(fleet) == before
    noticed(clients, {result["host"]})


def test_a_good_version_goes_to_all_and_a_second_run_changes_nothing(fleet: UpgradeFleet) -> None:
    """Cordoned, drained as the budget allows it, switched, Ready and serving, uncordoned."""
    before, evicted = pods(fleet), fleet.evicted()
    assert len(evicted) == 3
    with fleet.clients() as clients:
        fleet.run("k3s_upgrade", "-e", f"k3s_version={NEW}")
    assert fleet.link(CLOUD) == NEW
    are_whole(fleet, dict.fromkeys(AGENTS, NEW))
    told = results(fleet)
    assert [(item["result"], list(item["served"])) for item in told] == [("upgraded", ["scale"])] * len(AGENTS)
    # Every node was empty but for its DaemonSet, whose pod stays.
    wait_for(lambda: len(fleet.evicted()) == len(evicted), 300, "what was evicted runs elsewhere")
    assert not set(evicted) & set(fleet.evicted())
    assert pods(fleet) == before
    noticed(clients, set(AGENTS))

    starts, size = fleet.starts(), fleet.ledger_file.stat().st_size
    again = fleet.run("k3s_upgrade", "-e", f"k3s_version={NEW}")
    assert "nothing to do" in again.output and set(re.findall(r"changed=(\d+)", again.output)) == {"0"}, again
    assert fleet.starts() == starts and fleet.ledger_file.stat().st_size == size


def test_without_the_api_server_nothing_new_starts_and_a_rerun_puts_right(fleet: UpgradeFleet) -> None:
    """The server is cut off when the first agent is about to be switched."""
    starts, cloud = fleet.starts(), fleet.lab.device(CLOUD)

    def begun() -> list[str]:
        found = [record for record in fleet.records("intent") if record["data"].get("to") == NEXT]
        return [item["host"] for item in found if item["host"] in AGENTS and item["data"]["step"] == "switch"]

    def cut_the_server_off() -> None:
        wait_for(begun, 1500, "the first agent is switched")
        cloud.cut()

    words = ["-e", f"k3s_version={NEXT}", "-e", '{"k3s_agent_ready_timeout": 60}']
    try:
        with fleet.clients() as clients, ThreadPoolExecutor() as pool:
            fault = pool.submit(cut_the_server_off)
            done = fleet.playbook("k3s_upgrade", *words, timeout=2400)
            fault.result()
        assert done.rc == 2, done
        (host,) = begun()
        (result,) = results(fleet)
        now = fleet.starts()
        assert {name for name in AGENTS if now[name] != starts[name]} <= {host}
        assert result["result"] in ("refused", "reverted") and result["code"] == "server", result
        assert fleet.link(host) == NEW and fleet.serving() == SERVES
        noticed(clients, {host})
        ended = fleet.records("rollout_finished")[-1]["data"]
        assert ended["status"] == "halted", ended
    finally:
        cloud.join()
    wait_for(lambda: all(fleet.node_ready(name) for name in AGENTS), 400, "the nodes are Ready again")
    assert fleet.node(host)[2:] == (True, True), "its cordon was left, and says whose it is"
    fleet.run("k3s_upgrade", "-e", f"k3s_version={NEXT}")
    are_whole(fleet, dict.fromkeys(AGENTS, NEXT))
    assert fleet.records("rollout_finished")[-1]["data"]["unsettled"] == 0

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""One rollout over three kinds of devices with the real programs: systemd, a pod of K3s, a pod of KubeEdge.

Everything is made by the collection's playbooks, over ssh: artifacts, image, provision, cluster, kubeedge, workloads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.cluster_fleet import AGENT, CLOUD, EDGE, PLAIN, PLATFORMS, PODS, Client, Given, Missing, MixedFleet
from support.cluster_lab import ClusterLab
from support.fleet import ROOT, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import verify

ALL = (CLOUD, AGENT, EDGE, PLAIN)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MixedFleet]:
    """Every device serves release 1.0.0."""
    try:
        given = Given(Path(os.environ["EDGEAI_ARTIFACTS"]))
    except Missing as error:
        pytest.skip(str(error))
    lab = ClusterLab(ROOT / "build" / "lab-mixed", given.flannel)
    try:
        lab.up(len(ALL), 0)
        made = MixedFleet(tmp_path_factory.mktemp("mixed"), lab, given)
        made.make()
        made.release("1.0.0")
        made.run("rollout")
        assert made.serving() == dict.fromkeys(PLATFORMS, "1.0.0")
        yield made
    finally:
        lab.down()


def no_one_noticed(clients: dict[str, Client], answers: set[float]) -> None:
    """Every question was answered, and rightly; these releases gave the answers."""
    for host, client in clients.items():
        assert client.wrong == [], (host, len(client.wrong), client.wrong[:5])
        assert set(client.answers) == answers, (host, client.answers)


def is_whole(fleet: MixedFleet, version: str) -> None:
    """Every device serves a release, its files are what was signed, and the ledger is."""
    assert fleet.serving() == dict.fromkeys(PLATFORMS, version)
    assert all(fleet.verified(host) for host in PLATFORMS)
    report = verify(str(fleet.ledger_file), (fleet.home / "ledger.pub.pem").read_bytes())
    assert report.ok, report.problems


def in_one_plan(fleet: MixedFleet, version: str) -> list[str]:
    """The results of all three devices in the one rollout of a release."""
    results = [record for record in fleet.records("result") if record["data"]["version"] == version]
    assert len({record["rollout"] for record in results}) == 1, results
    return sorted({record["host"] for record in results})


def test_each_device_is_served_its_own_way_and_a_second_run_changes_nothing(fleet: MixedFleet) -> None:
    served = {host: fleet.platform_of_server(host) for host in PLATFORMS}
    assert served[PLAIN] == "edgeai-server.service"
    pods = {host: fleet.pod(host) for host in PODS}
    assert {host: (served[host], 0) for host in PODS} == pods
    for playbook in ("provision", "cluster", "kubeedge", "workloads"):
        for arguments in (["--check"], []):
            again = fleet.run(playbook, *arguments)
            assert set(re.findall(r"changed=(\d+)", again.output)) == {"0"}, (playbook, arguments, again)
    assert {host: fleet.pod(host) for host in PODS} == pods


def test_a_good_release_goes_to_all_of_them_and_no_client_notices(fleet: MixedFleet) -> None:
    pods = {host: fleet.pod(host) for host in PODS}
    fleet.release("1.1.0")
    fleet.desire("1.1.0")
    with fleet.clients() as clients:
        fleet.run("rollout")
    no_one_noticed(clients, {1.0, 2.0})
    is_whole(fleet, "1.1.0")
    assert in_one_plan(fleet, "1.1.0") == sorted(PLATFORMS)
    assert {host: fleet.pod(host) for host in PODS} == pods, "switched inside of the running server"
    fleet.run("report")
    page = (fleet.home / "ledger" / "report.html").read_text(encoding="utf-8")
    assert "Ledger verified" in page and all(host in page for host in PLATFORMS)


def test_a_bad_release_comes_back_from_all_of_them_and_no_client_notices(fleet: MixedFleet) -> None:
    fleet.release("1.2.0", bad=["onnxruntime/fp32", "onnxruntime/fp32-old"])
    fleet.policy["canary"] = {"per_stratum": len(PLATFORMS)}
    fleet.desire("1.2.0")
    with fleet.clients() as clients:
        done = fleet.playbook("rollout", timeout=900)
    fleet.policy["canary"] = {"per_stratum": 1}
    assert done.rc == 2, done
    no_one_noticed(clients, {2.0})
    is_whole(fleet, "1.1.0")
    assert in_one_plan(fleet, "1.2.0") == sorted(PLATFORMS)
    failed = [record["data"] for record in fleet.records("result") if record["data"]["version"] == "1.2.0"]
    assert all(data["failed"] and "golden" in data["msg"] for data in failed), failed
    assert all(fleet.state(host)["unconfirmed"] is None for host in PLATFORMS)


def test_without_the_cloud_releases_go_out_and_an_edge_comes_back_from_a_power_cut(fleet: MixedFleet) -> None:
    """API server and CloudCore are cut off in the middle of a rollout, and stay away until the end."""
    pods = {host: fleet.pod(host) for host in PODS}
    cloud, seen = fleet.lab.device(CLOUD), len(fleet.records("intent"))
    fleet.release("1.3.0")
    fleet.desire("1.3.0")

    def cut_the_cloud_off() -> None:
        wait_for(lambda: len(fleet.records("intent")) > seen, 300, "the first device is asked")
        cloud.cut()

    try:
        with fleet.clients() as clients, ThreadPoolExecutor() as pool:
            fault = pool.submit(cut_the_cloud_off)
            fleet.run("rollout")
            fault.result()
        assert cloud.is_cut()
        no_one_noticed(clients, {2.0, 4.0})
        is_whole(fleet, "1.3.0")

        edge = fleet.lab.device(EDGE)
        edge.power_cut()
        edge.power_on()
        wait_for(lambda: (fleet.ready(EDGE) or {}).get("version") == "1.3.0", 300, "the edge serves again")
        is_whole(fleet, "1.3.0")
        assert fleet.platform_of_server(EDGE) == pods[EDGE][0]  # type: ignore[index]
        fleet.release("1.4.0")
        fleet.desire("1.4.0")
        fleet.run("rollout")
        is_whole(fleet, "1.4.0")
    finally:
        cloud.join()
    for host in PODS:
        wait_for(lambda: fleet.node_ready(host), 300, f"{host} is Ready again")  # noqa: B023
    again = fleet.run("rollout")
    assert set(re.findall(r"changed=(\d+)", again.output)) == {"0"}, again

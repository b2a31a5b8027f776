"""Servers of the real K3s are lost: one of three is re-imaged and joins again; two, and the third is restored."""

from __future__ import annotations

import json
import time
from typing import Any

from support.fleet import wait_for

ALL = ("lab-01", "lab-02", "lab-03")
DB = "/var/lib/rancher/k3s/server/db"


def lose(site: Any, *names: str) -> None:
    """Switch machines off as a broken power supply does."""
    for name in names:
        site.lab.device(name).power_cut()


def serves(site: Any, name: str, made: str) -> bool:
    """Whether a server can write into what was made, which takes a quorum of etcd."""
    given = f"--overwrite --request-timeout=20s seen-by={name}-{time.monotonic_ns()}"
    return "annotated" in site.kubectl(name, f"annotate configmap {made} {given}")


def etcd(site: Any, asked: str, node: str, **given: Any) -> dict[str, Any]:
    """What the module k3s_etcd_member says on one server about a node."""
    found: dict[str, Any] = site.module(asked, "edgeai.fleet.k3s_etcd_member", node_name=node, **given)
    return found


def test_one_of_three(servers: Any) -> None:
    servers.play(ALL)
    servers.kubectl("lab-01", "create configmap before")
    # What is alive is not removed, nor the server that is asked.
    assert "it is not gone" in etcd(servers, "lab-02", "lab-03", remove=True)["msg"]
    assert "is the server that was asked" in etcd(servers, "lab-02", "lab-02", remove=True)["msg"]

    lose(servers, "lab-01")  # the one that made the cluster
    wait_for(lambda: serves(servers, "lab-02", "before"), 120, "two of three serve")
    servers.lab.renew(["lab-01"])

    # It does not join beside what etcd knows, and nothing is begun that would look like a member afterwards.
    servers.play(ALL, expect=2)
    assert "k3s_server_replace: true" in servers.output
    assert servers.out("lab-01", "ls -d /etc/rancher/k3s/token /var/lib/rancher/k3s/server") == ""

    assert servers.play(ALL, k3s_server_replace=True) > 0
    assert len(etcd(servers, "lab-02", "nobody")["members"]) == 3
    # It counts: with another one away, the rest has a quorum only because of it.
    lose(servers, "lab-03")
    wait_for(lambda: serves(servers, "lab-01", "before"), 180, "the new one and the second serve")
    servers.lab.device("lab-03").power_on()
    wait_for(lambda: serves(servers, "lab-03", "before"), 300, "all three serve")
    assert servers.play(ALL, k3s_server_replace=True) == servers.play(ALL) == 0


def test_two_of_three(servers: Any) -> None:
    servers.play(ALL)
    servers.kubectl("lab-01", "create configmap before")
    servers.out("lab-03", "/opt/edgeai/k3s/current/k3s etcd-snapshot save --name planted")
    snapshot = servers.out("lab-03", f"ls {DB}/snapshots/planted*")
    servers.kubectl("lab-01", "create configmap after")
    lose(servers, "lab-01", "lab-02")
    assert not serves(servers, "lab-03", "before")

    wanted = {"k3s_restore_snapshot": snapshot, "k3s_restore_confirm": True}
    gone = {"k3s_restore_without": "lab-01,lab-02"}
    assert "Give k3s_restore_without on the command line" in servers.run("k3s_restore", ALL, expect=2, **wanted, **gone)
    assert "with 1 servers" in servers.run("k3s_restore", ALL, "-e", json.dumps(gone), **wanted)
    assert servers.kubectl("lab-03", "get configmap -o name | grep -v kube-root").split() == ["configmap/before"]
    assert etcd(servers, "lab-03", "lab-01")["members"] == etcd(servers, "lab-03", "lab-02")["members"]

    servers.lab.renew(["lab-01", "lab-02"])
    assert servers.play(ALL, k3s_server_replace=True) > 0
    assert len(etcd(servers, "lab-02", "nobody")["members"]) == 3
    for name in ALL:
        wait_for(lambda name=name: serves(servers, name, "before"), 120, f"{name} serves")
    assert servers.play(ALL) == 0

"""The playbook k3s_upgrade with the real K3s: servers to the next version, and a program that does not start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.artifacts import make_artifacts

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger

OLD, NEW, BROKEN = "v1.32.0+k3s1", "v1.32.2+k3s1", "v1.32.3+k3s1"
ALL = ("lab-01", "lab-02", "lab-03")
#: Says what it is, and is nothing: what a check before the switch cannot tell from a good one.
EMPTY = b'#!/bin/sh\n[ "$1" = --version ] && exec echo "k3s version v1.32.3+k3s1 (empty)"\nexit 1\n'


@pytest.fixture
def versions(servers: Any) -> dict[str, Any]:
    """Both versions and one that does not start, signed; the variables that name them."""
    given = Path(os.environ["EDGEAI_ARTIFACTS"])
    programs = {version: next(iter(sorted(given.glob(f"k3s/{version}/**/k3s"))), None) for version in (OLD, NEW)}
    missing = [version for version, program in programs.items() if program is None]
    if missing:
        pytest.skip(f"EDGEAI_ARTIFACTS holds no K3s {', '.join(missing)}")
    content = {
        ("k3s", version, "x86_64", "k3s"): program.read_bytes() for version, program in programs.items() if program
    }
    content["k3s", BROKEN, "x86_64", "k3s"] = EMPTY
    base = servers.base / "upgrade"
    if not base.exists():
        base.mkdir()
        make_artifacts(base / "artifacts", content, base / "release.pem")
    return {
        "edge_artifacts": str(base / "artifacts"),
        "edge_trust_keys": [str(base / "release.pub.pem")],
        "edge_ledger": str(base / "ledger"),
        "edge_ledger_key": "",
        "k3s_server_ready_timeout": 400,
    }


def in_use(site: Any, name: str) -> tuple[str, str]:
    return (site.out(name, "readlink /opt/edgeai/k3s/current"), site.kubectl(name, "version -o json | grep -c " + NEW))


def runs(site: Any, names: tuple[str, ...]) -> list[str]:
    return [site.out(name, "systemctl show -P InvocationID k3s.service") for name in names]


def test_three_servers(servers: Any, versions: dict[str, Any]) -> None:
    """One after the other, with a quorum before and after each; etcd's data is there all the time."""
    servers.play(ALL, k3s_version=OLD, **versions)
    servers.kubectl("lab-01", "create configmap planted --from-literal=from=before")

    # A program that says what it is and does not run: the first server is back on its own, no other is touched.
    before = runs(servers, ALL)
    servers.upgrade(ALL, expect=2, k3s_version=BROKEN, **versions)
    assert [in_use(servers, name) for name in ALL] == [(OLD, "0")] * 3
    after = runs(servers, ALL)
    assert after[0] != before[0] and after[1:] == before[1:]
    results = [record["data"] for record in Ledger(versions["edge_ledger"]).records() if record["type"] == "result"]
    assert [(item["result"], item["proven"]) for item in results] == [("reverted", True)]

    servers.upgrade(ALL, "--check", k3s_version=NEW, **versions)
    assert runs(servers, ALL) == after
    servers.upgrade(ALL, k3s_version=NEW, **versions)
    for name in ALL:
        assert in_use(servers, name)[0] == NEW and servers.kubectl(name, "get --raw /readyz") == "ok"
        assert NEW in servers.kubectl(name, "get --raw /version")
    assert servers.kubectl("lab-03", "get configmap planted -o 'jsonpath={.data.from}'") == "before"
    assert "before-v1.32.2-k3s1" in servers.out("lab-01", "ls /var/lib/rancher/k3s/server/db/snapshots")
    quorum = [record["data"] for record in Ledger(versions["edge_ledger"]).records() if record["type"] == "quorum"]
    assert all(item["fine"] for item in quorum[-6:]) and "3 of 3 members" in quorum[-1]["note"]

    final = runs(servers, ALL)
    assert "nothing to do" in servers.upgrade(ALL, k3s_version=NEW, **versions) and runs(servers, ALL) == final
    # Back is refused: a server's data is not made for an older version.
    assert "a server's data" in servers.upgrade(ALL, expect=2, k3s_version=OLD, **versions)

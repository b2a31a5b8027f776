"""The playbook k3s_restore with the real K3s: three servers, a damaged snapshot, a reset that does not end."""

from __future__ import annotations

from typing import Any

ALL = ("lab-01", "lab-02", "lab-03")
DB = "/var/lib/rancher/k3s/server/db"


def objects(site: Any) -> list[bool]:
    """Whether each server shows what was made before the snapshot, and not what was made after it."""
    found = [site.kubectl(name, "get configmap -o name") for name in ALL]
    return ["configmap/before" in text and "configmap/after" not in text for text in found]


def test_three_servers(servers: Any) -> None:
    servers.play(ALL)
    servers.kubectl("lab-01", "create configmap before")
    servers.out("lab-01", "/opt/edgeai/k3s/current/k3s etcd-snapshot save --name planted")
    snapshot = servers.out("lab-01", f"ls {DB}/snapshots/planted*")
    servers.kubectl("lab-01", "create configmap after")
    runs = [servers.out(name, "systemctl show -P InvocationID k3s.service") for name in ALL]

    # It guesses nothing, loses nothing unasked, and takes no damaged file; nothing is stopped for any of that.
    assert snapshot in servers.run("k3s_restore", ALL, expect=2)
    assert "k3s_restore_confirm" in servers.run("k3s_restore", ALL, expect=2, k3s_restore_snapshot=snapshot)
    servers.run("k3s_restore", ALL, "--check", k3s_restore_snapshot=snapshot)
    servers.out("lab-01", f"head -c -512 {snapshot} >{DB}/damaged")
    damaged = {"k3s_restore_snapshot": f"{DB}/damaged", "k3s_restore_confirm": True}
    assert "whole snapshot" in servers.run("k3s_restore", ALL, expect=2, **damaged) or "differs" in servers.output
    assert [servers.out(name, "systemctl show -P InvocationID k3s.service") for name in ALL] == runs

    # A reset that does not end in time: everybody has the old data again, and works.
    wanted = {"k3s_restore_snapshot": snapshot, "k3s_restore_confirm": True}
    printed = servers.run("k3s_restore", ALL, expect=2, k3s_restore_timeout=1, **wanted)
    assert (
        "Not restored" in printed and "edgeai-k3s-restore.service: the reset did not end within 1 s: timeout" in printed
    )
    servers.play(ALL)
    assert "configmap/after" in servers.kubectl("lab-02", "get configmap -o name")

    servers.run("k3s_restore", ALL, **wanted)
    assert objects(servers) == [True] * 3
    for name in ALL:
        assert servers.kubectl(name, "get --raw /readyz/etcd") == "ok"
        assert servers.out(name, f"ls {DB} | grep -e before-restore -e edgeai-restore") == ""
        assert servers.out(name, "systemctl is-enabled k3s.service") == "enabled"
    # The roles find nothing to change afterwards.
    assert servers.play(ALL) == 0

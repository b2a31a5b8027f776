"""The playbook k3s_restore with the real K3s: three servers, a damaged snapshot, a reset that does not end, a file."""

from __future__ import annotations

import base64
from typing import Any

ALL = ("lab-01", "lab-02", "lab-03")
DB = "/var/lib/rancher/k3s/server/db"


def objects(site: Any) -> list[bool]:
    """Whether each server shows what was made before the snapshot, and not what was made after it."""
    found = [site.kubectl(name, "get configmap -o name") for name in ALL]
    return ["configmap/before" in text and "configmap/after" not in text for text in found]


def all_restored(site: Any) -> None:
    """Three servers serve what the snapshot has; nothing is left of the way there, and the roles change nothing."""
    assert objects(site) == [True] * 3
    for name in ALL:
        assert site.kubectl(name, "get --raw /readyz/etcd") == "ok"
        assert site.out(name, f"ls {DB} | grep -e before-restore -e edgeai-restore -e pushed") == ""
        assert site.out(name, "systemctl is-enabled k3s.service") == "enabled"
    assert site.play(ALL) == 0


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
    all_restored(servers)

    # The same snapshot from the controller, and on another server.
    copy = servers.base / "planted"
    copy.write_bytes(base64.b64decode(servers.out("lab-01", f"base64 {snapshot}")))
    servers.kubectl("lab-01", "create configmap after")
    given = {"k3s_restore_file": str(copy), "k3s_restore_on": "lab-02", "k3s_restore_confirm": True}
    servers.run("k3s_restore", ALL, **given)
    all_restored(servers)

"""The playbook cluster with the real K3s: servers, over ssh, without a network beyond that."""

from __future__ import annotations

import shutil
import stat
from typing import Any

import pytest

PLANTED = "planted-8e1f6a2c94d7403b"
ETCD = "/var/lib/rancher/k3s/server/db/etcd/member"
ONE, ALL = ("lab-01",), ("lab-01", "lab-02", "lab-03")


def run_of(site: Any, name: str) -> str:
    """The invocation of the unit: another one after every restart."""
    found = site.out(name, "systemctl show -P InvocationID k3s.service")
    assert found
    return found


def test_one_server(servers: Any) -> None:
    predicted = servers.play(ONE, "--check", "--diff")
    assert servers.traces("lab-01") == ""
    assert servers.play(ONE, "-e", "k3s_server_kubeconfig=kubeconfig") > predicted > 0
    assert servers.kubectl("lab-01", "get --raw /readyz") == "ok"
    kubeconfig = servers.base / "kubeconfig"
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600 and "127.0.0.1" not in kubeconfig.read_text()

    before = run_of(servers, "lab-01")
    assert servers.play(ONE, "--check") == servers.play(ONE) == 0 and run_of(servers, "lab-01") == before
    # A setting that changes restarts the unit once, and one that was cut off in between is still due.
    assert servers.play(ONE, k3s_server_tls_san=["k3s.example.org"]) == 2
    assert run_of(servers, "lab-01") != before
    assert servers.kubectl("lab-01", "get --raw /readyz") == "ok"
    assert servers.play(ONE, k3s_server_tls_san=["k3s.example.org"]) == 0

    no_secret_is_seen(servers)


def no_secret_is_seen(site: Any) -> None:
    """Neither the token that was given nor the one that was made, anywhere that is not root's alone."""
    made = site.out("lab-01", "cat /etc/rancher/k3s/agent-token")
    assert site.out("lab-01", "cat /etc/rancher/k3s/token") == PLANTED and len(made) == 64
    modes = site.out("lab-01", "find /etc/rancher/k3s -type f -exec stat -c '%U %a' {} + | sort -u")
    assert modes == "root 600"
    for secret in (PLANTED, made):
        assert secret not in site.output
        assert secret not in site.out("lab-01", "journalctl --no-pager --output=cat; ps axww -o args")
        search = f"find / -xdev -type f -perm /o+r -size -4M -not -path '/proc/*' -exec grep -lF {secret} {{}} +"
        assert site.out("lab-01", search) == ""


def test_three_servers(servers: Any) -> None:
    # The second one lacks space: it is named before anything is changed anywhere.
    servers.play(ALL, expect=2, k3s_server_min_disk_mib="{{ 99999999 if inventory_hostname == 'lab-02' else 100 }}")
    assert "lab-02 cannot become a K3s server: 1 problem" in servers.output and servers.traces("lab-01") == ""

    assert servers.play(ALL) > 0
    for name in ALL:
        assert servers.kubectl(name, "get --raw /readyz/etcd") == "ok"
        assert "[+]etcd ok" in servers.kubectl(name, "get --raw '/readyz?verbose'")
    # The first one's object is there for all, and their tokens name the cluster's authority.
    servers.kubectl("lab-01", "create configmap planted --from-literal=from=lab-01")
    assert servers.kubectl("lab-03", "get configmap planted -o 'jsonpath={.data.from}'") == "lab-01"
    assert servers.out("lab-02", "cut -c1-3 /etc/rancher/k3s/token") == "K10"

    runs = [run_of(servers, name) for name in ALL]
    assert servers.play(ALL) == servers.play(ALL, "--check") == 0
    assert [run_of(servers, name) for name in ALL] == runs


def test_external_datastore(servers: Any) -> None:
    """Two servers keep their state in an etcd of somebody else, here Debian's, on the third machine."""
    program = shutil.which("etcd")
    if program is None:
        pytest.skip("no etcd on this machine (Debian's package etcd-server)")
    servers.module("lab-03", "ansible.builtin.copy", src=program, dest="/usr/local/bin/etcd", mode="0755")
    address = servers.lab.device("lab-03").address
    flags = f"--data-dir=/var/lib/etcd --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://{address}:2379"
    servers.out("lab-03", f"systemd-run --unit=etcd /usr/local/bin/etcd {flags}")
    try:
        two = ALL[:2]
        given = {"k3s_server_datastore": "external", "k3s_server_datastore_endpoint": f"http://{address}:2379"}
        assert servers.play(two, "--check", **given) > 0
        assert servers.play(two, **given) > 0
        servers.kubectl("lab-01", "create configmap planted")
        assert servers.kubectl("lab-02", "get configmap planted -o name") == "configmap/planted"
        assert servers.out("lab-03", "ls /var/lib/etcd/member") and not servers.out("lab-01", f"ls {ETCD}")
        assert servers.play(two, **given) == servers.play(two, "--check", **given) == 0
        # A server that is re-imaged joins again; no member is asked for, for there is none.
        servers.lab.renew(["lab-02"])
        assert servers.play(two, **given) > 0
        assert servers.kubectl("lab-02", "get configmap planted -o name") == "configmap/planted"
    finally:
        servers.out("lab-03", "systemctl stop etcd; rm -rf /var/lib/etcd /usr/local/bin/etcd")

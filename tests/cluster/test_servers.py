"""The playbook cluster with the real K3s: servers, over ssh, without a network beyond that."""

from __future__ import annotations

import stat
from typing import Any

PLANTED = "planted-8e1f6a2c94d7403b"
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

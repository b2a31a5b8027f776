"""The CIS switch with the real K3s, without a kubelet: what it says is in force, and it can be taken back."""

from __future__ import annotations

import json
from typing import Any

ONE = ("lab-01",)
AUDIT = "/var/lib/rancher/k3s/server/logs/audit.log"
PRIVILEGED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "privileged"},
    "spec": {"containers": [{"name": "c", "image": "localhost/none", "securityContext": {"privileged": True}}]},
}


def admitted(site: Any, namespace: str) -> bool:
    """Whether the API server would take a privileged pod into this namespace."""
    create = f"create --namespace={namespace} --dry-run=server -o name --filename=-"
    answer = site.kubectl("lab-01", f"{create} <<'END' 2>&1\n{json.dumps(PRIVILEGED)}\nEND")
    taken = answer.endswith("pod/privileged")  # where it is, behind a warning that it would not be elsewhere
    assert taken or "violates PodSecurity" in answer, answer
    return bool(taken)


def policies(site: Any) -> int:
    """Number of the network policies that the switch brings."""
    return len(site.kubectl("lab-01", "get networkpolicy -A -l edgeai.fleet/hardening=cis -o name").split())


def test_the_switch_on_off_and_on(servers: Any) -> None:
    assert servers.play(ONE, "--check", k3s_server_cis=True) > 0
    assert servers.play(ONE, k3s_server_cis=True) > 0
    assert servers.kubectl("lab-01", "get --raw /readyz") == "ok"
    servers.kubectl("lab-01", "create namespace edgeai")
    servers.kubectl("lab-01", "label namespace edgeai pod-security.kubernetes.io/enforce=privileged")
    assert [admitted(servers, name) for name in ("default", "edgeai", "kube-system")] == [False, True, True]

    # A secret's name is in the audit log, what it holds is not; and what it holds is encrypted on the disk.
    servers.kubectl("lab-01", "create secret generic planted --from-literal=word=planted-in-a-secret")
    assert servers.out("lab-01", f"stat -c '%U %a' {AUDIT}") == "root 600"
    assert servers.out("lab-01", f"stat -c %a $(dirname {AUDIT})") == "700"
    assert servers.out("lab-01", f'grep -c \'"name":"planted"\' {AUDIT}') != "0"
    assert servers.out("lab-01", "grep -rlaF planted-in-a-secret /var/lib/rancher/k3s/server") == ""
    # Such a search does find what is not encrypted.
    servers.kubectl("lab-01", "create configmap planted --from-literal=word=planted-in-a-configmap")
    assert servers.out("lab-01", "grep -rlaF planted-in-a-configmap /var/lib/rancher/k3s/server") != ""
    account = "get serviceaccount default -o 'jsonpath={.automountServiceAccountToken}'"
    assert servers.kubectl("lab-01", account) == "false" and policies(servers) > 0
    assert servers.play(ONE, k3s_server_cis=True) == servers.play(ONE, "--check", k3s_server_cis=True) == 0

    assert servers.play(ONE) > 0
    assert admitted(servers, "default") and policies(servers) == 0
    assert servers.kubectl("lab-01", account) == "" and not servers.out("lab-01", "ls /etc/rancher/k3s/policies.yaml")
    assert servers.play(ONE) == servers.play(ONE, "--check") == 0

    assert servers.play(ONE, k3s_server_cis=True) > 0
    assert not admitted(servers, "default") and policies(servers) > 0

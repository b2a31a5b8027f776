"""What goes together, what keeps a device out, why a node is not Ready: decisions over recorded facts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import (
    causes,
    daemonsets,
    kubectl,
    nodes,
    preflight,
    preflight_facts,
    versions,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError

FIT: dict[str, Any] = {
    "processes": [],
    "units": {},
    "files": [],
    "systemd": True,
    "cgroup_version": 2,
    "controllers": ["cpu", "memory", "pids"],
    "containerd": [1, 6, 20],
    "runc": True,
    "cni_directory": "/usr/lib/cni",
    "cni_plugins": ["bridge", "host-local", "loopback", "portmap"],
    "skew": 0.4,
    "disk_mib": 9000,
}


# Versions


@pytest.mark.parametrize(
    ("kubeedge", "kubernetes"),
    [
        ("v1.23.1", None),
        ("v1.23.1", "v1.30.0+k3s1"),
        ("v1.23.4", "v1.32.5+k3s1"),
        ("1.23.1", "v1.31.9-rc1"),
    ],
)
def test_versions_that_go_together(kubeedge: str, kubernetes: str | None) -> None:
    versions.check(kubeedge, kubernetes)


@pytest.mark.parametrize(
    ("kubeedge", "kubernetes", "said"),
    [
        ("v1.23.0", None, "lacks security fixes; use v1.23.1 or newer"),
        ("v1.22.2", None, "not one that is known here; use v1.23"),
        ("v1.24.0", None, "not one that is known here"),
        ("v1.23.1", "v1.33.0+k3s1", "Kubernetes 1.30 to 1.32, but the cluster runs v1.33.0"),
        ("v1.23.1", "v1.29.14+k3s1", "Kubernetes 1.30 to 1.32"),
        ("latest", None, "no version like v1.23.1"),
        ("v1.23.1", "", "the cluster's version"),
    ],
)
def test_versions_that_do_not(kubeedge: str, kubernetes: str | None, said: str) -> None:
    with pytest.raises(KubeedgeError, match=said):
        versions.check(kubeedge, kubernetes)


# The device


def test_a_fit_device() -> None:
    assert preflight.judge(FIT, "systemd") == []


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"processes": [{"pid": 7, "name": "kubelet"}]}, "kubelet"),
        ({"processes": [{"pid": 7, "name": "k3s-agent"}]}, "kubelet"),
        ({"units": {"k3s-agent.service": "activating"}}, "k3s"),
        ({"files": ["/var/lib/rancher/k3s/agent"]}, "k3s"),
        ({"systemd": False}, "systemd"),
        ({"controllers": ["cpu", "pids"]}, "cgroups"),
        ({"containerd": None}, "containerd"),
        ({"containerd": [1, 5, 11]}, "containerd"),
        ({"runc": False}, "runc"),
        ({"cni_plugins": ["bridge"]}, "cni"),
        ({"skew": -86400.0}, "clock"),
        ({"disk_mib": 20}, "disk"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_each_thing_that_is_wrong_is_named_with_a_fix(facts: dict[str, Any], code: str) -> None:
    found = preflight.judge({**FIT, **facts}, "cgroupfs")
    assert [problem.code for problem in found] == [code]
    said = preflight.explain(found)
    assert f"\n{code}: " in said and found[0].fix in said


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wrong = {**FIT, "systemd": False, "controllers": [], "containerd": None, "runc": False, "cni_plugins": []}
    codes = [problem.code for problem in preflight.judge(wrong, "systemd")]
    assert codes == ["systemd", "cgroups", "cgroups", "containerd", "runc", "cni"]


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_facts_of_a_recorded_device(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/1/comm": "systemd\n",
            "proc/812/comm": "k3s-agent\n",
            "proc/99/comm": "kubelet\n",
            "proc/self/comm": "kubelet\n",
            "proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t9\t1\nmemory\t0\t9\t0\n",
            "usr/lib/cni/bridge": "",
            "usr/lib/cni/loopback": "",
            "etc/systemd/system/k3s-agent.service": "",
            "var/lib/x": "",
        },
    )
    facts = preflight_facts.gather("/usr/lib/cni", time.time() + 3600, root)
    assert facts["processes"] == [{"pid": 812, "name": "k3s-agent"}, {"pid": 99, "name": "kubelet"}]
    assert facts["files"] == ["/etc/systemd/system/k3s-agent.service"]
    assert facts["cgroup_version"] == 1 and facts["controllers"] == ["cpu"] and not facts["systemd"]
    assert facts["cni_plugins"] == ["bridge", "loopback"]
    assert -3700 < facts["skew"] < -3000 and facts["disk_mib"] > 0
    codes = {problem.code for problem in preflight.judge(facts, "systemd")}
    assert {"kubelet", "k3s", "systemd", "cgroups", "cni", "clock"} <= codes


def test_cgroup_v2_names_its_controllers(tmp_path: Path) -> None:
    root = tree(tmp_path, {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu memory\n"})
    assert preflight_facts.controllers(root) == ["cpu", "cpuset", "memory"]


# Why it does not work; lines as the programs wrote them


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            'Init websocket connection failed dial tcp 192.0.2.1:10000: connect: connection refused',
            "cloud_unreachable",
        ),
        ("connection failed: dial tcp 192.0.2.1:10000: i/o timeout, will reconnect after 30s", "cloud_unreachable"),
        ("Init websocket connection failed x509: certificate signed by unknown authority", "certificate_authority"),
        ("tls: failed to verify certificate: x509: certificate has expired or is not yet valid", "clock"),
        ("x509: certificate is valid for 127.0.0.1, not 192.0.2.1", "certificate_name"),
        ("unable to get the current edge certs, reason: certificate CN system:node:a does not match node name b",
         "node_name"),
        ("panic: failed to apply the edge certs, err: token  credentials are in the wrong format", "join_token"),
        ("failed to check the running environment: kubelet should not be running on edge node when starting edgecore",
         "another_kubelet"),
        ('failed to run Kubelet: misconfiguration: kubelet cgroup driver: "systemd" is different from docker',
         "cgroup_driver"),
        ('expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups', "cgroup_driver"),
        ("dial unix /run/containerd/containerd.sock: connect: no such file or directory", "containerd"),
        ("unknown service runtime.v1.RuntimeService", "containerd"),
        ('failed to get sandbox image "registry.k8s.io/pause:3.10": failed to pull image', "sandbox_image"),
        ("NetworkReady=false reason:NetworkPluginNotReady message: cni plugin not initialized", "network_plugin"),
        ("running with swap on is not supported, please disable swap", "swap"),
        ("listen tcp 0.0.0.0:10000: bind: address already in use", "port_in_use"),
        ("dial tcp 127.0.0.1:6443: connect: connection refused", "api_server"),
        ("write /var/lib/kubeedge/edgecore.db: no space left on device", "disk_full"),
        ("I1123 all is well", "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "line",
)  # fmt: skip
def test_causes(line: str, cause: str) -> None:
    found = causes.classify(["an earlier line", line, "a later line"])
    assert found.name == cause and found.fix
    assert cause == "unknown" or found.what == line


def test_what_explains_more_comes_first() -> None:
    lines = ["Init websocket connection failed dial tcp 192.0.2.1:10000: connect: connection refused",
             "x509: certificate signed by unknown authority"]  # fmt: skip
    assert causes.classify(lines).name == "certificate_authority"
    said = causes.explain("node a is not Ready", causes.classify(lines), lines)
    assert said.startswith("node a is not Ready: certificate_authority (") and said.endswith(lines[-1])


# The cluster


def node(status: str = "True", edge: bool = True, **labels: str) -> dict[str, Any]:
    role = {nodes.EDGE_ROLE: ""} if edge else {}
    return {
        "metadata": {"name": "a", "labels": {**role, **labels}},
        "spec": {},
        "status": {
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": status, "reason": "EdgeReady", "message": "edge is posting ready status"},
            ],
            "nodeInfo": {"kubeletVersion": "v1.32.10-kubeedge-v1.23.1"},
        },
    }


def test_ready_is_what_the_api_server_says_of_this_node() -> None:
    assert nodes.is_ready(node()) and not nodes.is_ready(None)
    assert not nodes.is_ready(node("False")) and not nodes.is_ready(node("Unknown"))
    assert not nodes.is_ready({"metadata": {}, "status": {}})
    assert nodes.summary(node())["version"] == "v1.32.10-kubeedge-v1.23.1"
    assert nodes.summary(None) == {"present": False, "ready": False}
    assert nodes.is_edge(node()) and not nodes.is_edge(node(edge=False))


def test_labels_that_a_node_lacks() -> None:
    assert nodes.label_changes(node(a="1"), {"a": "1", "b": 2}) == {"b": "2"}
    assert nodes.label_changes(None, {"a": "1"}) == {}


def test_waiting_outlasts_errors_and_ends_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubectl, "POLL_SECONDS", 0.01)
    answers: list[Any] = [KubeedgeError("refused"), None, node("Unknown"), node()]

    def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, KubeedgeError):
            raise answer
        return answer

    found, said = kubectl.wait_ready(ask, 300)
    assert nodes.is_ready(found) and said == "" and answers == []
    found, said = kubectl.wait_ready(lambda: node("Unknown"), 0.05)
    assert found is not None and not nodes.is_ready(found)


def test_a_kubectl_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KubeedgeError, match=r"/no/such: No such file"):
        kubectl.run(["/no/such"], str(tmp_path / "config"), ["get", "nodes"])


def test_kubectl_is_told_the_cluster_by_its_environment(tmp_path: Path) -> None:
    """Nothing of the credentials is in its arguments."""
    program = tmp_path / "kubectl"
    program.write_text('#!/bin/sh\necho "{\\"seen\\": \\"$KUBECONFIG $*\\"}"\n')
    os.chmod(program, 0o755)
    found = kubectl.get_node([str(program)], "/etc/secret.yaml", "a")
    assert found == {"seen": "/etc/secret.yaml --request-timeout=30s get node a --output=json --ignore-not-found"}


def daemonset(namespace: str = "kube-system", **pod: Any) -> dict[str, Any]:
    return {"metadata": {"name": "ds", "namespace": namespace}, "spec": {"template": {"spec": pod}}}


def required(*terms: Any) -> dict[str, Any]:
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    return {"nodeAffinity": {key: {"nodeSelectorTerms": list(terms)}}}


NOT_EDGE = {"key": nodes.EDGE_ROLE, "operator": "DoesNotExist"}


def test_daemonsets_are_kept_off_edges_once() -> None:
    plain = daemonset()
    patched = daemonsets.patch(plain)["spec"]["template"]["spec"]
    assert patched == {"affinity": required({"matchExpressions": [NOT_EDGE]})}
    assert daemonsets.to_patch([plain], ["kube-system"]) == [plain]
    assert daemonsets.to_patch([daemonset(**patched)], ["kube-system"]) == []
    assert daemonsets.to_patch([plain], ["default"]) == []


def test_what_a_daemonset_required_before_stays_required() -> None:
    arm = {"matchExpressions": [{"key": "arch", "operator": "In", "values": ["arm64"]}]}
    field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}
    affinity = daemonsets.patch(daemonset(affinity=required(arm, field)))["spec"]["template"]["spec"]["affinity"]
    assert affinity == required(
        {"matchExpressions": [*arm["matchExpressions"], NOT_EDGE]}, {**field, "matchExpressions": [NOT_EDGE]}
    )


@pytest.mark.parametrize(
    "pod",
    [
        {"nodeSelector": {nodes.EDGE_ROLE: ""}},
        {"affinity": required({"matchExpressions": [{"key": nodes.EDGE_ROLE, "operator": "Exists"}]})},
    ],
    ids=["selector", "affinity"],
)
def test_a_daemonset_for_edges_is_left_alone(pod: dict[str, Any]) -> None:
    assert daemonsets.to_patch([daemonset(**pod)], ["kube-system"]) == []


NO_ROUTE = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t000CC6C6\t0\t0001\t0\t0\t0\t00FFFFFF\n"
ROUTE = NO_ROUTE + "eth0\t00000000\t010CC6C6\t0003\t0\t0\t0\t00000000\n"
ROUTE_6 = "0" * 32 + " 00 " + "0" * 32 + " 00 fe800000000000000000000000000001 00000400 1 0 00000003 {}\n"


@pytest.mark.parametrize(
    ("route", "route_6", "addresses", "codes"),
    [
        pytest.param(NO_ROUTE, ROUTE_6.format("lo"), ["127.0.1.1", "::1"], ["default_route"], id="neither"),
        pytest.param("", "", [], ["default_route"], id="nothing"),
        pytest.param(ROUTE, "", ["127.0.1.1"], [], id="route"),
        pytest.param(NO_ROUTE, ROUTE_6.format("eth0"), [], [], id="route-6"),
        pytest.param(NO_ROUTE, "", ["127.0.1.1", "192.0.2.10"], [], id="name"),
        pytest.param(NO_ROUTE, "", ["fe80::1%eth0"], [], id="name-6"),
    ],
)
def test_a_machine_of_which_cloudcore_would_find_no_address(
    route: str, route_6: str, addresses: list[str], codes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc" / "net").mkdir(parents=True)
    (tmp_path / "proc" / "net" / "route").write_text(route)
    (tmp_path / "proc" / "net" / "ipv6_route").write_text(route_6)
    found = [(0, 0, 0, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(preflight_facts.socket, "getaddrinfo", lambda _name, _port: found)
    problems = preflight.judge_cloud(preflight_facts.gather_cloud(str(tmp_path)))
    assert [problem.code for problem in problems] == codes

"""The modules as Ansible runs them, with stand-ins for the programs that no test machine has (kubectl, ctr)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import removal

#: A kubectl over a directory of objects: every call is logged.
KUBECTL = """#!/bin/sh
here="$(dirname "$0")"
echo "$*" >>"$here/calls"
case "$*" in
  *"get node"*) cat "$here/node.json" 2>/dev/null;;
  *"get daemonsets"*) cat "$here/daemonsets.json";;
  *label*|*delete*|*patch*) ;;
esac
[ ! -e "$here/refuse" ] || { echo "connection to the server 127.0.0.1:6443 was refused" >&2; exit 1; }
"""
CTR = """#!/bin/sh
here="$(dirname "$0")"
case "$*" in
  *"images list"*) cat "$here/images";;
  *"images import"*) echo registry.k8s.io/pause:3.10 >>"$here/images";;
esac
"""


def program(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, Any]:
    """Arguments that lead to the stand-in."""
    return {"kubectl": [program(tmp_path, "kubectl", KUBECTL)], "kubeconfig": str(tmp_path / "k3s.yaml")}


def node(directory: Path, ready: str = "True", edge: bool = True) -> None:
    labels = {"node-role.kubernetes.io/edge": ""} if edge else {}
    conditions = [{"type": "Ready", "status": ready, "reason": "EdgeReady", "message": "m"}]
    status = {"conditions": conditions, "nodeInfo": {"kubeletVersion": "v1.32.10-kubeedge-v1.23.1"}}
    text = json.dumps({"metadata": {"name": "a", "labels": labels}, "status": status, "spec": {}})
    (directory / "node.json").write_text(text)


def calls(directory: Path) -> str:
    return (directory / "calls").read_text()


def test_a_ready_node_gets_the_labels_that_it_lacks(cluster: dict[str, Any], tmp_path: Path) -> None:
    node(tmp_path)
    arguments = {**cluster, "name": "a", "version": "v1.23.1", "labels": {"edgeai.fleet/runtime": "onnxruntime"}}
    assert run_module("kubeedge_node", arguments, check=True)["changed"] and "label" not in calls(tmp_path)
    done = run_module("kubeedge_node", arguments)
    assert done["changed"] and done["node"]["ready"] and "warnings" not in done
    assert "label node a --overwrite edgeai.fleet/runtime=onnxruntime" in calls(tmp_path)
    assert "reports the version" in json.dumps(run_module("kubeedge_node", {**arguments, "version": "v1.23.2"}))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda home: node(home, "Unknown"), "node a is not Ready after 0.1 s: EdgeReady: m"),
        (lambda home: None, "it is not in the cluster"),
        (lambda home: (home / "refuse").touch(), "6443 was refused"),
    ],
    ids=["not-ready", "missing", "no-api"],
)
def test_a_node_that_is_not_ready_in_time(cluster: dict[str, Any], tmp_path: Path, prepare: Any, said: str) -> None:
    prepare(tmp_path)
    failed = run_module("kubeedge_node", {**cluster, "name": "a", "timeout": 0.1})
    assert failed["failed"] and said in failed["msg"]


def test_only_an_edge_node_is_removed(cluster: dict[str, Any], tmp_path: Path) -> None:
    arguments = {**cluster, "name": "a", "state": "absent"}
    assert not run_module("kubeedge_node", arguments)["changed"]
    node(tmp_path, edge=False)
    assert "it is left alone" in run_module("kubeedge_node", arguments)["msg"] and "delete" not in calls(tmp_path)
    node(tmp_path)
    assert run_module("kubeedge_node", arguments, check=True)["changed"] and "delete" not in calls(tmp_path)
    assert run_module("kubeedge_node", arguments)["changed"] and "delete node a" in calls(tmp_path)


def test_daemonsets_are_patched(cluster: dict[str, Any], tmp_path: Path) -> None:
    item = {"metadata": {"name": "svclb", "namespace": "kube-system"}, "spec": {"template": {"spec": {}}}}
    (tmp_path / "daemonsets.json").write_text(json.dumps({"items": [item]}))
    arguments = {**cluster, "namespaces": ["kube-system"]}
    predicted = run_module("kubeedge_daemonsets", arguments, check=True)
    assert predicted["patched"] == ["kube-system/svclb"] and "patch" not in calls(tmp_path)
    assert run_module("kubeedge_daemonsets", arguments)["changed"]
    assert "patch daemonset svclb --namespace kube-system --type=merge" in calls(tmp_path)
    (tmp_path / "refuse").touch()
    assert "6443 was refused" in run_module("kubeedge_daemonsets", arguments)["msg"]


def test_images_are_imported_once_and_have_to_be_in_the_archive(tmp_path: Path) -> None:
    program(tmp_path, "ctr", CTR)
    (tmp_path / "images").write_text("docker.io/library/other:1\n")
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    pause = {"archive": "/pause.tar", "names": ["registry.k8s.io/pause:3.10"]}
    assert run_module("containerd_image", pause, check=True, env=path)["missing"] == ["registry.k8s.io/pause:3.10"]
    assert run_module("containerd_image", pause, env=path)["changed"]
    assert not run_module("containerd_image", pause, env=path)["changed"]
    failed = run_module("containerd_image", {**pause, "names": ["no/such:1"]}, env=path)
    assert "/pause.tar: does not hold no/such:1, but nothing new" in failed["msg"]


def test_versions_alone_need_no_device() -> None:
    arguments = {"only": "versions", "version": "v1.23.1", "kubernetes": "v1.32.5+k3s1"}
    assert run_module("kubeedge_preflight", arguments)["problems"] == []
    failed = run_module("kubeedge_preflight", {**arguments, "kubernetes": "v1.33.1+k3s1"})
    assert failed["failed"] and "Kubernetes 1.30 to 1.32, but the cluster runs v1.33.1+k3s1" in failed["msg"]


def test_mounts_of_pods_go_deepest_first_and_disks_stay() -> None:
    text = "".join(
        f"x {point} tmpfs rw 0 0\n"
        for point in (
            "/",
            "/var/lib/edged",
            "/var/lib/edged/pods/a/volumes/b",
            "/var/lib/edged/pods/a\\040b/volumes/c/d",
            "/run/netns/cni-1234",
            "/run/netns/other",
            "/var/lib/edgedother/a",
        )
    )
    assert removal.mount_points(text) == [
        "/var/lib/edged/pods/a b/volumes/c/d",
        "/var/lib/edged/pods/a/volumes/b",
        "/run/netns/cni-1234",
    ]

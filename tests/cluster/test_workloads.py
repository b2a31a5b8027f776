# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The manifests of the model servers, and the role that brings them, before a real API server: K3s without an agent."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bundle import collections
from support.fleet import ROOT
from support.servers import free_port, wait_for
from support.tool_venv import tool_venv

from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.device_plugins import PLUGINS
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.manifests import manifests

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
IMAGES = {"onnxruntime": "localhost/edgeai/model-server:onnxruntime-1"}
RESTRICTED = "restricted:latest"
PINNED = {"image": "registry.example/plugin@sha256:" + "a" * 64}


def program() -> Path:
    """K3s for this machine; the test is skipped where there is none."""
    place = os.environ.get("EDGEAI_ARTIFACTS")
    if not place:
        pytest.skip("EDGEAI_ARTIFACTS is not set: it names a directory with K3s")
    found = [path for path in sorted(Path(place).glob("k3s/*/**/k3s")) if path.is_file()]
    mine = [path for path in found if path.parent.name in (platform.machine(), path.parent.parent.name)] or found
    if not mine or os.geteuid():
        pytest.skip(f"{place} has no k3s for this machine, or this is not root")
    return mine[-1]


class Cluster:
    """An API server, and kubectl for it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.k3s = program()
        self.kubectl = base / "kubectl"
        self.kubectl.symlink_to(self.k3s)
        self.log = (base / "log").open("wb")
        command = [str(self.k3s), "server", "--disable-agent", f"--data-dir={base}/data", "--flannel-backend=none"]
        command += [f"--https-listen-port={free_port()}", f"--write-kubeconfig={base}/kubeconfig"]
        command += ["--disable=coredns,servicelb,traefik,local-storage,metrics-server", "--disable-helm-controller"]
        command += ["--disable-cloud-controller", "--disable-network-policy"]
        command += [f"--kube-controller-manager-arg=secure-port={free_port()}"]
        command += [f"--kube-scheduler-arg=secure-port={free_port()}"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def run(self, *arguments: str, data: Any = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.kubectl), "--request-timeout=30s", *arguments],
            input=json.dumps(data) if data is not None else None,
            stdin=None if data is not None else subprocess.DEVNULL,
            env={**os.environ, "KUBECONFIG": str(self.base / "kubeconfig")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ready(self) -> bool:
        assert self.process.poll() is None, (self.base / "log").read_text()[-3000:]
        return (self.base / "kubeconfig").exists() and self.run("get", "--raw", "/readyz").returncode == 0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)
        self.log.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("k3s"))
    try:
        wait_for(made.ready, 240, "the API server is ready")
        yield made
    finally:
        made.stop()


def device(name: str, **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "node": name, "platform": "k3s", "root": "/var/lib/edgeai", "tls": "none"}
    facts |= {"stratum": "cpu-int8/onnxruntime/x86_64", "uid": 998, "gid": 997, "host": "127.0.0.1", "port": 9001}
    return {**facts, "memory_mib": 2800, "models": ["camera"], "groups": [], **changes}


def test_the_api_server_takes_every_object_and_misses_nothing_but_the_hosts_own(cluster: Cluster) -> None:
    devices = [
        device("gate-1"),
        device("gate-2", uid=990, memory_mib=0),
        device("gate-3", stratum="nvidia-gpu/onnxruntime/x86_64", groups=[44]),
        device("gate-4", stratum="cpu/onnxruntime/aarch64", platform="kubeedge", tls="mutual"),
    ]
    objects = manifests(devices, IMAGES, tolerations=[{"key": "site", "operator": "Exists"}])
    done = cluster.run("apply", "--validate=strict", "--filename=-", data=objects[0])
    assert done.returncode == 0, done.stderr
    everything = {"apiVersion": "v1", "kind": "List", "items": objects}
    done = cluster.run("apply", "--dry-run=server", "--validate=strict", "--filename=-", data=everything)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("daemonset.apps/") == 4, done.stdout
    warnings = [line for line in done.stderr.splitlines() if RESTRICTED in line]
    assert warnings, done.stderr
    for line in warnings:  # what a pod that serves at the device's address, from the device's disk, cannot do without
        missing = line.partition(RESTRICTED)[2].lstrip('": ')
        kinds = {part.split(" (")[0] for part in missing.split("), ")}
        assert kinds == {"host namespaces", "hostPort", "restricted volume types"}, line


def test_the_api_server_takes_every_device_plugin_and_nvidias_runtime_class(cluster: Cluster) -> None:
    declared = dict.fromkeys(PLUGINS, PINNED)
    objects = manifests([device("gate-1")], IMAGES, plugins=declared, nvidia_class=True)
    done = cluster.run("apply", "--validate=strict", "--filename=-", data=objects[0])
    assert done.returncode == 0, done.stderr
    everything = {"apiVersion": "v1", "kind": "List", "items": objects}
    done = cluster.run("apply", "--dry-run=server", "--validate=strict", "--filename=-", data=everything)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("daemonset.apps/edgeai-device-plugin-") == len(PLUGINS) == 4, done.stdout
    assert "runtimeclass.node.k8s.io/nvidia" in done.stdout


def test_applied_twice_it_is_the_same(cluster: Cluster) -> None:
    objects = {
        "apiVersion": "v1",
        "kind": "List",
        "items": manifests([device("gate-1")], IMAGES, plugins={"coral": PINNED}),
    }
    for words in (("created", "unchanged", "configured"), ("unchanged",)):
        done = cluster.run("apply", "--filename=-", data=objects)
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stdout.splitlines() if not line.endswith(words)] == []


class WorkloadPlay:
    """The role against this cluster: devices as they were noted, this machine as controller and K3s server."""

    def __init__(self, cluster: Cluster, base: Path, **variables: Any) -> None:
        self.cluster, self.base, self.variables = cluster, base, variables
        self.play: dict[str, Any] = {}
        self.output = ""

    def run(self, *arguments: str, **strata: str) -> int:
        """Run it with these devices; return the number of changes. What it printed is kept."""
        hosts = {
            name: {"edge_platform": "k3s", "workloads_device": device(name, stratum=stratum)}
            for name, stratum in strata.items()
        }
        edge = {"hosts": hosts}
        here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        given = {**here, "edge_system_python": sys.executable, "workloads_images": IMAGES, **self.variables}
        inventory = {"all": {"vars": given, "hosts": {"cloud": {}}, "children": {"edge": edge}}}
        (self.base / "hosts.json").write_text(json.dumps(inventory))
        play = {"hosts": "localhost", "gather_facts": False, "vars": self.play, "roles": ["edgeai.fleet.workloads"]}
        (self.base / "play.yml").write_text(json.dumps([play]))
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "play.yml", "-i", "hosts.json", *arguments],
            cwd=self.base,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
        self.output = done.stdout
        assert done.returncode == 0, done.stdout[-6000:]
        return int(re.findall(r"changed=(\d+)", done.stdout)[-1])

    def sets(self) -> set[str]:
        """Names of the DaemonSets in the cluster, without what they have in common."""
        names = self.cluster.run("get", "daemonsets", "--namespace=edgeai", "--output=name").stdout.split()
        return {name.partition("edgeai-")[2] for name in names}

    def left(self) -> str:
        """Everything with the collection's labels."""
        kinds = "namespaces,priorityclasses,runtimeclasses,daemonsets,networkpolicies,serviceaccounts"
        selector = "--selector=app.kubernetes.io/managed-by=edgeai.fleet"
        done = self.cluster.run("get", kinds, "--all-namespaces", selector, "--output=name")
        assert done.returncode == 0, done.stderr
        return done.stdout


OLD, NEW = "cpu/onnxruntime/x86_64", "cpu-int8/onnxruntime/x86_64"


def test_k3s_applies_the_file_drops_what_left_it_and_everything_is_taken_back(cluster: Cluster, tmp_path: Path) -> None:
    manifests_dir = cluster.base / "data" / "server" / "manifests"
    wait_for(manifests_dir.is_dir, 60, "K3s has made its directory of manifests")
    own = {"workloads_dir": str(manifests_dir), "workloads_kubectl": [str(cluster.kubectl)]}
    play = WorkloadPlay(cluster, tmp_path, workloads_server="cloud", **own)
    play.variables["workloads_server_kubeconfig"] = str(cluster.base / "kubeconfig")
    play.run("-e", "workloads_state=absent")
    assert play.run(one=OLD) == 1
    wait_for(lambda: play.sets() == {"server-cpu-onnxruntime-x86-64"}, 120, "K3s has applied the file")
    assert play.run(one=NEW) == 1
    wait_for(lambda: play.sets() == {"server-cpu-int8-onnxruntime-x86-64"}, 120, "K3s has replaced the DaemonSet")
    assert play.run(one=NEW) == 0 and "Node Feature Discovery" not in play.output
    labels = {"kubernetes.io/arch": "amd64", "feature.node.kubernetes.io/pci-0302_10de.present": "true"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one", "labels": labels}}
    assert cluster.run("apply", "--filename=-", data=node).returncode == 0
    assert play.run(one=NEW) == 0 and "Node Feature Discovery saw nvidia-gpu" in play.output
    with pytest.raises(AssertionError, match="Name the right node"):
        play.run("-e", "workloads_discovery=refuse", one=OLD)
    assert cluster.run("delete", "node", "one").returncode == 0
    assert play.run("-e", "workloads_state=absent", "--check") == 2 and play.left()
    assert play.run("-e", "workloads_state=absent") == 2
    wait_for(lambda: not play.left(), 120, "everything is gone")
    addons = cluster.run("get", "addons.k3s.cattle.io", "--namespace=kube-system", "--output=name")
    assert addons.returncode == 0 and "edgeai" not in addons.stdout, addons
    assert play.run("-e", "workloads_state=absent") == 0


def test_kubernetes_core_applies_prunes_and_spares_what_is_not_ours(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection is from PyPI's bundle, its library in an environment of its own."""
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", f"{os.environ['ANSIBLE_COLLECTIONS_PATH']}:{collections()}")
    python = tool_venv("kubernetes", "kubernetes==37.0.2") / "bin" / "python"
    play = WorkloadPlay(cluster, tmp_path, workloads_kubeconfig=str(cluster.base / "kubeconfig"))
    play.play["ansible_python_interpreter"] = str(python)
    play.run("-e", "workloads_state=absent")
    wait_for(lambda: not play.left(), 120, "everything is gone")
    assert play.run("--check", one=OLD) == 2 and not play.left()
    assert play.run(one=OLD) == 1 and play.sets() == {"server-cpu-onnxruntime-x86-64"}
    fields = cluster.run("get", "namespace", "edgeai", "--output=json", "--show-managed-fields").stdout
    assert '"manager": "edgeai.fleet"' in fields
    assert play.run(one=OLD) == play.run("--check", one=OLD) == 0
    assert play.run("--check", one=NEW) == 2 and play.sets() == {"server-cpu-onnxruntime-x86-64"}
    assert play.run(one=NEW) == 2 and play.sets() == {"server-cpu-int8-onnxruntime-x86-64"}
    play.variables["workloads_device_plugins"] = {"nvidia": PINNED}
    assert play.run(one=NEW) == 1 and "device-plugin-nvidia" in play.sets() and play.run(one=NEW) == 0
    assert "runtimeclass" not in play.left(), "K3s's own was taken over"
    assert cluster.run("create", "configmap", "theirs", "--namespace=edgeai").returncode == 0
    assert play.run("-e", "workloads_state=absent") == 1
    assert not play.left().replace("namespace/edgeai\n", "")
    assert cluster.run("get", "configmap", "theirs", "--namespace=edgeai").returncode == 0
    assert cluster.run("get", "runtimeclass", "nvidia").returncode == 0
    assert cluster.run("delete", "configmap", "theirs", "--namespace=edgeai").returncode == 0
    assert play.run("-e", "workloads_state=absent") == 1
    wait_for(lambda: not play.left(), 120, "everything is gone")
    assert cluster.run("create", "namespace", "edgeai").returncode == 0
    with pytest.raises(AssertionError, match=r"not made by\s+edgeai.fleet"):
        play.run(one=OLD)
    assert cluster.run("delete", "namespace", "edgeai").returncode == 0

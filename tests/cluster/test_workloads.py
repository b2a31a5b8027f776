# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The manifests of the model servers before a real API server: K3s without an agent, from EDGEAI_ARTIFACTS."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers import free_port, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.manifests import manifests

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
IMAGES = {"onnxruntime": "localhost/edgeai/model-server:onnxruntime-1"}
RESTRICTED = "restricted:latest"


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


def test_applied_twice_it_is_the_same(cluster: Cluster) -> None:
    objects = {"apiVersion": "v1", "kind": "List", "items": manifests([device("gate-1")], IMAGES)}
    for words in (("created", "unchanged", "configured"), ("unchanged",)):
        done = cluster.run("apply", "--filename=-", data=objects)
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stdout.splitlines() if not line.endswith(words)] == []

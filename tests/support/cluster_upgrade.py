# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""A K3s server without a kubelet and three agents that serve a model from their pods; to upgrade."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.artifacts import make_artifacts
from support.cluster_fleet import ARCHITECTURE, CLOUD, PAUSE, Missing, MixedFleet
from support.fleet import wait_for

AGENTS = ("lab-02", "lab-03", "lab-04")
OLD, NEW = "v1.32.0+k3s1", "v1.32.2+k3s1"
#: Only on a server more than its word; as good as NEW.
EMPTY, NEXT = "v1.32.1+k3s1", "v1.32.3+k3s1"
#: Where a server has the program that it runs as EMPTY.
REAL = "/opt/lab/k3s"
SCRIPT = f"""#!/bin/bash
[ "$1" = --version ] && exec echo "k3s version {EMPTY} (empty)"
[ -x {REAL} ] || exit 1
[ "$1" = server ] && exec -a k3s {REAL} "$@"
exec -a kubectl {REAL} "$@"
"""
MARK = "edgeai.fleet/cordoned-for"
#: What a drain has to evict, one pod after the other.
EVICTED = f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: evicted}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: evicted}}}}
  template:
    metadata: {{labels: {{app: evicted}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector: {{matchLabels: {{app: evicted}}}}
      containers: [{{name: pause, image: "{PAUSE["k3s"]}", imagePullPolicy: Never}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: evicted}}
spec:
  maxUnavailable: 1
  selector: {{matchLabels: {{app: evicted}}}}
"""


def renamed(program: bytes, version: str) -> bytes:
    """The program under another version of the same length: it says so itself, and its API server and kubelet do."""
    return program.replace(NEW.encode(), version.encode())


class UpgradeFleet(MixedFleet):
    """Made by the collection's playbooks, from one inventory; nothing of KubeEdge."""

    platforms = dict.fromkeys(AGENTS, "k3s")

    def groups(self) -> dict[str, Any]:
        """Agents of K3s alone."""
        return {"k3s_agents": {"hosts": {host: {} for host in AGENTS}, "vars": self.k3s_agent()}}

    def everywhere(self, addresses: dict[str, Any]) -> dict[str, Any]:
        """Patience for a machine that has other things to do."""
        return {
            "edge_artifacts": str(self.home / "artifacts"),
            "edge_trust_keys": [str(self.home / "release.pub.pem")],
            "k3s_version": OLD,
            "workloads_images": {"onnxruntime": self.image["image"]},
            "k3s_upgrade_drain_timeout": 400,
            "k3s_upgrade_probe_timeout": 300,
        }

    # -- making it

    def make(self) -> None:
        """From bare machines to pods that wait for a model, and pods that a drain evicts."""
        self.build_image()
        self.sign()
        for playbook in ("provision", "cluster", "workloads"):
            self.run(playbook)
        for name in AGENTS:
            wait_for(lambda: self.pod(name), 300, f"a pod runs on {name}")  # noqa: B023
        self.lab.device(CLOUD).exec(["sh", "-c", f"cat >/root/evicted.yml <<'END'\n{EVICTED}END"])
        self.kubectl("apply -f /root/evicted.yml")
        wait_for(lambda: len(self.evicted()) == 3, 300, "pods to be evicted run")

    def sign(self) -> None:
        """All versions, signed; on the server, and nowhere else, the program behind EMPTY."""
        programs = {version: self.given.home / "k3s" / version / "k3s" for version in (OLD, NEW)}
        missing = [version for version, program in programs.items() if not program.is_file()]
        if missing:
            raise Missing(f"EDGEAI_ARTIFACTS holds no k3s/VERSION/k3s of {', '.join(missing)}")
        new = programs[NEW].read_bytes()
        content = {OLD: programs[OLD].read_bytes(), NEW: new, EMPTY: SCRIPT.encode(), NEXT: renamed(new, NEXT)}
        files = {("k3s", version, ARCHITECTURE, "k3s"): data for version, data in content.items()}
        for name, path in (("pause", self.given.pause), ("model-server", Path(self.image["path"]))):
            files["images", "1.0", ARCHITECTURE, name] = path.read_bytes()
        make_artifacts(self.home / "artifacts", files, self.home / "release.pem")
        real = self.home / "real"
        real.write_bytes(renamed(new, EMPTY))
        self.lab.device(CLOUD).exec(["mkdir", "-p", "/opt/lab"])
        self.lab.podman.run("cp", str(real), f"{self.lab.device(CLOUD).container}:{REAL}", timeout=300)
        self.lab.device(CLOUD).exec(["chmod", "0755", REAL])
        real.unlink()

    # -- looking at it

    def link(self, host: str) -> str:
        """The version in use on a machine."""
        return self.run_on(host, "readlink", "/opt/edgeai/k3s/current").stdout.strip()

    def node(self, host: str) -> tuple[str, str, bool, bool]:
        """Of a node, what the API server holds: Ready, the kubelet's version, cordoned, marked by an upgrade."""
        node = json.loads(self.kubectl(f"get node {host} -o json") or "{}")
        if not node:
            return "", "", False, False
        ready = next(item["status"] for item in node["status"]["conditions"] if item["type"] == "Ready")
        version = node["status"]["nodeInfo"]["kubeletVersion"]
        marked = MARK in node["metadata"].get("annotations", {})
        return ready, version, bool(node["spec"].get("unschedulable")), marked

    def starts(self) -> dict[str, str]:
        """Which start of its unit every agent is in."""
        return {
            host: self.run_on(host, "systemctl", "show", "-P", "InvocationID", "k3s-agent.service").stdout.strip()
            for host in AGENTS
        }

    def evicted(self) -> dict[str, str]:
        """Pods that a drain evicts, and run: name to node."""
        items = json.loads(self.kubectl("get pods -l app=evicted -o json") or "{}").get("items", ())
        return {
            item["metadata"]["name"]: item["spec"]["nodeName"]
            for item in items
            if item["status"]["phase"] == "Running" and not item["metadata"].get("deletionTimestamp")
        }

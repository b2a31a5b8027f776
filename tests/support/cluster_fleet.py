# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""One fleet of three kinds of devices (systemd, an agent of K3s, an edge of KubeEdge); and their cloud."""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lab.images import cache_directory
from lab.state import held

from ansible_collections.edgeai.fleet.plugins.module_utils.release.digests import sha256_file
from support.fleet import MODEL, Run, wait_for
from support.lab_fleet import EDGE_ROOT, PORT, LabFleet

CLOUD, AGENT, EDGE, PLAIN = "lab-01", "lab-02", "lab-03", "lab-04"
PLATFORMS = {AGENT: "k3s", EDGE: "kubeedge", PLAIN: "systemd"}
PODS = (AGENT, EDGE)
PAUSE = {"k3s": "docker.io/rancher/mirrored-pause:3.6", "kubeedge": "docker.io/kubeedge/pause:3.6"}
#: Archives of images: what holds a pod together, and the model server.
FILES = ("pause", "model-server")
POLICY = {"canary": {"per_stratum": 1}, "growth": [1.0]}
ARCHITECTURE = platform.machine()


class Missing(Exception):
    """The directory in EDGEAI_ARTIFACTS lacks something."""


class Given:
    """What a user downloads, and what takes its place here, from the directory in EDGEAI_ARTIFACTS. Raises Missing.

    k3s/VERSION/k3s, kubeedge/VERSION/{edgecore,cloudcore} (or these in a directory of the architecture's name), and of
    this test's own: kubeedge/VERSION/manifests/crds, images/probe-amd64.tar, cni/flannel when K3s lacks it.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.k3s = self.program("k3s", "k3s")
        self.edgecore, self.cloudcore = self.program("kubeedge", "edgecore"), self.program("kubeedge", "cloudcore")
        self.definitions = sorted(self.version(self.edgecore, "kubeedge").glob("manifests/crds/*/*.yaml"))
        self.pause = home / "images" / "probe-amd64.tar"  # an image of a pause program, under the names in PAUSE
        if not self.definitions or not self.pause.is_file():
            raise Missing("EDGEAI_ARTIFACTS lacks kubeedge/VERSION/manifests/crds or images/probe-amd64.tar")
        flannel = home / "cni" / "flannel"
        #: K3s's release brings this CNI plugin; one that was built from source does not.
        self.flannel = flannel if flannel.is_file() else None

    def program(self, component: str, name: str) -> Path:
        """The oldest version's: every test of this directory uses the same one."""
        found = [path for path in self.home.glob(f"{component}/*/**/{name}") if path.is_file()]
        found = [path for path in found if path.parent.name == ARCHITECTURE or path.parent.parent.name == component]
        if not found:
            raise Missing(f"EDGEAI_ARTIFACTS holds no {component}/VERSION/{name} for {ARCHITECTURE}")
        return min(found)

    def version(self, path: Path, component: str) -> Path:
        """The directory of a program's version."""
        return next(parent for parent in path.parents if parent.parent.name == component)

    def components(self, source: Path) -> list[dict[str, Any]]:
        """Lay the files where the playbook artifacts takes them from, and say which they are.

        Their digests are given, because what was built from source is not in upstream's lists.
        """
        source.mkdir(parents=True)
        for path in (self.k3s, self.edgecore, self.cloudcore, *self.definitions):
            shutil.copy2(path, source / path.name)

        def component(name: str, *programs: Path) -> dict[str, Any]:
            digests = {f"{ARCHITECTURE}/{path.name}": sha256_file(path).removeprefix("sha256:") for path in programs}
            found = {"name": name, "version": self.version(programs[0], name).name, "architectures": [ARCHITECTURE]}
            return {**found, "digests": digests, **({"only": ["k3s"]} if name == "k3s" else {})}

        return [component("k3s", self.k3s), component("kubeedge", self.edgecore, self.cloudcore)]


class Client:
    """Somebody who asks a device the same thing all the time, and knows the answers of every good release."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/v2/models/{MODEL}/infer"
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # no proxy to the lab
        self.answers: dict[float, int] = {}
        self.wrong: list[str] = []
        self.last = time.monotonic()
        #: Seconds between two right answers, at most.
        self.gap = 0.0

    def ask(self) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}
        request = urllib.request.Request(
            self.url, json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"}
        )
        try:
            with self.open(request, timeout=20) as reply:
                y = json.loads(reply.read())["outputs"][0]["data"]
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            self.wrong.append(repr(error))
            return
        if y != [y[0] * factor for factor in (1.0, 2.0, 3.0, 4.0)]:  # a bad release turns them round
            self.wrong.append(repr(y))
        else:
            now = time.monotonic()
            self.gap, self.last = max(self.gap, now - self.last), now
        self.answers[y[0]] = self.answers.get(y[0], 0) + 1


class MixedFleet(LabFleet):
    """Made by the collection's playbooks alone, from one inventory."""

    #: Of every device, what serves on it.
    platforms: Mapping[str, str] = PLATFORMS

    def __init__(self, home: Path, lab: Any, given: Given) -> None:
        self.given = given
        server = cache_directory() / "server"
        self.image: dict[str, Any] = {"image": "", "path": ""}
        hosts = {name: {"edge_platform": platform} for name, platform in self.platforms.items()}
        super().__init__(home, lab, server / "wheelhouse", hosts, POLICY)
        self.policy["gate"] = {**self.policy["gate"], "timeout": 120}

    # -- the inventory

    def inventories(self) -> list[Path]:
        """One file, as inventories/mixed is one."""
        return [self.inventory]

    def write_inventory(self) -> None:
        """Everything: how to reach the machines, what they are for, what they serve."""
        super().write_inventory()
        edge = yaml.safe_load(self.inventory.read_text(encoding="utf-8"))["edge"]
        reached = yaml.safe_load(Path(self.lab.inventory).read_text(encoding="utf-8"))["edge"]
        reach = {key: value for key, value in reached["vars"].items() if key != "ansible_python_interpreter"}
        addresses = {name: {"ansible_host": host["ansible_host"]} for name, host in reached["hosts"].items()}
        groups = {
            "k3s_servers": {"hosts": {CLOUD: addresses[CLOUD]}, "vars": self.k3s_server()},
            **self.groups(),
            "edge": {**edge, "hosts": {name: {**addresses[name], **edge["hosts"][name]} for name in edge["hosts"]}},
        }
        document = {"all": {"vars": {**reach, **self.everywhere(addresses)}, "children": groups}}
        self.inventory.write_text(yaml.safe_dump(document), encoding="utf-8")

    def groups(self) -> dict[str, Any]:
        """What runs where, beside the server of K3s."""
        return {
            "kubeedge_cloud": {"hosts": {CLOUD: {}}},
            "k3s_agents": {"hosts": {AGENT: {}}, "vars": self.k3s_agent()},
            "kubeedge_edges": {"hosts": {EDGE: {}}, "vars": self.kubeedge_edge()},
        }

    def everywhere(self, addresses: dict[str, Any]) -> dict[str, Any]:
        """What servers and devices share."""
        names = {"pause": self.given.pause, "model-server": self.image["path"]}
        files = [{"name": name, "architecture": ARCHITECTURE, "path": str(path)} for name, path in names.items()]
        return {
            "edge_artifacts": str(self.home / "artifacts"),
            "edge_artifacts_also": [{"name": "images", "version": "1.0", "files": files}],
            "edge_trust_keys": [str(self.home / "release.pub.pem")],
            "k3s_version": self.given.version(self.given.k3s, "k3s").name,
            "kubeedge_version": self.given.version(self.given.edgecore, "kubeedge").name,
            "kubeedge_address": addresses[CLOUD]["ansible_host"],
            "kubeedge_pki": str(self.home / "pki"),
            "workloads_images": {"onnxruntime": self.image["image"]},
        }

    @staticmethod
    def k3s_server() -> dict[str, Any]:
        """No kubelet on it; few open files, as the lab's machines have."""
        disabled = ["metrics-server", "traefik", "servicelb", "local-storage", "coredns"]
        patience = {"k3s_server_start_timeout": 900, "k3s_server_ready_timeout": 900}
        return {"k3s_server_agent": False, "k3s_server_limit_nofile": 20000, "k3s_server_disable": disabled, **patience}

    @staticmethod
    def k3s_agent() -> dict[str, Any]:
        """Images in its own store, before it starts."""
        images = [{"component": "images", "version": "1.0", "file": file, "name": f"{file}.tar"} for file in FILES]
        return {
            "k3s_agent_limit_nofile": 20000,
            "k3s_agent_images": images,
            "k3s_agent_start_timeout": 900,
            "k3s_agent_ready_timeout": 900,
        }

    def kubeedge_edge(self) -> dict[str, Any]:
        """Images in containerd's store; cgroup v1 without a systemd that kubelets may ask for slices."""
        names = {"pause": PAUSE["kubeedge"], "model-server": self.image["image"]}
        images = [{"component": "images", "version": "1.0", "file": file, "names": [names[file]]} for file in FILES]
        return {
            "kubeedge_edge_cgroup_driver": "cgroupfs",
            "kubeedge_edge_sandbox_image": PAUSE["kubeedge"],
            "kubeedge_edge_images": images,
            "kubeedge_edge_start_timeout": 600,
            "kubeedge_edge_ready_timeout": 900,
        }

    # -- making it

    def run(self, playbook: str, *arguments: str, timeout: float = 1800) -> Run:
        """Run a playbook that has to succeed."""
        done = self.playbook(playbook, *arguments, timeout=timeout)
        assert done.rc == 0, done
        return done

    def make(self) -> None:
        """From bare machines to pods that wait for a model, in the order of docs/workloads.md."""
        self.build_image()
        components = self.given.components(self.home / "source")
        words = ["-e", "key=release.pem", "-e", "source=source", "-e", json.dumps({"components": components})]
        self.run("artifacts", *words)
        shutil.rmtree(self.home / "source")
        for playbook in ("provision", "cluster", "kubeedge", "workloads"):
            self.run(playbook)
        for name in PODS:
            wait_for(lambda: self.pod(name), 300, f"a pod runs on {name}")  # noqa: B023

    def build_image(self) -> None:
        """Keys, wheelhouse and the server's image; built once and kept beside the lab's images."""
        home = cache_directory() / "server"
        house, key = home / "wheelhouse", home / "keys" / "release.pem"
        environment = {"runtime": "onnxruntime", "python": "3.11", "architecture": ARCHITECTURE}
        with held(home.with_name("server.lock"), 1800):
            self.run("keys", "-e", f"directory={key.parent}")
            words = ["-e", f"dest={house}", "-e", f"key={key}", "-e", json.dumps({"environments": [environment]})]
            self.run("wheelhouse", *words)
            words = [
                "-e",
                f"wheelhouse={house}",
                "-e",
                f"public_key={key.with_suffix('.pub.pem')}",
                "-e",
                f"dest={home}",
            ]
            words += ["-e", f"cache={home}/cache", "-e", json.dumps({"architecture": ARCHITECTURE})]
            mirror = os.environ.get("EDGEAI_LAB_MIRROR")
            self.run("image", *words, *(["-e", f"mirror={mirror}"] if mirror else []), timeout=3000)
        note = home / f"model-server-onnxruntime-{ARCHITECTURE}.json"
        self.image = {**json.loads(note.read_text(encoding="utf-8")), "path": note.with_suffix(".tar")}
        self.write_inventory()

    # -- looking at it

    def kubectl(self, arguments: str) -> str:
        """What kubectl says on the server, past its network; nothing when it fails."""
        tool = "/opt/edgeai/k3s/current/kubectl --kubeconfig=/etc/rancher/k3s/k3s.yaml --request-timeout=20s"
        return self.run_on(CLOUD, "sh", "-c", f"{tool} {arguments}").stdout.strip()

    def pod(self, node: str) -> tuple[str, int] | None:
        """The name of a node's pod that runs, and how often its server was started again."""
        items = json.loads(self.kubectl(f"-n edgeai get pods -o json --field-selector spec.nodeName={node}") or "{}")
        for item in items.get("items", ()):
            states = item["status"].get("containerStatuses") or [{"restartCount": -1}]
            if item["status"]["phase"] == "Running":
                return item["metadata"]["name"], states[0]["restartCount"]
        return None

    def node_ready(self, node: str) -> bool:
        """Whether the API server holds a node for ready."""
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self.kubectl(f"get node {node} -o jsonpath='{path}'") == "True"

    def platform_of_server(self, host: str) -> str:
        """The device's own word on what serves: a pod's name, or its unit."""
        running = json.loads(self.read(host, f"{EDGE_ROOT}/run/server.json"))
        return running.get("pod") or "edgeai-server.service"

    @contextmanager
    def clients(self) -> Iterator[dict[str, Client]]:
        """A client for every device while the block runs."""
        made = {host: Client(f"http://{self.lab.device(host).address}:{PORT}") for host in self.hosts}
        over = threading.Event()

        def work(client: Client) -> None:
            while not over.is_set():
                client.ask()
                over.wait(0.02)

        threads = [threading.Thread(target=work, args=(client,)) for client in made.values()]
        for thread in threads:
            thread.start()
        try:
            yield made
        finally:
            over.set()
            for thread in threads:
                thread.join()

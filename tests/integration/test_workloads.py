"""Playbook workloads: devices of one machine, the manifests of their pods, and K3s's directory of manifests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.servers import Device, free_port

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/edgeai/model-server:onnxruntime-1"


class Site:
    """Two devices on this machine that run as `nobody`, and a directory where K3s would look for manifests."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.manifests = base / "manifests"
        self.manifests.mkdir()
        hosts: dict[str, Any] = {}
        for number, name in enumerate(("gate-1", "gate-2")):
            device = Device(base / name, port=9101 + number)
            hosts[name] = {"edge_root": str(device.root), "edge_platform": "k3s"}
        self.hosts = hosts
        self.write()

    def write(self) -> None:
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        user = {"edge_user": "nobody", "edge_group": "nogroup", "edge_system_python": sys.executable}
        settings = {"workloads_images": {"onnxruntime": IMAGE}, "workloads_dir": str(self.manifests)}
        edge = {"hosts": self.hosts, "vars": {**user, **settings, "edge_models": {"camera": {"release": "1.0.0"}}}}
        servers = {"hosts": {"cloud": {"edge_system_python": sys.executable}}}
        groups = {"edge": edge, "k3s_servers": servers}
        # The controller is no device: what the manifests are made of has to reach it, too.
        inventory = {"all": {"vars": {**local, **settings}, "children": groups}}
        (self.base / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def run(self, *arguments: str) -> tuple[int, str]:
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "edgeai.fleet.workloads", "-i", "hosts.yml"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.base,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        return done.returncode, done.stdout

    def objects(self) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all((self.manifests / "edgeai-workloads.yaml").read_text()))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    if os.geteuid():
        pytest.skip("K3s's directory is root's")
    return Site(tmp_path)


def changes(output: str) -> int:
    """The number of changes in a run's last line."""
    return int(re.findall(r"changed=(\d+)", output)[-1])


def test_manifests_come_from_the_devices_and_a_second_run_changes_nothing(site: Site) -> None:
    status, output = site.run("--check", "--diff")
    assert status == 0 and changes(output) == 1 and not list(site.manifests.iterdir()), output
    status, output = site.run("-e", "dest=copy.yaml")
    assert status == 0, output
    objects = site.objects()
    assert objects == list(yaml.safe_load_all((site.base / "copy.yaml").read_text()))
    pods = [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "DaemonSet"]
    assert {pod["containers"][0]["ports"][0]["containerPort"] for pod in pods} == {9101, 9102}
    for pod in pods:
        assert pod["securityContext"]["runAsUser"] == 65534 and pod["containers"][0]["image"] == IMAGE
        assert pod["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/v2/models/camera/ready"
        assert json.dumps(pod["affinity"]).count("gate-") == 1
    status, output = site.run()
    assert status == 0 and changes(output) == 0, output


def test_a_device_that_is_left_out_keeps_its_pod(site: Site) -> None:
    status, output = site.run("--limit", "gate-1,localhost")
    assert status != 0 and re.search(r"would lose their pods.*gate-2", output.replace("\n", " ")), output
    assert not list(site.manifests.iterdir())


def test_taken_away_without_a_cluster_or_a_collection(site: Site) -> None:
    """The file goes although no device answers; a cluster's API server is not spoken to without kubernetes.core."""
    written = site.manifests / "edgeai-workloads.yaml"
    written.write_text("")
    for host in site.hosts.values():
        host["ansible_connection"] = "ssh"
        host["ansible_host"] = "192.0.2.1"
    site.write()
    kubeconfig = "workloads_server_kubeconfig=/nonexistent/k3s.yaml"
    status, output = site.run("-e", "workloads_state=absent", "-e", kubeconfig)
    assert status == 0 and changes(output) == 1 and not written.exists(), output
    status, output = site.run("-e", "workloads_state=absent", "-e", "workloads_kubeconfig=/nonexistent/kubeconfig")
    assert status != 0 and re.search(r"needs the collection\s+kubernetes.core|nonexistent/kubeconfig", output), output


def test_the_file_goes_to_the_server_and_not_onto_the_controller(site: Site) -> None:
    """The server is another machine: one that does not answer gets nothing, and neither does this one."""
    inventory = yaml.safe_load((site.base / "hosts.yml").read_text())
    cloud = inventory["all"]["children"]["k3s_servers"]["hosts"]["cloud"]
    cloud |= {"ansible_host": "127.0.0.1", "ansible_port": free_port()}
    del inventory["all"]["vars"]["ansible_connection"]
    for host in inventory["all"]["children"]["edge"]["hosts"].values():
        host["ansible_connection"] = "local"
    (site.base / "hosts.yml").write_text(yaml.safe_dump(inventory))
    status, output = site.run()
    assert status == 4 and "unreachable=1" in output.replace(" ", ""), output
    assert not list(site.manifests.iterdir())

"""Tests with the real programs, K3s on machines of a lab of its own; skipped, and counted, without EDGEAI_ARTIFACTS."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.api import Lab
from support.cluster import sign_k3s
from support.fleet import ROOT

HERE = Path(__file__).resolve().parent
TIMEOUT = 3600
SERVERS = ("lab-01", "lab-02", "lab-03")
PLANTED = "planted-8e1f6a2c94d7403b"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test below this directory needs the real programs and may take long."""
    missing = pytest.mark.skip(reason="EDGEAI_ARTIFACTS is not set")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(TIMEOUT))
            if not os.environ.get("EDGEAI_ARTIFACTS"):
                item.add_marker(missing)


class Site:
    """Machines, a signed program, and plays against them."""

    def __init__(self, lab: Lab, base: Path, version: str) -> None:
        self.lab, self.base, self.version = lab, base, version
        self.output = ""

    def play(self, servers: tuple[str, ...], *arguments: str, expect: int = 0, **variables: Any) -> int:
        """Run the playbook cluster over these servers; return the number of changes. What it printed is kept."""
        printed = self.run("cluster", servers, *arguments, expect=expect, **variables)
        return sum(int(number) for number in re.findall(r"changed=(\d+)", printed.rpartition("PLAY RECAP")[2]))

    def upgrade(self, servers: tuple[str, ...], *arguments: str, expect: int = 0, **variables: Any) -> str:
        """Run the playbook k3s_upgrade over these servers; return what it printed."""
        return self.run("k3s_upgrade", servers, *arguments, expect=expect, **variables)

    def run(self, playbook: str, servers: tuple[str, ...], *arguments: str, expect: int = 0, **variables: Any) -> str:
        """Run a playbook over these servers; what it printed is kept, and returned."""
        hosts = {name: {} for name in servers}
        given = {
            "ansible_python_interpreter": "/usr/bin/python3",
            "edge_artifacts": str(self.base / "artifacts"),
            "edge_trust_keys": [str(self.base / "release.pub.pem")],
            "k3s_version": self.version,
            # Machines of the lab have no default route, no cgroup controllers and few open files.
            "k3s_server_agent": False,
            "k3s_server_node_ip": "{{ ansible_host }}",
            "k3s_server_flannel": "none",
            "k3s_server_limit_nofile": 20000,
            "k3s_server_disable": ["metrics-server", "traefik", "servicelb", "local-storage", "coredns"],
            "k3s_server_token": PLANTED,
            "k3s_server_start_timeout": 900,
            "k3s_server_ready_timeout": 900,
            **variables,
        }
        groups = {"k3s_servers": {"hosts": hosts, "vars": given}, "k3s_agents": {"hosts": {}}}
        (self.base / "servers.yml").write_text(json.dumps({"all": {"children": groups}}))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"edgeai.fleet.{playbook}", "-v"]
        command += ["-i", str(self.lab.inventory), "-i", str(self.base / "servers.yml"), *arguments]
        done = self.ansible(command)
        self.output += done.stdout
        assert done.returncode == expect, done.stdout[-8000:]
        return done.stdout

    def module(self, name: str, module: str, **arguments: Any) -> dict[str, Any]:
        """What a module says on one machine, run there as the roles run it."""
        command = [str(Path(sys.executable).parent / "ansible"), name, "-m", module, "-a", json.dumps(arguments)]
        command += ["-i", str(self.lab.inventory), "-e", "ansible_python_interpreter=/usr/bin/python3", "--one-line"]
        done = self.ansible(command)
        assert "=> {" in done.stdout, done.stdout
        return dict(json.loads(done.stdout.partition("=> ")[2]))

    def ansible(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run one of Ansible's programs with this collection's settings; both outputs are in stdout."""
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        environment["ANSIBLE_STDOUT_CALLBACK"] = "ansible.builtin.default"
        return subprocess.run(
            command,
            env=environment,
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def out(self, name: str, command: str) -> str:
        """What a shell command says on a machine, as root, not over the network; nothing when it fails."""
        return self.lab.device(name).exec(["sh", "-c", command], check=False).stdout.strip()

    def kubectl(self, name: str, arguments: str) -> str:
        return self.out(name, f"/opt/edgeai/k3s/current/kubectl --kubeconfig=/etc/rancher/k3s/k3s.yaml {arguments}")

    def traces(self, name: str) -> str:
        """Everything of K3s on a machine."""
        places = "/etc/rancher /var/lib/rancher /opt/edgeai/k3s /run/k3s /run/edgeai-k3s /usr/local/bin/k3s"
        found = self.out(name, f"ls -dA {places} /usr/local/bin/kubectl /etc/systemd/system/k3s* 2>/dev/null")
        return found + self.out(name, "pgrep -a k3s")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three bare machines, and the program, signed."""
    base = tmp_path_factory.mktemp("cluster")
    version = sign_k3s(Path(os.environ["EDGEAI_ARTIFACTS"]), base)
    lab = Lab(ROOT / "build" / "lab-cluster")
    try:
        lab.up(len(SERVERS), 0)
        yield Site(lab, base, version)
    finally:
        lab.down()


@pytest.fixture
def servers(site: Site) -> Iterator[Site]:
    """The machines, bare before and after."""
    site.output = ""
    yield site
    site.play(SERVERS, "-e", "edge_state=absent")
    assert {name: site.traces(name) for name in SERVERS} == dict.fromkeys(SERVERS, "")

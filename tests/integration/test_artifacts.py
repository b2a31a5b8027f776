"""Artifacts through real playbooks: two devices of different architectures, which are directories of the test."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from support.artifacts import make_artifacts, make_key
from support.fleet import ROOT, Run
from support.upstream import publish
from support.web import Web

K3S = "v1.32.5+k3s1"
# A connection that Ansible does not know to be this machine's own: files have to travel.
NEAR = """
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = '''
name: near
short_description: This machine, from a distance
description: Runs commands here, and copies files as another machine's connection would.
author: tests
version_added: 0.2.0
extends_documentation_fragment: connection_pipelining
'''


class Connection(Local):
    transport = "near"

    def put_file(self, in_path, out_path):
        with open(__file__ + ".log", "a", encoding="utf-8") as log:
            log.write(out_path + chr(10))
        super().put_file(in_path, out_path)
"""
AWAY = """
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = '''
name: away
short_description: Nobody
description: A device that does not answer.
author: tests
version_added: 0.2.0
extends_documentation_fragment: connection_pipelining
'''


class Connection(Local):
    transport = "away"

    def exec_command(self, *args, **kwargs):
        raise AnsibleConnectionFailure("nobody there")
"""
INSTALL = """
- hosts: edge
  gather_facts: false
  tasks:
    - edgeai.fleet.artifact_file:
        artifacts: "{{ edge_artifacts }}"
        public_keys: "{{ edge_trust_keys }}"
        component: k3s
        version: "{{ k3s_version }}"
        file: k3s
        architecture: "{{ edge_architecture | default(omit) }}"
        dest: "{{ device }}/opt/edgeai/k3s/{{ k3s_version }}/k3s"
"""


class Site:
    """A controller, and devices that are directories."""

    def __init__(self, home: Path, hosts: dict[str, Any], connection: str = "local") -> None:
        self.home, self.artifacts, self.key = home, home / "artifacts", home / "release.pem"
        variables = {
            "ansible_connection": connection,
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": str(home / "tmp"),
            "edge_system_python": sys.executable,
            "edge_artifacts": str(self.artifacts),
            "edge_trust_keys": [str(home / "release.pub.pem")],
            "k3s_version": K3S,
            "device": f"{home}/{{{{ inventory_hostname }}}}",
        }
        self.variables, self.hosts = variables, hosts
        self.write()
        (home / "install.yml").write_text(INSTALL)
        (home / "connection_plugins").mkdir(exist_ok=True)
        (home / "connection_plugins" / "near.py").write_text(NEAR)
        (home / "connection_plugins" / "away.py").write_text(AWAY)

    def write(self) -> None:
        """Write the inventory."""
        (self.home / "hosts.yml").write_text(yaml.safe_dump({"edge": {"vars": self.variables, "hosts": self.hosts}}))

    def ansible(self, playbook: str, *arguments: str) -> Run:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CONNECTION_PLUGINS": str(self.home / "connection_plugins"),
            "NO_COLOR": "1",
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [str(Path(sys.executable).parent / "ansible-playbook"), playbook, "-i", "hosts.yml", *arguments]
        done = subprocess.run(
            command, cwd=self.home, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=280, check=False,
        )  # fmt: skip
        return Run(done.returncode, done.stdout)

    def installed(self, host: str) -> Path:
        return self.home / host / "opt/edgeai/k3s" / K3S / "k3s"

    def travelled(self) -> list[str]:
        log = self.home / "connection_plugins" / "near.py.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if "/.inbox-" in line]


def changes(run: Run) -> int:
    """Changed tasks of all hosts."""
    return int(re.findall(r"changed=(\d+) unreachable", run.output)[-1])


def test_each_device_gets_its_own_and_nothing_twice(tmp_path: Path) -> None:
    """One device's files are read where they are, the other's travel."""
    files = {("k3s", K3S, "x86_64", "k3s"): b"for x86" * 99, ("k3s", K3S, "aarch64", "k3s"): b"for arm" * 99}
    near = {"edge_architecture": "aarch64", "ansible_connection": "near"}
    site = Site(tmp_path, {"nuc": {"edge_architecture": "x86_64"}, "pi": near})
    make_artifacts(site.artifacts, files, site.key)

    predicted = site.ansible("install.yml", "--check", "--diff")
    assert predicted.rc == 0 and changes(predicted) == 2 and "absent" in predicted.output, predicted
    assert not (tmp_path / "nuc").exists() and not site.travelled()
    first = site.ansible("install.yml")
    assert first.rc == 0 and changes(first) == 2, first
    assert (
        site.installed("nuc").read_bytes() == b"for x86" * 99 and site.installed("pi").read_bytes() == b"for arm" * 99
    )
    assert os.access(site.installed("pi"), os.X_OK) and os.listdir(site.installed("pi").parent) == ["k3s"]
    assert len(site.travelled()) == 1
    again = site.ansible("install.yml")
    assert again.rc == 0 and changes(again) == 0 and len(site.travelled()) == 1, again

    # Each device has other bytes now, and the controller has good ones for one of them only.
    site.installed("pi").write_bytes(b"for arX" * 99)
    site.installed("nuc").write_bytes(b"for x8X" * 99)
    (site.artifacts / "k3s" / K3S / "x86_64" / "k3s").write_bytes(b"for x8Y" * 99)
    repaired = site.ansible("install.yml")
    assert repaired.rc == 2 and changes(repaired) == 1 and "nothing was changed" in repaired.output, repaired
    assert (
        site.installed("pi").read_bytes() == b"for arm" * 99 and site.installed("nuc").read_bytes() == b"for x8X" * 99
    )


def test_refused(tmp_path: Path) -> None:
    """Every device of one run has another reason to be refused."""
    content = {("k3s", K3S, "x86_64", "k3s"): b"for x86"}
    hosts: dict[str, Any] = {
        name: {"edge_architecture": "x86_64", "edge_artifacts": str(tmp_path / name)}
        for name in ("added", "missing", "altered")
    }
    hosts["board"] = {"edge_architecture": "riscv64"}
    hosts["future"] = {"edge_architecture": "x86_64", "k3s_version": "v9"}
    hosts["untrusting"] = {"edge_architecture": "x86_64", "edge_trust_keys": []}
    site = Site(tmp_path, hosts)
    for place in ("artifacts", "added", "missing", "altered"):
        make_artifacts(tmp_path / place, content, site.key)
    (tmp_path / "added" / "more").write_text("x")
    (tmp_path / "missing/k3s" / K3S / "x86_64/k3s").unlink()
    (tmp_path / "altered/artifacts.json").write_text("{}")
    run = site.ansible("install.yml", "-e", f"device={tmp_path}/device")
    assert run.rc == 2 and changes(run) == 0 and not (tmp_path / "device").exists(), run
    for said in (
        "added/more: is not listed in the signature",
        "is missing; the directory of artifacts is not complete",
        "is not the one that was signed: it was altered",
        "none for the architecture 'riscv64'; there is one for x86_64",
        f"has no file 'k3s' of k3s v9; it has k3s {K3S} (x86_64): k3s",
        "no key was given to verify it with",
    ):
        assert said in " ".join(run.output.split()), run


def test_the_playbook_gathers_for_the_inventory(tmp_path: Path) -> None:
    hosts = {
        "nuc": {"edge_platform": "k3s", "edge_architecture": "x86_64"},
        "pi": {"edge_platform": "k3s", "edge_target": {"architecture": "aarch64"}},
        "cam": {"edge_platform": "kubeedge", "edge_architecture": "aarch64", "edge_artifacts_also": [
            {"name": "images", "version": "1.0", "files": [
                {"name": "pause", "architecture": "aarch64", "path": str(tmp_path / "pause-arm64.tar")}]}]},
    }  # fmt: skip
    site = Site(tmp_path, hosts)
    (tmp_path / "pause-arm64.tar").write_bytes(b"an image")
    make_key(site.key)
    publish(tmp_path / "upstream")
    web = Web(tmp_path / "upstream")
    bases = {name: f"{web.url}/{name}/{{version}}" for name in ("k3s", "kubeedge", "kubeedge-crds")}
    command = ("edgeai.fleet.artifacts", "-e", f"key={site.key}", "-e", json.dumps({"base_urls": bases}))

    # The manifests of this made-up release are not those that the catalog knows.
    wrong = site.ansible(*command)
    assert wrong.rc == 2 and "apps_v1alpha1_edgeapplication.yaml: has the digest" in wrong.output, wrong
    assert not site.artifacts.exists()
    site.hosts["cam"]["edge_artifacts_also"].append({"name": "kubeedge", "version": "v1.23.1", "digests": digests(web)})
    site.write()
    predicted = site.ansible(*command, "--check", "--diff")
    assert predicted.rc == 0 and changes(predicted) == 1 and not site.artifacts.exists(), predicted
    assert "add k3s v1.32.5+k3s1 (x86_64): k3s" in predicted.output, predicted
    built = site.ansible(*command)
    assert built.rc == 0 and changes(built) == 1, built
    listed = json.loads((site.artifacts / "artifacts.json").read_text())["components"]
    assert sorted(listed["k3s"][K3S]) == ["aarch64", "x86_64"] and sorted(listed["images"]["1.0"]) == ["aarch64"]
    assert {name: sorted(files) for name, files in listed["kubeedge"]["v1.23.1"].items()} == {
        "aarch64": ["cloudcore", "edgecore"], "any": ["manifests"],
    }  # fmt: skip

    web.close()  # from here on there is no network
    again = site.ansible(*command)
    assert again.rc == 0 and changes(again) == 0, again
    installed = site.ansible("install.yml", "--limit", "nuc,pi", "-e", "edge_architecture=aarch64")
    assert installed.rc == 0 and site.installed("pi").read_bytes().startswith(b"k3s for arm64"), installed

    before = (site.artifacts / "model.sig").read_bytes()
    site.hosts["board"] = {"edge_platform": "k3s", "edge_architecture": "riscv64"}
    site.write()
    foreign = site.ansible(*command)
    assert foreign.rc == 2 and "is 'riscv64': there is nothing for this architecture" in foreign.output, foreign
    site.hosts["board"] = {"edge_platform": "k3s", "ansible_connection": "away"}
    site.write()
    silent = site.ansible(*command)
    assert silent.rc in (2, 4) and "is not known, and it is not guessed: board" in " ".join(silent.output.split()), (
        silent
    )
    assert (site.artifacts / "model.sig").read_bytes() == before


def digests(web: Web) -> dict[str, str]:
    """Of the manifests that are published."""
    files = (web.root / "kubeedge-crds").rglob("*.yaml")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}

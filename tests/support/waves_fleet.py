"""A fleet for tests of the controller's half: real ansible-playbook, plan, gate, callbacks, ledger and watchdog.

Only the devices' engine is a double (see doubles/), so that a test decides what a device does and when.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, Report, verify

from .releases import default_key, make_release, write_trust

ROOT = Path(__file__).resolve().parents[2]
DOUBLES = Path(__file__).resolve().parent / "doubles"
DOUBLED = ("model_release", "model_release_info")

ROLLOUT = """
- name: Facts and plan
  hosts: edge
  gather_facts: false
  tasks:
    - edgeai.fleet.model_release_info:
        edge_root: "{{ edge_root }}"
      register: edge_facts
      ignore_errors: true
      ignore_unreachable: true
    - edgeai.fleet.rollout_plan:
        hosts: "{{ ansible_play_hosts_all }}"
        ledger: "{{ edge_ledger }}"
        ledger_key: "{{ edge_ledger_key }}"
      register: edge_planned
      run_once: true
      delegate_to: localhost
    - ansible.builtin.set_fact:
        edge_plan: "{{ edge_planned.plan }}"
      run_once: true
      delegate_to: localhost
      delegate_facts: true
- name: Waves
  hosts: "{{ ((hostvars | default({})).localhost | default({})).edge_plan.hosts | default([]) }}"
  serial: "{{ ((hostvars | default({})).localhost | default({})).edge_plan.sizes | default([1], true) }}"
  gather_facts: false
  vars:
    edge_wave_play: true
    edge_plan: "{{ hostvars.localhost.edge_plan }}"
    edge_rollout:
      id: "{{ edge_plan.rollout_id }}"
      plan_hash: "{{ edge_plan.plan_hash }}"
      ledger: "{{ edge_ledger }}"
      ledger_key: "{{ edge_ledger_key }}"
      wave: "{{ edge_plan.wave_of[inventory_hostname] }}"
  tasks:
    - &release
      edgeai.fleet.model_release: &args
        edge_root: "{{ edge_root }}"
        model: "{{ edge_plan.model }}"
        version: "{{ edge_plan.version }}"
        digest: "{{ edge_plan.digest }}"
        stratum: "{{ edge_plan.stratum_of[inventory_hostname] }}"
        timeout: 60
      register: edge_result
      ignore_errors: true
      ignore_unreachable: true
    - edgeai.fleet.rollout_gate:
        stage: activation
        wave: "{{ edge_plan.wave_of[inventory_hostname] }}"
      register: edge_verdict
      run_once: true
      delegate_to: localhost
      delegate_facts: true
    - edgeai.fleet.model_release:
        <<: *args
        state: confirmed
      register: edge_confirm
      ignore_errors: true
      ignore_unreachable: true
      when: edge_result is not failed and edge_result is not unreachable
    - edgeai.fleet.rollout_gate:
        stage: soak
        wave: "{{ edge_plan.wave_of[inventory_hostname] }}"
      register: edge_verdict
      run_once: true
      delegate_to: localhost
      delegate_facts: true
    - meta: end_play
      when: edge_verdict.halt
- name: The end
  hosts: edge
  gather_facts: false
  tasks:
    - edgeai.fleet.rollout_gate:
        stage: finish
      run_once: true
      delegate_to: localhost
"""

CONNECTION = '''
"""A connection that is not local for the action plugin, and needs no network: what is put is copied."""
from __future__ import annotations
DOCUMENTATION = """
name: near
short_description: test connection
description: test connection
options:
  near_unreachable:
    description: refuse
    vars:
      - name: near_unreachable
  near_puts:
    description: file that lists what was put
    vars:
      - name: near_puts
"""
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    transport = "near"

    def exec_command(self, *args, **kwargs):
        if self.get_option("near_unreachable"):
            raise AnsibleConnectionFailure("nobody there")
        return super().exec_command(*args, **kwargs)

    def put_file(self, in_path, out_path):
        if self.get_option("near_puts"):
            with open(self.get_option("near_puts"), "a") as puts:
                puts.write(in_path + "\\n")
        return super().put_file(in_path, out_path)
'''


class Fleet:
    """Devices, a signed release, a ledger and a playbook under one directory."""

    def __init__(self, base: Path, hosts: Mapping[str, str], policy: Mapping[str, Any] | None = None) -> None:
        """hosts: name -> runtime (its stratum is cpu-int8/<runtime>/x86_64)."""
        self.base = base
        self.ledger_dir = base / "ledger"
        self.rollback_deadline = 60
        self.config: dict[str, str] = {}
        self._collection()
        variants = sorted({f"{runtime}/int8" for runtime in hosts.values()})
        self.release = make_release(base / "releases", version="1.1.0", variants=variants)
        trust = write_trust(base / "trust", default_key())
        self.key = base / "ledger.key"
        self.public = self._key()
        for host, runtime in hosts.items():
            self._device(host, runtime)
        inventory = {
            "all": {
                "vars": {
                    "ansible_python_interpreter": sys.executable,
                    "edge_models": {"digits": {"release": "1.1.0"}},
                    "edge_releases": str(base / "releases"),
                    "edge_trust_keys": [str(path) for path in (trust / "keys").iterdir()],
                    "edge_ledger": str(self.ledger_dir),
                    "edge_ledger_key": str(self.key),
                    "edge_policy": {"canary": {"per_stratum": 1}, "growth": [1.0], **(policy or {})},
                },
                "children": {"edge": {"hosts": {host: {"edge_root": str(self.root(host))} for host in hosts},
                                      "vars": {"ansible_connection": "local"}}},
            }
        }  # fmt: skip
        self.inventory = base / "inventory.json"
        self.inventory_data = inventory
        self.write_inventory()
        self.playbook = base / "rollout.yml"
        self.playbook.write_text(ROLLOUT)

    def write_inventory(self) -> None:
        """Write the inventory again after a change of ``inventory_data``."""
        self.inventory.write_text(json.dumps(self.inventory_data))

    def host_vars(self, host: str) -> dict[str, Any]:
        """The inventory variables of one host, to be changed in place."""
        found: dict[str, Any] = self.inventory_data["all"]["children"]["edge"]["hosts"][host]
        return found

    def _collection(self) -> None:
        fleet = self.base / "collections" / "ansible_collections" / "edgeai" / "fleet"
        (fleet / "plugins" / "modules").mkdir(parents=True)
        (fleet / "plugins" / "connection").mkdir()
        for part in ("meta", "galaxy.yml", "playbooks"):
            (fleet / part).symlink_to(ROOT / part)
        for part in ("action", "callback", "module_utils", "plugin_utils", "doc_fragments"):
            (fleet / "plugins" / part).symlink_to(ROOT / "plugins" / part)
        for module in (ROOT / "plugins" / "modules").glob("*.py"):
            if module.stem not in DOUBLED:
                (fleet / "plugins" / "modules" / module.name).symlink_to(module)
        for name in DOUBLED:
            (fleet / "plugins" / "modules" / f"{name}.py").symlink_to(DOUBLES / f"{name}.py")
        (fleet / "plugins" / "connection" / "near.py").write_text(CONNECTION)

    def _key(self) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.key.write_bytes(pem)
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def _device(self, host: str, runtime: str) -> None:
        self.root(host).mkdir(parents=True)
        facts = {
            "architecture": "x86_64", "accelerator": "cpu-int8", "accelerators": [], "cpu_flags": ["avx2"],
            "memory_mib": 8000, "python": "3.11", "runtimes": {runtime: {"version": "1.0", "providers": []}},
            "runtime": runtime, "stratum": f"cpu-int8/{runtime}/x86_64", "free_bytes": 10**9,
        }  # fmt: skip
        (self.root(host) / "facts.json").write_text(json.dumps(facts))

    def root(self, host: str) -> Path:
        """A device's edge_root."""
        return self.base / "devices" / host

    def behave(self, host: str, **how: str) -> None:
        """Tell a device what to do, by state argument; ``wait`` gets its FIFO."""
        (self.root(host) / "behave.json").write_text(json.dumps(how))
        fifo = self.root(host) / "go"
        if "wait" in how.values() and not fifo.exists():
            os.mkfifo(fifo)

    def let_go(self, host: str) -> None:
        """Let a waiting device go on."""
        with open(self.root(host) / "go", "w") as go:
            go.write("go")

    def release_waiting(self, host: str) -> bool:
        """Let a device go on if it waits; its process may have been killed instead."""
        try:
            go = os.open(self.root(host) / "go", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        os.write(go, b"go")
        os.close(go)
        return True

    def active(self, host: str) -> str:
        """The digest a device is on."""
        path = self.root(host) / "double.json"
        return str(json.loads(path.read_text())["active"]) if path.exists() else "sha256:old"

    def calls(self, host: str) -> list[dict[str, Any]]:
        """What the module was called with on a device."""
        path = self.root(host) / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def environment(self) -> dict[str, str]:
        """Of an ansible-playbook in this fleet."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "EDGEAI_"))},
            "ANSIBLE_COLLECTIONS_PATH": str(self.base / "collections"),
            "ANSIBLE_CALLBACKS_ENABLED": "edgeai.fleet.rollout",
            "ANSIBLE_STDOUT_CALLBACK": "edgeai.fleet.waves",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_LOCAL_TEMP": str(self.base / "tmp"),
            "ANSIBLE_HOME": str(self.base / "home"),
            "ANSIBLE_FORKS": "4",
            "EDGEAI_FLEET_ROLLBACK_DEADLINE": str(self.rollback_deadline),
            "EDGEAI_FLEET_IN_FLIGHT": "30",
            **self.config,
        }

    def command(self, *arguments: str, playbook: str | None = None) -> list[str]:
        """ansible-playbook with this fleet's inventory."""
        program = str(Path(sys.executable).parent / "ansible-playbook")
        return [program, playbook or str(self.playbook), "-i", str(self.inventory), *arguments]

    def run(
        self, *arguments: str, playbook: str | None = None, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            self.command(*arguments, playbook=playbook), env=self.environment(), cwd=self.base, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False,
        )  # fmt: skip

    def start(self, *arguments: str, playbook: str | None = None) -> subprocess.Popen[str]:
        """Start in a session of its own; the output goes to ``output``."""
        self.output = self.base / "output"
        with open(self.output, "w") as output:
            return subprocess.Popen(
                self.command(*arguments, playbook=playbook), env=self.environment(), cwd=self.base, text=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def records(self, *types: str) -> list[dict[str, Any]]:
        """The ledger's records of these types, all without any."""
        found = Ledger(str(self.ledger_dir)).records()
        return [record for record in found if not types or record["type"] in types]

    def verified(self) -> Report:
        """The ledger's verification."""
        return verify(str(self.ledger_dir), self.public)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait until ``condition`` gives something true, which is returned; fail after ``seconds``."""
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"in vain for {seconds} seconds: {what}")
        time.sleep(0.05)


def hosts_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The hosts of records, in order."""
    return [str(record["host"]) for record in records]

"""A fleet repository that holds to the shipped rules: signed release, ledger, governance, approvals, inventory.

repo = PolicyRepo(tmp_path); repo.governance["sites"]["harbour"]["region"] = "us-east"; repo.write(); repo.run()
"""

from __future__ import annotations

import base64
import copy
import datetime
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.edgeai.fleet.plugins.module_utils.policy.governance import read_approvals
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.yamlfile import load_yaml
from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger

from .releases import golden_arrays, make_release

DATA = hashlib.sha256(b"images of docks, March 2026").hexdigest()
TODAY = datetime.datetime.now(datetime.timezone.utc).date()
CREATED = (TODAY - datetime.timedelta(days=20)).isoformat()
SOURCE = {"git_revision": "3f2c1d0", "data_sha256": DATA, "parent": None, "mlflow_run": None}

GOVERNANCE: dict[str, Any] = {
    "format": 1,
    "approvers": {"amina": {"name": "Amina Diallo"}, "jonas": {"name": "Jonas Weber"}},
    "datasets": {
        "docks-2026": {
            "origin": "Cameras of the dock gates, March 2026, see ticket 118",
            "sha256": [DATA],
            "region": "eu-de",
            "personal_data": True,
            "lawful_basis": {"basis": "legitimate_interests", "reference": "assessment LIA-2026-04"},
            "phi": False,
        }
    },
    "models": {
        "digits": {
            "datasets": ["docks-2026"],
            "regions": ["eu"],
            "inference_inputs": {"stored": False},
        }
    },
    "sites": {
        "harbour": {
            "tags": ["personal_data", "phi"],
            "region": "eu-de",
            "encryption_at_rest": {"enabled": True, "method": "LUKS2, key in the TPM"},
        },
        "quarry": {"tags": [], "region": "eu-at"},
    },
    "keys": {"release.pub.pem": {"created": CREATED}, "ledger.pub.pem": {"created": CREATED}},
    "ledger": {"retention_days": 2555},
}
RULES = {"format": 1, "name": "acme", "version": "1.0.0", "title": "Rules of Acme", "uses": ["gdpr", "hipaa"]}


class PolicyRepo:
    """Change the fields, `write()`, `run()`."""

    def __init__(self, home: Path, golden: dict[str, numpy.ndarray] | None = None, source: Any = None) -> None:
        self.home = home
        self.governance = copy.deepcopy(GOVERNANCE)
        self.rules = copy.deepcopy(RULES)
        self.approvals: list[dict[str, Any]] = []
        self.hosts: dict[str, dict[str, Any]] = {
            "harbour-01": {"edge_site": "harbour"},
            "harbour-02": {"edge_site": "harbour"},
            "quarry-01": {"edge_site": "quarry"},
        }
        for name in ("release", "ledger"):
            keys.generate_key(home / f"{name}.pem", home / f"{name}.pub.pem")
        self.release = self.make(golden, source)
        self.manifest = json.loads((self.release / "release.json").read_text(encoding="utf-8"))
        self.digest = "sha256:" + hashlib.sha256((self.release / "release.json").read_bytes()).hexdigest()
        self.governance["models"]["digits"]["golden"] = [
            {
                "sha256": self.manifest["golden"]["sha256"],
                "kind": "images",
                "personal_data": False,
                "phi": False,
                "reviewed_by": "Amina Diallo",
                "reviewed": TODAY.isoformat(),
            }
        ]
        self.vars: dict[str, Any] = {
            "edge_models": {"digits": {"release": "1.0.0"}},
            "edge_releases": "{{ inventory_dir }}/releases",
            "edge_trust_keys": ["{{ inventory_dir }}/release.pub.pem"],
            "edge_ledger": "{{ inventory_dir }}/ledger",
            "edge_ledger_key": "{{ inventory_dir }}/ledger.pem",
        }
        for person in ("amina", "jonas"):
            self.approve(person)
        ledger = Ledger(str(home / "ledger"), str(home / "ledger.pem"))
        ledger.append("rollout_started", {"model": "digits", "user": "amina"}, "digits-1.0.0-x")
        ledger.checkpoint()

    def make(self, golden: dict[str, numpy.ndarray] | None, source: Any) -> Path:
        """Build and sign the release."""

        def edit(manifest: dict[str, Any]) -> None:
            manifest["source"] = SOURCE if source is None else source
            manifest["created"] = f"{TODAY - datetime.timedelta(days=3)}T08:00:00Z"

        arrays = golden_arrays() if golden is None else golden
        return make_release(self.home / "releases", sign_key=self.home / "release.pem", edit=edit, golden=arrays)

    def approve(self, person: str, **changes: Any) -> dict[str, Any]:
        """Add an approval of the release, given yesterday."""
        time = f"{TODAY - datetime.timedelta(days=1)}T09:00:00Z"
        entry = {"model": "digits", "version": "1.0.0", "digest": self.digest, "approver": person, "time": time}
        self.approvals.append({**entry, **changes})
        return self.approvals[-1]

    def sign(self, entry: dict[str, Any]) -> None:
        """Sign an approval with a new key of its approver, whom governance knows then."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"{entry['approver']}.pub.pem"
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.home / name).write_bytes(public)
        self.governance["approvers"][entry["approver"]]["public_key"] = name
        text = yaml.safe_dump({"format": 1, "approvals": [entry]})
        statement = read_approvals(load_yaml(text, "approvals.yml"))[0].statement()
        entry["signature"] = base64.b64encode(key.sign(statement, ec.ECDSA(hashes.SHA256()))).decode("ascii")

    def write(self) -> PolicyRepo:
        """Write governance, approvals, rules and inventory."""
        documents = {
            "governance.yml": self.governance,
            "approvals.yml": {"format": 1, "approvals": self.approvals},
            "rules/acme.yml": self.rules,
            "hosts.yml": {"edge": {"vars": self.vars, "hosts": self.hosts}},
        }
        for name, document in documents.items():
            (self.home / name).parent.mkdir(exist_ok=True)
            (self.home / name).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        return self

    def run(
        self, *options: str, inventory: str = "hosts.yml", playbook: str = "edgeai.fleet.policy", **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``ansible-playbook edgeai.fleet.policy`` (or another) as a person would, in the repository."""
        values = {"edge_policy_markdown": "policy.md", "edge_policy_sarif": "policy.sarif", **variables}
        config = self.home / "ansible.cfg"
        config.touch()
        environment = {
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_CONFIG": str(config),
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [sys.executable, "-m", "ansible", "playbook", playbook, "-i", inventory]
        return subprocess.run(
            [*command, "-e", json.dumps(values), *options],
            cwd=self.home, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

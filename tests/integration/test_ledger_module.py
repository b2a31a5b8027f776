# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Modules ledger_verify and quarantine in real playbooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger, quarantined

PAIR = {"model": "digits", "version": "1.2.0", "digest": "sha256:" + "1" * 64, "stratum": "cpu/onnxruntime/x86_64"}


class Place:
    """A ledger with its keys, and a way to run tasks."""

    def __init__(self, base: Path) -> None:
        self.base = base
        key = ec.generate_private_key(ec.SECP256R1())
        self.key, self.public = base / "ledger.key", base / "ledger.pub"
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        self.public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
        self.ledger = Ledger(str(base / "ledger"), str(self.key))

    def run(self, *tasks: dict[str, Any], check: bool = False) -> list[dict[str, Any]]:
        """Run tasks on localhost; returns their results."""
        playbook, answers = self.base / "play.yml", self.base / "answers.json"
        named = [{**task, "register": f"r{n}", "ignore_errors": True} for n, task in enumerate(tasks)]
        registered = ", ".join(f"r{n}" for n in range(len(tasks)))
        keep = {"content": "{{ [" + registered + "] | to_json }}", "dest": str(answers)}
        plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [
            *named, {"ansible.builtin.copy": keep, "check_mode": False}]}]  # fmt: skip
        playbook.write_text(json.dumps(plays))
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), str(playbook), *(["--check"] if check else [])],
            env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false"}, cwd=self.base, timeout=120, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        results: list[dict[str, Any]] = json.loads(answers.read_text())
        return results


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A ledger with two signed records and one quarantine."""
    place = Place(tmp_path)
    place.ledger.append("rollout_started", {"model": "digits"}, "r1")
    place.ledger.append("quarantine", {**PAIR, "reason": "golden"}, "r1")
    place.ledger.checkpoint()
    return place


def verify_task(place: Place, **more: Any) -> dict[str, Any]:
    """A ledger_verify task."""
    return {"edgeai.fleet.ledger_verify": {"path": place.ledger.directory, "public_key": str(place.public), **more}}


def test_verify_then_tamper(place: Place) -> None:
    good = place.run(verify_task(place))[0]
    assert good["ok"] is True and (good["records"], good["checkpoints"], good["unsigned_tail"]) == (3, 1, 0)
    place.ledger.append("note", {})
    lines = Path(place.ledger.path).read_bytes()
    late = place.run(verify_task(place, expect_head=good["head"]), verify_task(place, max_unsigned=0))
    assert late[0]["ok"] is True and late[1]["ok"] is False and late[1]["failed"] is True
    Path(place.ledger.path).write_bytes(lines.replace(b'"golden"', b'"gelden"'))
    bad = place.run(verify_task(place), verify_task(place, public_key=str(place.base / "none")))
    assert bad[0]["failed"] is True and "line 3" in bad[0]["problems"][0] and place.ledger.directory in bad[0]["msg"]
    assert str(place.base / "none") in bad[1]["msg"]


def test_a_quarantine_is_listed_lifted_and_set_again(place: Place) -> None:
    common = {"ledger": place.ledger.directory, "ledger_key": str(place.key)}

    def task(**more: Any) -> dict[str, Any]:
        return {"edgeai.fleet.quarantine": {**common, **more}}

    listed, other = place.run(task(), task(model="other"))
    assert listed["entries"][0]["reason"] == "golden" and listed["entries"][0]["rollout"] == "r1"
    assert other["entries"] == [] and listed["changed"] is False

    lift = {"state": "lifted", "model": "digits", "reason": "calibration fixed", "by": "mara"}
    predicted = place.run(task(**lift), check=True)[0]
    assert predicted["changed"] is True and quarantined(place.ledger.records())
    done, again = place.run(task(**lift), task(**lift))
    assert (done["changed"], again["changed"]) == (True, False) and done["lifted"][0]["version"] == "1.2.0"
    assert quarantined(place.ledger.records()) == {}
    record = [r for r in place.ledger.records() if r["type"] == "quarantine_lifted"][-1]
    assert record["data"]["by"] == "mara" and record["data"]["reason"] == "calibration fixed"

    place_again = {"state": "quarantined", "reason": "field report", **PAIR}
    first, second = place.run(task(**place_again), task(**place_again))
    assert (first["changed"], second["changed"]) == (True, False)
    assert quarantined(place.ledger.records()) == {(PAIR["digest"], PAIR["stratum"]): "field report"}

    unreasoned, everything = place.run(task(state="lifted", model="digits"), task(state="lifted", reason="x"))
    assert unreasoned["failed"] is True and everything["failed"] is True
    assert place.run(verify_task(place))[0]["unsigned_tail"] == 0

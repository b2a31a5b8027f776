# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The rulebook in a real ansible-rulebook: events over HTTP, and which playbook each one starts with which variables.

Needs Java 17 and fetches ansible-rulebook once; ``make test-eda`` runs it. The playbooks are stand-ins that write down
how they were called.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fleet import ROOT, free_ports, wait_for
from support.tool_venv import tool_venv

pytestmark = pytest.mark.eda
TOKEN = "token-of-alertmanager"
VARIABLES = ("edge_hosts", "edge_rollback_scope", "edge_quarantine", "edge_rollback_by", "edge_rollback_reason")


class Events:
    """A running ansible-rulebook with the collection's rulebook."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.called = base / "called"
        self.called.mkdir()
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/"
        self.log = base / "log"
        fleet = base / "collections" / "ansible_collections" / "edgeai" / "fleet"
        shutil.copytree(ROOT / "extensions", fleet / "extensions")
        shutil.copy(ROOT / "galaxy.yml", fleet)
        (fleet / "playbooks").mkdir()
        for name in ("rollback", "heal"):
            (fleet / "playbooks" / f"{name}.yml").write_text(yaml.safe_dump([self.stand_in(name)]), encoding="utf-8")
        (base / "hosts.yml").write_text("edge: {hosts: {gate-01: {}}}\n", encoding="utf-8")
        settings = {"fleet_events_port": port, "fleet_events_token": TOKEN}
        (base / "events.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.process = self.start(base)

    def stand_in(self, name: str) -> dict[str, Any]:
        """A playbook that writes down its name and variables."""
        given = {key: f"{{{{ {key} | default('') }}}}" for key in VARIABLES}
        copy = {"content": "{{ given | to_json }}", "dest": f"{self.called}/{name}-{{{{ (10 ** 9) | random }}}}.json"}
        return {
            "hosts": "all", "connection": "local", "gather_facts": False,
            "vars": {"given": {"playbook": name, **given}, "ansible_python_interpreter": sys.executable},
            "tasks": [{"ansible.builtin.copy": copy}],
        }  # fmt: skip

    def start(self, base: Path) -> subprocess.Popen[bytes]:
        if shutil.which("java") is None:
            pytest.fail("ansible-rulebook needs Java 17: apt-get install default-jre-headless", pytrace=False)
        programs = tool_venv("ansible-rulebook", "ansible-rulebook==1.3.2") / "bin"
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "ANSIBLE_COLLECTIONS_PATH": str(base / "collections"),
        }
        environment.pop("ANSIBLE_CONFIG", None)
        arguments = ["--rulebook", "edgeai.fleet.fleet", "-i", "hosts.yml", "--vars", "events.yml", "-v"]
        with open(self.log, "wb") as log:
            return subprocess.Popen(
                [str(programs / "ansible-rulebook"), *arguments],
                cwd=base, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def post(self, event: dict[str, Any], token: str = TOKEN) -> int | None:
        """Send an event; the status, None when nobody answers yet."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url, json.dumps(event).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")[-4000:]
            return None

    def calls(self) -> list[dict[str, Any]]:
        """What was called so far."""
        files = sorted(self.called.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(text) for text in (path.read_text(encoding="utf-8") for path in files) if text]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Events]:
    made = Events(tmp_path_factory.mktemp("eda"))
    try:
        wait_for(lambda: made.post({"kind": "nothing"}), 120, "ansible-rulebook answers")
        yield made
    finally:
        made.process.terminate()
        made.process.wait(60)


def alert(name: str, status: str = "firing", **labels: str) -> dict[str, Any]:
    return {"status": status, "labels": {"alertname": name, **labels}, "annotations": {}}


def test_events_start_what_they_should(events: Events) -> None:
    assert events.post({"kind": "model_drift"}, token="another") == 401
    several = [
        alert("EdgeaiDeviceDown", device="gate-01"),  # it is down: nothing to heal yet
        alert("EdgeaiDeviceDown", "resolved", device="{{ lookup('ansible.builtin.pipe', 'touch owned') }}"),
        alert("EdgeaiDeviceDown", "resolved", device="all:!gate-01"),
        alert("EdgeaiBusy", device="gate-01"),
        alert("EdgeaiDeviceDown", "resolved", device="gate-02"),
        alert("EdgeaiErrors", device="gate-01"),
        alert("EdgeaiErrors", device="gate-02"),  # within the hour: the same rollback
    ]
    assert events.post({"version": "4", "status": "firing", "alerts": several}) == 200
    assert events.post({"kind": "configuration_drift", "device": "gate-03"}) == 200
    assert events.post({"kind": "model_drift", "model": "camera"}) == 200
    wait_for(lambda: len(events.calls()) >= 4, 180, "four playbooks ran")
    found = [{key: value for key, value in call.items() if value != ""} for call in events.calls()]
    common = {"playbook": "rollback", "edge_rollback_scope": "all", "edge_rollback_by": "events"}
    expected = [
        {"playbook": "heal", "edge_hosts": "gate-02"},
        {**common, "edge_rollback_reason": "alert EdgeaiErrors"},
        {"playbook": "heal", "edge_hosts": "gate-03"},
        {**common, "edge_rollback_reason": "model drift", "edge_quarantine": True},
    ]
    assert found == expected
    assert not list(events.base.rglob("owned"))


def test_the_rulebook_fits_the_schema() -> None:
    programs = tool_venv("ansible-rulebook", "ansible-rulebook==1.3.2") / "bin"
    check = (
        "import json, sys, yaml, jsonschema, ansible_rulebook.schema, pathlib\n"
        "path = pathlib.Path(ansible_rulebook.__path__[0]) / 'schema' / 'ruleset_schema.json'\n"
        "jsonschema.validate(yaml.safe_load(open(sys.argv[1])), json.loads(path.read_text()))\n"
    )
    rulebook = ROOT / "extensions" / "eda" / "rulebooks" / "fleet.yml"
    done = subprocess.run(
        [str(programs / "python"), "-c", check, str(rulebook)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]

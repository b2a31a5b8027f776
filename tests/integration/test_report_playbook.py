"""rollout_report through ansible-playbook: writes, tells the truth about changes, refuses what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import report_sample

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return report_sample.write_ledger(tmp_path / "ledger", report_sample.demo_story())[0]


def run(ledger: Path, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the playbook edgeai.fleet.report against one local host."""
    values = {"edge_ledger": str(ledger), "edge_ledger_public_key": str(ledger / "ledger.pub.pem"), **variables}
    inventory = ledger.parent / "hosts.yml"
    inventory.write_text(
        json.dumps({"edge": {"hosts": {"device-1": {"ansible_connection": "local"}}}}), encoding="utf-8"
    )
    config = ledger.parent / "ansible.cfg"
    config.touch()
    environment = {
        **os.environ,
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [sys.executable, "-m", "ansible", "playbook", "edgeai.fleet.report", "-i", str(inventory)]
    return subprocess.run(
        [*command, "-e", json.dumps(values), *options],
        cwd=ledger.parent, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_check_then_write_then_nothing(ledger: Path) -> None:
    page = ledger / "report.html"
    foretold = run(ledger, "--check", "--diff")
    assert foretold.returncode == 0, foretold.stdout + foretold.stderr
    assert "changed=1" in foretold.stdout and not page.exists()
    written = run(ledger, "--diff")
    assert "changed=1" in written.stdout and str(page) in written.stdout
    told = [line for line in foretold.stdout.splitlines() if line.startswith(("+", "-"))]
    assert told == [line for line in written.stdout.splitlines() if line.startswith(("+", "-"))] != []
    before = page.read_bytes()
    assert b"Ledger verified" in before
    again = run(ledger)
    assert "changed=0" in again.stdout and page.read_bytes() == before
    assert [entry.name for entry in ledger.iterdir() if entry.name.startswith(".report-")] == []


def test_one_rollout_with_extra(ledger: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.json"
    extra.write_text(json.dumps(report_sample.client_extra(lost=2)), encoding="utf-8")
    wanted = "digits-1.0.0-20261123T110000Z"
    dest = tmp_path / "x" / "r.html"
    done = run(ledger, edge_report_rollouts=[wanted], edge_report_extra=str(extra), edge_report=str(dest))
    assert done.returncode == 0, done.stdout + done.stderr
    page = dest.read_text(encoding="utf-8")
    assert "digits 1.0.0" in page and 'href="#rollout-2"' not in page
    assert '<b class="bad">2</b><span>not answered' in page


def test_errors_name_what_is_wrong(ledger: Path, tmp_path: Path) -> None:
    for variables, text in (
        ({"edge_ledger": str(tmp_path / "none")}, "has no ledger.jsonl"),
        ({"edge_ledger_public_key": str(tmp_path / "no.pem")}, "no.pem"),
        ({"edge_report_rollouts": ["nobody"]}, "'nobody': no record of it"),
    ):
        done = run(ledger, **variables)
        assert done.returncode == 2 and text in done.stdout + done.stderr, done.stdout + done.stderr

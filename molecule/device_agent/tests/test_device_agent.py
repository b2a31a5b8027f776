"""What watches over releases runs without a controller."""

from __future__ import annotations

import json
from typing import Any


def test_the_agent_runs_now_and_after_a_reboot(host: Any) -> None:
    agent = host.service("edgeai-agent")
    assert agent.is_running and agent.is_enabled
    assert host.service("edgeai-check").is_enabled


def test_it_may_do_little(host: Any) -> None:
    shown = host.check_output("systemctl show edgeai-agent -p NoNewPrivileges -p ProtectSystem -p PrivateTmp")
    assert set(shown.split()) == {"NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes"}


def test_a_person_on_the_device_gets_answers(host: Any) -> None:
    program = host.file("/usr/local/bin/edgeai-device")
    assert program.user == "root" and program.mode == 0o755
    assert json.loads(host.check_output("edgeai-device version --json"))["version"]
    assert host.run("edgeai-device verify").rc == 0

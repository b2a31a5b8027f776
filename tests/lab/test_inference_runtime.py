# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The role inference_runtime over ssh: cut off in mid-transfer, damaged; only what is missing travels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fleet import ROOT, wait_for

NAME = "lab-06"
HOME = "/opt/edgeai-runtime-test/edgeai"
PLAY = """
- hosts: {name}
  gather_facts: false
  vars:
    ansible_python_interpreter: /usr/bin/python3
    edge_runtime_home: {home}/runtimes
    edge_wheelhouse: {wheelhouse}
    edge_trust_keys: [{wheelhouse}/../keys/release.pub.pem]
  tasks:
    - ansible.builtin.include_role:
        name: edgeai.fleet.inference_runtime
    - ansible.builtin.copy:
        content: >-
          {{{{ inference_runtime_result | combine({{'pushed': _inference_runtime_installed.pushed}}) | to_json }}}}
        dest: {result}
        mode: "0644"
      delegate_to: localhost
      become: false
      vars: {{ansible_connection: local, ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"}}
      changed_when: false
      when: inference_runtime_state | default('present') == 'present'
"""


class Play:
    """The role, applied to one device from the controller."""

    def __init__(self, lab: Any, wheelhouse: Path, work: Path) -> None:
        self.device, self.work, self.result = lab.device(NAME), work, work / "result.json"
        text = PLAY.format(name=NAME, home=HOME, wheelhouse=wheelhouse, result=self.result)
        (work / "play.yml").write_text(text, encoding="utf-8")
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        self.command = [program, str(work / "play.yml"), "-i", str(lab.inventory)]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        plain = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
        with open(self.work / "log", "w", encoding="utf-8") as log:
            return subprocess.Popen(
                [*self.command, *arguments], cwd=self.work, env={**os.environ, **plain}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip

    def run(self, *arguments: str) -> dict[str, Any]:
        """Apply it to its end; returns what it reported."""
        self.result.unlink(missing_ok=True)
        status = self.start(*arguments).wait(timeout=600)
        assert status == 0, (self.work / "log").read_text(encoding="utf-8")
        return dict(json.loads(self.result.read_text(encoding="utf-8"))) if self.result.exists() else {}

    def on(self, *command: str) -> str:
        """What a command prints on the device, past its network; empty when it fails."""
        done = self.device.exec(list(command), timeout=60, check=False)
        return str(done.stdout) if done.returncode == 0 else ""


@pytest.fixture(scope="module")
def play(lab: Any, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    made = Play(lab, wheelhouse, tmp_path_factory.mktemp("play"))
    yield made
    made.run("-e", "inference_runtime_state=absent")
    assert made.on("find", os.path.dirname(HOME)).split() == [os.path.dirname(HOME)]
    made.on("rmdir", os.path.dirname(HOME))


def test_cut_off_in_the_middle_then_finished_then_unchanged(play: Play) -> None:
    process = play.start()
    wait_for(lambda: len(play.on("sh", "-c", f"ls {HOME}/runtimes/.inbox-*").split()) > 3, 300, "some wheels arrived")
    play.device.cut()
    try:
        assert process.wait(timeout=300) != 0
    finally:
        play.device.join()
    assert play.on("readlink", f"{HOME}/runtimes/current") == ""
    done = play.run()
    assert done["changed"] and done["provider"] == "CPUExecutionProvider"
    lock = json.loads(play.on("cat", f"{HOME}/runtimes/current/edgeai-environment.json"))["lock"]
    assert 0 < done["pushed"]["wheels"] < len(lock["packages"]) - 1, "what had arrived did not travel again"
    again = play.run()
    assert not again["changed"] and again["pushed"] == {"wheels": 0, "bytes": 0}
    assert sorted(play.on("ls", "-A", f"{HOME}/runtimes").split()) == sorted(
        [".lock", "current", Path(done["environment"]).name]
    )


def test_damage_is_repaired_with_one_wheel(play: Play) -> None:
    victim = play.on("sh", "-c", f"ls {HOME}/runtimes/current/lib/python3*/site-packages/uvicorn/main.py").strip()
    assert victim and play.on("sh", "-c", f"echo rot >> {victim}; echo done")
    done = play.run()
    assert done["changed"] and done["pushed"]["wheels"] == 1
    assert not play.run()["changed"]

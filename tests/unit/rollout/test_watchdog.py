# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The watchdog's lock, and how it calls the rollback playbook; whole runs are in the integration tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import watchdog_lock, watchdog_main
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.watchdog_run import RollbackRun, clean_environment


def test_the_lock_is_of_one_rollout_and_ends_with_its_process(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert watchdog_lock.living(directory, "digits") is None
    with pytest.raises(RolloutError, match="there is none"):
        watchdog_lock.require_watchdog(directory, "digits", "r1")
    lock = watchdog_lock.take(directory, "digits", "r1")
    watchdog_lock.require_watchdog(directory, "digits", "r1")
    with pytest.raises(RolloutError, match="of rollout r1"):
        watchdog_lock.require_watchdog(directory, "digits", "r2")
    with pytest.raises(RolloutError, match="there is none"):
        watchdog_lock.require_watchdog(directory, "other", "r1")
    with pytest.raises(RolloutError, match="still at work"):
        watchdog_lock.take(directory, "digits", "r2", patience=0.0)
    os.close(lock)  # what the kernel does when the process ends
    assert watchdog_lock.living(directory, "digits") is None
    assert Path(watchdog_lock.lock_path(directory, "digits")).exists()  # a file alone vouches for nothing


def test_a_model_name_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="plain name"):
        watchdog_lock.lock_path(str(tmp_path), "../digits")


def test_what_is_secret_goes_into_files_of_the_owner(tmp_path: Path) -> None:
    run: dict[str, Any] = {
        "inventory": ["/inv/a.yml", "h1,h2,"],
        "options": ["--user=deploy", "--become"],
        "vault": [["site", "vault-secret"], ["default", "other-secret"]],
        "become_password": "become-secret",
        "connection_password": "ssh-secret",
        "extra_vars": [{"file": "/etc/x.yml"}, {"yaml": '{"token": "token-secret"}'}],
    }
    arguments = RollbackRun(run, "r1").arguments(str(tmp_path))
    assert arguments[:6] == ["-i", "/inv/a.yml", "-i", "h1,h2,", "--user=deploy", "--become"]
    assert "-secret" not in " ".join(arguments)
    assert f"site@{tmp_path}/vault0" in arguments and "@/etc/x.yml" in arguments
    contents = {path.read_text() for path in tmp_path.iterdir()}
    for secret in ("vault-secret", "other-secret", "become-secret", "ssh-secret", run["extra_vars"][1]["yaml"]):
        assert secret in contents
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    last = Path(arguments[-1][1:])
    assert json.loads(last.read_text())["rollout_id"] == "r1"


def test_a_runner_leaves_no_variables_to_a_nested_run() -> None:
    environment = {"AWX_ISOLATED_DATA_DIR": "/x", "ANSIBLE_CALLBACK_PLUGINS": "/runner", "PATH": "/bin", "HOME": "/",
                   "ANSIBLE_STDOUT_CALLBACK": "awx_display", "RUNNER_OMIT_EVENTS": "True"}  # fmt: skip
    clean_environment(environment)
    assert set(environment) == {"PATH", "HOME"}
    assert environment["PATH"].split(os.pathsep) == [os.path.dirname(sys.executable), "/bin"]
    own = {"ANSIBLE_CALLBACK_PLUGINS": "/mine", "PATH": "/bin"}
    clean_environment(own)
    assert own["ANSIBLE_CALLBACK_PLUGINS"] == "/mine"  # without a runner around it, it is the user's


def started(tmp_path: Path, config: dict[str, Any] | None) -> subprocess.Popen[bytes]:
    """The watchdog's program with a configuration on its standard input."""
    watchdog = subprocess.Popen(
        [sys.executable, watchdog_main.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    )
    assert watchdog.stdin is not None
    if config is not None:
        watchdog.stdin.write(json.dumps(config).encode() + b"\n")
        watchdog.stdin.flush()
    return watchdog


def config_of(tmp_path: Path, **changed: Any) -> dict[str, Any]:
    """What the callback would send, of a run that is this process."""
    config = {"ledger": str(tmp_path), "rollout": "r1", "model": "digits", "pid": os.getpid(),
              "run": {"cwd": str(tmp_path), "playbook": "none", "collections_path": "/none"}}  # fmt: skip
    return {**config, **changed}


def first_line(watchdog: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Its answer."""
    assert watchdog.stdout is not None
    answer: dict[str, Any] = json.loads(watchdog.stdout.readline())
    return answer


def test_a_run_with_a_verdict_lets_it_go(tmp_path: Path) -> None:
    watchdog = started(tmp_path, config_of(tmp_path))
    assert first_line(watchdog) == {"armed": watchdog.pid}
    watchdog_lock.require_watchdog(str(tmp_path), "digits", "r1")
    assert watchdog.stdin is not None
    watchdog.stdin.write(b"\n\nend\n")
    watchdog.stdin.close()
    assert watchdog.wait(30) == 0
    assert [r["data"]["event"] for r in Ledger(str(tmp_path)).records()] == ["armed"]


def test_a_pipe_that_closes_after_the_verdict_is_no_alarm(tmp_path: Path) -> None:
    """The run may be killed between its last record and its word to the watchdog."""
    watchdog = started(tmp_path, config_of(tmp_path))
    first_line(watchdog)
    Ledger(str(tmp_path)).append("rollout_finished", {"status": "succeeded"}, "r1")
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    assert watchdog.wait(30) == 0
    assert [r["type"] for r in Ledger(str(tmp_path)).records()] == ["watchdog", "rollout_finished"]


def test_a_pipe_that_closes_with_nothing_to_take_back_closes_the_rollout(tmp_path: Path) -> None:
    watchdog = started(tmp_path, config_of(tmp_path))
    first_line(watchdog)
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    assert watchdog.wait(30) == 0
    finished = list(Ledger(str(tmp_path)).records("r1"))[-1]
    assert (finished["type"], finished["data"]["status"]) == ("rollout_finished", "aborted")


@pytest.mark.parametrize(("changed", "words"), [
    ({"ledger": "/proc/none"}, "/proc/none"),
    ({"surprise": 1}, "surprise"),
    ({"model": "../x"}, "plain name"),
])  # fmt: skip
def test_what_cannot_be_armed_says_why(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    watchdog = started(tmp_path, config_of(tmp_path, **changed))
    assert words in first_line(watchdog)["refused"]
    assert watchdog.wait(30) == 1


def test_no_configuration_is_refused(tmp_path: Path) -> None:
    watchdog = started(tmp_path, None)
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    assert "no configuration" in first_line(watchdog)["refused"]
    assert watchdog.wait(30) == 1

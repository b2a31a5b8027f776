# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Rollouts through ansible-runner: to their end, cancelled in the middle, and out of time. A cancel is a SIGKILL."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
import yaml
from support.fleet import ROOT, Fleet, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import verify

EXAMPLE = ROOT / "examples" / "runner"
HOSTS = ["left", "right"]
#: A device goes back by itself after confirm_within; the other figures are as small as that asks for.
SHORT = {"confirm_within": 28, "soak": 10, "deadlines": {"activate": 16, "confirm": 1}}


class Private:
    """The documented private data directory, with the fleet's inventory and a home directory nobody may write to."""

    def __init__(self, base: Path, fleet: Fleet) -> None:
        self.base = base
        self.home = base / "home"
        shutil.copytree(EXAMPLE, base)
        shutil.copytree(ROOT / "templates" / "awx", base / "project" / "awx")
        self.home.mkdir()
        (base / "inventory" / "hosts.yml").unlink()
        self.fleet = fleet
        self.artifact: dict[str, Any] = {}
        environment = yaml.safe_load((base / "env" / "envvars").read_text(encoding="utf-8"))
        environment = {name: value.replace("/runner/", f"{base}/") for name, value in environment.items()}
        environment["HOME"] = str(self.home)
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        (base / "env" / "envvars").write_text(yaml.safe_dump(environment), encoding="utf-8")

    def start(self, ident: str, playbook: str = "edgeai.fleet.rollout", **settings: Any) -> Job:
        """Start a playbook in the background, with this inventory as it is now."""
        shutil.copy(self.fleet.inventory, self.base / "inventory" / "fleet.yml")
        return Job(str(self.base), playbook, ident, settings)

    def finished(self, ident: str, playbook: str, **settings: Any) -> Job:
        """Run a playbook to a good end."""
        job = self.start(ident, playbook, **settings)
        assert job.status() == "successful", job.runner.stdout.read()
        return job

    def project(self) -> dict[str, bytes]:
        """Every file of the project, with its content."""
        files = [path for path in (self.base / "project").rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files}


class Job:
    """A run of ansible-runner, as a platform starts it."""

    def __init__(self, private: str, playbook: str, ident: str, settings: dict[str, Any]) -> None:
        self._cancel = threading.Event()
        self.thread, self.runner = ansible_runner.run_async(
            private_data_dir=private, playbook=playbook, ident=ident, quiet=True, cancel_callback=self._cancel.is_set,
            suppress_env_files=True,
            **settings,
        )  # fmt: skip

    def cancel(self) -> None:
        """What a platform's cancel button does."""
        self._cancel.set()

    def out_of_time(self) -> None:
        """The time limit is over now: the test knows when the rollout is in its middle, a figure would not."""
        self.runner.config.job_timeout = 1

    def status(self) -> str:
        """Wait for the end and return how it was."""
        self.thread.join(240)
        assert not self.thread.is_alive()
        return str(self.runner.status)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two provisioned devices, one after the other in a rollout."""
    made = Fleet(tmp_path_factory.mktemp("runner"), {name: {} for name in HOSTS})
    try:
        made.release("1.0.0")
        made.release("1.1.0")
        made.provision()
        yield made
    finally:
        made.destroy()


def artifact_of(event: dict[str, Any]) -> dict[str, Any]:
    """What a run hands to the nodes behind it in a workflow."""
    return event.get("event_data", {}).get("artifact_data", {})


@pytest.fixture(scope="module")
def private(fleet: Fleet) -> Private:
    """The directory after a first rollout, by the playbooks of AWX's workflow: plan, rollout of that plan, confirm."""
    made = Private(fleet.home / "private", fleet)
    before = made.project()
    plan = made.finished("plan", "awx/plan.yml", cmdline="--check")
    (made.artifact,) = [found for found in map(artifact_of, plan.runner.events) if found]
    made.finished("first", "awx/rollout.yml", extravars=made.artifact)
    made.finished("confirm", "awx/confirm.yml")
    assert set(fleet.serving().values()) == {"1.0.0"}
    assert made.project() == before and before, "a run wrote to its project"
    assert list(made.home.iterdir()) == [], "a run wrote to the home directory"
    return made


def whole(fleet: Fleet) -> None:
    """The ledger verifies, and no device is between two releases."""
    report = verify(str(fleet.ledger_file), (fleet.home / "ledger.pub.pem").read_bytes())
    assert report.ok, report.problems
    assert [fleet.state(host)["unconfirmed"] for host in HOSTS] == [None, None]


def in_its_soak(private: Private, ident: str, policy: dict[str, Any]) -> Job:
    """A rollout of 1.1.0 whose canary serves it and waits for its verdict."""
    fleet = private.fleet
    fleet.policy.update(policy)
    fleet.policy["gate"]["timeout"] = 15
    fleet.desire("1.1.0")
    seen = len(fleet.records())
    job = private.start(ident)
    wait_for(
        lambda: any(record["type"] == "verdict" for record in fleet.records()[seen:]) or not job.thread.is_alive(),
        120,
        "the verdict after activation",
    )
    assert job.thread.is_alive(), job.runner.stdout.read()
    assert "1.1.0" in fleet.serving().values()
    return job


def statuses(fleet: Fleet) -> list[str]:
    """How the rollouts in the ledger ended, in order."""
    return [record["data"]["status"] for record in fleet.records("rollout_finished")]


def test_a_rollout_leaves_its_events_and_nothing_else(private: Private) -> None:
    artifacts = private.base / "artifacts" / "first"
    assert (artifacts / "status").read_text() == "successful" and list((artifacts / "job_events").glob("*.json"))
    assert statuses(private.fleet) == ["succeeded"]
    whole(private.fleet)


def test_a_cancelled_rollout_is_taken_back_by_the_watchdog(private: Private) -> None:
    fleet = private.fleet
    job = in_its_soak(private, "cancelled", {"soak": 300, "confirm_within": 700})
    job.cancel()
    assert job.status() == "canceled"
    wait_for(lambda: statuses(fleet)[-1] == "aborted", 120, "the watchdog closes the rollout")
    assert set(fleet.serving().values()) == {"1.0.0"}
    assert fleet.records("rollback_started")[-1]["data"]["by"] == "watchdog"
    whole(fleet)


def test_an_awx_workflow_rolls_out_only_the_plan_it_showed(private: Private) -> None:
    fleet = private.fleet
    fleet.desire("1.1.0")
    refused = private.start("refused", "awx/rollout.yml", extravars=private.artifact)
    assert refused.status() == "failed", "the plan was for another release"
    assert private.artifact["edge_plan_hash"] in refused.runner.stdout.read()
    assert set(fleet.serving().values()) == {"1.0.0"}
    confirm = private.start("unconfirmed", "awx/confirm.yml")
    assert confirm.status() == "failed", "no device serves what git names"


def test_a_timeout_that_ends_the_container_leaves_the_devices_own_deadline(private: Private) -> None:
    """In an execution environment the watchdog dies with the container; the canary goes back without a controller."""
    fleet = private.fleet
    job = in_its_soak(private, "late", SHORT)
    armed = [record["data"] for record in fleet.records("watchdog") if record["data"]["event"] == "armed"]
    os.kill(armed[-1]["pid"], signal.SIGSTOP)  # a container ends both at once: neither may act for the other
    job.out_of_time()
    assert job.status() == "timeout"
    os.kill(armed[-1]["pid"], signal.SIGKILL)
    wait_for(lambda: set(fleet.serving().values()) == {"1.0.0"}, 120, "the canary back by its own deadline")
    wait_for(lambda: all(fleet.state(host)["unconfirmed"] is None for host in HOSTS), 60, "and nothing open")
    assert len(statuses(fleet)) == 2, "nobody closed it yet"

    whole(fleet)
    closing = private.start("closing", "edgeai.fleet.rollback")
    assert closing.status() == "successful", closing.runner.stdout.read()
    assert fleet.records("rollback_finished")[-1]["data"]["remaining"] == []
    whole(fleet)

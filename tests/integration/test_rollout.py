"""Whole rollouts over small local fleets: real playbooks, supervisors, model servers, faults."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fleet import MODEL, OLD_CPU, Fleet, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import verify

NEW, OLD = ["new-1", "new-2", "new-3"], ["old-1", "old-2", "old-3"]
BAD_ON_OLD = ["onnxruntime/fp32-old"]


def hosts(**extra: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Three devices with this machine's CPU, three with a recorded one: two strata."""
    found: dict[str, dict[str, Any]] = {name: {} for name in NEW}
    found.update({name: {"edge_sysroot": OLD_CPU} for name in OLD})
    for name, variables in extra.items():
        found.setdefault(name.replace("_", "-"), {}).update(variables)
    return found


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Any]:
    """Return a function that makes a provisioned fleet with release 1.0.0 rolled out."""
    made: list[Fleet] = []

    def make(devices: dict[str, dict[str, Any]], policy: dict[str, Any] | None = None) -> Fleet:
        fleet = Fleet(tmp_path, devices, policy)
        made.append(fleet)
        fleet.release("1.0.0")
        fleet.provision()
        done = fleet.playbook("rollout")
        assert done.rc == 0, done
        assert set(fleet.serving().values()) == {"1.0.0"}, done
        return fleet

    yield make
    for fleet in made:
        fleet.destroy()


def check_ledger(fleet: Fleet) -> None:
    """The ledger verifies with its public key."""
    report = verify(str(fleet.ledger_file), (fleet.home / "ledger.pub.pem").read_bytes())
    assert report.ok, report.problems


def results(fleet: Fleet, host: str, action: str) -> list[dict[str, Any]]:
    """The recorded results of one action on one host."""
    found = [record["data"] for record in fleet.records("result") if record["host"] == host]
    return [data for data in found if data["action"] == action]


def test_a_bad_release_comes_back_by_itself(make_fleet: Any) -> None:
    fleet = make_fleet(hosts())
    fleet.release("1.1.0")
    fleet.desire("1.1.0")
    done = fleet.playbook("rollout")
    assert done.rc == 0, done
    assert set(fleet.serving().values()) == {"1.1.0"}
    assert "changed=0" in _recap(fleet.playbook("rollout"))

    fleet.release("1.2.0", bad=BAD_ON_OLD)
    fleet.desire("1.2.0")
    done = fleet.playbook("rollout")
    assert done.rc == 2, done
    assert fleet.serving() == {**dict.fromkeys(NEW, "1.2.0"), **dict.fromkeys(OLD, "1.1.0")}
    pairs = [(record["data"]["version"], record["data"]["stratum"]) for record in fleet.records("quarantine")]
    assert len(pairs) == 1 and pairs[0][0] == "1.2.0" and pairs[0][1].startswith("cpu/onnxruntime/"), pairs
    touched = {record["host"] for record in fleet.records("intent") if record["data"]["version"] == "1.2.0"}
    assert len(touched & set(OLD)) == 1, "only the canary of the bad stratum may have been asked"

    again = fleet.playbook("rollout")
    assert again.rc == 2 and "changed=0" in _recap(again), again
    assert "quarantine" in again.output
    check_ledger(fleet)


def test_policy_rollout_takes_every_stratum_back(make_fleet: Any) -> None:
    fleet = make_fleet(hosts(), {"halt": "rollout"})
    fleet.release("1.1.0", bad=BAD_ON_OLD)
    fleet.desire("1.1.0")
    done = fleet.playbook("rollout")
    assert done.rc == 2, done
    assert set(fleet.serving().values()) == {"1.0.0"}, done
    for host in NEW:
        for data in results(fleet, host, "revert"):
            assert data["golden_restored"] is True, data
    check_ledger(fleet)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 MiB at devices/new-2."""
    root = tmp_path / "devices" / "new-2"
    root.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=128m,mode=0755", "tmpfs", str(root)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


def unreachable(tmp_path: Path) -> dict[str, Any]:
    """Return the variables of a device that ssh cannot reach: a closed port."""
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    if shutil.which("ssh") is None:
        # The same answer from a stand-in where no ssh client is installed.
        client = tmp_path / "ssh"
        client.write_text("#!/bin/sh\necho 'connect to host 127.0.0.1 port 1: Connection refused' >&2\nexit 255\n")
        client.chmod(0o755)
        away["ansible_ssh_executable"] = str(client)
    return away


def test_each_device_in_trouble_ends_as_designed_and_the_others_are_served(
    small_disk: Path, make_fleet: Any, tmp_path: Path
) -> None:
    # small_disk comes first, so that it is unmounted after the fleet's processes were stopped
    away = unreachable(tmp_path)
    policy = {"device_failure_budget": {"count": 2}, "canary": {"per_stratum": 1}}
    fleet = make_fleet(hosts(), policy)
    fleet.release("1.1.0", padding=200_000)
    staged = fleet.playbook("rollout", "--check", "-e", f'{{"edge_models":{{"{MODEL}":{{"release":"1.1.0"}}}}}}')
    assert staged.rc == 0, staged

    fleet.hosts["gone-1"] = {**away, "edge_port": 1}
    fleet.desire("1.1.0")
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(b"x" * (free - 16_384))
    # a blob that was staged and rotted: same name, other bytes
    blob = fleet.home / "releases" / MODEL / "1.1.0" / "variants" / "onnxruntime" / "fp32" / "model.onnx"
    from ansible_collections.edgeai.fleet.plugins.module_utils.release.digests import sha256_file

    rotten = fleet.root("new-3") / "blobs" / "sha256" / sha256_file(blob)
    rotten.write_bytes(b"rotten" + blob.read_bytes()[6:])
    done = fleet.playbook("rollout")
    serving = fleet.serving()
    assert serving["new-2"] == "1.0.0", done
    assert {serving[host] for host in (*OLD, "new-1", "new-3")} == {"1.1.0"}, done
    assert [record["host"] for record in fleet.records("deferred") if record["host"] == "gone-1"], "gone-1 is deferred"
    assert sha256_file(rotten) == rotten.name

    filler.unlink()
    done = fleet.playbook("rollout")
    assert fleet.serving()["new-2"] == "1.1.0", done
    check_ledger(fleet)


def test_check_mode_predicts_and_the_second_run_changes_nothing(make_fleet: Any) -> None:
    fleet = make_fleet(hosts())
    fleet.release("1.1.0")
    fleet.desire("1.1.0")
    before = len(fleet.records())
    predicted = fleet.playbook("rollout", "--check", "--diff")
    assert predicted.rc == 0, predicted
    assert len(fleet.records()) == before and set(fleet.serving().values()) == {"1.0.0"}
    done = fleet.playbook("rollout", "--diff")
    assert done.rc == 0, done
    assert _recap(predicted) == _recap(done)
    again = fleet.playbook("rollout")
    assert again.rc == 0 and "changed=0" in _recap(again)


def test_limit_keeps_redundancy_groups_apart(make_fleet: Any) -> None:
    pair = {"edge_redundancy_group": "pair"}
    fleet = make_fleet(hosts(new_1=pair, new_2=pair))
    fleet.release("1.1.0")
    fleet.desire("1.1.0")
    done = fleet.playbook("rollout", "--limit", "new-1,new-2")
    assert done.rc == 0, done
    plan = fleet.records("rollout_started")[-1]["data"]["plan"]
    assert sorted(plan["hosts"]) == ["new-1", "new-2"]
    assert all(len(wave["hosts"]) == 1 for wave in plan["waves"]), plan["waves"]
    assert fleet.serving() == {**dict.fromkeys(NEW + OLD, "1.0.0"), "new-1": "1.1.0", "new-2": "1.1.0"}


def _recap(run: Any) -> list[str]:
    """The counts behind every host's name at the end of a run: ``changed=N`` once per host, sorted, without doubles."""
    import re

    return sorted(set(re.findall(r"changed=\d+", run.output))) or [run.output[-500:]]


def four() -> dict[str, dict[str, Any]]:
    """Two devices of each stratum."""
    return {name: variables for name, variables in hosts().items() if not name.endswith("3")}


def interrupted_in_its_soak(fleet: Fleet) -> subprocess.Popen[str]:
    """Start a rollout of 1.1.0 and return when its canaries serve it and wait for their verdict."""
    seen = len(fleet.records())
    run = fleet.start("rollout")
    wait_for(
        lambda: any(record["type"] == "verdict" for record in fleet.records()[seen:]),
        120,
        "the verdict after activation",
    )
    assert "1.1.0" in fleet.serving().values()
    return run


def aborted(fleet: Fleet) -> int:
    """Return how many rollouts the ledger says were aborted."""
    return sum(record["data"]["status"] == "aborted" for record in fleet.records("rollout_finished"))


def test_a_run_that_dies_in_a_wave_is_settled_by_the_watchdog(make_fleet: Any) -> None:
    fleet = make_fleet(four())
    fleet.release("1.1.0")
    fleet.policy["soak"] = 120
    fleet.desire("1.1.0")
    for number, name in enumerate(("INT", "TERM", "KILL"), start=1):
        run = interrupted_in_its_soak(fleet)
        os.kill(run.pid, getattr(signal, f"SIG{name}"))
        wait_for(lambda: set(fleet.serving().values()) == {"1.0.0"}, 120, f"every device back on 1.0.0 after {name}")
        wait_for(lambda: aborted(fleet) == number, 120, "the watchdog's last record")  # noqa: B023
        run.wait(timeout=60)
        check_ledger(fleet)


def test_with_the_watchdog_killed_too_the_devices_own_deadline_settles_it(make_fleet: Any) -> None:
    fleet = make_fleet(four())
    fleet.release("1.1.0")
    fleet.policy.update(soak=5, confirm_within=75, deadlines={"facts": 20, "activate": 30, "confirm": 10, "revert": 20})
    fleet.policy["gate"]["timeout"] = 20
    fleet.desire("1.1.0")
    run = interrupted_in_its_soak(fleet)
    watchdog = [
        record["data"]["pid"] for record in fleet.records("watchdog") if record["data"].get("event") == "armed"
    ][-1]
    os.kill(watchdog, signal.SIGKILL)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(timeout=30)
    wait_for(lambda: set(fleet.serving().values()) == {"1.0.0"}, 120, "every device back by its own deadline")
    assert all(fleet.state(host)["unconfirmed"] is None for host in four())
    # and the next run converges
    done = fleet.playbook("rollout")
    assert done.rc == 0, done
    assert set(fleet.serving().values()) == {"1.1.0"}
    check_ledger(fleet)

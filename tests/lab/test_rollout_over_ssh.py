"""The main job on real machines: updated over ssh, served under systemd, two architectures, no internet.

Devices lab-05 and lab-06 say, by a recorded /proc and /sys, that their processor has no int8 dot product: a stratum of
their own. Whatever happens to a device, three things hold afterwards: a verified model serves, the ledger verifies, and
the next run brings the device to what git names.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.fleet import MODEL, Run, wait_for
from support.lab_fleet import LabFleet, make_wheelhouse

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import verify

NEW, OLD = ["lab-01", "lab-02", "lab-03", "lab-04"], ["lab-05", "lab-06"]
BAD_ON_OLD = ["onnxruntime/fp32-old"]
AMD64 = (*NEW, *OLD)
#: Short, so that a device that waits for its own deadline does not make the test wait long.
DEADLINES = {"facts": 40, "activate": 40, "confirm": 20, "revert": 30}


@pytest.fixture(scope="module")
def fleet(mixed_lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabFleet]:
    """Every device provisioned, release 1.0.0 served by all."""
    lab, wheelhouse = mixed_lab, make_wheelhouse(mixed_lab)
    arm = [device.name for device in lab.devices if device.spec.arch == "arm64"]
    hosts: dict[str, dict[str, Any]] = {name: {} for name in NEW}
    hosts["lab-01"]["edge_redundancy_group"] = hosts["lab-02"]["edge_redundancy_group"] = "pair"
    hosts.update({name: {"edge_sysroot": LabFleet.SYSROOT} for name in OLD})
    hosts.update({name: {"edge_sysroot": LabFleet.SYSROOT, "inference_runtime_version": "1.27.0"} for name in arm})
    policy = {"canary": {"per_stratum": 1}, "growth": [1.0]}
    made = LabFleet(tmp_path_factory.mktemp("fleet"), lab, wheelhouse, hosts, policy)
    for host in OLD:
        made.pretend(host, "x86-plain")
    for host in arm:
        made.pretend(host, "pi5")
    made.release("1.0.0")
    made.write_inventory()
    made.provision()
    done = made.playbook("rollout")
    assert done.rc == 0, done
    assert set(made.serving().values()) == {"1.0.0"}, done
    yield made
    lab.renew(hosts)


@pytest.fixture
def wanted(fleet: LabFleet) -> Iterator[Callable[..., str]]:
    """Return a function that builds the next release and names it as desired. Policy changes end with the test."""
    before = dict(fleet.policy)

    def next_release(**options: Any) -> str:
        minor = int(fleet.version.split(".")[1]) + 1
        version = f"1.{minor}.0"
        fleet.release(version, **options)
        fleet.desire(version)
        return version

    yield next_release
    fleet.policy = before


def check_ledger(fleet: LabFleet) -> None:
    """The ledger verifies with its public key."""
    report = verify(str(fleet.ledger_file), (fleet.home / "ledger.pub.pem").read_bytes())
    assert report.ok, report.problems


def rollout(fleet: LabFleet, hosts: Sequence[str] = AMD64) -> Run:
    """Roll out what is wanted. Faults are tried on the machines that are not emulated: those are ten times faster."""
    return fleet.playbook("rollout", "--limit", ",".join(hosts), timeout=400)


def converges(fleet: LabFleet, version: str) -> None:
    """One more run of the same command, or two after an interrupted one, and every device serves what is wanted."""
    for _run in range(2):
        done = rollout(fleet)
        if done.rc == 0:
            break
    assert done.rc == 0, done
    serving = fleet.serving()
    assert {host: serving[host] for host in AMD64} == dict.fromkeys(AMD64, version), done
    assert all(fleet.verified(host) for host in AMD64)
    check_ledger(fleet)


def one_of_them_serves(fleet: LabFleet, host: str, versions: set[str]) -> None:
    """Some time after a fault, without a controller, a device serves one of two releases, whole and signed."""
    wait_for(lambda: (fleet.ready(host) or {}).get("version") in versions, 90, f"{host} serves one of {versions}")
    assert fleet.verified(host), fleet.run_on(host, "edgeai-device", "verify").stdout


def test_provisioning_again_changes_nothing_and_is_predicted(fleet: LabFleet) -> None:
    for arguments in (["--check"], []):
        again = fleet.playbook("provision", "--limit", "lab-01,lab-05", *arguments)
        assert again.rc == 0 and set(re.findall(r"changed=(\d+)", again.output)) == {"0"}, again


def test_a_good_release_goes_everywhere_and_a_bad_one_comes_back(fleet: LabFleet, wanted: Callable[..., str]) -> None:
    good = wanted()
    done = fleet.playbook("rollout")
    assert done.rc == 0, done
    assert set(fleet.serving().values()) == {good}
    again = fleet.playbook("rollout")
    assert again.rc == 0 and set(re.findall(r"changed=(\d+)", again.output)) == {"0"}, again
    strata = {record["data"]["stratum"] for record in fleet.records("intent")}
    architectures = {"x86_64", "aarch64"} if set(fleet.hosts) - set(AMD64) else {"x86_64"}
    assert {stratum.rsplit("/", 1)[1] for stratum in strata} == architectures, strata

    bad = wanted(bad=BAD_ON_OLD)
    done = fleet.playbook("rollout")
    assert done.rc == 2, done
    assert fleet.serving() == {**dict.fromkeys(fleet.hosts, bad), **dict.fromkeys(OLD, good)}, done
    touched = {record["host"] for record in fleet.records("intent") if record["data"]["version"] == bad}
    assert len(touched & set(OLD)) == 1, "only the canary of the bad stratum may have been asked"
    check_ledger(fleet)
    converges(fleet, wanted())


def test_each_fault_ends_as_designed_and_the_others_are_served(fleet: LabFleet, wanted: Callable[..., str]) -> None:
    """Cut off in mid-download, a full disk, a clock at 1970, sshd restarted, away for the whole rollout: in one run."""
    lab, before = fleet.lab, fleet.version
    fleet.policy.update(canary={"per_stratum": 4}, device_failure_budget={"count": 3})
    lab.device("lab-01").slow(rate="4mbit")
    lab.device("lab-02").fill()
    lab.device("lab-03").set_clock("1970-01-01")
    lab.device("lab-06").cut()
    version = wanted(padding=6_000_000)

    def cut_in_the_download() -> None:
        wait_for(lambda: fleet.receiving("lab-01"), 120, "lab-01 receives the release")
        lab.device("lab-01").cut()

    def restart_sshd() -> None:
        wait_for(lambda: any(r["host"] == "lab-04" for r in fleet.records("intent")[-7:]), 120, "lab-04 is asked")
        fleet.run_on("lab-04", "systemctl", "restart", "ssh")

    seen = len(fleet.records("intent"))
    with ThreadPoolExecutor() as pool:
        faults = [pool.submit(cut_in_the_download), pool.submit(restart_sshd)]
        done = rollout(fleet)
        for fault in faults:
            fault.result()
    assert len(fleet.records("intent")) > seen, done
    serving = fleet.serving()
    assert serving["lab-01"] == before and serving["lab-02"] == before and serving["lab-06"] == before, done
    assert serving["lab-03"] == version and serving["lab-05"] == version, done
    assert [r["host"] for r in fleet.records("deferred") if r["host"] == "lab-06"], "lab-06 is deferred"
    check_ledger(fleet)

    lab.device("lab-01").fast()
    lab.device("lab-01").join()
    lab.device("lab-02").drain()
    lab.device("lab-03").set_clock("now")
    lab.device("lab-06").join()
    converges(fleet, version)


def test_a_device_cut_off_while_it_activates_or_before_it_confirms_goes_back_by_itself(
    fleet: LabFleet, wanted: Callable[..., str]
) -> None:
    lab, before = fleet.lab, fleet.version
    fleet.policy.update(soak=10, confirm_within=75, deadlines=DEADLINES, canary={"per_stratum": 4})
    fleet.policy["gate"] = {**fleet.policy["gate"], "timeout": 30}
    version = wanted()

    def cut(host: str, when: Callable[[], Any], what: str) -> None:
        wait_for(when, 120, what)
        lab.device(host).cut()

    def activated() -> bool:
        return any(record["op"] == "activate" and version in str(record) for record in fleet.journal("lab-01"))

    def soaking() -> bool:
        found = [record for record in fleet.records("result") if record["host"] == "lab-02"]
        return bool(found) and found[-1]["data"]["version"] == version and not found[-1]["data"]["failed"]

    with ThreadPoolExecutor() as pool:
        faults = [
            pool.submit(cut, "lab-01", activated, "lab-01 activates"),
            pool.submit(cut, "lab-02", soaking, "lab-02 soaks"),
        ]
        done = rollout(fleet, ["lab-01", "lab-02", "lab-03"])
        for fault in faults:
            fault.result()
    # No controller reaches them any more: their own deadline settles it.
    for host in ("lab-01", "lab-02"):
        wait_for(lambda: (fleet.ready(host) or {}).get("version") == before, 150, f"{host} is back")  # noqa: B023
        assert fleet.state(host)["unconfirmed"] is None and fleet.verified(host), done
        lab.device(host).join()
    check_ledger(fleet)
    converges(fleet, version)


@pytest.mark.parametrize(
    "turns", [pytest.param(2, id="ten"), pytest.param(2, id="ten-more", marks=pytest.mark.thorough)]
)
def test_power_cuts_at_random_moments_of_the_activation(
    fleet: LabFleet, wanted: Callable[..., str], turns: int
) -> None:
    """Five devices at a time, each at a moment of its own, with writes lost that were not synced."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # shown when the test fails
    moments = random.Random(seed)
    lab = fleet.lab
    victims = ["lab-02", "lab-03", "lab-04", *OLD]
    fleet.policy.update(canary={"per_stratum": 4}, confirm_within=75, deadlines=DEADLINES)
    fleet.policy["gate"] = {**fleet.policy["gate"], "timeout": 30}
    possible = {fleet.version}
    for _turn in range(turns):
        version = wanted(padding=300_000)
        possible.add(version)
        seen = len(fleet.records("intent"))

        def cut(host: str, after: float) -> None:
            wait_for(lambda: any(r["host"] == host for r in fleet.records("intent")[seen:]), 120, f"{host} is asked")  # noqa: B023
            time.sleep(after)  # the fault's own moment, waited for by nobody
            lab.device(host).power_cut()

        threads = [threading.Thread(target=cut, args=(host, moments.uniform(0.0, 4.0))) for host in victims]
        for thread in threads:
            thread.start()
        rollout(fleet, victims)
        for thread in threads:
            thread.join()
        for host in victims:
            lab.device(host).power_on(wait=False)
        for host in victims:
            lab.device(host).wait_booted()
        for host in victims:
            one_of_them_serves(fleet, host, possible)
        check_ledger(fleet)
    converges(fleet, wanted())
    assert MODEL in fleet.run_on("lab-02", "edgeai-device", "history").stdout

"""The lab's six amd64 devices over ssh, each against ``ansible -m ping`` to the same devices in the same run.

Prints the ratios of provisioning bare devices, of doing it again, of a whole rollout and of one with nothing to
do, and the bytes that a second release pushes against the size of what changed in it. Needs root (tests/lab).

    python tests/benchmarks/bench_lab.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import conftest  # links the checkout into COLLECTIONS

sys.path.insert(0, str(conftest.COLLECTIONS))
from lab.api import Lab
from support.fleet import MODEL
from support.lab_fleet import LabFleet, make_wheelhouse

DEVICES = [f"lab-{number:02d}" for number in range(1, 7)]
PADDING = 4_000_000


def timed(fleet: LabFleet, playbook: str, *arguments: str) -> float:
    """Run a playbook that must succeed; return its seconds."""
    began = time.monotonic()
    done = fleet.playbook(playbook, *arguments, timeout=900)
    if done.rc:
        sys.exit(f"{playbook}: {done}")
    return time.monotonic() - began


def ping(fleet: LabFleet) -> float:
    """Seconds of a ping to every device, the better of two."""
    program = str(Path(sys.executable).parent / "ansible")
    command = [program, "edge", *(f"--inventory={path}" for path in fleet.inventories()), "-m", "ansible.builtin.ping"]
    seconds = []
    for _turn in range(2):
        began = time.monotonic()
        subprocess.run(command, env=fleet.environment(), check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.monotonic() - began)
    return min(seconds)


def pushed(fleet: LabFleet, version: str) -> int:
    """Bytes that the devices say they received of a release."""
    records = [record["data"] for record in fleet.records("result")]
    found = [data["transfer"]["bytes"] for data in records if data["version"] == version and data.get("transfer")]
    return sum(found)


def main() -> None:
    """Measure, print, and leave the devices as they were."""
    lab = Lab()
    lab.up(len(DEVICES), 0)
    policy = {"canary": {"per_stratum": len(DEVICES)}, "gate": {"samples": 16, "requests": 20, "timeout": 60}}
    with tempfile.TemporaryDirectory() as home:
        fleet = LabFleet(Path(home), lab, make_wheelhouse(lab), {name: {} for name in DEVICES}, policy)
        try:
            first, again = timed(fleet, "provision"), timed(fleet, "provision")
            base = ping(fleet)
            fleet.release("1.0.0", padding=PADDING)
            fleet.write_inventory()
            rollout, idle = timed(fleet, "rollout"), timed(fleet, "rollout")
            fleet.release("1.1.0", padding=PADDING)
            fleet.desire("1.1.0")
            timed(fleet, "rollout")
            files = (fleet.home / "releases" / MODEL / "1.1.0").rglob("fp32/*")
            changed, sent = len(DEVICES) * sum(path.stat().st_size for path in files), pushed(fleet, "1.1.0")
        finally:
            fleet.destroy()
    print(f"{len(DEVICES)} devices over ssh; ping {base:.1f} s")
    for name, seconds in (
        ("provision bare devices", first),
        ("provision again", again),
        ("rollout in one wave", rollout),
        ("rollout with nothing to do", idle),
    ):
        print(f"{name}: {seconds:.1f} s, {seconds / base:.1f} pings")
    print(f"pushed {sent} bytes for {changed} that changed: {sent / changed:.3f}")


if __name__ == "__main__":
    main()

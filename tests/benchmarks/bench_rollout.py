"""Whole rollout of N local devices without a server, against ``ansible -m ping`` on the same devices in the same run.

Goal: at most 3 times a ping, for facts, activation and confirmation with everything written to the ledger.

    python tests/benchmarks/bench_rollout.py [50 200]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import conftest  # links the checkout into COLLECTIONS

sys.path.insert(0, str(conftest.COLLECTIONS))
from support.fleet import MODEL, Fleet

from ansible_collections.edgeai.fleet.plugins.module_utils.device import setup


def timed(command: list[str], fleet: Fleet) -> float:
    """Run a command that must succeed; return its seconds."""
    began = time.monotonic()
    done = subprocess.run(
        command, env=fleet.environment(), cwd=fleet.home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout.decode()[-4000:]}")
    return time.monotonic() - began


def measure(count: int, home: Path) -> None:
    """Print the ratio for a fleet of ``count`` devices."""
    hosts = {f"device-{number:04d}": {} for number in range(count)}
    fleet = Fleet(home, hosts, {"gate": {"enabled": False}})  # there is no server to measure
    fleet.release("1.0.0")
    key = (home / "release.pub.pem").read_text()
    for host in fleet.hosts:
        settings = {"device_id": host, "server": None, "runtime": "onnxruntime", "python": sys.executable}
        root = str(fleet.root(host))
        setup.apply_setup(root, setup.plan_setup(root, settings, [key], []))
    ping = [
        str(Path(sys.executable).parent / "ansible"),
        "edge",
        "-i",
        str(fleet.inventory),
        "-m",
        "ansible.builtin.ping",
    ]
    ping_seconds = min(timed([*ping, "-o"], fleet) for _turn in range(2))
    rollout_seconds = timed(fleet.command("rollout"), fleet)
    active = sum((fleet.root(host) / "models" / MODEL / "current").is_symlink() for host in fleet.hosts)
    again_seconds = timed(fleet.command("rollout"), fleet)
    print(
        f"{count} devices: ping {ping_seconds:.1f} s, rollout {rollout_seconds:.1f} s ({active} active), ratio "
        f"{rollout_seconds / ping_seconds:.2f} (goal <= 3); nothing to do: {again_seconds / ping_seconds:.2f}",
        flush=True,
    )


def main() -> None:
    """Measure the sizes named on the command line, 50 and 200 by default."""
    os.environ.setdefault("ANSIBLE_FORKS", str(2 * (os.cpu_count() or 1)))
    for count in [int(text) for text in sys.argv[1:]] or [50, 200]:
        with tempfile.TemporaryDirectory() as home:
            measure(count, Path(home))


if __name__ == "__main__":
    main()

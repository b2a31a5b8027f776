"""How long a plan takes: 100,000 devices, a verdict, detection power. Goal: the plan below 1 s.

Run: python tests/benchmarks/bench_plan.py [--devices 100000]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import conftest  # links the checkout into COLLECTIONS

sys.path.insert(0, str(conftest.COLLECTIONS))
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Device, Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.gates import wave_verdict
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan, plan_hash
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import parse_policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.stats import detectable_rate

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
GOAL = 1.0


def timed(action: Callable[[], object], repeat: int = 3) -> tuple[float, float]:
    """Return (best wall seconds, best CPU seconds): others may use the machine, the best run is the least disturbed."""
    walls, cpus = [], []
    for _turn in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def fleet(count: int) -> list[Device]:
    """Seven strata; four devices in five are in a redundancy group of three; one in a hundred is away."""
    return [
        Device(
            f"device-{index:06d}",
            stratum=f"kind{index % 7}/onnxruntime/aarch64",
            redundancy_group=f"group-{index // 3}" if index % 5 else None,
            site=f"site-{index % 400}",
            reachable=index % 100 != 7,
            active_digest=OLD,
        )
        for index in range(count)
    ]


def answer() -> dict[str, object]:
    """What a device that passed returns."""
    evidence = {"digest": NEW, "start_id": "s", "boot_id": "b", "time": "2026-11-23T11:00:00Z"}
    gates = [
        {"gate": name, "phase": phase, "verdict": "pass", "evidence": evidence}
        for phase in ("candidate", "serving")
        for name in ("golden", "latency", "memory")
    ]
    return {
        "result": "activated",
        "gates": gates,
        "server": {"digest": NEW, "start_id": "s"},
        "active": {"digest": NEW},
    }


def main() -> int:
    """Print the figures; the exit status says whether the goal was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    count = parser.parse_args().devices
    devices, release = fleet(count), Release("digits", "1.2.0", NEW)
    policy = parse_policy({"failure_budget": {"share": 0.02}})
    plan = make_plan(devices, release, policy, "bench")
    wall, cpu = timed(lambda: make_plan(devices, release, policy, "bench"))
    print(f"plan of {count} devices in {len(plan['waves'])} waves {plan['sizes']}: {wall:.3f} s (CPU {cpu:.3f} s)")
    print(f"  goal < {GOAL} s per 100,000: {'met' if wall * 100_000 / count < GOAL else 'MISSED'}")
    wall_hash, _cpu = timed(lambda: plan_hash(plan))
    print(f"  of which its hash: {wall_hash:.3f} s")
    largest = max(plan["waves"], key=lambda wave: len(wave["hosts"]))
    results = {host: {"result": answer()} for wave in plan["waves"] for host in wave["hosts"]}
    number = largest["number"]
    wall_gate, _cpu = timed(lambda: wave_verdict(results, plan, number, "activation", policy), 1)
    print(f"verdict over its largest wave ({len(largest['hosts'])} devices): {wall_gate:.3f} s")
    rates = [timed(lambda n=n: detectable_rate([(n, n // 50)], 0.9 + n / 10**7), 1)[0] for n in (1000, 10_000, 100_000)]
    print(f"detectable rate with a budget of 2 %, n = 1e3, 1e4, 1e5: {', '.join(f'{r * 1e3:.1f} ms' for r in rates)}")
    small = [timed(lambda n=n: make_plan(fleet(n), release, policy, "bench"), 1)[0] for n in (12, 200, 2000)]
    print(f"plans of 12, 200, 2000 devices: {', '.join(f'{s * 1e3:.1f} ms' for s in small)}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    assert statistics.fmean(plan["sizes"]) > 0
    return 0 if wall * 100_000 / count < GOAL else 1


if __name__ == "__main__":
    sys.exit(main())

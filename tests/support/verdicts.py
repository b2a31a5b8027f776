"""Results of devices, and a rollout that judges them, for tests of verdicts."""

from __future__ import annotations

import itertools
import json
from typing import Any

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.fleet import Device, Release
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.gates import wave_verdict
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.planner import make_plan
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import parse_policy

NEW = "sha256:" + "a" * 64
OLD = "sha256:" + "b" * 64
A, B = "cpu-int8/onnxruntime/x86_64", "cpu/openvino/x86_64"


def gate(phase: str, verdict: str = "pass", digest: str = NEW, start_id: str | None = "s1") -> dict[str, Any]:
    return {
        "gate": "golden",
        "verdict": verdict,
        "phase": phase,
        "reason": "score 0.98",
        "evidence": {"digest": digest, "start_id": start_id, "boot_id": "b", "time": "2026-11-23T11:00:00Z"},
    }


def activated(**changes: Any) -> dict[str, Any]:
    return {
        "result": "activated",
        "changed": True,
        "gates": [gate("candidate"), gate("serving")],
        "server": {"digest": NEW, "start_id": "s1", "boot_id": "b"},
        "active": {"digest": NEW},
        "unconfirmed": {"digest": NEW},
        **changes,
    }


def confirmed(**changes: Any) -> dict[str, Any]:
    return activated(**{"result": "confirmed", "gates": [gate("soak")], "unconfirmed": None, **changes})


def failed(code: str | None = "gate", verdict: str | None = "fail", **changes: Any) -> dict[str, Any]:
    gates = [gate("candidate", verdict)] if verdict else []
    return {"failed": True, "code": code, "msg": f"{code} failed", "result": "reverted", "gates": gates, **changes}


AWAY = {"unreachable": True, "msg": "no route to host"}
FULL = failed("no_space", None, result="refused")
BAD = failed()
RESTARTED = failed(verdict="inconclusive")


class Rollout:
    """A plan and the results so far; hosts are named by stratum and number: a0, a1, ... b0, ..."""

    def __init__(self, policy: dict[str, Any] | None = None, a: int = 8, b: int = 4, deferred: int = 0) -> None:
        devices = [Device(f"a{index}", stratum=A, active_digest=OLD) for index in range(a)]
        devices += [Device(f"b{index}", stratum=B, active_digest=OLD) for index in range(b)]
        devices += [Device(f"x{index}", reachable=False, reason="away") for index in range(deferred)]
        self.policy = parse_policy(policy or {})
        self.plan = make_plan(devices, Release("digits", "1.2.0", NEW), self.policy, "r1")
        self.results: dict[str, dict[str, Any]] = {}
        self.halted: list[str] = []

    def hosts(self, wave: int, stratum: str) -> list[str]:
        return list(self.plan["waves"][wave - 1]["strata"][stratum])

    def set(self, wave: int, stratum: str, *results: Any) -> list[str]:
        """Give the stratum's devices these results, the rest of them the last one."""
        hosts = self.hosts(wave, stratum)
        for host, result in itertools.zip_longest(hosts, results[: len(hosts)], fillvalue=results[-1]):
            self.results[host] = {"result": result} if result is not None else {}
        return hosts

    def confirm(self, wave: int, stratum: str, *results: Any) -> None:
        hosts = self.hosts(wave, stratum)
        for host, result in itertools.zip_longest(hosts, results[: len(hosts)], fillvalue=results[-1]):
            self.results[host]["confirm"] = result

    def judge(self, wave: int, stage: str = "activation") -> dict[str, Any]:
        verdict = wave_verdict(self.results, self.plan, wave, stage, self.policy, self.halted)
        self.halted = verdict["halted_strata"]
        assert json.loads(json.dumps(verdict)) == verdict
        return verdict

    def pass_wave(self, wave: int) -> None:
        for stratum in self.plan["waves"][wave - 1]["strata"]:
            self.set(wave, stratum, activated())
            self.confirm(wave, stratum, confirmed())

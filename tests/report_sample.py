"""A realistic ledger for tests of the report: twelve devices, three strata, four rollouts, one release bad on one.

The records are written by hand, at chosen times, and chained and signed with the ledger's own format functions, so
that the file verifies and two calls give the same records.
"""

from __future__ import annotations

import hashlib
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout import ledger_format, ledger_keys

ORT, OPENVINO, OLD = "cpu-int8/onnxruntime/x86_64", "cpu-int8/openvino/x86_64", "cpu/onnxruntime/x86_64"
FLEET = {
    "harbour-01": ORT,
    "harbour-02": ORT,
    "harbour-03": OPENVINO,
    "harbour-04": OLD,
    "quarry-01": ORT,
    "quarry-02": ORT,
    "quarry-03": OPENVINO,
    "quarry-04": OPENVINO,
    "depot-01": ORT,
    "depot-02": OLD,
    "depot-03": OLD,
    "depot-04": OPENVINO,
}
VARIANT = {ORT: "onnxruntime/int8", OPENVINO: "openvino/int8", OLD: "onnxruntime/fp32"}
WAVES = (
    ("canary", ("harbour-01", "harbour-03", "quarry-03", "harbour-04")),
    ("growth", ("harbour-02", "quarry-01", "quarry-04", "depot-02")),
    ("growth", ("quarry-02", "depot-01", "depot-03", "depot-04")),
)
ZERO = datetime(2026, 11, 23, 11, 0, 0, tzinfo=timezone.utc)


def digest(version: str) -> str:
    """Return a stand-in release digest for a version."""
    return "sha256:" + hashlib.sha256(version.encode()).hexdigest()


class Story:
    """Collects records (offset s, type, data, rollout, host) and hands them out in time order."""

    def __init__(self, fleet: dict[str, str], waves: Any, seed: int = 7) -> None:
        self.fleet, self.waves, self.random = fleet, waves, random.Random(seed)
        self.items: list[tuple[float, str, dict[str, Any], str | None, str | None]] = []

    def add(
        self, at: float, kind: str, data: dict[str, Any], rollout: str | None = None, host: str | None = None
    ) -> None:
        """Note one record at ``at`` seconds after ZERO."""
        self.items.append((at, kind, data, rollout, host))

    def gate(self, name: str, host: str, version: str, phase: str, at: float, bad: bool = False) -> dict[str, Any]:
        """Return one gate record as a device makes it."""
        stratum, noise = self.fleet[host], self.random.random()
        value, limit, unit, reason = {
            "golden": (
                (0.3594 if bad else 0.984375 + 0.015625 * (noise > 0.4)),
                0.96,
                "score",
                "agrees with the reference",
            ),
            "latency": (1.4 + 0.9 * noise, round(14 + 8 * noise, 2), "ms", "p95 of 200 requests, incumbent 1.7 ms"),
            "memory": ((118 if stratum == ORT else 171) + 9 * noise, 1024, "MiB", "peak of the server process"),
        }[name]
        if bad:
            reason = "23 of 64 golden samples agree; the budget allows an accuracy drop of 0.02"
        moment = ledger_format.timestamp(ZERO + timedelta(seconds=at))
        start_id = hashlib.sha256(host.encode("utf-8", "replace")).hexdigest()
        return {
            "gate": name,
            "verdict": "fail" if bad else "pass",
            "phase": phase,
            "value": round(value, 4),
            "limit": limit,
            "unit": unit,
            "samples": 200 if name == "latency" else 64,
            "reason": reason,
            "evidence": {
                "digest": digest(version),
                "start_id": f"{start_id[:8]}-{start_id[8:12]}",
                "boot_id": "b1",
                "time": moment,
            },
        }

    def result(self, host: str, version: str, before: str, action: str, at: float, bad: bool = False) -> dict[str, Any]:
        """Return the data of a result record for one call of model_release."""
        phases = {"activate": ("candidate", "serving"), "confirm": ("soak",), "revert": ()}[action]
        names = {"candidate": ("golden", "latency"), "serving": ("golden", "memory"), "soak": ("golden",)}
        phases = phases[:1] if bad else phases
        gates = [self.gate(n, host, version, p, at, bad and n == "golden") for p in phases for n in names[p]]
        back = bad or action == "revert"
        outputs = hashlib.sha256(f"{before}{self.fleet[host]}".encode("utf-8", "replace")).hexdigest()
        data = {
            "action": action,
            "result": "reverted" if back else {"activate": "activated", "confirm": "confirmed"}[action],
            "changed": not bad,
            "failed": bad,
            "reverted": back,
            "gates": gates,
            "msg": "",
            "code": "gate" if bad else None,
            "active": {
                "version": before if back else version,
                "digest": digest(before if back else version),
                "variant": VARIANT[self.fleet[host]],
            },
            "server": {"digest": digest(before if back else version), "start_id": "3f2a-11", "boot_id": "b1"},
            "transfer": {"bytes": 212992, "reused_bytes": 36864, "blobs": 4} if action == "activate" else {},
            "durations_ms": {"stage": 212.4, "gate": 1490.0} if action == "activate" else {},
            "golden_before": outputs if action == "activate" else None,
            "golden_after": outputs if back else None,
            "golden_restored": True if back else None,
        }
        if bad:
            data["msg"] = "candidate gate golden failed: score 0.3594 is below 0.96; 1.1.0 kept serving"
        return data

    def start(
        self, at: float, rollout: str, version: str, skip: dict[str, str], refused: dict[str, str], unchanged: Any
    ) -> None:
        """Note the start of a rollout with its plan; ``skip``: deferred host -> reason, ``refused``: host -> reason."""
        waves = []
        for number, (kind, members) in enumerate(self.waves, 1):
            hosts = [host for host in members if host not in skip and host not in refused and host not in unchanged]
            strata: dict[str, list[str]] = {}
            for host in hosts:
                strata.setdefault(self.fleet[host], []).append(host)
            power = {s: {"failure_rate": round(1 - 0.05 ** (1 / len(h)), 4), "power": 0.95} for s, h in strata.items()}
            if hosts:
                waves.append({"number": number, "kind": kind, "hosts": hosts, "strata": strata, "detectable": power})
        plan = {
            "format": 1,
            "rollout_id": rollout,
            "waves": waves,
            "unchanged": sorted(unchanged),
            "stratum_of": self.fleet,
            "policy": {"halt": "stratum"},
            "deferred": [{"host": host, "reason": why} for host, why in skip.items()],
            "refused": [{"host": host, "stratum": self.fleet[host], "reason": why} for host, why in refused.items()],
        }
        self.add(
            at,
            "rollout_started",
            {
                "plan_hash": "sha256:" + hashlib.sha256(rollout.encode()).hexdigest(),
                "model": "digits",
                "version": version,
                "digest": digest(version),
                "playbook": "edgeai.fleet.rollout",
                "user": "ci",
                "plan": plan,
            },
            rollout,
        )
        for item in plan["deferred"]:
            self.add(at, "deferred", item, rollout, item["host"])
        for item in plan["refused"]:
            self.add(at, "refused", item, rollout, item["host"])

    def wave(self, at: float, rollout: str, version: str, before: str, number: int, hosts: Any, bad: Any = ()) -> float:
        """Note one wave from its first intent to its last confirm or rollback; returns when it was over."""
        ends = {}
        self.add(at, "wave_started", {"wave": number, "hosts": list(hosts)}, rollout)
        for host in hosts:
            began = at + 0.2 + 0.5 * self.random.random()
            ends[host] = began + 2.2 + 1.8 * self.random.random()
            intent = {
                "model": "digits",
                "version": version,
                "digest": digest(version),
                "stratum": self.fleet[host],
                "wave": number,
            }
            self.add(began, "intent", {"action": "activate", **intent}, rollout, host)
            self.add(
                ends[host],
                "result",
                self.result(host, version, before, "activate", ends[host], host in bad),
                rollout,
                host,
            )
        judged = max(ends.values()) + 0.3
        halted = {self.fleet[host] for host in bad}
        self.verdict(judged, rollout, number, "activation", hosts, bad)
        confirmed = judged
        for host in hosts:
            if host in bad:
                continue
            action, wait = ("revert", 0.4) if self.fleet[host] in halted else ("confirm", 3.0)
            done = judged + wait + 0.6 + 0.7 * self.random.random()
            self.add(
                judged + wait, "intent", {"action": action, "wave": number, "stratum": self.fleet[host]}, rollout, host
            )
            self.add(done, "result", self.result(host, version, before, action, done), rollout, host)
            confirmed = max(confirmed, done)
        rest = [host for host in hosts if self.fleet[host] not in halted]
        self.verdict(confirmed + 0.2, rollout, number, "soak", rest, ())
        return confirmed + 0.5

    def verdict(self, at: float, rollout: str, number: int, stage: str, hosts: Any, bad: Any) -> None:
        """Note a wave's verdict, and the quarantine of what failed."""
        strata = {}
        for stratum in sorted({self.fleet[host] for host in hosts}):
            failed = [host for host in hosts if host in bad and self.fleet[host] == stratum]
            fine = [host for host in hosts if host not in bad and self.fleet[host] == stratum]
            reason = (
                f"{len(failed)} of {len(failed + fine)} failed their golden samples, budget 0"
                if failed
                else "all passed"
            )
            strata[stratum] = {
                "verdict": "fail" if failed else "pass",
                "reason": reason,
                "failed": failed,
                "activated": fine,
                "action": "rollback" if failed else "continue",
            }
            if failed:
                self.add(
                    at + 0.05,
                    "quarantine",
                    {
                        "model": "digits",
                        "version": "1.2.0",
                        "digest": digest("1.2.0"),
                        "stratum": stratum,
                        "reason": reason,
                    },
                    rollout,
                )
        verdict = "fail" if bad else "pass"
        self.add(at, "verdict", {"wave": number, "stage": stage, "verdict": verdict, "strata": strata}, rollout)

    def rollout(
        self,
        at: float,
        version: str,
        before: str,
        bad: Any = (),
        skip: Any = None,
        refused: Any = None,
        unchanged: Any = (),
        status: str = "succeeded",
    ) -> float:
        """Note a whole rollout; returns when it ended."""
        rollout = f"digits-{version}-{(ZERO + timedelta(seconds=at)):%Y%m%dT%H%M%SZ}"
        skip, refused = skip or {}, refused or {}
        self.start(at, rollout, version, skip, refused, unchanged)
        at, halted = at + 0.4, set()
        for number, (_kind, members) in enumerate(self.waves, 1):
            out = {*skip, *refused, *unchanged}
            hosts = [host for host in members if host not in out and self.fleet[host] not in halted]
            if hosts:
                failing = [host for host in hosts if host in bad]
                at = self.wave(at, rollout, version, before, number, hosts, failing)
                halted |= {self.fleet[host] for host in failing}
        self.add(at, "rollout_finished", {"status": status}, rollout)
        return at


def demo_story() -> Story:
    """Return the story of a demo: two good releases (one device away), a bad one that comes back, a refused rerun."""
    story = Story(FLEET, WAVES)
    away = {"depot-04": "unreachable: connection timed out after 10 s"}
    at = story.rollout(0, "1.0.0", "0.9.0")
    at = story.rollout(at + 6, "1.1.0", "1.0.0", skip=away)
    at = story.rollout(at + 6, "1.2.0", "1.1.0", bad=("harbour-03",), status="halted")
    held = "digits 1.2.0 is quarantined for this stratum since 11:01:06: 1 of 2 failed their golden samples, budget 0"
    refused = {host: held for host, stratum in FLEET.items() if stratum == OPENVINO}
    story.rollout(
        at + 5, "1.2.0", "1.1.0", refused=refused, unchanged=set(FLEET) - set(refused), status="nothing_to_do"
    )
    return story


def large_story(devices: int = 2000) -> Story:
    """Return the story of one rollout to a large fleet with a failure in its second wave."""
    strata = ["jetson/tensorrt/aarch64", "intel-npu/openvino/x86_64", ORT, "coral/litert/aarch64"]
    fleet = {f"site{index % 40:02d}-{index:04d}": strata[index % 4] for index in range(devices)}
    names = list(fleet)
    cuts = (4, devices // 10, devices // 2, devices)
    waves = [("canary" if low == 0 else "growth", names[low:high]) for low, high in zip((0, *cuts), cuts)]
    story = Story(fleet, waves)
    VARIANT.update({strata[0]: "tensorrt/fp16", strata[1]: "openvino/int8", strata[3]: "litert/int8"})
    story.rollout(0, "1.2.0", "1.1.0", bad=(names[9],), status="halted")
    return story


def write_ledger(folder: Path, story: Story, checkpoint_every: int = 40) -> tuple[Path, Path]:
    """Write the story as a chained and signed ledger; returns (ledger directory, public key file)."""
    key = ec.derive_private_key(20261123, ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    prev, seq, lines = ledger_format.GENESIS, 0, []

    def put(at: float, kind: str, data: dict[str, Any], rollout: str | None = None, host: str | None = None) -> None:
        nonlocal prev, seq
        seq += 1
        if kind == "checkpoint":
            data = ledger_keys.sign(key, ledger_format.signed_message(prev, seq))
        moment = ledger_format.timestamp(ZERO + timedelta(seconds=at))
        record = {
            "seq": seq,
            "time": moment,
            "type": kind,
            "rollout": rollout,
            "host": host,
            "data": data,
            "prev": prev,
        }
        line = ledger_format.encode(ledger_format.plain(record))
        prev = ledger_format.line_hash(line)
        lines.append(line)

    at = 0.0
    for index, (at, kind, data, rollout, host) in enumerate(sorted(story.items, key=lambda item: item[0]), 1):
        put(at, kind, data, rollout, host)
        if index % checkpoint_every == 0 or kind == "rollout_finished":
            put(at, "checkpoint", {})
    (folder / "ledger.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    public = folder / "ledger.pub.pem"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return folder, public


def client_extra(lost: int = 0) -> dict[str, Any]:
    """Return what a client would have counted while demo_story ran."""
    points = [
        {
            "time": ledger_format.timestamp(ZERO + timedelta(seconds=at)),
            "requests": 46 + (at * 7) % 5,
            "lost": lost if at == 30 else 0,
            "wrong": 0,
        }
        for at in range(72)
    ]
    total = sum(point["requests"] for point in points)
    return {
        "requests": total,
        "lost": lost,
        "wrong": 0,
        "p50_ms": 1.9,
        "p99_ms": 7.4,
        "timeline": points,
        "per_release": {"1.0.0": 1204, "1.1.0": total - 1204 - 433 - lost, "1.2.0": 433},
    }

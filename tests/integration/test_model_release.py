"""model_release and model_release_info as processes, on a device with its real model server and a real runtime."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.modules import PACKAGE, run_module
from support.releases import make_release
from support.servers import MODEL, VARIANT, Device, onnx_model, tensors, wait_for
from support.web import Web

from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest

GATE = {"samples": 32, "requests": 40, "warmup": 5}
DRIFTING = ("durations_ms", "server", "unconfirmed", "gates", "gates_run", "golden_before", "golden_after", "msg")


def golden(weight: float, seed: int = 1) -> dict[str, np.ndarray]:
    """Golden samples of y = x * weight."""
    x = np.random.default_rng(seed).standard_normal((64, 4)).astype(np.float32)
    y = x * np.float32(weight)
    return {"input.x": x, "output.y": y, "label": y.argmax(axis=1).astype(np.int64)}


class Bench:
    """A device, and releases of y = x * weight for it."""

    def __init__(self, base: Path) -> None:
        self.device = Device(base)
        self.digests: dict[str, str] = {}
        self.release("1.0.0", 2.0)

    def release(self, version: str, weight: float, promised: float | None = None, **options: Any) -> Path:
        """Build a release; ``promised``: what its golden samples say, when the model does something else."""
        path = make_release(
            self.device.releases,
            model=MODEL,
            version=version,
            variants=(VARIANT,),
            payload=options.pop("payload", None) or onnx_model(weight),
            golden=golden(weight if promised is None else promised),
            edit=tensors(),
            **options,
        )
        self.digests[version] = load_manifest(path).digest
        return path

    def start(self, ready: bool = False) -> None:
        """Start the server (and wait until it serves); device.json gets the port it really has."""
        (self.device.root / "run" / "server.json").unlink(missing_ok=True)  # a killed server leaves its own
        self.device.start(ready=ready)
        path = self.device.root / "device.json"
        settings = json.loads(path.read_text())
        settings["server"] = {"url": self.device.info()["url"]}
        path.write_text(json.dumps(settings))

    def arguments(self, version: str | None, **more: Any) -> dict[str, Any]:
        """The module's arguments."""
        args: dict[str, Any] = {"edge_root": str(self.device.root), "model": MODEL, "gate": GATE, **more}
        if version is not None:
            args["version"] = version
            args.setdefault("digest", self.digests[version])
        if args.get("state", "active") in ("active", "staged"):
            args.setdefault("source", {"type": "file", "path": str(self.device.releases)})
        return args

    def ask(self, version: str | None = None, check: bool = False, **more: Any) -> dict[str, Any]:
        """Run the module."""
        return run_module("model_release", self.arguments(version, **more), check=check)

    def info(self) -> dict[str, Any]:
        """Run model_release_info."""
        return run_module("model_release_info", {"edge_root": str(self.device.root)})["device"]

    def weight(self) -> float:
        """What the server multiplies with now."""
        return float(self.device.infer().json()["outputs"][0]["data"][0])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    try:
        made.start()
        answer = made.ask("1.0.0")
        assert answer["result"] == "activated", answer
        assert made.ask("1.0.0", state="confirmed")["result"] == "confirmed"
        yield made
    finally:
        made.device.stop(signal.SIGKILL)


class Client:
    """Sends requests all the time and remembers every answer that was wrong or missing."""

    def __init__(self, bench: Bench, weights: set[float]) -> None:
        self.bench, self.weights = bench, weights
        self.answered = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                reply = self.bench.device.infer()
                value = reply.json()["outputs"][0]["data"][0] if reply.status == 200 else None
                if value not in self.weights:
                    self.wrong.append(f"{reply.status} {reply.body[:100]!r}")
            except OSError as error:
                self.wrong.append(repr(error))
            self.answered += 1


def test_a_release_and_its_successor(bench: Bench) -> None:
    assert bench.weight() == 2.0
    bench.release("1.1.0", 3.0)
    with Client(bench, {2.0, 3.0}) as client:
        predicted = bench.ask("1.1.0", check=True)
        answer = bench.ask("1.1.0", rollout_id="r1", stratum=bench.info()["stratum"])
        assert answer["result"] == "activated" and bench.weight() == 3.0
        for name in set(answer) - set(DRIFTING) - {"invocation"}:
            assert predicted[name] == answer[name], name
        confirmed = bench.ask("1.1.0", state="confirmed")
    assert client.wrong == [] and client.answered > 10
    assert confirmed["result"] == "confirmed" and confirmed["unconfirmed"] is None
    assert {(g["phase"], g["verdict"]) for g in answer["gates"] + confirmed["gates"]} == {
        ("candidate", "pass"), ("serving", "pass"), ("soak", "pass")
    }  # fmt: skip
    again = bench.ask("1.1.0")
    assert (again["result"], again["changed"]) == ("unchanged", False)
    assert again["server"]["digest"] == bench.digests["1.1.0"]


def test_a_bad_release_is_never_served(bench: Bench) -> None:
    bench.release("1.1.0", -3.0, promised=3.0)
    with Client(bench, {2.0}) as client:
        answer = bench.ask("1.1.0")
    assert client.wrong == []
    assert (answer["failed"], answer["result"], answer["code"]) == (True, "reverted", "gate")
    assert [g["gate"] for g in answer["gates"] if g["verdict"] == "fail"] == ["golden"]
    assert answer["golden_restored"] is True and bench.weight() == 2.0
    assert answer["active"]["version"] == "1.0.0"


def test_a_release_that_does_not_load(bench: Bench) -> None:
    bench.release("1.1.0", 3.0, payload=b"this is no model")
    answer = bench.ask("1.1.0")
    assert (answer["failed"], answer["result"]) == (True, "reverted") and bench.weight() == 2.0
    assert any("does not load" in g["reason"] for g in answer["gates"])


def test_back_and_quarantined(bench: Bench) -> None:
    bench.release("1.1.0", 3.0)
    before = bench.ask("1.1.0")["golden_before"]
    bench.ask("1.1.0", state="confirmed")
    answer = bench.ask("1.1.0", state="reverted", quarantine=True, reason="two canaries failed")
    assert (answer["result"], answer["golden_restored"], answer["golden_after"]) == ("reverted", True, before)
    assert bench.weight() == 2.0
    assert bench.ask("1.1.0", state="reverted", quarantine=True)["changed"] is False
    refused = bench.ask("1.1.0")
    assert (refused["result"], refused["code"]) == ("refused", "quarantined")
    entry = bench.info()["models"][MODEL]["quarantine"][0]
    assert entry["digest"] == bench.digests["1.1.0"] and entry["reason"] == "two canaries failed"


def test_a_restarted_server_is_no_evidence(bench: Bench) -> None:
    bench.release("1.1.0", 3.0)
    assert bench.ask("1.1.0")["result"] == "activated"
    bench.device.stop(signal.SIGKILL)
    bench.start(ready=True)
    answer = bench.ask("1.1.0", state="confirmed")
    assert (answer["failed"], answer["code"], answer["result"]) == (True, "gate", "reverted")
    assert any(g["verdict"] == "inconclusive" for g in answer["gates"]) and bench.weight() == 2.0


def test_a_dead_server_does_not_hold_the_way_back_up(bench: Bench) -> None:
    bench.release("1.1.0", 3.0)
    bench.ask("1.1.0")
    bench.device.stop(signal.SIGKILL)
    answer = bench.ask("1.1.0", state="reverted")
    assert (answer["failed"], answer["code"], answer["result"]) == (True, "server", "reverted")
    assert answer["active"]["version"] == "1.0.0"
    bench.start(ready=True)
    assert bench.weight() == 2.0
    assert bench.ask("1.0.0")["result"] == "unchanged"


def test_killed_at_any_time_and_run_again(bench: Bench) -> None:
    """KILL the module's process at different moments: requests stay right, and the next run finishes the job."""
    bench.release("1.1.0", 3.0)
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": bench.arguments("1.1.0")}).encode()
    command = [sys.executable, "-m", PACKAGE + "model_release"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    store = Store(str(bench.device.root))
    moments = [
        lambda: any(Path(store.blobs.dir).glob("*")),
        lambda: store.tree.releases(MODEL) == ["1.0.0", "1.1.0"],
        lambda: bench.device.get(f"/v2/models/{MODEL}/versions/1.1.0/ready", unix=True).status == 200,
        lambda: b'"activate"' in Path(store.journal.path).read_bytes().split(b'"confirm"')[-1],
        lambda: os.readlink(bench.device.root / "models" / MODEL / "current").count("1.1.0"),
        lambda: bench.device.infer().json()["outputs"][0]["data"][0] == 3.0,
    ]
    with Client(bench, {2.0, 3.0}) as client:
        for moment in moments:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
            )
            assert process.stdin is not None
            process.stdin.write(arguments)
            process.stdin.close()
            wait_for(lambda process=process, moment=moment: process.poll() is not None or moment(), what="the moment")
            process.kill()
            process.wait()
            state = store.read(MODEL)
            assert state.active is not None and state.active.version in ("1.0.0", "1.1.0")
            assert state.active.version == "1.0.0" or state.unconfirmed is not None
            assert store.tree.intact(MODEL, state.active)
        answer = bench.ask("1.1.0")
        assert answer["result"] in ("activated", "resumed"), answer
        assert bench.ask("1.1.0", state="confirmed")["result"] == "confirmed"
    assert client.wrong == []
    assert bench.weight() == 3.0 and store.verify(MODEL) == []


def test_over_http_with_an_interruption(bench: Bench) -> None:
    bench.release("1.1.0", 3.0)
    web = Web(bench.device.releases)
    web.fail("cut", 503)
    answer = bench.ask("1.1.0", source={"type": "https", "url": web.url})
    web.close()
    assert answer["result"] == "activated" and bench.weight() == 3.0
    # golden.npz and the model, one of them in two pieces after a pause; nothing of other variants
    assert len(web.requests) == 2 + 2 + 2


def test_pushed(bench: Bench, tmp_path: Path) -> None:
    path = bench.release("1.1.0", 3.0)
    source = {
        "type": "push",
        "manifest": base64.b64encode((path / "release.json").read_bytes()).decode(),
        "signature": base64.b64encode((path / "model.sig").read_bytes()).decode(),
    }
    planned = bench.ask("1.1.0", source={**source, "plan": True})
    assert planned["result"] == "planned" and planned["changed"] is False
    inbox = bench.device.root / "inbox" / "x"
    inbox.mkdir(parents=True)
    for entry in planned["missing"]:
        shutil.copy(path / entry["path"], inbox / entry["sha256"])
    assert bench.ask("1.1.0", source={**source, "inbox": str(inbox)})["result"] == "activated"
    assert bench.ask("1.1.0", state="confirmed")["result"] == "confirmed"
    again = bench.ask("1.1.0", source={**source, "plan": True})
    assert (again["result"], "missing" in again) == ("unchanged", False)


def test_a_corrupt_staged_blob_and_a_full_disk(bench: Bench) -> None:
    bench.release("1.1.0", 3.0)
    bench.ask("1.1.0", state="staged")
    store = Store(str(bench.device.root))
    entry = load_manifest(bench.device.releases / MODEL / "1.1.0").variants[0].files[0]
    blob = Path(store.blobs.path(entry.sha256))
    blob.chmod(0o644)
    blob.write_bytes(b"\0" * entry.size)
    path = bench.device.root / "device.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "reserve_mib": 1 << 30}))
    refused = bench.ask("1.1.0")
    assert (refused["result"], refused["code"]) == ("refused", "no_space") and bench.weight() == 2.0
    path.write_text(json.dumps(settings))
    answer = bench.ask("1.1.0")
    assert answer["result"] == "activated" and answer["transfer"]["blobs"] == 1 and bench.weight() == 3.0


def test_the_deadline_without_a_controller(bench: Bench) -> None:
    bench.release("1.1.0", 3.0)
    assert bench.ask("1.1.0", confirm_within=2)["result"] == "activated"
    store = Store(str(bench.device.root))
    wait_for(store.due, 10, "the deadline")
    assert [state.active.version for _model, state in store.expire() if state.active] == ["1.0.0"]
    late = bench.ask("1.1.0", state="confirmed")
    assert (late["result"], late["code"]) == ("refused", "deadline")
    assert bench.ask("1.0.0")["result"] == "resumed" and bench.weight() == 2.0


def test_removed(bench: Bench) -> None:
    assert bench.ask(state="absent", check=True)["result"] == "removed"
    assert bench.ask(state="absent")["result"] == "removed"
    assert bench.device.get(f"/v2/models/{MODEL}/ready").status != 200
    assert bench.ask(state="absent")["changed"] is False


def test_info_tells_what_a_plan_needs(bench: Bench) -> None:
    bench.release("1.1.0", 3.0)
    bench.ask("1.1.0", confirm_within=500)
    info = bench.info()
    model = info["models"][MODEL]
    assert info["stratum"].endswith("/onnxruntime/" + info["architecture"]) and info["free_bytes"] > 0
    assert model["active"]["version"] == "1.1.0" and model["previous"]["version"] == "1.0.0"
    assert model["serving"]["digest"] == bench.digests["1.1.0"] and model["serving"]["start_id"]
    assert 0 < model["remaining"] <= 500 and model["repairs"] == []
    assert model["staged"] == {version: bench.digests[version] for version in ("1.0.0", "1.1.0")}
    bench.device.stop(signal.SIGKILL)
    assert "server.sock" in bench.info()["server_problem"] or "127.0.0.1" in bench.info()["server_problem"]


def test_a_device_that_was_not_provisioned(tmp_path: Path) -> None:
    arguments = {"edge_root": str(tmp_path), "model": MODEL, "state": "absent"}
    answer = run_module("model_release", arguments)
    assert (answer["failed"], answer["code"]) == (True, "bad_input") and "provision" in answer["msg"]
    assert list(tmp_path.iterdir()) == []
    assert run_module("model_release_info", {"edge_root": str(tmp_path)})["code"] == "bad_input"


def test_one_call_is_quick_when_there_is_nothing_to_do(bench: Bench) -> None:
    durations = [bench.ask("1.0.0")["durations_ms"]["total"] for _turn in range(5)]
    assert min(durations) < 100, durations

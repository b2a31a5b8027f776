"""The device gate against the real model server: real ONNX models, a real store, both sockets."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.servers import MODEL, VARIANT, Device, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.device import measure
from ansible_collections.edgeai.fleet.plugins.module_utils.device.client import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.device.env import GateTask, Staged
from ansible_collections.edgeai.fleet.plugins.module_utils.device.probe import run_gate
from ansible_collections.edgeai.fleet.plugins.module_utils.device.serving import OipServer
from ansible_collections.edgeai.fleet.plugins.module_utils.device.settings import provisioned
from ansible_collections.edgeai.fleet.plugins.module_utils.device.state import Ref
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import Tensor, load_golden
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest

pytest.importorskip("onnxruntime")

RANDOM = np.random.default_rng(3)
INPUTS = RANDOM.normal(size=(64, 12)).astype(np.float32)
WEIGHTS = RANDOM.normal(size=(12, 6)).astype(np.float32)
SETTINGS = {"requests": 40, "warmup": 5, "timeout": 60}


def linear(weights: np.ndarray) -> bytes:
    """An ONNX model y = x @ weights on rows of 12."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def stage(device: Device, version: str, weights: np.ndarray, **variant: Any) -> Ref:
    """A signed release whose artifact computes with ``weights`` and whose reference is the right model."""
    reference = INPUTS @ WEIGHTS
    golden = {"input.x": INPUTS, "output.y": reference, "label": reference.argmax(1).astype(np.int64)}

    def edit(manifest: dict[str, Any]) -> None:
        manifest["inputs"] = [{"name": "x", "datatype": "FP32", "shape": [-1, 12]}]
        manifest["outputs"] = [{"name": "y", "datatype": "FP32", "shape": [-1, 6]}]
        manifest["variants"][0].update(variant)

    return device.stage(version, payload=linear(weights), golden=golden, edit=edit)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    try:
        made.activate(stage(made, "1.0.0", WEIGHTS))
        made.start()
        yield made
    finally:
        made.stop(signal.SIGKILL)


def gate(device: Device, phase: str, version: str, **more: Any) -> dict[str, dict[str, Any]]:
    directory = device.releases / MODEL / version
    manifest, golden = load_manifest(directory), load_golden(directory / "golden/golden.npz")
    target = str(device.root / "run/server.sock") if phase == "candidate" else device.info()["url"]
    with Client(target) as client:
        arguments = {"settings": SETTINGS, **more}
        records = run_gate(phase, client, manifest, VARIANT, golden, manifest.budget("s"), **arguments)
    return {record["gate"]: record for record in records}


class Clients:
    """Somebody who asks the device the same thing again and again while this is entered."""

    def __init__(self, device: Device, row: np.ndarray) -> None:
        self.url, self.stopped, self.answered = device.info()["url"], threading.Event(), 0
        self.tensor = Tensor("x", "FP32", (1, 12), row.astype("<f4").tobytes())
        self.thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        with Client(self.url) as client:
            while not self.stopped.is_set():
                client.infer(MODEL, [self.tensor])
                self.answered += 1

    def __enter__(self) -> Clients:
        self.thread.start()
        wait_for(lambda: self.answered, 60, "a client was answered")
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stopped.set()
        self.thread.join(60)


def shadowed(device: Device, version: str, **settings: Any) -> dict[str, Any]:
    wanted = {"shadow_agreement": 0.9, "shadow_requests": 20, "shadow_seconds": 20, **settings}
    records = gate(device, "candidate", version, incumbent={"version": "1.0.0"}, settings={**SETTINGS, **wanted})
    assert records["golden"]["verdict"] == "pass" and records["identity"]["verdict"] == "pass", records
    return records["shadow"]


def test_a_candidate_that_answers_clients_otherwise_fails_though_its_golden_samples_pass(device: Device) -> None:
    other = WEIGHTS.copy()
    other[0, 1] += 0.001  # nothing on the golden samples
    # what these clients send: feature 0 is large, and class 0 wins narrowly before class 1
    wanted = np.array([1.0, 0.95, -5.0, -5.0, -5.0, -5.0, 100.0])
    features = np.column_stack([WEIGHTS, np.eye(12)[0]])
    row = np.linalg.lstsq(features.T.astype("f8"), wanted, rcond=None)[0].reshape(1, 12)
    assert (row @ WEIGHTS).argmax() == 0 and (row @ other).argmax() == 1
    stage(device, "1.1.0", WEIGHTS)
    stage(device, "1.2.0", other)
    with Clients(device, row):
        record = shadowed(device, "1.1.0")
        assert record["verdict"] == "pass" and (record["value"], record["samples"]) == (1.0, 20), record
        record = shadowed(device, "1.2.0")
    assert record["verdict"] == "fail" and record["value"] == 0.0 and "below 0.9" in record["reason"], record


def test_without_clients_shadow_traffic_proves_nothing(device: Device) -> None:
    stage(device, "1.1.0", WEIGHTS)
    record = shadowed(device, "1.1.0", shadow_seconds=0.2)
    # the gate's own requests come over the device's socket and do not count
    assert record["verdict"] == "no_data" and "no client sent a request within 0.2 s" in record["reason"], record
    with Clients(device, INPUTS[:1]):
        record = shadowed(device, "1.1.0", shadow_seconds=4, shadow_requests=100000)
    assert record["verdict"] == "inconclusive" and "of 100000 requests came" in record["reason"], record


def verdicts(records: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: record["verdict"] for name, record in records.items()}


def golden_bytes(device: Device, version: str) -> str:
    directory = device.releases / MODEL / version
    with Client(device.info()["url"]) as client:
        return measure.golden_outputs_digest(
            client, load_manifest(directory), load_golden(directory / "golden/golden.npz")
        )


def test_a_release_goes_through_all_phases(device: Device) -> None:
    incumbent = {"version": "1.0.0", "digest": load_manifest(device.releases / MODEL / "1.0.0").digest}
    ref = stage(device, "1.1.0", WEIGHTS)
    before = golden_bytes(device, "1.0.0")
    candidate = gate(device, "candidate", "1.1.0", incumbent=incumbent)
    assert set(verdicts(candidate).values()) == {"pass"}, candidate
    assert "incumbent" in candidate["golden"]["reason"] and "incumbent" in candidate["latency"]["reason"]
    assert golden_bytes(device, "1.0.0") == before, "what serves did not change, nor its outputs"
    device.activate(ref, confirm=False)
    assert device.manage("load").json()["result"] == "promoted"
    serving = gate(device, "serving", "1.1.0", since=candidate["golden"]["evidence"])
    assert verdicts(serving) == {"identity": "pass", "golden": "pass", "memory": "pass"}, serving
    assert serving["golden"]["evidence"]["digest"] == ref.digest
    soak = gate(device, "soak", "1.1.0", since=serving["identity"]["evidence"])
    assert verdicts(soak) == {"identity": "pass", "errors": "pass", "golden": "pass", "memory": "pass"}, soak
    device.stop()
    device.start()
    restarted = gate(device, "soak", "1.1.0", since=serving["identity"]["evidence"])
    assert set(verdicts(restarted).values()) == {"inconclusive"}, restarted


def test_a_bad_release_fails_beside_the_incumbent(device: Device) -> None:
    ref = stage(device, "1.2.0", np.roll(WEIGHTS, 1, axis=1))
    before = golden_bytes(device, "1.0.0")
    records = gate(device, "candidate", "1.2.0", incumbent={"version": "1.0.0"})
    assert records["identity"]["verdict"] == "pass" and records["identity"]["evidence"]["digest"] == ref.digest
    assert records["golden"]["verdict"] == "fail" and records["golden"]["value"] < 0.5
    assert golden_bytes(device, "1.0.0") == before


def test_an_artifact_that_is_no_model_does_not_load(device: Device) -> None:
    device.stage("1.3.0", payload=b"not an onnx file")
    records = gate(device, "candidate", "1.3.0")
    assert verdicts(records) == {"identity": "no_data", "load": "fail"}, records


def test_an_unsigned_release_does_not_load(device: Device) -> None:
    device.stage("1.4.0", weight=2.0, sign_key=False)
    records = gate(device, "candidate", "1.4.0")
    assert verdicts(records) == {"identity": "no_data", "load": "fail"}, records


def test_a_variants_own_budget_holds_on_the_device(device: Device) -> None:
    """The same artifact: within the release's budget of accuracy, and above what its variant allows itself."""
    worse = WEIGHTS.copy()
    worse[:, 0] += 0.5
    found = {}
    for version, own in (("1.3.0", {}), ("1.4.0", {"budget": {"accuracy_drop": 0.0}})):
        stage(device, version, worse, **own)
        directory = device.releases / MODEL / version
        manifest = load_manifest(directory)
        loose = replace(manifest, budget_default=replace(manifest.budget_default, accuracy_drop=0.9))
        server = OipServer(str(device.root), provisioned(str(device.root)).server, 30.0)
        task = GateTask(Staged(loose, VARIANT, str(directory)), "s", SETTINGS)
        found[version] = {record["gate"]: record for record in server.gates("candidate", task)}
    assert found["1.3.0"]["golden"]["verdict"] == "pass", found
    assert found["1.4.0"]["golden"]["verdict"] == "fail", found
    assert found["1.3.0"]["golden"]["value"] == found["1.4.0"]["golden"]["value"] < 1

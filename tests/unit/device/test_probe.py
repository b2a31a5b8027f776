"""The gate over real HTTP: a recording server whose models are numpy functions, good, bad, slow and vanishing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.oip_server import RecordingServer, Refuse, Served, State

from ansible_collections.edgeai.fleet.plugins.module_utils.device import measure
from ansible_collections.edgeai.fleet.plugins.module_utils.device.client import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.oip import ServerError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.probe import read_counters, run_gate
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import GoldenSet, load_golden
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import Manifest, parse_manifest

RANDOM = np.random.default_rng(7)
WEIGHTS = RANDOM.normal(size=(8, 5)).astype("<f4")
INPUTS = RANDOM.normal(size=(64, 8)).astype("<f4")
REFERENCE = INPUTS @ WEIGHTS
LABELS = REFERENCE.argmax(1).astype("<i8")
LABELS[:3] = (LABELS[:3] + 1) % 5  # the reference itself is right on 61 of 64
VARIANT = "onnxruntime/int8"
SETTINGS = {"requests": 40, "warmup": 4, "timeout": 30}


def linear(weights: np.ndarray) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    return lambda inputs: {"y": inputs["x"] @ weights}


GOOD = linear(WEIGHTS)
WRONG = linear(np.roll(WEIGHTS, 1, axis=1))


def make_manifest(path: Path, version: str = "1.1.0", batch: int = -1, metric: str = "top1") -> Manifest:
    document = {
        "format": 1,
        "model": "m",
        "version": version,
        "created": "2026-11-23T11:00:00Z",
        "security_counter": 1,
        "source": {"git_revision": None, "data_sha256": None, "parent": None, "mlflow_run": None},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [batch, 8]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [batch, 5]}],
        "variants": [
            {
                "id": VARIANT,
                "runtime": "onnxruntime",
                "precision": "int8",
                "entry": f"variants/{VARIANT}/m.onnx",
                "architectures": ["x86_64"],
                "requires": {"accelerators": ["cpu"], "cpu_flags_any": [], "runtime_version": "", "memory_mib": 0},
                "files": [{"path": f"variants/{VARIANT}/m.onnx", "size": 1, "sha256": "0" * 64}],
                "measured": {},
            }
        ],
        "golden": {
            "path": "golden/golden.npz",
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "samples": 64,
            "metric": metric,
            "reference_score": 61 / 64 if metric == "top1" else 1.0,
        },
        "budgets": {
            "default": {"accuracy_drop": 0.02, "p95_ms": 500.0, "p95_ratio": 3.0, "memory_mib": 512},
            "strata": {},
        },
    }
    return parse_manifest(json.dumps(document).encode(), "release.json")


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    np.savez(path, **{"input.x": INPUTS, "output.y": REFERENCE, "label": LABELS})
    return path


@pytest.fixture(scope="module")
def golden(npz: Path) -> GoldenSet:
    return load_golden(npz)


@pytest.fixture(scope="module")
def manifest(npz: Path) -> Manifest:
    return make_manifest(npz)


def served(manifest: Manifest, function: Any = GOOD, **changes: Any) -> Served:
    inputs = [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape)} for s in manifest.inputs]
    values = {"version": manifest.version, "digest": manifest.digest, "variant": VARIANT, **changes}
    return Served(function=function, inputs=inputs, **values)


INCUMBENT = {"version": "1.0.0", "digest": "sha256:old"}


@pytest.fixture
def state(manifest: Manifest) -> State:
    """An incumbent 1.0.0 that serves, and a good candidate 1.1.0 that can be loaded."""
    return State(serving=served(manifest, **INCUMBENT), loadable=served(manifest))


@pytest.fixture
def client(state: State, tmp_path: Path) -> Iterator[Client]:
    with RecordingServer(state, str(tmp_path / "server.sock")) as server, Client(server.target, timeout=5) as made:
        yield made


def gate(phase: str, client: Client, manifest: Manifest, golden: GoldenSet, **more: Any) -> dict[str, dict[str, Any]]:
    settings = {**SETTINGS, **more.pop("settings", {})}
    variant = more.pop("variant", manifest.variant(VARIANT))
    records = run_gate(phase, client, manifest, variant, golden, manifest.budget("any"), settings, **more)
    assert json.loads(json.dumps(records, allow_nan=False)) == records, "records are plain JSON"
    assert records[0]["gate"] == "identity"
    for record in records:
        assert record["phase"] == phase and record["reason"]
        assert {"digest", "start_id", "boot_id", "time"} <= set(record["evidence"])
    return {record["gate"]: record for record in records}


def verdicts(records: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: record["verdict"] for name, record in records.items()}


# Candidate phase


def test_a_good_candidate_passes(client: Client, state: State, manifest: Manifest, golden: GoldenSet) -> None:
    records = gate("candidate", client, manifest, golden, incumbent=INCUMBENT)
    assert verdicts(records) == {"identity": "pass", "golden": "pass", "latency": "pass"}
    assert records["golden"]["value"] == pytest.approx(61 / 64)
    assert records["golden"]["limit"] == pytest.approx(61 / 64 - 0.02) and records["golden"]["samples"] == 64
    assert "incumbent 0.9531" in records["golden"]["reason"]
    assert records["latency"]["samples"] == 40 and records["latency"]["unit"] == "ms"
    assert "incumbent" in records["latency"]["reason"]
    for record in records.values():
        assert record["evidence"]["digest"] == manifest.digest and record["evidence"]["start_id"] == "start-1"
    assert state.serving is not None and state.serving.digest == "sha256:old", "nothing was switched"


def test_requests_alternate_between_the_two(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    gate("candidate", client, manifest, golden, incumbent=INCUMBENT)
    sides = ["versions" in line for line in state.log if line.endswith("/infer")]
    pairs = sides[8:]  # after four batches of golden samples for each
    assert len(pairs) == 2 * 44 and sum(pairs) == 44
    assert all(sum(pairs[i : i + 2]) == 1 for i in range(0, len(pairs), 2)), "one of each in every pair"
    assert pairs[0] != pairs[2], "and the order within the pair changes"
    assert state.shapes[0] == [16, 8] and state.shapes[-1] == [1, 8]


def test_a_wrong_model_fails_on_its_golden_samples(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    state.loadable = served(manifest, WRONG)
    record = gate("candidate", client, manifest, golden, incumbent=INCUMBENT)["golden"]
    assert record["verdict"] == "fail" and record["value"] < 0.5 and "below the floor" in record["reason"]


def test_a_bad_incumbent_blocks_nothing_and_lowers_nothing(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    state.serving = served(manifest, WRONG, **INCUMBENT)
    assert gate("candidate", client, manifest, golden, incumbent=INCUMBENT)["golden"]["verdict"] == "pass"
    state.candidate, state.loadable = None, served(manifest, linear(np.roll(WEIGHTS, 2, axis=1)))
    assert gate("candidate", client, manifest, golden, incumbent=INCUMBENT)["golden"]["verdict"] == "fail"


def poor(npz: Path, version: str) -> tuple[Manifest, GoldenSet]:
    """A release that was trained badly: its own reference is right on a fraction only, and it reproduces that."""
    golden = load_golden(npz)
    outputs = np.roll(REFERENCE, 1, axis=1)
    poor_golden = GoldenSet(golden.inputs, {"y": _tensor(outputs)}, golden.labels, 64)
    manifest = make_manifest(npz, version)
    score = float((outputs.argmax(1) == LABELS).mean())
    document = json.loads(manifest.raw)
    document["golden"]["reference_score"] = score
    return parse_manifest(json.dumps(document).encode(), "release.json"), poor_golden


def _tensor(array: np.ndarray) -> Any:
    from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import Tensor

    return Tensor("y", "FP32", array.shape, np.ascontiguousarray(array, "<f4").tobytes())


@pytest.mark.parametrize(("version", "verdict"), [("1.1.0", "fail"), ("0.9.0", "pass")])
def test_a_release_that_is_bad_by_its_own_reference_is_caught_by_the_incumbent(
    client: Client, state: State, npz: Path, version: str, verdict: str
) -> None:
    manifest, golden = poor(npz, version)
    state.loadable = served(manifest, WRONG)
    record = gate("candidate", client, manifest, golden, incumbent=INCUMBENT)["golden"]
    assert record["verdict"] == verdict
    assert ("worse than the incumbent" if verdict == "fail" else "older release") in record["reason"]


def test_nan_outputs_fail(client: Client, state: State, manifest: Manifest, golden: GoldenSet) -> None:
    def broken(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = inputs["x"] @ WEIGHTS
        out[0, 0] = np.nan
        return {"y": out}

    state.loadable = served(manifest, broken)
    record = gate("candidate", client, manifest, golden)["golden"]
    assert record["verdict"] == "fail" and "NaN or infinite" in record["reason"] and record["value"] is None


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda inputs: {"other": inputs["x"] @ WEIGHTS}, "output 'y' is missing (the server gave other)"),
        (lambda inputs: {"y": inputs["x"]}, "has shape [64, 8], the reference [64, 5]"),
    ],
)
def test_outputs_of_the_wrong_kind_fail(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet, function: Any, said: str
) -> None:
    state.loadable = served(manifest, function)
    record = gate("candidate", client, manifest, golden)["golden"]
    assert record["verdict"] == "fail" and said in record["reason"]


def test_a_model_that_refuses_its_golden_samples_fails(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    def refuse(_inputs: Any) -> Any:
        raise Refuse(500, "the kernel does not exist on this device")

    state.loadable = served(manifest, refuse)
    records = gate("candidate", client, manifest, golden)
    assert verdicts(records) == {"identity": "pass", "golden": "fail", "latency": "fail"}
    assert "does not exist on this device" in records["golden"]["reason"]


def test_a_busy_server_proves_nothing(client: Client, state: State, manifest: Manifest, golden: GoldenSet) -> None:
    def busy(_number: int) -> None:
        raise Refuse(503, "too many requests", "busy")

    state.hook = busy
    records = gate("candidate", client, manifest, golden)
    assert verdicts(records) == {"identity": "pass", "golden": "no_data", "latency": "no_data"}
    assert "too many requests" in records["latency"]["reason"]


def test_a_slow_candidate_fails_relative_to_the_incumbent(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    def slow(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        end = measure.time.perf_counter() + 0.03
        while measure.time.perf_counter() < end:  # computes, as a slow model does
            GOOD(inputs)
        return GOOD(inputs)

    state.loadable = served(manifest, slow)
    settings = {"requests": 20, "warmup": 0}
    record = gate("candidate", client, manifest, golden, incumbent=INCUMBENT, settings=settings)["latency"]
    assert record["verdict"] == "fail" and "slower than 3 times" in record["reason"] and record["value"] >= 30
    assert gate("candidate", client, manifest, golden, settings=settings)["latency"]["verdict"] == "pass"
    record = gate("candidate", client, manifest, golden, settings={**settings, "p95_ms": 10.0})["latency"]
    assert record["verdict"] == "fail" and record["limit"] == 10.0, "the ceiling was tightened"


def test_an_incumbent_with_another_interface_is_not_asked(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    old = served(manifest, **INCUMBENT)
    old.inputs = [{"name": "picture", "datatype": "FP32", "shape": [-1, 8]}]
    state.serving = old
    records = gate("candidate", client, manifest, golden, incumbent=INCUMBENT)
    assert set(verdicts(records).values()) == {"pass"}
    assert "no incumbent to compare with" in records["latency"]["reason"]
    assert not [line for line in state.log if line.endswith("/infer") and "versions" not in line]


def test_a_candidate_without_incumbent(client: Client, state: State, manifest: Manifest, golden: GoldenSet) -> None:
    state.serving = None
    assert set(verdicts(gate("candidate", client, manifest, golden)).values()) == {"pass"}


def test_a_candidate_that_is_loaded_already_is_not_loaded_again(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    state.candidate = served(manifest)
    gate("candidate", client, manifest, golden)
    assert not [line for line in state.log if line.endswith("/load")]


@pytest.mark.parametrize(("status", "verdict"), [(409, "fail"), (500, "fail"), (503, "no_data")])
def test_a_candidate_that_does_not_load(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet, status: int, verdict: str
) -> None:
    state.load_refusal = Refuse(status, "opset 28 is not supported")
    records = gate("candidate", client, manifest, golden)
    assert verdicts(records) == {"identity": "no_data", "load": verdict}
    assert "opset 28" in records["load"]["reason"]


# Evidence


def test_a_restart_in_the_middle_makes_everything_stale(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    def restart(number: int) -> None:
        if number == 20:
            state.start_id = "start-2"

    state.hook = restart
    records = gate("candidate", client, manifest, golden, incumbent=INCUMBENT)
    assert set(verdicts(records).values()) == {"inconclusive"}
    assert "stale (the server restarted during the measurements)" in records["golden"]["reason"]


def test_a_swap_in_the_middle_and_back_is_noticed_by_the_answers(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    state.serving = mine = served(manifest)
    other = served(manifest, digest="sha256:foreign")

    def swap(number: int) -> None:
        state.serving = other if number == 2 else mine

    state.hook = swap
    records = gate("serving", client, manifest, golden)
    assert set(verdicts(records).values()) == {"inconclusive"}
    assert "sha256:foreign" in records["identity"]["reason"]


def test_another_digest_fails_and_nothing_is_measured(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    records = gate("serving", client, manifest, golden)
    assert verdicts(records) == {"identity": "fail"} and "serves sha256:old" in records["identity"]["reason"]
    assert not [line for line in state.log if line.endswith("/infer")]


def test_another_variant_of_the_right_release_fails(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    state.serving = served(manifest, variant="onnxruntime/fp32")
    records = gate("serving", client, manifest, golden)
    assert records["identity"]["verdict"] == "fail" and "onnxruntime/fp32" in records["identity"]["reason"]
    assert records["golden"]["verdict"] == "inconclusive"


def test_no_server_is_no_data(manifest: Manifest, golden: GoldenSet, tmp_path: Path) -> None:
    with Client(str(tmp_path / "none.sock"), timeout=1) as client:
        for phase in ("candidate", "serving", "soak"):
            records = gate(phase, client, manifest, golden)
            assert set(verdicts(records).values()) == {"no_data"}


def test_a_server_that_dies_in_the_middle(state: State, manifest: Manifest, golden: GoldenSet, tmp_path: Path) -> None:
    server = RecordingServer(state, str(tmp_path / "server.sock"))

    def die(number: int) -> None:
        if number == 3:
            (tmp_path / "server.sock").unlink()
            state.close_after_each = True

    state.hook = die
    state.serving = served(manifest)
    with server, Client(server.target, timeout=5) as client:
        records = gate("serving", client, manifest, golden)
    assert verdicts(records) == {"identity": "inconclusive", "golden": "inconclusive", "memory": "no_data"}
    assert "48 of 64 golden samples" in records["golden"]["reason"]


def test_the_time_out_bounds_the_phase_and_is_no_failure_of_the_model(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    clock = measure.time

    def slow(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        end = clock.perf_counter() + 0.05
        while clock.perf_counter() < end:
            GOOD(inputs)
        return GOOD(inputs)

    state.loadable = served(manifest, slow)
    began = clock.monotonic()
    record = gate("candidate", client, manifest, golden, settings={"requests": 1000, "warmup": 0, "timeout": 1})[
        "latency"
    ]
    assert clock.monotonic() - began < 3
    assert record["verdict"] == "inconclusive" and 0 < record["samples"] < 20


# Serving and soak


def test_serving_then_soak(client: Client, state: State, manifest: Manifest, golden: GoldenSet) -> None:
    state.serving = served(manifest)
    records = gate("serving", client, manifest, golden, since={"start_id": "start-1"})
    assert verdicts(records) == {"identity": "pass", "golden": "pass", "memory": "pass"}
    assert (records["memory"]["value"], records["memory"]["limit"]) == (100.0, 512.0)
    since = records["golden"]["evidence"]
    assert since["counters"] == {"requests": 4.0, "errors": 0.0}
    for _turn in range(10):
        client.infer("m", measure.slice_inputs(golden, 0, 1))
    records = gate("soak", client, manifest, golden, since=since)
    assert verdicts(records) == {"identity": "pass", "errors": "pass", "golden": "pass", "memory": "pass"}
    assert records["errors"]["samples"] == 10


def test_failures_during_the_soak_fail_it(client: Client, state: State, manifest: Manifest, golden: GoldenSet) -> None:
    state.serving = served(manifest)
    since = gate("serving", client, manifest, golden)["golden"]["evidence"]
    state.errors += 2
    state.requests += 50
    record = gate("soak", client, manifest, golden, since=since)["errors"]
    assert record["verdict"] == "fail" and record["reason"] == "2 of 50 requests failed since the activation"


def test_a_restart_since_the_activation_is_inconclusive(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    state.serving = served(manifest)
    since = gate("serving", client, manifest, golden)["golden"]["evidence"]
    state.start_id = "start-2"
    records = gate("soak", client, manifest, golden, since=since)
    assert set(verdicts(records).values()) == {"inconclusive"}
    assert "was start-1" in records["identity"]["reason"]


def test_a_soak_without_the_activations_counters_proves_nothing(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    state.serving = served(manifest)
    assert gate("soak", client, manifest, golden, since={"start_id": "start-1"})["errors"]["verdict"] == "no_data"


@pytest.mark.parametrize(("resident", "verdict"), [(600 * 1048576.0, "fail"), (None, "no_data")])
def test_memory_is_judged(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet, resident: float | None, verdict: str
) -> None:
    state.serving, state.resident = served(manifest), resident
    assert gate("serving", client, manifest, golden)["memory"]["verdict"] == verdict


# Batches and digests


@pytest.mark.parametrize("status", [400, 500])
def test_a_variant_built_for_single_rows_is_asked_row_by_row(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet, status: int
) -> None:
    def single(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(inputs["x"]) != 1:
            raise Refuse(status, "batch is 1")
        return GOOD(inputs)

    state.loadable = served(manifest, single)
    records = gate("candidate", client, manifest, golden)
    assert set(verdicts(records).values()) == {"pass"} and records["golden"]["samples"] == 64


def test_a_batch_fixed_by_the_manifest_is_kept(client: Client, state: State, npz: Path, golden: GoldenSet) -> None:
    manifest = make_manifest(npz, batch=4)
    state.loadable = served(manifest)
    assert set(verdicts(gate("candidate", client, manifest, golden)).values()) == {"pass"}
    assert {shape[0] for shape in state.shapes} == {4}


def test_fewer_samples_are_scored_against_the_reference_on_the_same_rows(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    record = gate("candidate", client, manifest, golden, settings={"samples": 20})["golden"]
    assert record["samples"] == 20 and record["value"] == pytest.approx(17 / 20)  # the three wrong ones are among them
    assert record["limit"] == pytest.approx(17 / 20 - 0.02) and record["verdict"] == "pass"


def test_relative_error_is_scored_without_an_incumbent(
    client: Client, state: State, npz: Path, golden: GoldenSet
) -> None:
    manifest = make_manifest(npz, metric="relative_error")
    state.loadable = served(manifest, linear(WEIGHTS * np.float32(1.1)))
    record = gate("candidate", client, manifest, golden, incumbent=INCUMBENT)["golden"]
    assert record["verdict"] == "fail" and record["value"] == pytest.approx(0.9, abs=1e-3)


def test_the_digest_of_golden_outputs_sees_one_bit(
    client: Client, state: State, manifest: Manifest, golden: GoldenSet
) -> None:
    state.serving = served(manifest)
    first = measure.golden_outputs_digest(client, manifest, golden)
    assert first == measure.golden_outputs_digest(client, manifest, golden) and len(first) == 64

    def nudged(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = np.ascontiguousarray(inputs["x"] @ WEIGHTS, "<f4")
        out.view("<u4")[-1, -1] ^= 1
        return {"y": out}

    state.serving = served(manifest, nudged)
    assert measure.golden_outputs_digest(client, manifest, golden) != first
    state.serving = None
    with pytest.raises(ServerError):
        measure.golden_outputs_digest(client, manifest, golden)


def test_counters_of_a_silent_server_are_unknown(tmp_path: Path) -> None:
    with Client(str(tmp_path / "none.sock"), timeout=1) as client:
        assert set(read_counters(client, "m").values()) == {None}


def test_an_unknown_phase_is_refused(client: Client, manifest: Manifest, golden: GoldenSet) -> None:
    with pytest.raises(DeviceError, match="candidate, serving, soak"):
        run_gate("canary", client, manifest, VARIANT, golden, manifest.budget("any"))

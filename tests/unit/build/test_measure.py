"""What is measured where, quantiles, and how figures are held against a budget."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build.arrays import Samples
from ansible_collections.edgeai.fleet.plugins.module_utils.build.measure import (
    Host,
    breaches,
    latency_ms,
    make_reference,
    measure,
    quantile,
    read_host,
    why_not_measured,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.build.sessions import Session, match_tensors
from ansible_collections.edgeai.fleet.plugins.module_utils.build.spec import VariantSpec
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import Budget

HOST = Host("x86_64", frozenset({"avx2", "avx512_vnni"}))
BUDGET = Budget(accuracy_drop=0.02, p95_ms=50.0, p95_ratio=3.0, memory_mib=64)


def variant(**changes: Any) -> VariantSpec:
    """A variant that this host can measure, with changes."""
    values: dict[str, Any] = {
        "id": "onnxruntime/int8",
        "runtime": "onnxruntime",
        "precision": "int8",
        "architectures": ("x86_64",),
        "requires": {"accelerators": ["cpu"]},
        "method": "none",
        "options": {},
        "calibration": None,
        "artifact": (),
        "skip_validation": False,
        **changes,
    }
    return VariantSpec(**values)


def test_a_plain_variant_is_measured() -> None:
    assert why_not_measured(variant(), HOST) is None
    wanted = {"accelerators": ["intel-gpu", "cpu"], "cpu_flags_any": ["avx_vnni", "avx512_vnni"]}
    assert why_not_measured(variant(requires=wanted), HOST) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"skip_validation": True}, "skip_validation"),
        ({"runtime": "tensorrt"}, "tensorrt"),
        ({"architectures": ("aarch64",)}, "aarch64"),
        ({"requires": {"accelerators": ["intel-npu"]}}, "intel-npu"),
        ({"requires": {"accelerators": ["cpu"], "cpu_flags_any": ["asimddp"]}}, "asimddp"),
    ],
)
def test_figures_that_would_not_be_true_are_not_taken(changes: dict[str, Any], words: str) -> None:
    assert words in str(why_not_measured(variant(**changes), HOST))


@pytest.mark.parametrize(
    ("text", "stratum"),
    [
        ("flags\t\t: fpu avx2 avx_vnni\n", "cpu-int8/onnxruntime/"),
        ("Features\t: fp asimd asimddp\n", "cpu-int8/onnxruntime/"),
        ("flags\t\t: fpu avx2\n", "cpu/onnxruntime/"),
    ],
)
def test_the_hosts_stratum(tmp_path: Path, text: str, stratum: str) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: x\n" + text, encoding="utf-8")
    host = read_host(tmp_path / "cpuinfo")
    assert host.stratum("onnxruntime") == stratum + host.architecture
    assert read_host(tmp_path / "none").cpu_flags == frozenset()


def test_quantiles_are_observed_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.95), quantile([7.0], 0.95)) == (50.0, 95.0, 7.0)


def session(outputs: Any) -> Session:
    """A session that answers row i of ``outputs`` for a sample whose value is i."""
    return Session("1.0", lambda feed: [outputs[feed["x"][:, 0].astype(int)]], chunk=3)


def samples(count: int, labels: Any = None) -> Samples:
    """Samples 0, 1, 2, ..."""
    return Samples({"x": np.arange(count, dtype=np.float32)[:, None]}, labels, count)


def test_accuracy_and_drop_come_from_validation_and_golden_apart() -> None:
    right, wrong = np.eye(8, dtype=np.float32), np.roll(np.eye(8, dtype=np.float32), 1, axis=1)
    golden = make_reference(session(right), samples(4), "top1", None)
    validation = make_reference(session(right), samples(8, np.arange(8)), "top1", None)
    assert (golden.score, validation.score) == (1.0, 1.0)
    half = np.where(np.arange(8)[:, None] < 2, wrong, right)
    measured, golden_drop = measure(session(half), "top1", golden, validation, None)
    assert measured["accuracy"] == 0.75 and measured["accuracy_drop"] == 0.25
    assert golden_drop == 0.5
    assert measured["runtime_version"] == "1.0"


def test_a_fixed_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ReleaseError, match="exactly 3 samples"):
        session(np.eye(8)).run_all(samples(8).inputs, 8, 3)


def test_an_output_without_a_batch_axis_is_refused() -> None:
    with pytest.raises(ReleaseError, match="first axis must be the batch"):
        Session("1", lambda feed: [np.zeros((1, 2))], chunk=4).run_all(samples(8).inputs, 8, None)


def test_a_slow_model_is_timed_with_fewer_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr(time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: int(clock["now"] * 1e9))
    calls = []

    def run(feed: Any) -> list[Any]:
        calls.append(len(feed["x"]))
        clock["now"] += 0.2
        return []

    assert latency_ms(Session("1", run), samples(4), 1) == pytest.approx((200.0, 200.0))
    assert len(calls) == 20 and set(calls) == {1}


@pytest.mark.parametrize(
    ("figures", "golden_drop", "found"),
    [
        ({"accuracy_drop": 0.02, "p95_ms": 50.0}, 0.02, []),
        ({"accuracy_drop": 0.021, "p95_ms": 1.0}, 0.0, ["accuracy_drop 0.021 is above the budget 0.02"]),
        ({"accuracy_drop": 0.0, "p95_ms": 51.0}, 0.0, ["p95_ms 51 is above the budget 50"]),
        ({"accuracy_drop": -0.1, "p95_ms": 1.0}, 0.5, ["accuracy_drop on the golden samples 0.5"]),
    ],
)
def test_breaches(figures: dict[str, float], golden_drop: float, found: list[str]) -> None:
    texts = breaches(figures, golden_drop, BUDGET)
    assert len(texts) == len(found)
    assert all(text.startswith(start) for text, start in zip(texts, found))


def test_litert_tensors_are_matched_by_name() -> None:
    details = [{"name": "serving_default_b:0"}, {"name": "a"}]
    assert match_tensors("m", "input", ["a", "b"], details) == {"a": details[1], "b": details[0]}
    assert match_tensors("m", "input", ["x"], [{"name": "Identity"}]) == {"x": {"name": "Identity"}}
    with pytest.raises(ReleaseError, match="use the same names"):
        match_tensors("m", "input", ["a", "c"], details)

"""Compatibility: what devices answer, how it is judged, and what the report shows."""

from __future__ import annotations

import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.releases import make_release
from support.servers import onnx_model

from ansible_collections.edgeai.fleet.plugins.module_utils.compatibility import device, page, runner
from ansible_collections.edgeai.fleet.plugins.module_utils.compatibility.errors import CompatibilityError
from ansible_collections.edgeai.fleet.plugins.module_utils.compatibility.judge import Thresholds, check_results, judge
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import Tensor
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import Manifest, load_manifest

ORT = "cpu/onnxruntime/x86_64"
ARM = "cpu/onnxruntime/aarch64"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A release of two variants whose signed accuracy budget is 0.02."""
    return load_manifest(make_release(tmp_path / "releases"))


def result(manifest: Manifest, host: str, variant: str = "onnxruntime/fp32", **changes: Any) -> dict[str, Any]:
    """What a device answers about a variant."""
    return {
        **{"host": host, "variant": variant, "stratum": ORT, "status": "measured", "digest": manifest.digest},
        **{"max_abs_error": 0.0, "top1_agreement": 1.0, "accuracy_drop": 0.0, "score": 1.0, "p50_ms": 1.0},
        **{"outputs_sha256": "a", "reason": "", **changes},
    }


def good(manifest: Manifest) -> list[dict[str, Any]]:
    """Both variants on one device."""
    return [result(manifest, "a"), result(manifest, "a", "onnxruntime/int8", p50_ms=0.5, max_abs_error=0.1)]


def test_rows_hold_the_worst_device_of_each_stratum(manifest: Manifest) -> None:
    results = good(manifest)
    results.append(result(manifest, "b", "onnxruntime/int8", max_abs_error=0.3, top1_agreement=0.9, outputs_sha256="b"))
    report = judge(manifest, results, Thresholds())
    assert report.verdict == "pass"
    row = next(row for row in report.rows if row.variant == "onnxruntime/int8")
    assert (row.hosts, row.max_abs_error, row.top1_agreement, row.outputs) == (["a", "b"], 0.3, 0.9, 2)
    assert row.latency_ratio == 0.5, "b has no fp32 to compare with"


def test_latency_is_relative_to_fp32_of_the_same_runtime_else_of_any(manifest: Manifest) -> None:
    results = [
        result(manifest, "a", p50_ms=1.0),
        result(manifest, "a", "openvino/fp32", p50_ms=4.0),
        result(manifest, "a", "openvino/int8", p50_ms=2.0),
        result(manifest, "a", "litert/int8", p50_ms=2.0),
        result(manifest, "b", "openvino/int8", p50_ms=2.0),
    ]
    ratios = [item["latency_ratio"] for item in judge(manifest, results, Thresholds()).devices]
    assert ratios == [1.0, 1.0, 0.5, 2.0, None]


@pytest.mark.parametrize(
    ("changes", "limits", "words"),
    [
        ({"accuracy_drop": 0.03}, {}, "accuracy drop 0.03 is above the signed budget 0.02"),
        ({"top1_agreement": 0.9}, {"min_agreement": 0.95}, "top-1 agreement 0.9 is below 0.95"),
        ({"max_abs_error": 2.0}, {"max_abs_error": 1.0}, "largest absolute error 2 is above 1"),
        ({"p50_ms": 3.0}, {"max_latency_ratio": 2.0}, "latency ratio 3 is above 2"),
        ({"status": "failed", "reason": "was killed by SIGILL"}, {}, "a: was killed by SIGILL"),
    ],
    ids=range(5),
)
def test_what_fails(manifest: Manifest, changes: dict[str, Any], limits: dict[str, Any], words: str) -> None:
    results = [result(manifest, "a"), result(manifest, "a", "onnxruntime/int8", **changes)]
    report = judge(manifest, results, Thresholds(**limits))
    assert report.verdict == "fail"
    assert [row.reasons for row in report.rows] == [[words], []]  # int8 comes first in this release


def test_limits_are_kept_up_to_the_last_value(manifest: Manifest) -> None:
    results = [
        result(manifest, "a"),
        result(manifest, "a", "onnxruntime/int8", accuracy_drop=0.02, top1_agreement=0.95),
    ]
    assert judge(manifest, results, Thresholds(min_agreement=0.95)).verdict == "pass"


def test_what_nothing_measured_does_not_pass(manifest: Manifest) -> None:
    assert judge(manifest, [], Thresholds()).verdict == "no_data"
    assert judge(manifest, [], Thresholds(unmeasured=True)).verdict == "no_data"
    one = [result(manifest, "a"), result(manifest, "a", "onnxruntime/int8", status="not_here", reason="no flags")]
    report = judge(manifest, one, Thresholds())
    assert (report.verdict, report.problems) == ("no_data", ["no device measured onnxruntime/int8"])
    assert judge(manifest, one, Thresholds(unmeasured=True)).verdict == "pass"
    required = judge(manifest, good(manifest), Thresholds(require=("*/x86_64", ARM)))
    assert (required.verdict, required.problems) == ("no_data", [f"no result from {ARM}"])


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ("text", "give the list"),
        ([7], r"results\[0\] is no mapping"),
        ([{"host": "a"}], r"results\[0\]\.variant is None"),
        ([{"digest": "sha256:00"}], "a measured sha256:00.*measure again"),
        ([{"max_abs_error": float("nan")}], r"max_abs_error is nan"),
        ([{"p50_ms": None}], r"p50_ms is None"),
    ],
    ids=range(6),
)
def test_results_that_are_none(manifest: Manifest, results: Any, words: str) -> None:
    if isinstance(results, list) and isinstance(results[0], dict) and "host" not in results[0]:
        results = [result(manifest, "a", **results[0])]
    with pytest.raises(CompatibilityError, match=words):
        check_results(results, manifest.digest)


class Reader(HTMLParser):
    """Collects what a page loads and whether its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _value in attrs if name in ("src", "href")] + ["script"] * (
            tag == "script"
        )
        if tag not in ("meta", "br", "circle", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("circle", "rect", "line"):
            assert self.open.pop() == tag


def test_the_page_loads_nothing_escapes_everything_and_is_the_same_twice(manifest: Manifest) -> None:
    results = good(manifest)
    results.append(
        result(manifest, "<b>&|x", "onnxruntime/int8", status="failed", reason="<script>alert(1)</script>|\n")
    )
    report = judge(manifest, results, Thresholds(), ["gone"])
    text = page.page("digits <1>", manifest.digest, report)
    assert text == page.page("digits <1>", manifest.digest, judge(manifest, results, Thresholds(), ["gone"]))
    reader = Reader()
    reader.feed(text)
    assert reader.open == [] and reader.loads == []
    assert "<script" not in text and "&lt;b&gt;&amp;|x" in text and "no answer from gone" in text
    assert text.count("<circle") == 2 and text.count("<rect") == 2


def test_markdown_is_one_table_whose_cells_hold(manifest: Manifest) -> None:
    results = [*good(manifest), result(manifest, "x|y", "onnxruntime/int8", status="failed", reason="a|b\n<i>c")]
    text = page.markdown("digits 1.0.0", manifest.digest, judge(manifest, results, Thresholds()))
    assert text.startswith(page.MARKER + " digits 1.0.0 -->\n### digits 1.0.0 fails: 1 of 2 results pass")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 4
    assert all(line.replace("\\|", "").count("|") == len(page.COLUMNS) + 1 for line in rows)
    assert "x\\|y: a\\|b &lt;i&gt;c" in text


def test_a_report_without_measurements_can_be_drawn(manifest: Manifest) -> None:
    report = judge(manifest, [], Thresholds())
    assert "Nothing was measured" in page.page("t", "d", report)
    assert "has gaps" in page.markdown("t", "d", report)


# Devices


def test_differences_of_equal_infinities_are_none() -> None:
    inf = float("inf")
    one = Tensor.from_values("y", "FP32", [4], [1.0, inf, -2.0, 0.0])
    other = Tensor.from_values("y", "FP32", [4], [1.5, inf, -2.0, -0.0])
    assert runner.largest_difference(one, other) == 0.5


def release_of(tmp_path: Path, **payload: bytes) -> Path:
    """A release of y = 2 x for onnxruntime: fp32 is right, int8 is what the test says."""
    x = np.linspace(0.5, 2.0, 64, dtype=np.float32).reshape(16, 4)

    def edit(document: dict[str, Any]) -> None:
        for role, name in (("inputs", "x"), ("outputs", "y")):
            document[role] = [{"name": name, "datatype": "FP32", "shape": [-1, 4]}]
        document["golden"]["metric"] = "relative_error"

    payloads = {"onnxruntime/fp32": onnx_model(2.0), "onnxruntime/int8": payload["int8"], "tensorrt/fp16": b"plan"}
    golden = {"input.x": x, "output.y": 2 * x}
    return make_release(tmp_path, "tiny", variants=list(payloads), payload=payloads, golden=golden, edit=edit)


def measured(release: Path, **effort: Any) -> dict[str, dict[str, Any]]:
    """Variant -> what this machine answers."""
    given = device.Effort(**{"requests": 20, "timeout": 240.0, **effort})
    return {r["variant"]: r for r in device.measure_release(str(release), None, None, [sys.executable], given)}


def test_a_machine_measures_what_it_can_run_and_says_why_not_the_rest(tmp_path: Path) -> None:
    found = measured(release_of(tmp_path, int8=onnx_model(2.5)))
    right, wrong, other = (found[name] for name in ("onnxruntime/fp32", "onnxruntime/int8", "tensorrt/fp16"))
    assert (right["status"], right["max_abs_error"], right["samples"], right["requests"]) == ("measured", 0.0, 16, 20)
    assert right["p95_ms"] >= right["p50_ms"] > 0 and right["runtime_version"]
    assert wrong["max_abs_error"] == pytest.approx(1.0) and wrong["relative_error"] == pytest.approx(0.25, abs=1e-6)
    assert wrong["accuracy_drop"] == pytest.approx(0.25, abs=1e-6) and wrong["top1_agreement"] == 1.0
    assert (other["status"], other["reason"]) == ("not_here", "runtime tensorrt is not installed")


def test_a_model_that_cannot_be_opened_fails_alone(tmp_path: Path) -> None:
    found = measured(release_of(tmp_path, int8=b"this is no model"))
    assert found["onnxruntime/int8"]["status"] == "failed" and "onnxruntime" in found["onnxruntime/int8"]["reason"]
    assert found["onnxruntime/fp32"]["status"] == "measured"


def test_a_crash_and_a_hang_are_answers_too(tmp_path: Path) -> None:
    release = release_of(tmp_path, int8=onnx_model(2.0))
    crash, hang = tmp_path / "crash", tmp_path / "hang"
    for path, what in ((crash, "kill -ILL $$"), (hang, "exec sleep 600")):
        path.write_text(f"#!/bin/sh\n{what}\n", encoding="utf-8")
        os.chmod(path, 0o755)
    run = device._in_a_process
    assert run(str(crash), str(release), "onnxruntime/fp32", device.Effort()) == {"error": "was killed by SIGILL"}
    assert "no answer within" in run(str(hang), str(release), "onnxruntime/fp32", device.Effort(timeout=0.3))["error"]
    assert "nowhere" in run("/nowhere/python", str(release), "onnxruntime/fp32", device.Effort())["error"]


def test_a_damaged_or_another_release_is_refused(tmp_path: Path) -> None:
    release = release_of(tmp_path, int8=onnx_model(2.0))
    with pytest.raises(DeviceError, match="not sha256:00"):
        device.measure_release(str(release), "sha256:00", None, [sys.executable], device.Effort())
    (release / "variants" / "onnxruntime" / "int8" / "model.onnx").write_bytes(b"x")
    with pytest.raises(DeviceError, match=r"int8/model\.onnx is damaged"):
        measured(release)

"""Names into targets, log lines, metrics, and answers on the wire."""

from __future__ import annotations

import io
import json

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.server import loader, protocol
from ansible_collections.edgeai.fleet.plugins.module_utils.server.inference import Answer
from ansible_collections.edgeai.fleet.plugins.module_utils.server.log import BURST, MAX_LINE, RATE, Log
from ansible_collections.edgeai.fleet.plugins.module_utils.server.metrics import KEPT_VERSIONS, Metrics


def test_current_names_release_and_variant() -> None:
    target = loader.parse_current("digits", "../../releases/digits/1.1.0/variants/onnxruntime/int8")
    assert target == loader.Target("digits", "1.1.0", "onnxruntime/int8")
    assert target.release_dir("/edge") == "/edge/releases/digits/1.1.0"


@pytest.mark.parametrize(
    "link",
    [
        "",
        "/etc",
        "../../../../etc/a/b/c/d",
        "../../releases/other/1.1.0/variants/onnxruntime/int8",
        "../../releases/digits/1.1.0/golden/onnxruntime/int8",
        "../../releases/digits/../variants/onnxruntime/int8",
        "../../releases/digits/1.1.0/variants/onnxruntime",
        "../../releases/digits/1.1.0/variants/onnxruntime/..",
        "../../releases/digits/1.1.0/variants/onnxruntime/int8/x",
    ],
)
def test_a_current_that_names_anything_else_is_refused(link: str) -> None:
    with pytest.raises(DeviceError):
        loader.parse_current("digits", link)


def test_log_lines_are_bounded_in_length() -> None:
    stream = io.StringIO()
    Log(stream).event("error", "big", text="x" * 100000, other="y" * 5000)
    line = stream.getvalue()
    assert len(line) <= MAX_LINE + 1
    assert json.loads(line)["event"] == "big"


def test_log_lines_are_bounded_in_rate_and_what_is_left_out_is_counted() -> None:
    stream, clock = io.StringIO(), [0.0]
    log = Log(stream, lambda: clock[0])
    for _turn in range(10000):
        log.event("info", "flood")
    assert len(stream.getvalue().splitlines()) == BURST
    clock[0] += 1.0
    for _turn in range(1000):
        log.event("info", "flood")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == BURST + RATE
    assert lines[int(BURST)]["suppressed_before"] == 10000 - BURST


def test_a_log_whose_stream_is_gone_does_not_raise() -> None:
    stream = io.StringIO()
    stream.close()
    Log(stream).event("info", "nobody listens")


def test_versions_are_forgotten_after_a_while_but_never_the_newest() -> None:
    metrics = Metrics("s", "b")
    for number in range(KEPT_VERSIONS + 5):
        old = (f"1.{number - 1}.0", "onnxruntime/fp32", "sha256:x") if number else None
        metrics.serving("m", old, (f"1.{number}.0", "onnxruntime/fp32", "sha256:x"))
        metrics.request("m", f"1.{number}.0", 200, 0.001)
        metrics.request("m", f"1.{number}.0", 500, 0.001)
    text = metrics.render()[0].decode()
    assert text.count("edgeai_requests_total{") == 2 * KEPT_VERSIONS
    assert text.count("edgeai_request_errors_total{") == KEPT_VERSIONS
    assert text.count("edgeai_model_info{") == 1
    assert f'edgeai_request_errors_total{{model="m",version="1.{KEPT_VERSIONS + 4}.0"}} 1.0' in text
    assert 'version="1.0.0"' not in text


def test_a_served_version_without_errors_has_a_series_with_zero() -> None:
    metrics = Metrics("s", "b")
    metrics.serving("m", None, ("1.0.0", "onnxruntime/fp32", "sha256:x"))
    assert 'edgeai_request_errors_total{model="m",version="1.0.0"} 0.0' in metrics.render()[0].decode()


def test_an_answer_on_the_wire() -> None:
    raw = protocol.render(Answer(200, b"{}", {"X-Edgeai-Digest": "d"}), [(b"date", b"now")], close=False)
    assert raw == b"HTTP/1.1 200 OK\r\ndate: now\r\nx-edgeai-digest: d\r\ncontent-length: 2\r\n\r\n{}"
    assert b"connection: close\r\n" in protocol.render(Answer(408, b"{}", {}), [], close=True)


class _Transport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


def test_head_and_body_of_an_infer_answer_are_one_write_and_others_are_left_alone() -> None:
    transport = _Transport()
    joined = protocol.OneWrite(transport)
    joined.write(b"HTTP/1.1 200 OK\r\nx-edgeai-digest: d\r\n\r\n")
    joined.write(b"{}")
    joined.write(b"HTTP/1.1 200 OK\r\n\r\n")
    joined.write(b"[]")
    assert transport.writes == [
        b"HTTP/1.1 200 OK\r\nx-edgeai-digest: d\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"[]",
    ]

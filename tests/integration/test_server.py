"""The model server as a real process, with real models and signed releases, over its two sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.releases import write_trust
from support.servers import MODEL, VARIANT, Device, onnx_model, running, tensors, wait_for

ROW = ((1.0, 2.0, 3.0, 4.0),)
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """One server for the tests that leave it as it was: 1.0.0, y = 2 x."""
    with running(tmp_path_factory.mktemp("shared"), "--max-body-mib", "1") as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Device]:
    """A server of the test's own: 1.0.0, y = 2 x."""
    with running(tmp_path) as made:
        yield made


def doubled(reply: Any, factor: float = 2.0) -> bool:
    return reply.status == 200 and reply.json()["outputs"][0]["data"] == [factor * v for v in ROW[0]]


def metric(device: Device, name: str) -> float:
    """Return the value of a series by its full name with labels, 0 when it is not there."""
    for line in device.get("/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


class Traffic:
    """Clients that ask without a pause and check every answer; ``bad`` holds what was wrong."""

    def __init__(self, device: Device, factors: set[float], clients: int = 3) -> None:
        self.device = device
        self.factors = factors
        self.bad: list[str] = []
        self.answered = 0
        self.seen: set[float] = set()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _turn in range(clients)]

    def _run(self) -> None:
        connection = self.device.connection()
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": list(ROW[0])}]}
        while not self._over.is_set():
            try:
                reply = self.device.request("POST", INFER, body, connection=connection)
                factor = reply.json()["outputs"][0]["data"][0] if reply.status == 200 else None
            except (OSError, http.client.HTTPException, ValueError) as exc:
                self.bad.append(repr(exc))
                continue
            if factor not in self.factors:
                self.bad.append(f"{reply.status} {reply.body[:200]!r}")
            else:
                self.seen.add(factor)
                self.answered += 1

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


# -- what it says about itself ---------------------------------------------------------------------------------------


def test_server_and_model_describe_themselves(device: Device) -> None:
    assert device.get("/v2").json()["extensions"] == ["binary_tensor_data", "model_repository"]
    assert device.get("/v2/health/live").status == 200
    assert device.get("/v2/health/ready").json()["ready"] is True
    metadata = device.get(f"/v2/models/{MODEL}").json()
    assert metadata["versions"] == ["1.0.0"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["platform"] == "onnxruntime"
    assert device.get(f"/v2/models/{MODEL}/versions/1.0.0").json() == metadata
    assert device.post("/v2/repository/index").json() == [
        {"name": MODEL, "version": "1.0.0", "state": "READY", "reason": ""}
    ]


def test_ready_names_exactly_what_is_served_and_by_whom(device: Device) -> None:
    body = device.get(f"/v2/models/{MODEL}/ready").json()
    active = device.store.read(MODEL).active
    assert active is not None
    assert body == {
        "name": MODEL,
        "ready": True,
        "version": "1.0.0",
        "variant": VARIANT,
        "digest": active.digest,
        "start_id": device.info()["start_id"],
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }


def test_a_json_answer_carries_the_digest_in_body_and_header(device: Device) -> None:
    reply = device.infer()
    body = reply.json()
    assert doubled(reply)
    assert body["model_name"] == MODEL
    assert body["model_version"] == "1.0.0"
    assert body["parameters"]["digest"] == reply.headers["X-Edgeai-Digest"] == device.store.read(MODEL).active.digest


def test_binary_tensors_in_and_out(device: Device) -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    fields = {"name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": values.nbytes}}
    text = json.dumps({"inputs": [fields], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    reply = device.post(INFER, text + values.tobytes(), headers)
    assert reply.status == 200, reply.body
    length = int(reply.headers["Inference-Header-Content-Length"])
    described = json.loads(reply.body[:length])["outputs"][0]
    assert described["parameters"]["binary_data_size"] == values.nbytes
    np.testing.assert_array_equal(np.frombuffer(reply.body[length:], np.float32).reshape(2, 4), values * 2)


# -- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("POST", f"/v2/models/{MODEL}/versions/9.9.9/infer", 404),
        ("GET", f"/v2/models/{MODEL}/versions/9.9.9/ready", 404),
        ("GET", INFER, 405),
        ("PUT", f"/v2/models/{MODEL}", 405),
        ("GET", "/v2/repository/index", 405),
        ("GET", "/nothing", 404),
        ("POST", "/v2/models/../../etc/infer", 404),
        ("POST", INFER, 400),
    ],
)
def test_refusals_are_json_with_the_right_status(device: Device, method: str, path: str, status: int) -> None:
    reply = device.request(method, path)
    assert reply.status == status
    assert reply.json()["error"]


@pytest.mark.parametrize("action", ["load", "unload"])
def test_the_repository_cannot_be_changed_over_tcp(device: Device, action: str) -> None:
    reply = device.post(f"/v2/repository/models/{MODEL}/{action}", {"parameters": {"drop_candidate": True}})
    assert reply.status == 403
    assert "server.sock" in reply.json()["error"]
    assert doubled(device.infer())


def test_a_body_over_the_limit_is_413_declared_or_not(device: Device) -> None:
    assert device.post(INFER, b"x" * ((1 << 20) + 1)).status == 413
    connection = device.connection()
    connection.putrequest("POST", INFER)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    with contextlib.suppress(OSError):  # it may close before all of a refused body was sent
        for _turn in range(20):
            connection.send(b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n")
        connection.send(b"0\r\n\r\n")
    assert connection.getresponse().status == 413


def test_a_chunked_body_and_one_that_comes_in_pieces_are_answered(device: Device) -> None:
    raw = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": list(ROW[0])}]}).encode()
    connection = device.connection()
    connection.request("POST", INFER, iter([raw[:10], raw[10:]]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert json.loads(connection.getresponse().read())["outputs"][0]["data"][0] == 2.0
    host, port = device.info()["url"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        head = f"POST {INFER} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
        for piece in (head[:20], head[20:], raw[:7], raw[7:]):
            sock.sendall(piece)
            time.sleep(0.02)  # so that the pieces arrive apart
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(device: Device) -> None:
    host, port = device.info()["url"].removeprefix("http://").split(":")

    def request(value: float, path: str = INFER) -> bytes:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}
        raw = json.dumps({"inputs": [tensor]}).encode()
        return f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw

    wanted = b"".join([request(1.0), b"GET /v2/health/live HTTP/1.1\r\nHost: d\r\n\r\n", request(3.0), request(4.0)])
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall(wanted)
        answer = b""
        while answer.count(b"HTTP/1.1 200") < 4 or not answer.endswith(b"}"):
            part = sock.recv(65536)
            assert part, answer
            answer += part
    places = [answer.index(mark) for mark in (b"[2.0,", b'"live"', b"[6.0,", b"[8.0,")]
    assert places == sorted(places)


def test_too_many_at_once_are_told_to_come_again(tmp_path: Path) -> None:
    slow = onnx_model(1.0, width=1024, layers=12)
    device = Device(tmp_path)
    device.activate(device.stage("1.0.0", payload=slow, edit=tensors(1024)))
    device.start("--workers", "1", "--queue", "1")
    try:
        raw = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [64, 1024], "data": [1] * 65536}]}
        ).encode()
        replies: list[Any] = []
        threads = [threading.Thread(target=lambda: replies.append(device.post(INFER, raw))) for _turn in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = {reply.status for reply in replies}
        assert statuses == {200, 503}
        assert all(reply.headers["Retry-After"] == "1" for reply in replies if reply.status == 503)
    finally:
        device.stop(signal.SIGKILL)


def test_metrics_count_requests_by_version_and_code(own: Device) -> None:
    for _turn in range(3):
        own.infer()
    own.post(INFER, b"{}")
    name = 'edgeai_requests_total{code="%d",model="tiny",version="1.0.0"}'
    assert metric(own, name % 200) == 3
    assert metric(own, name % 400) == 1
    assert metric(own, 'edgeai_request_errors_total{model="tiny",version="1.0.0"}') == 0
    assert metric(own, 'edgeai_request_duration_seconds_count{model="tiny",version="1.0.0"}') == 4
    digest = own.store.read(MODEL).active.digest
    info = f'edgeai_model_info{{digest="{digest}",model="tiny",variant="{VARIANT}",version="1.0.0"}}'
    assert metric(own, info) == 1
    start = own.info()
    labels = f'boot_id="{start["boot_id"]}",start_id="{start["start_id"]}"'
    assert metric(own, f"edgeai_server_info{{{labels}}}") == 1
    assert metric(own, "process_resident_memory_bytes") > 20 << 20
    assert metric(own, 'edgeai_swaps_total{model="tiny",result="loaded"}') == 1


def test_sockets_and_run_directory_are_closed_to_others(device: Device) -> None:
    run = device.root / "run"
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE((run / "server.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((run / "server.json").stat().st_mode) == 0o600


# -- swapping --------------------------------------------------------------------------------------------------------


def test_swaps_under_load_lose_nothing(own: Device) -> None:
    refs = {"1.1.0": own.stage("1.1.0", 3.0), "1.2.0": own.stage("1.2.0", 5.0)}
    with Traffic(own, {2.0, 3.0, 5.0}) as traffic:
        for turn in range(8):
            own.activate(refs["1.1.0" if turn % 2 == 0 else "1.2.0"])
            body = own.manage("load").json()
            assert body["result"] == "loaded"
            assert body["digest"] == refs[body["version"]].digest
            assert doubled(own.infer(), 3.0 if turn % 2 == 0 else 5.0)
    assert traffic.bad == []
    assert traffic.answered > 50
    assert traffic.seen == {2.0, 3.0, 5.0}


def test_the_same_again_changes_nothing(own: Device) -> None:
    before = own.get(f"/v2/models/{MODEL}/ready").json()
    assert own.manage("load").json() == dict(before, result="unchanged")
    assert own.manage("load", force=True).json()["result"] == "loaded"


def _corrupt(device: Device) -> None:
    entry = device.root / "releases" / MODEL / "1.1.0" / "variants" / VARIANT / "model.onnx"
    blob = entry.resolve()
    content = blob.read_bytes()
    os.chmod(blob, 0o644)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _unsigned(device: Device) -> None:
    (device.root / "releases" / MODEL / "1.1.0" / "model.sig").unlink()


def _extra_file(device: Device) -> None:
    (device.root / "releases" / MODEL / "1.1.0" / "variants" / VARIANT / "plugin.so").write_bytes(b"x")


def _link_out(device: Device) -> None:
    path = device.root / "releases" / MODEL / "1.1.0" / "variants" / VARIANT / "model.onnx"
    copy = device.base / "outside.onnx"
    copy.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(copy)


def _other_key(device: Device) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    for key in (device.root / "trust" / "keys").iterdir():
        key.unlink()
    write_trust(device.root / "trust", ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_corrupt, "model.onnx"),
        (_unsigned, "not signed"),
        (_extra_file, "plugin.so"),
        (_link_out, "model.onnx"),
        (_other_key, "not trusted"),
    ],
)
def test_what_cannot_be_verified_is_refused_and_the_old_release_stays(own: Device, damage: Any, words: str) -> None:
    own.activate(own.stage("1.1.0", 3.0))
    damage(own)
    reply = own.manage("load")
    assert reply.status == 409
    assert words in reply.json()["error"]
    assert doubled(own.infer())
    assert own.get(f"/v2/models/{MODEL}/ready").json()["version"] == "1.0.0"
    assert metric(own, 'edgeai_swaps_total{model="tiny",result="refused"}') == 1


def test_what_is_signed_but_does_not_load_is_refused_and_the_old_release_stays(own: Device) -> None:
    own.activate(own.stage("1.1.0", payload=b"signed, and no model"))
    reply = own.manage("load")
    assert reply.status == 500
    assert "cannot run" in reply.json()["error"]
    assert doubled(own.infer())


def test_a_link_to_elsewhere_is_refused(own: Device) -> None:
    link = own.root / "models" / MODEL / "current"
    link.unlink()
    link.symlink_to("../../../../etc")
    reply = own.manage("load")
    assert reply.status == 409
    assert "which is no variant" in reply.json()["error"]
    assert doubled(own.infer())


# -- the candidate ---------------------------------------------------------------------------------------------------


def test_a_candidate_answers_only_by_version_and_only_over_the_unix_socket(own: Device) -> None:
    ref = own.stage("1.1.0", 3.0)
    body = own.manage("load", candidate_version="1.1.0", candidate_variant=VARIANT).json()
    assert (body["digest"], body["version"], body["ready"]) == (ref.digest, "1.1.0", True)
    assert doubled(own.infer(version="1.1.0", unix=True), 3.0)
    assert own.get(f"/v2/models/{MODEL}/versions/1.1.0/ready", unix=True).json()["digest"] == ref.digest
    # over TCP it does not exist, and the default stays what it was on both
    assert own.infer(version="1.1.0").status == 404
    assert own.get(f"/v2/models/{MODEL}/versions/1.1.0/ready").status == 404
    assert own.get(f"/v2/models/{MODEL}/versions/1.1.0").status == 404
    assert "1.1.0" not in own.post("/v2/repository/index").body.decode()
    assert "1.1.0" in own.post("/v2/repository/index", unix=True).body.decode()
    assert doubled(own.infer())
    assert doubled(own.infer(unix=True))
    assert doubled(own.infer(version="1.0.0"))


def test_a_candidate_is_dropped(own: Device) -> None:
    own.stage("1.1.0", 3.0)
    own.manage("load", candidate_version="1.1.0", candidate_variant=VARIANT)
    assert own.manage("unload", drop_candidate=True).json() == {"result": "dropped"}
    assert own.infer(version="1.1.0", unix=True).status == 404
    assert own.manage("unload", drop_candidate=True).json() == {"result": "unchanged"}
    assert doubled(own.infer())


def test_a_warm_candidate_is_promoted_at_once(own: Device) -> None:
    ref = own.stage("1.1.0", 3.0)
    own.manage("load", candidate_version="1.1.0", candidate_variant=VARIANT)
    own.activate(ref)
    with Traffic(own, {2.0, 3.0}) as traffic:
        wait_for(lambda: traffic.answered > 20)
        body = own.manage("load").json()
        assert body["result"] == "promoted"
        assert body["digest"] == ref.digest
        done = traffic.answered
        wait_for(lambda: traffic.answered > done + 20)
    assert traffic.bad == []
    assert own.infer(version="1.0.0", unix=True).status == 404
    assert doubled(own.infer(), 3.0)


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"candidate_version": "1.1.0"}, 400),
        ({"candidate_version": "../1.1.0", "candidate_variant": VARIANT}, 400),
        ({"candidate_version": "1.1.0", "candidate_variant": "../../x"}, 400),
        ({"candidate_version": "1.1.0", "candidate_variant": "onnxruntime/int8"}, 409),
        ({"candidate_version": "7.0.0", "candidate_variant": VARIANT}, 404),
        ({"candidate_versoin": "1.1.0"}, 400),
    ],
)
def test_a_candidate_that_cannot_be_is_refused(device: Device, parameters: dict[str, str], status: int) -> None:
    if not (device.root / "releases" / MODEL / "1.1.0").exists():
        device.stage("1.1.0", 3.0)
    reply = device.manage("load", **parameters)
    assert reply.status == status, reply.body
    assert reply.json()["error"]
    assert doubled(device.infer())


def test_a_first_release_can_be_a_candidate_before_anything_serves(tmp_path: Path) -> None:
    device = Device(tmp_path)
    ref = device.stage("1.0.0", 2.0)
    device.start(ready=False)
    try:
        assert device.get("/v2/health/live").status == 200
        assert device.get("/v2/health/ready").status == 503
        assert device.manage("load").status == 404
        device.manage("load", candidate_version="1.0.0", candidate_variant=VARIANT)
        assert doubled(device.infer(version="1.0.0", unix=True))
        assert device.infer().status == 503
        device.activate(ref)
        assert device.manage("load").json()["result"] == "promoted"
        assert doubled(device.infer())
        assert device.get("/v2/health/ready").status == 200
        assert device.manage("unload").json() == {"result": "dropped"}
        assert device.infer().status == 503
    finally:
        device.stop(signal.SIGKILL)


# -- start and end ---------------------------------------------------------------------------------------------------


def test_term_finishes_what_was_begun_and_ends_with_0(tmp_path: Path) -> None:
    slow = onnx_model(1.0, width=1024, layers=24)
    device = Device(tmp_path)
    device.activate(device.stage("1.0.0", payload=slow, edit=tensors(1024)))
    device.start("--workers", "1")
    try:
        raw = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [128, 1024], "data": [1] * 131072}]}
        ).encode()
        replies: list[Any] = []
        threads = [threading.Thread(target=lambda: replies.append(device.post(INFER, raw))) for _turn in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: metric(device, "edgeai_requests_in_flight") >= 4)
        assert device.stop(signal.SIGTERM) == 0
        for thread in threads:
            thread.join()
        assert [reply.status for reply in replies] == [200] * 4
        assert not (device.root / "run" / "server.json").exists()
        assert not (device.root / "run" / "server.sock").exists()
    finally:
        device.stop(signal.SIGKILL)


def test_after_a_kill_it_starts_and_serves_again_with_another_start_id(own: Device) -> None:
    first = own.info()["start_id"]
    own.stop(signal.SIGKILL)
    (own.root / "run" / "server.json").unlink()
    own.start()
    assert own.info()["start_id"] != first
    assert doubled(own.infer())


def test_only_one_server_runs_per_device(own: Device) -> None:
    second = own.cli("serve")
    assert second.returncode == 4
    assert "already runs" in second.stderr
    assert doubled(own.infer())


def test_a_path_too_long_for_a_socket_address_works(tmp_path: Path) -> None:
    with running(tmp_path / ("long-" * 24)) as device:
        assert len(str(device.root / "run" / "server.sock")) > 108
        assert device.get("/v2/health/live", unix=True).status == 200
        assert device.manage("load").json()["result"] == "unchanged"


def test_at_start_a_release_that_cannot_be_verified_is_not_served_and_the_reason_is_told(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.activate(device.stage("1.1.0", 2.0))
    _corrupt(device)
    device.start(ready=False)
    try:
        wait_for(lambda: "model.onnx" in device.get("/v2/health/ready").body.decode())
        reply = device.get(f"/v2/models/{MODEL}/ready")
        assert reply.status == 503
        assert reply.json()["ready"] is False
        assert device.infer().status == 503
    finally:
        device.stop(signal.SIGKILL)


def test_log_lines_are_json_and_name_refused_requests(own: Device) -> None:
    own.post(INFER, b"{}")
    lines = [json.loads(line) for line in own.log().splitlines()]
    assert {"started", "swap", "infer"} <= {line["event"] for line in lines}
    refused = next(line for line in lines if line["event"] == "infer")
    assert refused["status"] == 400
    assert "inputs must be a list" in refused["error"]


@pytest.mark.parametrize("runtime", ["openvino", "litert"])
def test_other_runtimes_serve_over_http(tmp_path: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
        payload = onnx_model(2.0)  # OpenVINO reads ONNX too
        fields: dict[str, Any] = {"id": "openvino/fp32"}
    else:
        pytest.importorskip("ai_edge_litert")
        from support.tflite import tflite_model

        payload, fields = tflite_model(2.0), {"id": "litert/fp32"}
    device = Device(tmp_path, runtime=runtime)
    device.activate(device.stage("1.0.0", payload=payload, variants=(fields,)))
    device.start()
    try:
        assert doubled(device.infer())
        assert device.get(f"/v2/models/{MODEL}/ready").json()["variant"] == fields["id"]
    finally:
        device.stop(signal.SIGKILL)

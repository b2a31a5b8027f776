"""The protocol client against a real socket, with servers that behave and servers that do not."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.fleet import wait_for
from support.oip_server import RecordingServer, Refuse, Served, State

from ansible_collections.edgeai.fleet.plugins.module_utils.device.client import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.oip import ServerError, decode_answer, encode_call
from ansible_collections.edgeai.fleet.plugins.module_utils.device.prometheus import labels_of, parse_metrics, total
from ansible_collections.edgeai.fleet.plugins.module_utils.release.golden import Tensor

X = np.array([[1.5, -2.25, np.pi], [np.float32(1e-40), 1e38, -0.0]], "<f4")


def tensor(array: np.ndarray, name: str = "x") -> Tensor:
    return Tensor(name, "FP32", array.shape, np.ascontiguousarray(array, "<f4").tobytes())


@pytest.fixture
def state() -> State:
    return State(serving=Served("1.0.0", "sha256:aa", "onnxruntime/fp32", lambda inputs: {"y": inputs["x"] * 2}))


@pytest.fixture
def server(state: State) -> Iterator[RecordingServer]:
    with RecordingServer(state) as running:
        yield running


def test_ready_tells_who_serves(server: RecordingServer, state: State) -> None:
    with Client(server.target) as client:
        ready = client.ready("m")
        assert (ready.ready, ready.version, ready.digest) == (True, "1.0.0", "sha256:aa")
        assert (ready.variant, ready.start_id, ready.boot_id) == ("onnxruntime/fp32", "start-1", "boot-1")
        state.serving = None
        assert client.ready("m").ready is False
        assert client.live() and client.server_ready()


@pytest.mark.parametrize("as_json", [False, True])
def test_infer_keeps_every_bit(server: RecordingServer, state: State, as_json: bool) -> None:
    state.json_answers = as_json
    with Client(server.target) as client:
        answer = client.infer("m", [tensor(X)])
    assert answer.outputs["y"].data == (X * np.float32(2)).astype("<f4").tobytes()
    assert answer.outputs["y"].shape == (2, 3)
    assert (answer.digest, answer.version) == ("sha256:aa", "1.0.0") and 0 < answer.seconds < 5


def test_nan_and_infinity_arrive_as_such(server: RecordingServer, state: State) -> None:
    state.serving.function = lambda inputs: {"y": np.array([[np.nan, np.inf]])}  # type: ignore[union-attr]
    with Client(server.target) as client:
        values = client.infer("m", [tensor(X)]).outputs["y"].values()
    assert values[0] != values[0] and values[1] == float("inf")


def test_one_connection_serves_many_calls(server: RecordingServer, state: State) -> None:
    call = encode_call([tensor(X)])
    with Client(server.target) as client:
        for _turn in range(20):
            client.infer("m", call)
        client.ready("m")
    assert state.connections == 1


def test_a_kept_connection_that_was_closed_is_opened_again(server: RecordingServer, state: State) -> None:
    state.close_after_each = True
    with Client(server.target) as client:
        for _turn in range(3):
            assert client.ready("m").ready
    assert state.connections == 3


@pytest.mark.parametrize("depth", [0, 8])
def test_unix_sockets_of_any_path_length(state: State, tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["a-directory-with-a-long-name"] * depth)
    directory.mkdir(parents=True, exist_ok=True)
    path = str(directory / "server.sock")
    assert (len(path) > 108) == bool(depth) or depth == 0
    before = len(os.listdir("/proc/self/fd"))
    with RecordingServer(state, path) as running, Client(running.target) as client, Client(path) as plain:
        assert client.ready("m").digest == plain.ready("m").digest == "sha256:aa"
    # the recording server's threads close theirs a moment later
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before, 60, "no descriptor is left open")


def test_management_calls(server: RecordingServer, state: State) -> None:
    state.loadable = Served("1.1.0", "sha256:bb", "onnxruntime/int8", lambda inputs: {"y": inputs["x"]})
    with Client(server.target) as client:
        client.load("m", "1.1.0", "onnxruntime/int8")
        assert client.ready("m", "1.1.0").digest == "sha256:bb" and client.ready("m").digest == "sha256:aa"
        client.drop_candidate("m")
        assert client.ready("m", "1.1.0").ready is False
        client.load("m")
        client.unload("m")
        assert client.ready("m").ready is False
    assert state.log.count("POST /v2/repository/models/m/load") == 2


def test_names_are_quoted(server: RecordingServer, state: State) -> None:
    with Client(server.target) as client:
        client.ready("a/../b c", "1.0.0+x")
    assert state.log == ["GET /v2/models/a%2F..%2Fb%20c/versions/1.0.0%2Bx/ready"]


def test_a_refusal_carries_status_and_reason(server: RecordingServer, state: State) -> None:
    state.load_refusal = Refuse(409, "signature of 1.1.0 is not trusted", "not_trusted")
    with Client(server.target) as client, pytest.raises(ServerError) as caught:
        client.load("m", "1.1.0", "x/y")
    error = caught.value
    assert isinstance(error, DeviceError) and error.code == "server"
    assert (error.status, error.refusal, error.timed_out) == (409, "not_trusted", False)
    assert "signature of 1.1.0 is not trusted" in error.message and server.target in error.message


def test_metrics(server: RecordingServer) -> None:
    with Client(server.target) as client:
        client.infer("m", [tensor(X)])
        samples = client.metrics()
    assert total(samples, "edgeai_requests_total", model="m") == 1
    assert total(samples, "process_resident_memory_bytes") == 100 * 1048576
    assert labels_of(samples, "edgeai_server_info")["start_id"] == "start-1"


def test_metric_text() -> None:
    text = (
        "# HELP a b\n# TYPE a counter\n"
        'a_total{model="x\\"y\\\\z",path="a,b}c"} 3 1700000000000\n'
        'a_total{model="n\\nl"} 2.5e1\nb NaN\nc +Inf\nbroken{ 1\nno_value\nd{} 7\ne{x="1"} word\n'
    )
    samples = parse_metrics(text)
    assert samples[0].labels == {"model": 'x"y\\z', "path": "a,b}c"} and samples[0].value == 3
    assert samples[1].labels == {"model": "n\nl"} and total(samples, "a_total") == 28
    assert total(samples, "missing") is None and total(samples, "d") == 7
    assert {sample.name for sample in samples} == {"a_total", "b", "c", "d"}
    assert labels_of(samples, "missing") == {}


# Servers that do not behave


def take_request(connection: socket.socket) -> None:
    """Read a request to its end: a socket closed with unread data resets the connection, and the answer with it."""
    with connection.makefile("rb") as stream:
        headers = {}
        for line in iter(stream.readline, b"\r\n"):
            if not line:
                return
            name, _colon, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        stream.read(int(headers.get("content-length", "0")))


@contextlib.contextmanager
def raw_server(reply: Callable[[socket.socket], object]) -> Iterator[str]:
    """A TCP server that reads one request and then does as it is told."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                take_request(connection)
                reply(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopped.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def http(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


ONE = b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}}]}'


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed connection|reset"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
        (http(b"not json"), "not JSON"),
        (http(b"[1]"), "not a JSON object"),
        (http(b"{}"), "outputs is missing"),
        (http(b'{"outputs":[]}'), "outputs is missing"),
        (http(b'{"outputs":[7]}'), "not an object"),
        (http(b'{"outputs":[{"name":"y","datatype":"BYTES","shape":[1]}]}'), "'BYTES' is not supported"),
        (http(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}'), "not a list of lengths"),
        (http(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1]}]}'), "output 'y'"),
        (http(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":["a"]}]}'), "output 'y'"),
        (http(ONE + b"1234", f"Inference-Header-Content-Length: {len(ONE)}"), "4 bytes are left"),
        (http(ONE + b"12345678x", f"Inference-Header-Content-Length: {len(ONE)}"), "1 bytes after the last output"),
        (http(ONE, "Inference-Header-Content-Length: 99999"), "99999"),
        (http(ONE, "Inference-Header-Content-Length: -1"), "'-1'"),
        (http(ONE, length=len(ONE) + 5), "IncompleteRead"),
        (http(b"{}", length=10**12), "at most"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "100 headers"),
    ],
)
def test_a_bad_answer_is_an_error_that_says_what_is_wrong(answer: bytes, said: str) -> None:
    with raw_server(lambda connection: connection.sendall(answer)) as target, Client(target, timeout=5) as client:
        with pytest.raises(ServerError, match=said) as caught:
            client.infer("m", [tensor(X)])
        assert caught.value.status is None and not caught.value.timed_out


def test_an_answer_that_trickles_in_ends_at_the_time_out() -> None:
    stop = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not stop.wait(0.02):
            connection.sendall(b" ")

    with raw_server(trickle) as target, Client(target, timeout=0.4) as client:
        began = time.monotonic()
        with pytest.raises(ServerError) as caught:
            client.ready("m")
        stop.set()
        assert caught.value.timed_out and time.monotonic() - began < 2


def test_a_deadline_bounds_all_calls_and_nests() -> None:
    stop = threading.Event()
    with raw_server(lambda connection: stop.wait(10)) as target, Client(target, timeout=30) as client:
        began = time.monotonic()
        with client.deadline(0.3), client.deadline(60):
            assert client.time_left() <= 0.3
            for _turn in range(3):
                with pytest.raises(ServerError) as caught:
                    client.live()
                assert caught.value.timed_out
        stop.set()
        assert time.monotonic() - began < 2 and client.time_left() == float("inf")


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for target in (f"http://127.0.0.1:{port}", str(tmp_path / "server.sock"), str(tmp_path / ("x" * 90) / "s.sock")):
        with Client(target, timeout=2) as client, pytest.raises(ServerError) as caught:
            client.ready("m")
        assert caught.value.status is None and target in caught.value.message


@pytest.mark.parametrize("target", ["", "127.0.0.1:9001", "https://a", "http://", "http://a:x", "relative.sock"])
def test_a_bad_url_is_refused_at_once(target: str) -> None:
    with pytest.raises(ServerError, match="write http://host:port"):
        Client(target)


def test_half_precision_survives_json() -> None:
    body = b'{"outputs":[{"name":"y","datatype":"FP16","shape":[1,2],"data":[[1.5,-2]]}],"parameters":{"digest":"d"}}'
    answer = decode_answer(body, None, None, 0.0)
    assert answer.outputs["y"].data == struct.pack("<2e", 1.5, -2) and answer.digest == "d"

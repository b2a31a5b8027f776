"""A recording Open Inference Protocol server for tests.

It is a stand-in for the real model server where a test needs a server that misbehaves on command. It speaks real HTTP
on a real socket and its models are real numpy functions; it verifies nothing and reads no store.
"""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np

HEADER = "Inference-Header-Content-Length"
TYPES = {"FP32": "<f4", "INT64": "<i8"}
Function = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class Refuse(Exception):
    """Raised by a model function or a hook: answer with this HTTP status."""

    def __init__(self, status: int, text: str, code: str = "bad_input") -> None:
        super().__init__(text)
        self.status, self.code = status, code


@dataclass
class Served:
    """A loaded release: who it is, and what it computes."""

    version: str
    digest: str
    variant: str
    function: Function
    inputs: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class State:
    """Everything a test can set or read. ``hook`` runs before every infer request, with its number."""

    model: str = "m"
    serving: Served | None = None
    candidate: Served | None = None
    loadable: Served | None = None
    load_refusal: Refuse | None = None
    start_id: str = "start-1"
    boot_id: str = "boot-1"
    resident: float | None = 100 * 1048576.0
    requests: int = 0
    errors: int = 0
    json_answers: bool = False
    hook: Callable[[int], None] = lambda number: None
    log: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    connections: int = 0
    close_after_each: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def setup(self) -> None:
        super().setup()
        self.state.connections += 1

    def log_message(self, *_arguments: Any) -> None:
        pass

    def address_string(self) -> str:
        return "test"

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _handle(self, body: bytes) -> None:
        self.state.log.append(f"{self.command} {self.path}")
        try:
            self._route(body)
        except Refuse as error:
            self.state.errors += error.status >= 500 and self.path.endswith("/infer")
            self._send(error.status, json.dumps({"error": str(error), "code": error.code}).encode())

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that gave up
            self.end_headers()
            self.wfile.write(body)
        self.close_connection = self.close_connection or self.state.close_after_each

    def _route(self, body: bytes) -> None:
        state, path = self.state, self.path
        if path == "/metrics":
            return self._send(200, self._metrics().encode())
        if path.startswith("/v2/health"):
            return self._send(200, b'{"live": true}')
        if path.startswith("/v2/repository/models/"):
            return self._send(200, json.dumps(self._repository(path, body)).encode())
        served = self._find(path)
        if path.endswith("/infer"):
            return self._infer(served, body)
        if path.endswith("/ready"):
            if served is None:
                return self._send(503, json.dumps({"name": state.model, "ready": False}).encode())
            told = {"version": served.version, "variant": served.variant, "digest": served.digest}
            told.update(start_id=state.start_id, boot_id=state.boot_id, name=state.model)
            return self._send(200, json.dumps({"ready": True, **told}).encode())
        if served is None:
            raise Refuse(404, "unknown")
        return self._send(200, json.dumps({"name": state.model, "inputs": served.inputs}).encode())

    def _find(self, path: str) -> Served | None:
        if "/versions/" not in path:
            return self.state.serving
        version = path.split("/versions/")[1].split("/")[0]
        for served in (self.state.candidate, self.state.serving):
            if served is not None and served.version == version:
                return served
        return None

    def _repository(self, path: str, body: bytes) -> dict[str, Any]:
        state, parameters = self.state, json.loads(body or b"{}").get("parameters", {})
        if path.endswith("/unload"):
            state.candidate = None
            if not parameters.get("drop_candidate"):
                state.serving = None
            return {}
        if state.load_refusal is not None:
            raise state.load_refusal
        if parameters.get("candidate_version"):
            state.candidate = state.loadable
        else:
            state.serving, state.candidate = state.candidate or state.serving, None
        return {"result": "candidate"}

    def _metrics(self) -> str:
        state = self.state
        lines = [
            f'edgeai_server_info{{start_id="{state.start_id}",boot_id="{state.boot_id}"}} 1.0',
            f'edgeai_requests_total{{model="{state.model}",version="1",code="200"}} {state.requests}',
            f'edgeai_request_errors_total{{model="{state.model}",version="1"}} {float(state.errors)}',
        ]
        if state.resident is not None:
            lines.append(f"process_resident_memory_bytes {state.resident}")
        return "\n".join(lines) + "\n"

    def _infer(self, served: Served | None, body: bytes) -> None:
        state = self.state
        state.requests += 1
        state.hook(state.requests)
        served = self._find(self.path)  # the hook may have changed it
        if served is None:
            raise Refuse(404, "not loaded")
        size = int(self.headers[HEADER])
        head, rest = json.loads(body[:size]), body[size:]
        inputs = {}
        for item in head["inputs"]:
            count = item["parameters"]["binary_data_size"]
            array = np.frombuffer(rest[:count], TYPES[item["datatype"]]).reshape(item["shape"])
            inputs[item["name"]], rest = array, rest[count:]
            state.shapes.append(item["shape"])
        outputs, blobs = [], []
        for name, array in served.function(inputs).items():
            array = np.ascontiguousarray(array, "<f4")
            entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
            if state.json_answers:
                entry["data"] = array.tolist()
            else:
                blobs.append(array.tobytes())
                entry["parameters"] = {"binary_data_size": len(blobs[-1])}
            outputs.append(entry)
        text = json.dumps({"model_name": "m", "model_version": served.version, "outputs": outputs}).encode()
        extra = {} if state.json_answers else {HEADER: str(len(text))}
        self._send(200, text + b"".join(blobs), X_Edgeai_Digest=served.digest, **extra)


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class RecordingServer:
    """Runs in threads of the test. ``path``: serve a unix socket there instead of a free TCP port."""

    def __init__(self, state: State, path: str | None = None) -> None:
        self.state = state
        handler = type("Handler", (_Handler,), {"state": state})
        if path is None:
            self._server: Any = _Tcp(("127.0.0.1", 0), handler)
            self.target = f"http://127.0.0.1:{self._server.server_address[1]}"
        else:
            self._server = _listen_unix(path, handler)
            self.target = f"unix:{path}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> RecordingServer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _listen_unix(path: str, handler: Any) -> _Unix:
    """Bind through the directory's descriptor: the path may be longer than a socket address."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _Unix(f"/proc/self/fd/{directory}/{os.path.basename(path)}", handler)
    finally:
        os.close(directory)

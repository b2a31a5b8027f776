"""Local devices with a real model server: a store, a trusted key, tiny real ONNX models, a client.

from support.servers import Device
device = Device(tmp_path); device.stage("1.0.0", weight=2.0); device.activate("1.0.0"); device.start()
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ansible_collections.edgeai.fleet.plugins.module_utils.device import bundle
from ansible_collections.edgeai.fleet.plugins.module_utils.device.clock import make_deadline, read_clock
from ansible_collections.edgeai.fleet.plugins.module_utils.device.state import Ref
from ansible_collections.edgeai.fleet.plugins.module_utils.device.store import Store
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest
from support.releases import make_release, write_trust

MODEL = "tiny"
WIDTH = 4
VARIANT = "onnxruntime/fp32"


def wait_for(check: Callable[[], Any], seconds: float = 30.0, what: str = "condition") -> Any:
    """Return the first true result of ``check``; AssertionError after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.02)


def onnx_model(weight: float, width: int = WIDTH, layers: int = 0, opset: int = 13) -> bytes:
    """Return an ONNX model ``y = x * weight`` on rows of ``width``; ``layers`` more matrix products make it slower."""
    rows = [helper.make_node("Mul", ["x", "w"], ["h0" if layers else "y"])]
    constants = [helper.make_tensor("w", TensorProto.FLOAT, [], [weight])]
    if layers:
        eye = np.eye(width, dtype=np.float32)
        constants.append(helper.make_tensor("eye", TensorProto.FLOAT, [width, width], eye.tobytes(), raw=True))
    for layer in range(layers):
        rows.append(helper.make_node("MatMul", [f"h{layer}", "eye"], ["y" if layer == layers - 1 else f"h{layer + 1}"]))
    graph = helper.make_graph(
        rows,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tensors(width: int = WIDTH) -> Callable[[dict[str, Any]], None]:
    """Return an edit for make_release: one input x and one output y of ``width``."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["inputs"] = [{"name": "x", "datatype": "FP32", "shape": [-1, width]}]
        manifest["outputs"] = [{"name": "y", "datatype": "FP32", "shape": [-1, width]}]

    return edit


def free_port() -> int:
    """Return a TCP port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        with contextlib.ExitStack() as stack:
            path = self._path
            if len(path) > 100:
                fd = os.open(os.path.dirname(path), os.O_DIRECTORY)
                stack.callback(os.close, fd)
                path = f"/proc/self/fd/{fd}/server.sock"
            self.sock.connect(path)


class Reply:
    """An HTTP answer."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Device:
    """One device below ``base``: ``root`` is its edge_root, ``releases`` where its releases are built."""

    def __init__(self, base: Path, python: str = sys.executable, port: int = 0, runtime: str = "onnxruntime") -> None:
        self.base = Path(base)
        self.root = self.base / "edge"
        self.releases = self.base / "releases"
        self.root.mkdir(parents=True)
        self.python = python
        self.program = self.root / "lib" / "edgeai-device.pyz"
        self.process: subprocess.Popen[bytes] | None = None
        write_trust(self.root / "trust")
        bundle.install(str(self.program), bundle.build(bundle.own_sources()))
        settings = {"device_id": "d", "server": {"url": f"http://127.0.0.1:{port}"}, "sysroot": "/", "runtime": runtime}
        (self.root / "device.json").write_text(json.dumps(dict(settings, python=python)))
        self.store = Store(str(self.root))

    # -- releases

    def stage(
        self,
        version: str,
        weight: float = 1.0,
        payload: Any = None,
        variants: Any = (VARIANT,),
        model: str = MODEL,
        edit: Any = None,
        **options: Any,
    ) -> Ref:
        """Build, sign and stage a release; returns the reference of its first variant."""
        path = make_release(
            self.releases,
            model=model,
            version=version,
            variants=variants,
            payload=onnx_model(weight) if payload is None else payload,
            edit=edit or tensors(),
            **options,
        )
        manifest = load_manifest(path)
        chosen = manifest.variants[0].id

        def fetch(entry: Any, sink: Any) -> None:
            sink.write((path / entry.path).read_bytes())

        signature = path / "model.sig"
        raw = signature.read_bytes() if signature.exists() else b"{}"
        self.store.stage(manifest, raw, [chosen], fetch)
        return Ref(version, manifest.digest, chosen)

    def activate(self, ref: Ref, seconds: float = 900.0, confirm: bool = True, model: str = MODEL) -> None:
        """Switch ``current``; the server is not told."""
        self.store.activate(model, ref, make_deadline(seconds, read_clock()), None, 1)
        if confirm:
            self.store.confirm(model, ref.digest, 1, "2026-11-23T11:00:00Z")

    # -- processes

    def command(self, *arguments: str) -> list[str]:
        """Return the device program's command line."""
        return [self.python, "-I", str(self.program), *arguments]

    def cli(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command of the device program on this device."""
        command = self.command(arguments[0], "--root", str(self.root), *arguments[1:])
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def start(self, *options: str, ready: bool = True) -> None:
        """Start the server and wait until it is live (``ready``: until it is ready)."""
        log = open(self.base / "server.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            self.command("serve", "--root", str(self.root), *options), stdout=log, stderr=log
        )
        log.close()
        self.wait_live()
        if ready:
            wait_for(lambda: self.get("/v2/health/ready").status == 200, what="ready")

    def log(self) -> str:
        """Return what the server wrote."""
        return (self.base / "server.log").read_text()

    def info(self) -> Any:
        """Return run/server.json, None while there is none."""
        try:
            return json.loads((self.root / "run" / "server.json").read_text())
        except (OSError, ValueError):
            return None

    def wait_live(self, seconds: float = 30.0) -> None:
        """Wait until the server announced itself."""

        def announced() -> Any:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            return self.info()

        wait_for(announced, seconds, "server.json")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> int | None:
        """Signal the server and return its exit status."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(timeout)

    # -- requests

    def connection(self, unix: bool = False, timeout: float = 30.0) -> http.client.HTTPConnection:
        """Return a connection to the server's TCP port or unix socket."""
        if unix:
            return _UnixConnection(str(self.root / "run" / "server.sock"), timeout)
        address = self.info()["url"].removeprefix("http://")
        return http.client.HTTPConnection(address, timeout=timeout)

    def request(
        self, method: str, path: str, body: Any = None, headers: Any = None, unix: bool = False, connection: Any = None
    ) -> Reply:
        """Make one request; ``body`` may be bytes or anything JSON."""
        made = connection or self.connection(unix)
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        made.request(method, path, raw, headers or {})
        answer = made.getresponse()
        reply = Reply(answer.status, answer.headers, answer.read())
        if connection is None:
            made.close()
        return reply

    def get(self, path: str, unix: bool = False) -> Reply:
        """GET ``path``."""
        return self.request("GET", path, unix=unix)

    def post(self, path: str, body: Any = None, headers: Any = None, unix: bool = False) -> Reply:
        """POST ``body`` to ``path``."""
        return self.request("POST", path, body, headers, unix)

    def manage(self, action: str, model: str = MODEL, **parameters: Any) -> Reply:
        """Call load or unload over the unix socket."""
        body = {"parameters": parameters} if parameters else None
        return self.post(f"/v2/repository/models/{model}/{action}", body, unix=True)

    def infer(self, values: Any = ((1.0, 2.0, 3.0, 4.0),), version: str | None = None, unix: bool = False) -> Reply:
        """Infer on rows ``values`` as JSON."""
        array = np.asarray(values, dtype=np.float32)
        path = f"/v2/models/{MODEL}" + (f"/versions/{version}" if version else "") + "/infer"
        tensor = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
        return self.post(path, {"inputs": [tensor]}, unix=unix)


@contextlib.contextmanager
def running(base: Path, *options: str, weight: float = 2.0, **arguments: Any) -> Iterator[Device]:
    """A device that serves release 1.0.0 (y = x * weight)."""
    device = Device(base, **arguments)
    try:
        device.activate(device.stage("1.0.0", weight))
        device.start(*options)
        yield device
    finally:
        device.stop(signal.SIGKILL)

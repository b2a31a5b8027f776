"""The model server against a bare ONNX Runtime process, against MLServer and KServe, and against itself while it swaps.

    python tests/benchmarks/bench_server.py [--requests 4000] [--swaps 100] [--peers]

Every process answers the same Open Inference Protocol request for the same small model in JSON. Requests to the servers
alternate in rounds, so that whatever else the machine does hits all of them alike. Memory is the resident set: what a
process needs on a device where nobody shares its libraries. Processor time per request is there because on a busy
machine latency measures the machine. `--peers` makes virtual environments below build/bench (first time: minutes).
Ratios are what counts; absolute times are this machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / ".ansible" / "collections")]

from support.servers import MODEL, Device, free_port, onnx_model, wait_for

GOAL_BARE = 1.25
GOAL_P99 = 1.5
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]}
).encode()
PATH = f"/v2/models/{MODEL}/infer"

# The least that answers such a request over HTTP: one runtime session behind the standard library's server.
BARE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"])
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"][0]
        x = np.array(asked["data"], dtype=np.float32).reshape(asked["shape"])
        y = session.run(None, {asked["name"]: x})[0]
        out = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist()}
        body = json.dumps({"model_name": "tiny", "outputs": [out]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
    def log_message(self, *args): pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""

SESSION = """
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession({model!r}, sess_options=options, providers=["CPUExecutionProvider"])
"""

MLSERVER = (
    SESSION
    + """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
class Tiny(MLModel):
    async def load(self): return True
    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = session.run(None, {{"x": x}})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
"""
)

KSERVE = (
    SESSION
    + """
import sys
from kserve import InferOutput, InferResponse, Model, ModelServer
class Tiny(Model):
    def load(self): self.ready = True
    def predict(self, payload, headers=None, response_headers=None):
        y = session.run(None, {{"x": payload.inputs[0].as_numpy()}})[0]
        out = InferOutput(name="y", shape=list(y.shape), datatype="FP32")
        out.set_data_from_numpy(y, binary_data=False)
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=[out])
model = Tiny("tiny")
model.load()
ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([model])
"""
)


def tree(pid: int) -> list[int]:
    """Return a process and its descendants, itself first."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
    return found


def memory_mib(pid: int) -> float:
    """Return what a server needs on a device of its own, MiB: its resident set, and what its children do not share."""
    total = 0.0
    for number, one in enumerate(tree(pid)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:" if number == 0 else "Private_"):
                    total += int(line.split()[1]) / 1024
    return total


def cpu_seconds(pid: int) -> float:
    """Return the processor time a server has used."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` of the values are."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Server:
    """Something that answers on a port: ``start`` gives its process."""

    def __init__(self, name: str, port: int, command: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.port = port
        self._command = command
        self._cwd = cwd
        self._env = dict(os.environ, ORT_DISABLE_TELEMETRY="1", **(env or {}))

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Run it; gives its pid once it answers correctly."""
        with open(self._cwd / f"{self.name}.log", "ab") as log:
            process = subprocess.Popen(self._command, cwd=self._cwd, env=self._env, stdout=log, stderr=log)
        try:
            wait_for(lambda: self._answers(process), 120.0, f"an answer of {self.name}")
            yield process.pid
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20.0)
            process.kill()
            process.wait()

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            text = (self._cwd / f"{self.name}.log").read_text()[-800:]
            raise RuntimeError(f"{self.name} ended with {process.returncode}:\n{text}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, body = ask(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5))
            return status == 200 and json.loads(body)["outputs"][0]["data"][0] == 2.0
        return False


def ask(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    """Make one request and return status and body."""
    connection.request("POST", PATH, BODY, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def alone(server: Server, requests: int = 200) -> float:
    """Return a server's memory in MiB after a few requests, with none of the others running."""
    with server.running() as pid:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for _turn in range(requests):
            ask(connection)
        time.sleep(1.0)  # idle is what is measured
        return memory_mib(pid)


def latencies(servers: list[Server], requests: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return each server's latencies and processor time per request (s).

    Measured in alternating rounds of 100 over one kept connection each; the first two rounds do not count.
    """
    times: dict[str, list[float]] = {server.name: [] for server in servers}
    with contextlib.ExitStack() as stack:
        pids = {server.name: stack.enter_context(server.running()) for server in servers}
        connections = {server.name: http.client.HTTPConnection("127.0.0.1", server.port) for server in servers}
        used: dict[str, float] = {}
        for turn in range(requests // 100 + 2):
            if turn == 2:
                used = {name: cpu_seconds(pid) for name, pid in pids.items()}
            for name, connection in connections.items():
                for _turn in range(100):
                    began = time.perf_counter()
                    ask(connection)
                    if turn >= 2:
                        times[name].append(time.perf_counter() - began)
        spent = {name: (cpu_seconds(pid) - used[name]) / len(times[name]) for name, pid in pids.items()}
    return times, spent


def make_environment(name: str, packages: list[str]) -> Path | None:
    """Return the interpreter of an environment with ``packages`` below build/bench; None when pip cannot make it."""
    base = ROOT / "build" / "bench" / name
    python = base / "bin" / "python"
    mark = base / "packages.txt"
    if mark.exists() and mark.read_text() == "\n".join(packages):
        return python
    done = subprocess.run([sys.executable, "-m", "venv", str(base)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"{name}: skipped, its environment cannot be made: {done.stderr.strip().splitlines()[-1:]}")
        return None
    mark.write_text("\n".join(packages))
    return python


def peers(work: Path, model: Path) -> list[Server]:
    """Return MLServer and KServe, each with the same model behind it; those that cannot be installed are left out."""
    found = []
    python = make_environment("mlserver", ["mlserver==1.7.1", "onnxruntime==1.32.0"])
    if python is not None:
        port = free_port()
        folder = work / "mlserver"
        folder.mkdir()
        (folder / "tiny.py").write_text(MLSERVER.format(model=str(model)))
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        settings = dict(ports, host="127.0.0.1", parallel_workers=0, debug=False)
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps({"name": MODEL, "implementation": "tiny.Tiny"}))
        command = [str(python.parent / "mlserver"), "start", "."]
        found.append(Server("mlserver", port, command, folder, {"PYTHONPATH": str(folder)}))
    python = make_environment("kserve", ["kserve==0.21.0", "onnxruntime==1.32.0"])
    if python is not None:
        port = free_port()
        folder = work / "kserve"
        folder.mkdir()
        (folder / "serve.py").write_text(KSERVE.format(model=str(model)))
        found.append(Server("kserve", port, [str(python), "serve.py", str(port)], folder))
    return found


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def verdict(ratio: float, goal: float) -> str:
    """Say whether a goal was met."""
    return f"{ratio:.2f}x (goal <= {goal:.2f}x: {'met' if ratio <= goal else 'falls short'})"


def compare(work: Path, device: Device, requests: int, with_peers: bool) -> None:
    """Memory and latency against the others."""
    model = work / "model.onnx"
    model.write_bytes(onnx_model(2.0))
    script = work / "bare.py"
    script.write_text(BARE)
    port = free_port()
    bare = Server("bare", port, [sys.executable, str(script), str(model), str(port)], work)
    address = json.loads((device.root / "device.json").read_text())["server"]["url"]
    ours = Server("edgeai", int(address.rsplit(":", 1)[1]), device.command("serve", "--root", str(device.root)), work)
    servers = [ours, bare] + (peers(work, model) if with_peers else [])
    memory: dict[str, float] = {}
    for server in list(servers):
        try:
            memory[server.name] = alone(server)
        except (RuntimeError, AssertionError) as exc:
            say(f"{server.name}: skipped, it does not run here: {exc}")
            servers.remove(server)
    times, spent = latencies(servers, requests)
    mine = quantile(times["edgeai"], 0.5)
    for server in servers:
        p50, p99 = quantile(times[server.name], 0.5), quantile(times[server.name], 0.99)
        size = memory[server.name]
        cpu = spent[server.name] * 1e6
        say(
            f"{server.name:9} idle {size:6.1f} MiB  p50 {p50 * 1e6:6.0f} us  p99 {p99 * 1e6:6.0f} us  cpu {cpu:5.0f} us"
        )
    for server in servers[1:]:
        size, p50 = memory["edgeai"] / memory[server.name], mine / quantile(times[server.name], 0.5)
        if server is bare:
            say(f"memory against bare   {verdict(size, GOAL_BARE)}")
            say(f"p50 against bare      {verdict(p50, GOAL_BARE)}")
            say(f"cpu against bare      {spent['edgeai'] / spent['bare']:.2f}x")
        else:
            say(f"against {server.name:13} memory {size:.2f}x, p50 {p50:.2f}x")


class Load:
    """Clients that ask ``rate`` times a second each and check every answer."""

    def __init__(self, port: int, clients: int = 2, rate: float = 150.0) -> None:
        self.times: list[float] = []
        self.lost: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port, 1.0 / rate)) for _turn in range(clients)]

    def _run(self, port: int, pause: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        turn = time.perf_counter()
        while not self._over.is_set():
            turn = max(turn + pause, time.perf_counter() - pause)
            time.sleep(max(0.0, turn - time.perf_counter()))
            began = time.perf_counter()
            try:
                status, body = ask(connection)
                right = status == 200 and json.loads(body)["outputs"][0]["data"][0] in (2.0, 3.0)
            except (OSError, http.client.HTTPException, ValueError) as exc:
                right, body = False, repr(exc).encode()
            self.times.append(time.perf_counter() - began)
            if not right:
                self.lost.append(body[:200].decode("utf-8", "replace"))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def swaps(device: Device, count: int) -> None:
    """Hot swaps under load: what is lost, and the p99 while swapping against the p99 before and after."""
    refs = [device.store.read(MODEL).active, device.stage("1.1.0", 3.0)]
    device.start()
    try:
        port = int(device.info()["url"].rsplit(":", 1)[1])
        durations = []
        with Load(port) as before:
            time.sleep(8.0)
        with Load(port) as during:
            for turn in range(count):
                device.activate(refs[(turn + 1) % 2])
                began = time.perf_counter()
                reply = device.manage("load")
                durations.append(time.perf_counter() - began)
                if reply.status != 200:
                    raise RuntimeError(reply.body)
        with Load(port) as after:
            time.sleep(8.0)
    finally:
        device.stop()
    steady, swapping = quantile(before.times + after.times, 0.99), quantile(during.times, 0.99)
    lost = len(during.lost) + len(before.lost) + len(after.lost)
    say(f"{count} hot swaps, {quantile(durations, 0.5) * 1000:.0f} ms each, {len(during.times)} requests meanwhile")
    say(f"lost or wrong         {lost} (goal 0: {'met' if not lost else 'falls short: ' + during.lost[0]})")
    say(f"p99 steady {steady * 1e6:.0f} us, swapping {swapping * 1e6:.0f} us: {verdict(swapping / steady, GOAL_P99)}")


def main() -> int:
    """Run everything and print it; the exit status says only whether it ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--peers", action="store_true", help="also measure MLServer and KServe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-server-") as folder:
        work = Path(folder)
        device = Device(work / "device", port=free_port())
        device.activate(device.stage("1.0.0", 2.0))
        compare(work, device, options.requests, options.peers)
        swaps(device, options.swaps)
    return 0


if __name__ == "__main__":
    sys.exit(main())

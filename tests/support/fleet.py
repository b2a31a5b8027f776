"""A small local fleet for tests: real playbooks, real supervisors and model servers, tiny real models.

The model multiplies: ``y = x @ W``. A bad release has another ``W`` in one variant than the reference outputs that were
signed with it, as a wrongly quantized model would: it loads, it is fast, and its answers are wrong.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy
import onnx
import yaml

from ansible_collections.edgeai.fleet.plugins.module_utils.release import digests, keys, manifest, signing

ROOT = Path(__file__).resolve().parent.parent.parent
OLD_CPU = "x86-no-vnni"
MODEL = "scale"
#: The two strata of these fleets: the machine's own CPU, and one that is recorded and has no int8 dot product.
VARIANTS = {"onnxruntime/fp32": ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"], "onnxruntime/fp32-old": []}


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the condition's first true value; fail with words at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Reserve so many free loopback ports for a moment and return them."""
    sockets = [socket.socket() for _turn in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def _onnx(weights: numpy.ndarray, path: Path) -> None:
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        MODEL,
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(weights.astype(numpy.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def _entry(base: Path, path: str) -> dict[str, Any]:
    return {"path": path, "size": (base / path).stat().st_size, "sha256": digests.sha256_file(base / path)}


def build_release(
    releases: Path,
    version: str,
    key: Path,
    bad: Sequence[str] = (),
    counter: int = 1,
    padding: int = 0,
    budgets: Mapping[str, float] | None = None,
) -> Path:
    """Build and sign release ``version`` of the model; variants in ``bad`` answer wrongly. Returns its directory.

    ``padding`` adds a file of so many bytes to every variant, for tests that need something to transfer.
    """
    base = releases / MODEL / version
    scale = float(version.split(".")[1]) + 1.0
    weights = numpy.eye(4) * scale
    variants = []
    for name, flags in VARIANTS.items():
        directory = f"variants/{name}"
        _onnx(numpy.fliplr(weights) if name in bad else weights, base / directory / "model.onnx")
        files = [_entry(base, f"{directory}/model.onnx")]
        if padding:
            (base / directory / "padding.bin").write_bytes(os.urandom(padding))
            files.append(_entry(base, f"{directory}/padding.bin"))
        requires = {"accelerators": ["cpu"], "runtime_version": ">=1.16", "memory_mib": 16}
        if flags:
            requires["cpu_flags_any"] = flags
        variants.append(
            {
                "id": name,
                "runtime": "onnxruntime",
                "precision": "fp32",
                "entry": files[0]["path"],
                "architectures": ["x86_64", "aarch64"],
                "requires": requires,
                "files": files,
                "measured": {},
            }
        )
    inputs = numpy.random.default_rng(7).random((16, 4), dtype=numpy.float32)
    (base / "golden").mkdir()
    numpy.savez(
        base / "golden" / "golden.npz", **{"input.x": inputs, "output.y": (inputs @ weights).astype(numpy.float32)}
    )
    document = {
        "format": 1,
        "model": MODEL,
        "version": version,
        "created": "2026-01-01T00:00:00Z",
        "security_counter": counter,
        "source": {"git_revision": None, "data_sha256": None, "parent": None, "mlflow_run": None},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
        "variants": variants,
        "golden": {
            **_entry(base, "golden/golden.npz"),
            "samples": 16,
            "metric": "relative_error",
            "reference_score": 1.0,
        },
        "budgets": {
            "default": {
                "accuracy_drop": 0.01,
                "p95_ms": 2000.0,
                "p95_ratio": 50.0,
                "memory_mib": 4096,
                **(budgets or {}),
            },
            "strata": {},
        },
    }
    (base / "release.json").write_bytes(manifest.dump_manifest(document))
    signing.sign_release(base, keys.load_private_key(key))
    return base


class Run:
    """A finished playbook run."""

    def __init__(self, rc: int, output: str) -> None:
        self.rc = rc
        self.output = output

    def __repr__(self) -> str:
        return f"rc {self.rc}\n{self.output[-6000:]}"


class Fleet:
    """Devices below ``home``: ``hosts`` maps a name to inventory variables beside those every device has."""

    def __init__(
        self,
        home: Path,
        hosts: Mapping[str, Mapping[str, Any]],
        policy: Mapping[str, Any] | None = None,
        collections: Path | None = None,
    ) -> None:
        self.home = home
        self.collections = collections  # where the collection is installed, when not this checkout
        self.inventory = home / "inventory.yml"
        self.ledger_file = home / "ledger" / "ledger.jsonl"
        self.hosts: dict[str, dict[str, Any]] = {name: dict(variables) for name, variables in hosts.items()}
        self.policy = {
            "soak": 0,
            "confirm_within": 600,
            "gate": {"samples": 16, "requests": 30, "warmup": 2, "timeout": 60},
        }
        self.policy.update(policy or {})
        self.version = "1.0.0"
        home.mkdir(parents=True, exist_ok=True)
        for name in ("release", "ledger"):
            if not (home / f"{name}.pem").exists():
                keys.generate_key(home / f"{name}.pem", home / f"{name}.pub.pem")
        self.prepare()
        self.write_inventory()

    def prepare(self) -> None:
        """Give every device a port, and let the tests' own environment, which has every runtime, be theirs."""
        for variables, port in zip(self.hosts.values(), free_ports(len(self.hosts))):
            variables.setdefault("edge_port", port)
        (self.home / "runtimes").mkdir()
        (self.home / "runtimes" / "onnxruntime").symlink_to(sys.prefix)
        files = [ROOT / "requirements" / f"runtime-{name}.txt" for name in ("server", "onnxruntime")]
        installed = "\n".join(path.read_text(encoding="utf-8").rstrip() for path in files)
        (self.home / "runtimes" / "onnxruntime" / "edgeai-requirements.txt").write_text(installed, encoding="utf-8")

    def platform(self) -> dict[str, Any]:
        """Return the inventory variables that say what kind of devices these are."""
        return {
            "ansible_connection": "local",
            "edge_platform": "local",
            "ansible_python_interpreter": sys.executable,
            "edge_root": f"{self.home}/devices/{{{{ inventory_hostname }}}}",
            "edge_runtime_home": str(self.home / "runtimes"),
        }

    def write_inventory(self) -> None:
        """Write the inventory file from the fields of this object."""
        variables = {
            **self.platform(),
            "edge_releases": str(self.home / "releases"),
            "edge_trust_keys": [str(self.home / "release.pub.pem")],
            "edge_ledger": str(self.home / "ledger"),
            "edge_ledger_key": str(self.home / "ledger.pem"),
            "edge_models": {MODEL: {"release": self.version}},
            "edge_policy": self.policy,
        }
        self.inventory.write_text(yaml.safe_dump({"edge": {"vars": variables, "hosts": self.hosts}}), encoding="utf-8")

    def desire(self, version: str) -> None:
        """Name another release as the desired one."""
        self.version = version
        self.write_inventory()

    def release(self, version: str, **options: Any) -> Path:
        """Build and sign a release; see `build_release`."""
        return build_release(self.home / "releases", version, self.home / "release.pem", **options)

    def command(self, playbook: str, *args: str) -> list[str]:
        """Return the command line that a user would type."""
        return [
            str(Path(sys.executable).parent / "ansible-playbook"),
            f"edgeai.fleet.{playbook}",
            *(f"--inventory={path}" for path in self.inventories()),
            *args,
        ]

    def inventories(self) -> list[Path]:
        """Return the inventory files of this fleet; a later one's variables win."""
        return [self.inventory]

    def environment(self) -> dict[str, str]:
        """Return the environment of a run: the project's ansible.cfg, no colour."""
        plain = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
        if self.collections:
            plain["ANSIBLE_COLLECTIONS_PATH"] = str(self.collections)
        return plain

    def playbook(self, playbook: str, *args: str, timeout: float = 240) -> Run:
        """Run a playbook of the collection to its end."""
        done = subprocess.run(
            self.command(playbook, *args),
            env=self.environment(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def start(self, playbook: str, *args: str) -> subprocess.Popen[str]:
        """Start a playbook in a process group of its own, for tests that kill it."""
        with open(self.home / "run.log", "w", encoding="utf-8") as log:
            return subprocess.Popen(
                self.command(playbook, *args),
                env=self.environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def provision(self) -> None:
        """Provision every device and wait until its server lives."""
        done = self.playbook("provision")
        assert done.rc == 0, done

    def root(self, host: str) -> Path:
        """Return a device's directory."""
        return self.home / "devices" / host

    def state(self, host: str) -> dict[str, Any]:
        """Read a device's state.json."""
        return json.loads((self.root(host) / "models" / MODEL / "state.json").read_text(encoding="utf-8"))

    def address(self, host: str) -> str:
        """Return ``address:port`` of a device's server."""
        url = json.loads((self.root(host) / "device.json").read_text(encoding="utf-8"))["server"]["url"]
        return urlsplit(url).netloc

    def ready(self, host: str) -> dict[str, Any] | None:
        """Ask a device's server what it serves; None when it does not answer or is not ready."""
        connection = http.client.HTTPConnection(self.address(host), timeout=5)
        try:
            connection.request("GET", f"/v2/models/{MODEL}/ready")
            response = connection.getresponse()
            body = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return body if response.status == 200 else None

    def serving(self) -> dict[str, str | None]:
        """Return what every provisioned device serves: ``{host: version or None}``."""
        hosts = [host for host in self.hosts if (self.root(host) / "device.json").exists()]
        return {host: (self.ready(host) or {}).get("version") for host in hosts}

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Read the ledger's records, of one type when given."""
        if not self.ledger_file.exists():
            return []
        lines = self.ledger_file.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line]
        return [record for record in found if kind in (None, record["type"])]

    def destroy(self) -> None:
        """Stop every device's processes."""
        self.playbook("provision", "-e", "edge_state=absent")

"""From a registered model in a real MLflow server to a signed release, and back: tags on the model version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import onnx
import pytest
import yaml
from support import venvs
from support.fleet import free_ports, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys
from ansible_collections.edgeai.fleet.plugins.module_utils.release.digests import sha256_file
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.modules import model_tags

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
STRATUM = "cpu/onnxruntime/x86_64"
REGISTER = """
import sys, mlflow
client = mlflow.MlflowClient()
mlflow.set_experiment("line")
with mlflow.start_run() as run:
    mlflow.log_artifacts(sys.argv[1], "model")
client.create_registered_model("linear")
version = client.create_model_version("linear", run.info.artifact_uri + "/model",
                                      run.info.run_id)
client.set_registered_model_alias("linear", "champion", version.version)
print(run.info.run_id)
"""


class Registry:
    """A running server, the run that logged models:/linear/1, and a directory to work in."""

    def __init__(self, home: Path, url: str, python: Path) -> None:
        self.home, self.url, self.python = home, url, python
        self.run = ""

    def client(self, script: str, *arguments: str) -> str:
        """Run a script with MLflow's own client and return what it printed."""
        environment = {**os.environ, "MLFLOW_TRACKING_URI": self.url, "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [str(self.python), "-c", script, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    def playbook(self, name: str, *arguments: str, ok: bool = True, **variables: Any) -> str:
        """Run a playbook of the collection and return what it printed."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), f"edgeai.fleet.{name}", *arguments]
        done = subprocess.run(
            [*command, "-e", json.dumps(variables)],
            cwd=self.home,
            env={**os.environ, "MLFLOW_TRACKING_URI": self.url, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr


def answers(url: str) -> bool:
    """Whether the server is up."""
    try:
        with urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def write_model(folder: Path) -> None:
    """y = x @ w, with its weights in a file beside it as exporters do for large models, and golden samples."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((8, 4)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "data").mkdir()
    np.savez(folder / "data" / "golden.npz", **{"input.x": rng.standard_normal((32, 8)).astype(np.float32)})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A server with one registered version, alias champion, whose artifacts it hands out itself."""
    binaries, home = venvs.ensure("mlflow"), tmp_path_factory.mktemp("mlflow")
    port = free_ports(1)[0]
    command = [str(binaries / "mlflow"), "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    stores = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts")]
    light = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(home / "server.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [*command, *stores], cwd=home, env={**os.environ, **light}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        found = Registry(home, f"http://127.0.0.1:{port}", binaries / "python")
        wait_for(lambda: answers(found.url) or server.poll() is not None, 240, f"{home}/server.log")
        write_model(home / "logged")
        found.run = found.client(REGISTER, str(home / "logged"))
        for name in ("release", "ledger"):
            keys.generate_key(home / f"{name}.pem", home / f"{name}.pub.pem")
        yield found
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


@pytest.fixture(scope="module")
def release(registry: Registry) -> Path:
    """The release built from models:/linear@champion, signed and verified by the playbook."""
    limits = {"accuracy_drop": 0.1, "p95_ms": 1000, "p95_ratio": 10, "memory_mib": 512}
    spec = {
        **{"model": "linear", "version": "1.0.0", "security_counter": 1, "metric": "relative_error"},
        **{"onnx": "models:/linear@champion", "golden": "models:/linear/1#data/golden.npz"},
        **{"variants": [{"id": "onnxruntime/fp32"}], "budgets": {"default": limits}},
    }
    (registry.home / "spec.yml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    registry.playbook("build", spec="spec.yml", dest="releases", key="release.pem")
    return registry.home / "releases" / "linear" / "1.0.0"


def test_a_release_names_version_run_and_bytes_it_was_built_from(registry: Registry, release: Path) -> None:
    source = load_manifest(release).source
    assert source.mlflow_run == registry.run
    logged = registry.home / "logged"
    assert {(entry.role, entry.uri, entry.sha256) for entry in source.inputs} == {
        ("onnx", "models:/linear/1#model.onnx", sha256_file(logged / "model.onnx")),
        ("onnx:w.bin", "models:/linear/1#w.bin", sha256_file(logged / "w.bin")),
        ("golden", "models:/linear/1#data/golden.npz", sha256_file(logged / "data" / "golden.npz")),
    }
    assert all(entry.size == (logged / entry.uri.partition("#")[2]).stat().st_size for entry in source.inputs)


def test_building_again_changes_nothing_also_with_another_alias_for_the_same_version(
    registry: Registry, release: Path
) -> None:
    before = (release / "release.json").stat().st_mtime_ns
    text = (registry.home / "spec.yml").read_text(encoding="utf-8")
    (registry.home / "other.yml").write_text(text.replace("linear@champion", "linear/1"), encoding="utf-8")
    assert "changed=0" in registry.playbook("build", spec="other.yml", dest="releases", key="release.pem")
    assert (release / "release.json").stat().st_mtime_ns == before


def test_the_lookup_says_which_version_the_champion_is(registry: Registry) -> None:
    task = {
        "ansible.builtin.debug": {"msg": "{{ q('edgeai.fleet.mlflow_model', 'models:/linear@champion', files=true) }}"}
    }
    play = [{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]
    (registry.home / "lookup.yml").write_text(yaml.safe_dump(play), encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "lookup.yml"],
        cwd=registry.home,
        env={**os.environ, "MLFLOW_TRACKING_URI": registry.url, "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert '"uri": "models:/linear/1"' in done.stdout and f'"run_id": "{registry.run}"' in done.stdout, done
    assert '"path": "data/golden.npz"' in done.stdout


def write_ledger(home: Path, digest: str) -> None:
    """What a rollout of the release to two devices leaves in the ledger, one of which went back."""
    ledger = Ledger(str(home / "ledger"), str(home / "ledger.pem"))
    waves = [{"number": 1, "kind": "canary", "hosts": ["a", "b"], "strata": {STRATUM: ["a", "b"]}}]
    plan = {"waves": waves, "stratum_of": {"a": STRATUM, "b": STRATUM}}
    named = {"model": "linear", "version": "1.0.0", "digest": digest}
    ledger.append("rollout_started", {**named, "plan": plan}, "linear-1.0.0")
    for host, verdict in (("a", "pass"), ("b", "fail")):
        bad = verdict == "fail"
        ledger.append("intent", {"action": "activate", "stratum": STRATUM, "wave": 1}, "linear-1.0.0", host)
        gates = [{"gate": "golden", "verdict": verdict, "phase": "candidate"}]
        result = {"action": "activate", "result": "reverted" if bad else "activated", "failed": bad, "reverted": bad}
        ledger.append("result", {**result, "gates": gates}, "linear-1.0.0", host)
    ledger.append("result", {"action": "confirm", "result": "confirmed"}, "linear-1.0.0", "a")
    ledger.append("quarantine", {**named, "stratum": STRATUM, "reason": "golden"}, "linear-1.0.0")
    ledger.append("rollout_finished", {"status": "halted"}, "linear-1.0.0")
    ledger.checkpoint()


def tags(registry: Registry) -> dict[str, str]:
    """What the server itself says of the version."""
    with urlopen(f"{registry.url}/api/2.0/mlflow/model-versions/get?name=linear&version=1", timeout=60) as answer:
        told = json.load(answer)["model_version"]
    return {tag["key"]: tag["value"] for tag in told.get("tags") or ()}


def test_after_a_rollout_the_model_version_says_where_it_serves(registry: Registry, release: Path) -> None:
    write_ledger(registry.home, load_manifest(release).digest)
    fleet = {
        "hosts": {"a": {}, "b": {}},
        "vars": {
            "edge_releases": str(registry.home / "releases"),
            "edge_ledger": str(registry.home / "ledger"),
            "edge_ledger_key": str(registry.home / "ledger.pem"),
            "edge_label": "production",
        },
    }
    (registry.home / "hosts.yml").write_text(yaml.safe_dump({"edge": fleet}), encoding="utf-8")
    given = {
        **{"releases": str(registry.home / "releases"), "ledger": str(registry.home / "ledger")},
        **{"public_key": str(registry.home / "ledger.pub.pem"), "prefix": "edgeai", "label": "production"},
        "registry": {"tracking_uri": registry.url},
    }
    predicted = model_tags.run(given, check_mode=True)
    assert predicted["changed"] and tags(registry) == {}
    assert "changed=1" in registry.playbook("model_tags", "-i", "hosts.yml")
    found = tags(registry)
    assert found == predicted["models"][0]["tags"]
    assert found["edgeai.production.serving"] == "1 of 1 devices"
    assert found["edgeai.production.strata"] == f"{STRATUM} 1"
    assert found["edgeai.production.quarantined"] == STRATUM
    assert found["edgeai.production.gates"] == "golden fail 1, pass 1"
    assert found["edgeai.production.devices"] == "candidate_failed 1, confirmed 1"
    assert found["edgeai.production.status"] == "halted"
    assert not model_tags.run(given, check_mode=False)["changed"]
    with open(registry.home / "ledger" / "ledger.jsonl", "r+b") as ledger:
        ledger.seek(40)
        ledger.write(b"X")
    with pytest.raises(RolloutError, match="not to be trusted"):
        model_tags.run(given, check_mode=False)

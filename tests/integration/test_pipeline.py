"""From training to a pull request: through Kubeflow's own local runner, and as a playbook without Kubeflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import venvs
from support.pipelines import Api, git

from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import build_release
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.desiredfile import read_models
from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys, signing
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODELS = "inventories/staging/group_vars/edge/models.yml"
STEPS = ["retrain", "evaluate", "quantize", "validate", "sign", "propose"]
TRAIN = """
import sys, numpy as np, onnx, yaml
rng = np.random.default_rng(3)
truth = rng.standard_normal((8, 4))
x = rng.standard_normal((256, 8)).astype(np.float32)
label = (x @ truth).argmax(axis=1)
weight = np.linalg.lstsq(x, np.eye(4)[label], rcond=None)[0].astype(np.float32)
if sys.argv[2] == "badly":
    weight = weight[:, ::-1].copy()
value = onnx.helper.make_tensor_value_info
graph = onnx.helper.make_graph(
    [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "linear",
    [value("x", 1, ["n", 8])], [value("y", 1, ["n", 4])], [onnx.numpy_helper.from_array(weight, "w")])
onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), "model.onnx")
np.savez("calib.npz", x=x)
np.savez("golden.npz", **{"input.x": x[:64], "label": label[:64]})
spec = {"model": "linear", "version": sys.argv[1], "security_counter": 1, "onnx": "model.onnx",
        "calibration": "calib.npz", "golden": "golden.npz",
        "variants": [{"id": "onnxruntime/int8", "quantize": {"reduce_range": True}}, {"id": "onnxruntime/fp32"}],
        "budgets": {"default": {"accuracy_drop": 0.3, "p95_ms": 1000, "p95_ratio": 10, "memory_mib": 512}}}
yaml.safe_dump(spec, open("release.yml", "w"))
"""
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import kfp_pipeline
from kfp import compiler, local
compiler.Compiler().compile(kfp_pipeline.release, sys.argv[2])
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[3])
kfp_pipeline.release(**json.loads(sys.argv[4]))
"""


class Place:
    """A repository with a fleet's inventory, its forge, keys, and an inventory of devices for validation."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.api = Api()
        (home / "train.py").write_text(TRAIN, encoding="utf-8")
        keys.generate_key(home / "release.pem", home / "release.pub.pem")
        self.repo = home / "fleet"
        bare = home / "fleet.git"
        for path, options in ((bare, ["--bare"]), (self.repo, [])):
            path.mkdir()
            git(path, "init", "--quiet", *options)
        models = self.repo / MODELS
        models.parent.mkdir(parents=True)
        models.write_text('---\n# the fleet\nedge_models:\n  linear:\n    release: "1.0.0"\n', encoding="utf-8")
        git(self.repo, "checkout", "-q", "-b", "main")
        git(self.repo, "add", ".")
        git(self.repo, "commit", "-q", "-m", "The fleet")
        git(self.repo, "remote", "add", "origin", str(bare))
        git(self.repo, "push", "-q", "origin", "main")
        device = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {"edge": {"hosts": {"bench": {"edge_compatibility_pythons": [sys.executable]}}, "vars": device}}
        self.inventory = home / "hosts.yml"
        self.inventory.write_text(yaml.safe_dump(hosts), encoding="utf-8")

    def variables(self, version: str, how: str = "well", **changes: Any) -> dict[str, Any]:
        """What a user puts into pipeline.yml."""
        return {
            "pipeline_train": [sys.executable, str(self.home / "train.py"), version, how],
            "pipeline_min_score": 0.8,
            "pipeline_key": str(self.home / "release.pem"),
            "pipeline_publish": str(self.home / "published"),
            "pipeline_repo": str(self.repo),
            "pipeline_models_file": MODELS,
            "edge_compatibility": {"min_agreement": 0.7, "require": ["*/onnxruntime/*"]},
            **changes,
        }

    def environment(self) -> dict[str, str]:
        """Of a pipeline that a forge of GitHub's kind started."""
        return {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "GITHUB_API_URL": self.api.url,
            "GITHUB_REPOSITORY": "team/fleet",
            "EDGEAI_FORGE_TOKEN": "token-of-the-forge",
        }

    def playbook(self, *arguments: str, ok: bool = True, **variables: Any) -> str:
        """Run the pipeline as a playbook and return what it printed."""
        command = ["ansible-playbook", "edgeai.fleet.pipeline", "-i", str(self.inventory), *arguments]
        done = subprocess.run(
            [*command, "-e", json.dumps(variables)],
            cwd=self.home,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def proposed(self, version: str) -> dict[str, str]:
        """What the proposal's branch wants."""
        text = git(self.repo, "ls-remote", "origin", f"refs/heads/edgeai/release/linear-{version}")
        git(self.repo, "fetch", "-q", "origin", text.split()[0])
        return read_models(git(self.repo, "show", f"{text.split()[0]}:{MODELS}"), MODELS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("pipeline"))
    yield found
    found.api.close()


def published(place: Place, version: str) -> Path:
    """The signed release, verified with the public key as a device does."""
    path = place.home / "published" / "linear" / version
    signing.verify_release(path, keys.Trust.from_files([str(place.home / "release.pub.pem")]), signing.utc_now())
    return path


def test_kubeflow_runs_every_step_from_training_to_a_pull_request(place: Place) -> None:
    """With kfp's compiler and local runner; each step is the playbook itself."""
    python = venvs.ensure("kfp") / "python"
    compiled, outputs = place.home / "pipeline.yaml", place.home / "outputs"
    variables = place.variables("1.1.0", pipeline_repo_url=str(place.home / "fleet.git"))
    del variables["pipeline_repo"]  # a step in a container has no checkout
    given = {"variables": variables, "inventory": str(place.inventory)}
    arguments = [str(ROOT / "templates" / "pipelines"), str(compiled), str(outputs), json.dumps(given)]
    done = subprocess.run(
        [str(python), "-c", RUN, *arguments],
        cwd=place.home,
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tasks = next(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))["root"]["dag"]["tasks"]
    assert sorted(task["taskInfo"]["name"] for task in tasks.values()) == sorted(STEPS)
    waits = {task["taskInfo"]["name"]: len(task.get("dependentTasks", [])) for task in tasks.values()}
    assert waits == {name: int(name != "retrain") for name in STEPS}
    release = published(place, "1.1.0")
    assert [variant.id for variant in load_manifest(release).variants] == ["onnxruntime/int8", "onnxruntime/fp32"]
    assert place.proposed("1.1.0") == {"linear": "1.1.0"}
    (pull,) = place.api.pulls
    assert (pull["base"], pull["title"]) == ("main", "linear 1.1.0")
    assert "on 64 samples" in pull["body"] and "prune" not in pull["body"] and "passes: 2 of 2" in pull["body"]
    pages = [path.read_text(encoding="utf-8") for path in outputs.rglob("report") if path.is_file()]
    assert any("accuracy drop" in page for page in pages), "the reports are artifacts of their steps"
    assert place.api.authorized == {"token token-of-the-forge"}


def test_the_playbook_does_the_same_without_it(place: Place) -> None:
    place.playbook(**place.variables("1.2.0", pipeline_dir=str(place.home / "work")))
    published(place, "1.2.0")
    assert place.proposed("1.2.0") == {"linear": "1.2.0"}


def test_what_is_not_good_enough_goes_no_further(place: Place) -> None:
    work = place.home / "bad"
    variables = place.variables("1.3.0", "badly", pipeline_dir=str(work))
    said = place.playbook(ok=False, **variables)
    assert "linear 1.3.0 scores 0." in said and "0.8000 is the least" in said
    assert not (work / "releases").exists() and not (place.home / "published" / "linear" / "1.3.0").exists()


def test_nothing_is_signed_or_proposed_out_of_turn(place: Place) -> None:
    turn = place.home / "turn"
    (turn / "report").mkdir(parents=True)
    (turn / "project").mkdir()
    subprocess.run([*place.variables("1.4.0")["pipeline_train"]], cwd=turn / "project", check=True, timeout=120)
    build_release(turn / "project" / "release.yml", turn / "releases", {})
    # A report that passes, but is about another release
    other = "### linear 1.4.0 passes: 2 of 2 results pass\n\nsha256:" + "0" * 64
    (turn / "report" / "compatibility.md").write_text(other, encoding="utf-8")
    variables = place.variables("1.4.0", pipeline_dir=str(turn))
    assert "does not say that this release passes" in place.playbook("--tags", "sign", ok=False, **variables)
    assert "has no signature" in place.playbook("--tags", "propose", ok=False, **variables)
    assert not list(turn.rglob("model.sig"))

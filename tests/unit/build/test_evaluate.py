"""Evaluating a model before it is built, and naming a release in a fleet repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build.evaluate import evaluate
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.modules import repo_release

Project = Callable[..., Path]
MODELS = """---
# The line of a release
edge_models:
  camera:
    # edgeai: 1.3.0 was refused in cpu/onnxruntime/x86_64
    release: "1.2.0"   # keep
  lidar:
    release: "7.0.0"
"""


def labelled(spec: Path, right: int) -> None:
    """Give the golden samples labels of which so many are what the model says."""
    with np.load(spec.parent / "golden.npz") as arrays:
        x = arrays["input.x"]
    weight = np.random.default_rng(3).standard_normal((8, 4)).astype(np.float32)
    label = (x @ weight).argmax(axis=1)
    label[right:] = (label[right:] + 1) % 4
    np.savez(spec.parent / "golden.npz", **{"input.x": x, "label": label})


def test_the_score_is_the_share_of_labels_that_are_met(project: Project) -> None:
    spec = project()
    labelled(spec, 24)
    found = evaluate(spec)
    assert found == {"model": "linear", "version": "1.0.0", "metric": "top1", "samples": 32, "score": 0.75}


def test_without_labels_nothing_is_judged(project: Project) -> None:
    with pytest.raises(ReleaseError, match="judged by labels: give `label` in `golden`"):
        evaluate(project())
    spec = project(metric="relative_error")
    labelled(spec, 32)
    with pytest.raises(ReleaseError, match="metric: top1"):
        evaluate(spec)


def test_one_line_changes_and_the_refusal_above_it_goes(tmp_path: Path) -> None:
    file = tmp_path / "models.yml"
    file.write_text(MODELS, encoding="utf-8")
    wanted = {"models_file": str(file), "model": "camera", "release": "1.4.0"}
    predicted = repo_release.run(wanted, check_mode=True)
    assert predicted["changed"] and file.read_text(encoding="utf-8") == MODELS
    assert repo_release.run(wanted, check_mode=False) == predicted
    lines = MODELS.replace('"1.2.0"', '"1.4.0"').splitlines(True)
    del lines[4]
    assert file.read_text(encoding="utf-8") == "".join(lines)
    assert (predicted["before"], repo_release.run(wanted, check_mode=False)["changed"]) == ("1.2.0", False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "radar"}, "no line with the release of radar"),
        ({"release": "latest"}, "release.*latest"),
        ({"models_file": "/nowhere/models.yml"}, "is not there"),
    ],
    ids=range(3),
)
def test_what_cannot_be_named(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    file = tmp_path / "models.yml"
    file.write_text(MODELS, encoding="utf-8")
    wanted = {"models_file": str(file), "model": "camera", "release": "1.4.0", **changes}
    with pytest.raises((RepoError, ReleaseError), match=words):
        repo_release.run(wanted, check_mode=False)
    assert file.read_text(encoding="utf-8") == MODELS

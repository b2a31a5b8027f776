"""TFX: which pushed version is taken, who converts it, and what a release says of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build import savedmodel
from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import Result, build_release
from ansible_collections.edgeai.fleet.plugins.module_utils.build.spec import parse_spec
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError

Project = Callable[..., Path]
DOUBLE = [sys.executable, str(Path(__file__).resolve().parents[2] / "support" / "converter_double.py")]


def push(base: Path, version: str, model: Path | None = None, complete: bool = True) -> Path:
    """Push a version as TFX does: variables and assets first, saved_model.pb last."""
    home = base / version
    for name in ("variables", "assets"):
        (home / name).mkdir(parents=True)
    (home / "variables" / "variables.index").write_bytes(b"index " + version.encode())
    if model is not None:
        shutil.copyfile(model, home / "assets" / "model.onnx")
    if complete:
        (home / "saved_model.pb").write_bytes(b"graph")
    return home


@pytest.fixture
def pushed(project: Project) -> tuple[Path, Path]:
    """(the Pusher's directory, the spec that names it)."""
    spec = project(onnx=None, tfx={"pushed": "serving", "opset": 15})
    base = spec.parent / "serving"
    push(base, "999", spec.parent / "model.onnx")
    push(base, "1795456069", spec.parent / "model.onnx")
    push(base, "1795456999", complete=False)
    (base / "notes.txt").write_text("not a version", encoding="utf-8")
    return base, spec


def build(spec: Path, **options: Any) -> Result:
    """Build into ``releases`` beside the project, with the double unless another converter is given."""
    return build_release(spec, spec.parent.parent / "releases", {}, **{"converter": DOUBLE, **options})


def test_the_newest_complete_version_is_converted_and_named(pushed: tuple[Path, Path]) -> None:
    base, spec = pushed
    manifest = build(spec).manifest
    assert manifest is not None
    (entry,) = manifest.source.inputs
    model = savedmodel.find(savedmodel.TfxSpec(base, None, 15, "serving_default"))
    assert (entry.role, entry.uri) == ("savedmodel", "tfx:serving/1795456069")
    assert (entry.size, entry.sha256) == (model.size, model.sha256)
    (call,) = json.loads((base / "converter.json").read_text(encoding="utf-8"))
    assert call[:2] == ["--saved-model", str(base / "1795456069")]
    assert call[4:] == ["--opset", "15", "--signature_def", "serving_default"]


def test_the_same_savedmodel_is_the_same_release_and_another_is_not(pushed: tuple[Path, Path]) -> None:
    base, spec = pushed
    assert build(spec, check_mode=True).changed and build(spec).changed
    assert not build(spec).changed
    shutil.move(base / "1795456069", base / "1795457777")
    assert not build(spec).changed, "the same files, pushed again"
    push(base, "1795458888", spec.parent / "model.onnx")
    with pytest.raises(ReleaseError, match="other inputs"):
        build(spec)


def test_a_version_can_be_named(pushed: tuple[Path, Path]) -> None:
    base, _spec = pushed
    assert savedmodel.find(savedmodel.TfxSpec(base, "999", 17, "s")).path.name == "999"
    with pytest.raises(ReleaseError, match="no complete version 1795456999; complete are 1795456069, 999"):
        savedmodel.find(savedmodel.TfxSpec(base, "1795456999", 17, "s"))


def test_a_directory_without_a_version_says_what_it_looked_for(tmp_path: Path) -> None:
    spec = savedmodel.TfxSpec(tmp_path / "none", None, 17, "s")
    with pytest.raises(ReleaseError, match=r"none: cannot read it \(No such file"):
        savedmodel.find(spec)
    push(tmp_path / "none", "7", complete=False)
    with pytest.raises(ReleaseError, match=r"saved_model\.pb in it \(not complete: 7\).*blessed"):
        savedmodel.find(spec)


def test_a_link_in_a_savedmodel_is_refused(pushed: tuple[Path, Path]) -> None:
    base, spec = pushed
    (base / "1795456069" / "assets" / "vocabulary").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseError, match="vocabulary: is a link"):
        build(spec)


def test_without_a_converter_the_build_says_how_to_get_one(
    pushed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.setattr(savedmodel.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ReleaseError, match=r"there is none: install tf2onnx.*converter: \[/opt"):
        build(pushed[1], converter=[])
    with pytest.raises(ReleaseError, match="converter 'no-such-program' is not there"):
        build(pushed[1], converter=["no-such-program"])


def test_a_conversion_that_fails_is_told_in_the_converters_words(pushed: tuple[Path, Path]) -> None:
    base, spec = pushed
    model = base / "1795456069" / "assets" / "model.onnx"
    model.write_bytes(b"")
    with pytest.raises(ReleaseError, match="wrote no ONNX file: it said nothing"):
        build(spec)
    model.unlink()
    with pytest.raises(ReleaseError, match="ended with status 1: no operation named StatefulPartitionedCall"):
        build(spec)
    model.write_bytes(b"no model")
    with pytest.raises(ReleaseError, match="cannot read it as an ONNX model"):
        build(spec)
    assert not (spec.parent.parent / "releases" / "linear" / "1.0.0").exists()


@pytest.mark.parametrize(
    ("tfx", "words"),
    [
        ("serving", r"'tfx' is 'serving': a mapping"),
        ({}, r"tfx\.pushed' is None"),
        ({"pushed": "p", "version": "latest"}, r"tfx\.version' is 'latest'"),
        ({"pushed": "p", "opset": 9}, r"tfx\.opset' is 9.*13 to 21"),
        ({"pushed": "p", "converter": "rm"}, r"tfx\.converter"),
    ],
    ids=range(5),
)
def test_what_a_spec_must_not_say(tfx: Any, words: str) -> None:
    limits = {"accuracy_drop": 0.02, "p95_ms": 50, "p95_ratio": 3, "memory_mib": 64}
    document = {
        **{"model": "m", "version": "1.0.0", "security_counter": 1, "tfx": tfx, "golden": "g.npz"},
        **{"variants": [{"id": "onnxruntime/fp32"}], "budgets": {"default": limits}},
    }
    with pytest.raises(ReleaseError, match=words):
        parse_spec(document, Path("/s.yml"))
    with pytest.raises(ReleaseError, match="one of `onnx` and `tfx`"):
        parse_spec({**document, "onnx": "m.onnx"}, Path("/s.yml"))

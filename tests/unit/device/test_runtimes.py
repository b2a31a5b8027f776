"""The runtime probe against real interpreters: this one's runtimes, and environments with runtimes that break."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.sysfs import materialise

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.facts import device_facts
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtimes import drives, probe_runtimes


def environment(root: Path, **modules: str) -> str:
    """A real, empty virtual environment with a ``onnxruntime``-like package made of the given source; its python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True, timeout=60)
    site = next((root / "lib").glob("python3*")) / "site-packages"
    for name, source in modules.items():
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(source)
        info = site / f"{name}-9.8.7.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.8.7\n")
    return str(root / "bin" / "python")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> str:
    return environment(tmp_path_factory.mktemp("empty") / "venv")


def test_this_interpreters_onnxruntime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    answer = probe_runtimes(sys.executable, only="onnxruntime")
    info = answer["runtimes"]["onnxruntime"]
    assert info["version"].split("+")[0] == onnxruntime.__version__.split("+")[0]
    assert info["providers"] == onnxruntime.get_available_providers()
    assert info["usable"] and drives("onnxruntime", info, "cpu") and not drives("onnxruntime", info, "coral")
    assert answer["python"] == "{}.{}.{}".format(*sys.version_info[:3])


def test_an_environment_without_runtimes_has_none(empty: str) -> None:
    assert probe_runtimes(empty)["runtimes"] == {}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "killed by SIGILL"),
        ("raise ImportError('libfoo.so.1: cannot open shared object file')", "ImportError: libfoo.so.1: cannot open"),
        ("import time; time.sleep(600)", "did not finish within 0.3 s"),
        ("import os; os._exit(7)", "with status 7"),
        ("raise SystemExit(0)", "SystemExit"),
        ("print('noise on stdout')", "AttributeError"),
    ],
)
def test_a_broken_runtime_is_unusable_and_says_why(source: str, said: str, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", onnxruntime=source)
    began = time.monotonic()
    info = probe_runtimes(python, timeout=0.3)["runtimes"]["onnxruntime"]
    assert info["usable"] is False and said in info["reason"]
    assert info["version"] == "9.8.7"
    assert not drives("onnxruntime", info, "cpu")
    assert time.monotonic() - began < 10


def test_one_broken_runtime_does_not_hide_another(tmp_path: Path) -> None:
    python = environment(
        tmp_path / "venv",
        onnxruntime="import os; os.abort()",
        openvino="print('hello')\nclass Core:\n    available_devices = ['CPU', 'GPU.0']\n",
    )
    found = probe_runtimes(python, devices={"openvino"})["runtimes"]
    assert not found["onnxruntime"]["usable"] and "SIGABRT" in found["onnxruntime"]["reason"]
    assert found["openvino"]["devices"] == ["CPU", "GPU.0"] and drives("openvino", found["openvino"], "intel-gpu")
    assert not drives("openvino", found["openvino"], "intel-npu")


def test_modules_in_the_working_directory_are_not_taken_for_runtimes(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("def get_available_providers(): return ['Fake']\n")
    monkeypatch.chdir(tmp_path)
    assert probe_runtimes(empty)["runtimes"] == {}


@pytest.mark.parametrize("name", ["missing", "directory", "text", "silent"])
def test_an_interpreter_that_is_none(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "directory":
        path.mkdir()
    elif name == "text":
        path.write_text("not a program")
    elif name == "silent":
        path.write_text("#!/bin/sh\nexit 3\n")
        path.chmod(0o755)
    with pytest.raises(DeviceError) as caught:
        probe_runtimes(str(path))
    assert (
        caught.value.code == "bad_input" and str(path) in caught.value.message and "device.json" in caught.value.message
    )


def test_an_unknown_runtime_is_refused(empty: str) -> None:
    with pytest.raises(DeviceError, match="choose one of"):
        probe_runtimes(empty, only="torch")


def test_the_cache_holds_until_the_environment_changes(tmp_path: Path) -> None:
    marker = tmp_path / "imports"
    source = f"open({str(marker)!r}, 'a').write('x')\ndef get_available_providers(): return ['CPUExecutionProvider']\n"
    python = environment(tmp_path / "venv", onnxruntime=source)
    run = tmp_path / "run"
    run.mkdir()
    first = probe_runtimes(python, cache_dir=str(run))
    assert probe_runtimes(python, cache_dir=str(run)) == first
    assert marker.read_text() == "x", "the second answer came from the cache"
    assert [oct(path.stat().st_mode & 0o777) for path in run.iterdir()] == ["0o600"]
    site = next((tmp_path / "venv/lib").glob("python3*")) / "site-packages"
    (site / "onnxruntime-9.8.7.dist-info").rename(site / "onnxruntime-9.9.0.dist-info")
    (site / "onnxruntime-9.9.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 9.9.0\n"
    )
    assert probe_runtimes(python, cache_dir=str(run))["runtimes"]["onnxruntime"]["version"] == "9.9.0"
    for path in run.iterdir():
        path.write_text("{ torn")
    assert probe_runtimes(python, cache_dir=str(run))["runtimes"]["onnxruntime"]["version"] == "9.9.0"


def test_a_broken_runtime_is_asked_again(tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", onnxruntime="raise ImportError('not yet')")
    (tmp_path / "run").mkdir()
    probe_runtimes(python, cache_dir=str(tmp_path / "run"))
    assert list((tmp_path / "run").iterdir()) == []


def test_facts_of_a_provisioned_device(empty: str, tmp_path: Path) -> None:
    materialise("coral-usb-before", tmp_path / "machine")
    (tmp_path / "edge/run").mkdir(parents=True)
    config = {"device_id": "d", "sysroot": str(tmp_path / "machine"), "python": empty, "runtime": "onnxruntime"}
    (tmp_path / "edge/device.json").write_text(json.dumps(config))
    facts = device_facts(str(tmp_path / "edge"))
    assert facts["stratum"] == "cpu/onnxruntime/aarch64" and facts["runtime_pinned"] and facts["runtimes"] == {}
    assert any("firmware" in text for text in facts["problems"])
    assert json.loads(json.dumps(facts)) == facts


def test_facts_without_a_working_interpreter_still_come(tmp_path: Path) -> None:
    facts = device_facts(python=str(tmp_path / "nothing"))
    assert facts["runtime"] is None and facts["stratum"].split("/")[1] == "none"
    assert any("nothing" in text for text in facts["problems"])


def test_a_damaged_device_json_is_an_error(tmp_path: Path) -> None:
    for content in ("{", "[]"):
        (tmp_path / "device.json").write_text(content)
        with pytest.raises(DeviceError) as caught:
            device_facts(str(tmp_path))
        assert caught.value.code == "damaged" and os.fspath(tmp_path) in caught.value.message

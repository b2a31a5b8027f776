"""The device program: the same bytes from the same sources, complete, and it runs without the collection."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from ansible_collections.edgeai.fleet.plugins.module_utils.device import about, bundle
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError

ROOT = Path(__file__).resolve().parents[3]


def test_the_same_sources_give_the_same_bytes_whatever_their_order_and_times() -> None:
    sources = bundle.own_sources()
    backwards = dict(sorted(sources.items(), reverse=True))
    assert bundle.build(sources) == bundle.build(backwards)


def test_a_changed_source_changes_the_bytes() -> None:
    sources = bundle.own_sources()
    changed = dict(sources)
    changed["edgeai_fleet/server/app.py"] += b"# more\n"
    assert bundle.build(sources) != bundle.build(changed)


def test_what_the_program_cannot_import_stays_out() -> None:
    sources = bundle.own_sources()
    more = dict(sources, **{"edgeai_fleet/device/only_for_a_module.py": b"from . import not_there\n"})
    assert bundle.build(sources) == bundle.build(more)


def test_a_missing_part_is_named() -> None:
    sources = bundle.own_sources()
    del sources["edgeai_fleet/server/tensors.py"]
    with pytest.raises(DeviceError, match=r"would lack edgeai_fleet/server/tensors\.py"):
        bundle.build(sources)


def test_it_runs_alone_and_says_its_version_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "new" / "edgeai-device.pyz"
    bundle.install(str(path), bundle.build(bundle.own_sources()))
    assert os.access(path, os.X_OK)
    done = subprocess.run(
        [sys.executable, "-I", str(path), "version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"edgeai-device {about.VERSION} ({about.file_digest(str(path))})\n"


def test_every_file_in_it_compiles_for_and_imports_only_what_is_there(tmp_path: Path) -> None:
    """All of it imports without one third-party package."""
    path = tmp_path / "p.pyz"
    bundle.install(str(path), bundle.build(bundle.own_sources()))
    with zipfile.ZipFile(path) as archive:
        names = [n[:-3].replace("/", ".") for n in archive.namelist() if n.endswith(".py") and "__" not in n]
    assert "edgeai_fleet.server.runner" in names
    code = (
        "import sys, importlib; sys.path[:0] = [sys.argv[1]]\nfor name in sys.argv[2:]: importlib.import_module(name)"
    )
    # -S: no site-packages at all
    command = [sys.executable, "-I", "-S", "-c", code, str(path), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_copy_elsewhere_builds_the_same_program(tmp_path: Path) -> None:
    """What AnsiballZ and an installed collection do: the same files in another place."""
    target = tmp_path / "ansible_collections" / "edgeai" / "fleet" / "plugins" / "module_utils"
    shutil.copytree(ROOT / "plugins" / "module_utils", target, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.device import bundle as b\n"
        "sys.stdout.buffer.write(b.build(b.own_sources()))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(tmp_path)], capture_output=True, check=True)
    assert done.stdout == bundle.build(bundle.own_sources())


def test_installing_is_seen_as_done_only_when_bytes_and_mode_are_right(tmp_path: Path) -> None:
    path, data = tmp_path / "p.pyz", b"program"
    assert not bundle.same_file(str(path), data)
    bundle.install(str(path), data)
    assert bundle.same_file(str(path), data)
    assert not bundle.same_file(str(path), data[:-1])
    os.chmod(path, 0o644)
    assert not bundle.same_file(str(path), data)


def test_the_version_is_the_collections() -> None:
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"] == about.VERSION

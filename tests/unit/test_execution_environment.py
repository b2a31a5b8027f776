# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The execution environment has what the controller side imports and calls; every file it needs can be resolved."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.tool_venv import tool_venv

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "execution-environment" / "execution-environment.yml"
#: What runs on devices, or where releases and images are built, has requirements of its own.
ELSEWHERE = (
    "device", "server", "build", "cluster/readiness.py", "cluster/restore.py", "cluster/upgrade_nodes.py",
    "kubeedge/images.py", "workloads/image_build.py",
)  # fmt: skip
#: Which package brings which program.
PROGRAMS = {"git": {"git"}, "ssh": {"openssh-client", "openssh-clients"}}


def controller_files() -> list[Path]:
    """Plugins that run in an execution environment."""
    elsewhere = {ROOT / "plugins" / "module_utils" / name for name in ELSEWHERE}
    return [path for path in sorted((ROOT / "plugins").rglob("*.py")) if not elsewhere & {path, *path.parents}]


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, also those by importlib.import_module with a literal."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (item.name.split(".")[0] for item in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(item.value).split(".", 1)[0] for item in node.args[:1] if isinstance(item, ast.Constant))


def third_party() -> dict[str, str]:
    """Distribution -> a file that imports it."""
    ours = set(sys.stdlib_module_names) | {"ansible_collections"}
    by_name = importlib.metadata.packages_distributions()
    found = {}
    for path in controller_files():
        for name in set(imported(path)) - ours:
            found[canonicalize_name(by_name.get(name, [name])[0])] = str(path.relative_to(ROOT))
    return found


@pytest.fixture(scope="module")
def builder() -> Path:
    """ansible-builder, in an environment of its own."""
    return tool_venv("ansible-builder", "ansible-builder==3.2.0") / "bin" / "ansible-builder"


@pytest.fixture(scope="module")
def introspected(tmp_path_factory: pytest.TempPathFactory, builder: Path) -> dict[str, list[str]]:
    """What ansible-builder finds in the installed collection."""
    base = tmp_path_factory.mktemp("collections")
    (base / "ansible_collections" / "edgeai").mkdir(parents=True)
    (base / "ansible_collections" / "edgeai" / "fleet").symlink_to(ROOT)
    done = subprocess.run(
        [str(builder), "introspect", str(base)], capture_output=True, text=True, timeout=120, check=True
    )
    return yaml.safe_load(done.stdout)


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory, introspected: dict[str, list[str]]) -> set[str]:
    """Every package that pip would install into the image: what the definition and the collection ask for."""
    definition = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["dependencies"]
    asked = [definition[name]["package_pip"] for name in ("ansible_core", "ansible_runner")]
    asked += [line.split("  #")[0] for line in introspected["python"]]
    # asked once for these requirements: later runs need no network
    kept = ROOT / "build" / "venvs" / f"resolved-{hashlib.sha256(repr(asked).encode()).hexdigest()[:16]}.json"
    if not kept.exists():
        report = tmp_path_factory.mktemp("pip") / "report.json"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run",
             "--ignore-installed", "--report", str(report), *asked],
            check=True, timeout=280,
        )  # fmt: skip
        found = sorted(item["metadata"]["name"] for item in json.loads(report.read_text())["install"])
        kept.write_text(json.dumps(found), encoding="utf-8")
    return {canonicalize_name(name) for name in json.loads(kept.read_text(encoding="utf-8"))}


def test_every_import_of_the_controller_side_is_in_the_image(resolved: set[str]) -> None:
    needed = third_party()
    assert {"cryptography", "pyyaml", "ansible-runner", "jinja2"} <= set(needed), "the search finds too little"
    assert {name: path for name, path in needed.items() if name not in resolved} == {}


def test_the_image_and_the_controller_ask_for_the_same_versions() -> None:
    definition = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["dependencies"]
    lines = (ROOT / "requirements" / "controller.txt").read_text(encoding="utf-8").splitlines()
    wanted = {item.name: item.specifier for item in map(Requirement, filter(lambda line: line[:1] != "#", lines))}
    for key in ("ansible_core", "ansible_runner"):
        asked = Requirement(definition[key]["package_pip"])
        assert asked.specifier == wanted[asked.name]


def test_every_program_has_its_package_on_both_kinds_of_image(introspected: dict[str, list[str]]) -> None:
    for platform in ("rpm", "dpkg"):
        packages = {line.split()[0] for line in introspected["system"] if f"[platform:{platform}]" in line}
        for program, names in PROGRAMS.items():
            assert packages & names, f"{program} is in no package for {platform}"
    called = {
        match for path in controller_files()
        for match in re.findall(r"(?:subprocess\.run\(|command = )\[\"(\w+)\"", path.read_text(encoding="utf-8"))
    }  # fmt: skip
    assert called <= set(PROGRAMS), "a program that no package brings"


def test_ansible_builder_takes_the_definition(builder: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    done = subprocess.run(
        [str(builder), "create", "-f", str(EXAMPLE), "-c", str(context), "--output-filename", "Containerfile"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    recipe = (context / "Containerfile").read_text(encoding="utf-8")
    assert "introspect" in recipe and "ANSIBLE_HOME=/tmp/.ansible" in recipe
    galaxy = yaml.safe_load((context / "_build" / "requirements.yml").read_text(encoding="utf-8"))
    repository = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["repository"]
    assert galaxy["collections"][0]["name"].startswith(repository)

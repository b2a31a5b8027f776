# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""docs/reference is what tools/reference.py writes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load(ROOT / "tools" / "reference.py")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


def test_the_committed_pages_are_the_generated_ones(pages: dict[str, str]) -> None:
    there = reference.written()
    different = sorted(name for name in {*pages, *there} if pages.get(name) != there.get(name))
    assert different == [], "run make reference and commit docs/reference"


def test_every_plugin_role_and_playbook_has_its_page(pages: dict[str, str]) -> None:
    for folder in ("modules", "lookup", "filter", "callback"):
        for path in (ROOT / "plugins" / folder).glob("[!_]*.py"):
            assert f"{folder.removesuffix('s')}s/{path.stem}.md" in pages
    for path in (ROOT / "roles").iterdir():
        assert f"roles/{path.name}.md" in pages
    for path in (ROOT / "playbooks").glob("*.yml"):
        assert f"## edgeai.fleet.{path.stem}\n" in pages["playbooks.md"]


def test_options_have_their_defaults_and_choices(pages: dict[str, str]) -> None:
    row = next(line for line in pages["modules/quarantine.md"].splitlines() if line.startswith("| `state`"))
    assert "`listed`" in row and "One of `listed`, `lifted`, `quarantined`" in row
    variables = yaml.safe_load((ROOT / "roles" / "monitoring" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    for name in variables:
        assert f"| `{name}` |" in pages["roles/monitoring.md"]


def test_no_markup_is_left(pages: dict[str, str]) -> None:
    for name, content in pages.items():
        text = re.sub(r"```.*?```|`[^`]*`", "", content, flags=re.DOTALL)
        assert not re.findall(r"\b(?:[BCEILMOPUV]|RV)\([^)]*\)", text), name


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("Needs O(state=listed) and V(f(x\\)).", "Needs `state=listed` and `f(x)`."),
        ("See M(edgeai.fleet.quarantine), L(the docs, https://docs.example.com).",
         "See `edgeai.fleet.quarantine`, [the docs](https://docs.example.com)."),
        ("O(edgeai.fleet.model_release#module:watchdog=false) is B(no)", "`model_release watchdog=false` is **no**"),
        ("P(edgeai.fleet.rollout_plan#module) plans", "`rollout_plan` plans"),
    ],
    ids=["option-and-value", "module-and-link", "option-of-another", "plugin"],
)  # fmt: skip
def test_markup(markup: str, expected: str) -> None:
    assert reference.plain(markup) == expected

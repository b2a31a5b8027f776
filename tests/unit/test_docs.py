"""The documentation names only what is there: plugins, playbooks, files, variables, policy keys, records, metrics."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.policy import Policy
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_policy import Compare, Query
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_template import ONE, SEVERAL

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")])
CODE = [
    path
    for folder in ("plugins", "playbooks", "roles", "inventories", "examples", "templates", "tests/integration")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".yml", ".j2")
]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def table_cells(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table behind a heading, without its head."""
    section = page[page.index(heading) :]
    rows = re.search(r"\n\|[^\n]*\|\n\| --- [^\n]*\n((?:\|[^\n]*\n)+)", section)
    assert rows, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.group(1).splitlines()]


@pytest.fixture(scope="module")
def code() -> str:
    return "\n".join(text(path) for path in CODE)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_full_names_exist(page: Path) -> None:
    names = set(re.findall(r"edgeai\.fleet\.([a-z0-9_]+)", text(page))) - {"git"}
    places = ("plugins/modules/{}.py", "plugins/callback/{}.py", "playbooks/{}.yml", "roles/{}/meta/main.yml",
              "plugins/filter/{}.py", "plugins/lookup/{}.py", "extensions/eda/rulebooks/{}.yml", "NAME")  # fmt: skip
    missing = [n for n in sorted(names) if n != "NAME" and not any((ROOT / p.format(n)).exists() for p in places)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", text(page)):
        name, anchor = target
        if name.startswith(("http:", "https:")):
            continue
        file = page if not name else page.parent / name
        assert file.exists(), f"{page.name}: {name}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", text(file), re.MULTILINE)
            slugs = {re.sub(r"[^a-z0-9 _-]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor[1:] in slugs, f"{page.name}: {name}{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_variables_and_files_exist(page: Path, code: str) -> None:
    for name in set(re.findall(r"\bedge_[a-z_]+\b", text(page))):
        assert re.search(rf"\b{name}\b", code), f"{page.name}: {name} is nowhere in the code"
    for name in set(
        re.findall(r"`((?:plugins|playbooks|roles|tests|docs|requirements|changelogs)/[\w./*-]+)`", text(page))
    ):
        assert list(ROOT.glob(name.rstrip("/"))), f"{page.name}: {name}"


def test_readme_lists_every_module() -> None:
    listed = {
        name for row in table_cells(text(ROOT / "README.md"), "## Reference") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert listed == {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}


def test_index_lists_every_playbook() -> None:
    listed = re.findall(r"^\| `edgeai\.fleet\.(\w+)` \|", text(ROOT / "docs/index.md"), re.MULTILINE)
    assert set(listed) == {path.stem for path in (ROOT / "playbooks").glob("*.yml")}


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in fields(value):
        inner = getattr(value, item.name)
        found.update(flat(inner, f"{prefix}{item.name}.") if is_dataclass(inner) else {prefix + item.name: inner})
    return found


def shown(key: str, value: Any) -> str:
    if value is None and key != "gate.shadow_agreement":
        return "as signed"
    if value in ("", None):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


def test_every_policy_key_is_documented_with_its_default() -> None:
    rows = table_cells(text(ROOT / "docs/gates-and-policy.md"), "## Policy")
    assert {row[0].strip("`"): row[1] for row in rows} == {
        key: shown(key, value) for key, value in flat(Policy()).items()
    }


def test_every_key_of_a_query_is_documented_with_its_default() -> None:
    rows = table_cells(text(ROOT / "docs/gates-and-policy.md"), "edge_policy:\n  soak")
    documented = {name: row[1] for row in rows for name in re.findall(r"`([\w.]+)`", row[0])}
    plain = {item.name: item.default for item in fields(Query) if item.name != "compare"}
    assert set(documented) == set(plain) | {f"compare.{item.name}" for item in fields(Compare)}
    for name, default in plain.items():
        if default is not MISSING and default is not None:
            assert documented[name] == shown(name, default), name


def test_every_variable_of_a_query_is_documented() -> None:
    rows = table_cells(text(ROOT / "docs/gates-and-policy.md"), "| `stale_after`")
    assert {name for row in rows for name in re.findall(r"\$(\w+)", row[0])} == {*SEVERAL, *ONE, "window"}


def test_every_record_type_is_documented(code: str) -> None:
    rows = table_cells(text(ROOT / "docs/ledger.md"), "## Records")
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    folders = ("plugins/action", "plugins/callback", "plugins/module_utils/rollout")
    source = "\n".join(text(path) for folder in folders for path in (ROOT / folder).glob("*.py"))
    written = set(re.findall(r"(?:ledger\.|self\._)append\(\s*\"([a-z_]+)\"", source))
    assert written - documented == set()
    for name in documented:
        assert f'"{name}"' in code, f"{name} is documented and never written"


def test_every_metric_is_documented(code: str) -> None:
    source = text(ROOT / "plugins/module_utils/server/metrics.py")
    real = set(re.findall(r'"((?:edgeai|process)_[a-z_]+)"', source))
    documented = {
        name
        for row in table_cells(text(ROOT / "docs/server.md"), "## Metrics")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert {name.removesuffix("_total") for name in documented} == real

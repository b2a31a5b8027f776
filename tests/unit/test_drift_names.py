# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Names in tasks, examples, CI files, Makefile and pages: modules, options, roles, variables, files, targets.

Each check is a function that returns what is wrong, and is itself tried on something wrong.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.edgeai.fleet.plugins.action.model_release import CONTROLLER_ARGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")])
TASK_FILES = sorted(
    path
    for folder in ("playbooks", "roles/*/tasks", "roles/*/handlers", "molecule", "templates/awx", "extensions")
    for path in ROOT.glob(f"{folder}/**/*.yml")
    if path.name != "molecule.yml"
)
#: A path in backticks that begins with one of these is a file of this repository.
FOLDERS = (
    "docs|examples|extensions|inventories|meta|molecule|playbooks|plugins|requirements|roles|rulesets|templates|tools"
)


class Loader(yaml.SafeLoader):
    """YAML with Ansible's tags, whose values do not matter here."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def known(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def documented() -> dict[str, Any]:
    """What ansible-doc says about the collection."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.documentation()


@functools.cache
def modules() -> dict[str, set[str]]:
    """Module -> its options and their aliases."""
    found = {}
    for full, item in documented()["module"].items():
        options = item["doc"].get("options") or {}
        aliases = {alias for option in options.values() for alias in option.get("aliases") or ()}
        found[full.rsplit(".", 1)[1]] = set(options) | aliases
    found["model_release"] |= set(CONTROLLER_ARGS)  # its action plugin takes these, and keeps them from the device
    return found


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a document, at any depth."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from mappings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from mappings(inner)


def wrong_tasks(where: str, content: str) -> list[str]:
    """Tasks that call a module, an option, a role or a playbook that is not there."""
    try:
        documents = list(yaml.load_all(content, Loader=Loader))  # a safe loader
    except yaml.YAMLError:
        return []  # not YAML by itself: a template, or an excerpt with dots
    found = []
    for task in (item for document in documents for item in mappings(document)):
        for key, value in task.items():
            name = str(key).removeprefix("edgeai.fleet.")
            if name == key:
                continue
            if name not in modules():
                found.append(f"{where}: there is no module edgeai.fleet.{name}")
            elif isinstance(value, Mapping):
                wrong = set(map(str, value)) - modules()[name]
                found += [f"{where}: edgeai.fleet.{name} has no option {option}" for option in sorted(wrong)]
        role = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role")
        called = str((role or {}).get("name", "")) if isinstance(role, Mapping) else ""
        if called.startswith("edgeai.fleet.") and not (ROOT / "roles" / called.split(".")[2]).is_dir():
            found.append(f"{where}: there is no role {called}")
        imported = str(task.get("ansible.builtin.import_playbook", ""))
        if imported.startswith("edgeai.fleet.") and not (ROOT / "playbooks" / f"{imported.split('.')[2]}.yml").exists():
            found.append(f"{where}: there is no playbook {imported}")
    return found


def blocks(page: str) -> list[str]:
    """The YAML in a page."""
    return re.findall(r"^```ya?ml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def wrong_calls(where: str, content: str) -> list[str]:
    """``ansible ... -m edgeai.fleet.NAME -a 'option=value ...'`` with an option that is not there."""
    found = []
    for name, arguments in re.findall(r"-m\s+edgeai\.fleet\.(\w+)(?:\s+-a\s+'([^']*)')?", content.replace("\\\n", " ")):
        if name not in modules():
            found.append(f"{where}: there is no module edgeai.fleet.{name}")
            continue
        given = re.findall(r"(?:^|\s)(\w+)=", re.sub(r"\"[^\"]*\"", "", arguments))
        found += [f"{where}: edgeai.fleet.{name} has no option {o}" for o in given if o not in modules()[name]]
    return found


def wrong_files(where: str, content: str) -> list[str]:
    """Files of this repository that are named in backticks and are not there."""
    names = set(re.findall(rf"`((?:{FOLDERS})/[\w./*-]+)`", content))
    return [f"{where}: there is no {name}" for name in sorted(names) if not list(ROOT.glob(name.rstrip("/")))]


def wrong_targets(where: str, content: str) -> list[str]:
    """Make targets, and files of this repository, in a script or Makefile."""
    targets = set(re.findall(r"^([a-z][\w-]*):", text(ROOT / "Makefile"), re.MULTILINE))
    called = re.findall(r"^\s*make ([a-z][\w-]*)", content, re.MULTILINE)
    found = [f"{where}: make has no target {name}" for name in called if name not in targets]
    names = re.findall(r"(?<![\w./-])((?:tools|requirements|tests|examples)/[\w/.-]+\.(?:sh|py|txt))", content)
    return found + [f"{where}: there is no {name}" for name in sorted(set(names)) if not (ROOT / name).exists()]


def wrong_role_variables(where: str, role: str, content: str) -> list[str]:
    """Variables with a role's prefix, in backticks, that its argument_specs do not have."""
    specs = yaml.safe_load(text(ROOT / "roles" / role / "meta" / "argument_specs.yml"))["argument_specs"]
    options = {name for spec in specs.values() for name in spec.get("options", {})}
    named = set(re.findall(rf"`({role}_\w+)`", content))
    return [f"{where}: the role has no variable {name}" for name in sorted(named - options)]


@pytest.mark.parametrize("path", TASK_FILES, ids=known)
def test_tasks_call_what_is_there(path: Path) -> None:
    assert wrong_tasks(known(path), text(path)) == []


@pytest.mark.parametrize("page", PAGES, ids=known)
def test_pages_name_what_is_there(page: Path) -> None:
    content = text(page)
    found = [wrong for block in blocks(content) for wrong in wrong_tasks(known(page), block)]
    assert found + wrong_calls(known(page), content) + wrong_files(known(page), content) == []


@pytest.mark.parametrize("name", ["Makefile", ".ci/run", "CONTRIBUTING.md"])
def test_targets_and_files_of_the_build(name: str) -> None:
    assert wrong_targets(name, text(ROOT / name)) == []


@pytest.mark.parametrize("role", sorted(path.parent.name for path in ROOT.glob("roles/*/README.md")))
def test_readmes_name_variables_of_their_role(role: str) -> None:
    assert wrong_role_variables(f"roles/{role}", role, text(ROOT / "roles" / role / "README.md")) == []


def test_examples_of_plugins_use_options_that_are_there() -> None:
    found = []
    for kind, plugins in documented().items():
        for name, item in plugins.items():
            found += wrong_tasks(f"{kind} {name}", item.get("examples") or "") if kind != "role" else []
    assert found == []


WRONG = {
    "a-module-that-is-gone": (wrong_tasks, "- edgeai.fleet.model_rollout: {}"),
    "an-option-that-is-gone": (wrong_tasks, "- edgeai.fleet.quarantine: {ledger: a, stratumm: b}"),
    "a-role-that-is-gone": (wrong_tasks, "- ansible.builtin.include_role: {name: edgeai.fleet.agent}"),
    "a-playbook-that-is-gone": (wrong_tasks, "- ansible.builtin.import_playbook: edgeai.fleet.deploy"),
    "an-ad-hoc-option": (wrong_calls, "ansible localhost -m edgeai.fleet.quarantine -a 'ledger=x because=y'"),
    "an-ad-hoc-module": (wrong_calls, "ansible localhost -m edgeai.fleet.quarantines"),
    "a-file": (wrong_files, "see `playbooks/deploy.yml`"),
    "a-target": (wrong_targets, "make everything"),
    "a-script": (wrong_targets, "run tools/nothing.sh"),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_check_finds_what_is_wrong(case: str) -> None:
    check, content = WRONG[case]
    assert len(check("here", content)) == 1


def test_a_variable_that_a_role_does_not_have_is_found() -> None:
    assert len(wrong_role_variables("here", "monitoring", "`monitoring_fleet` and `monitoring_colour`")) == 1

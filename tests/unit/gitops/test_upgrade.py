"""Rendering again over a repository that people work in: nothing that they changed is ever written over."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import upgrade
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.parameters import complete
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.template import Rendered

MANIFEST = """---
format: 1
files:
  - {src: readme, dest: README.md}
  - {src: pipeline, dest: ".ci/@{ environment }@.yml", each: environments}
  - {src: seed, dest: hosts.yml, seed: true}
  - {src: lab, dest: .gitlab-ci.yml, ci: gitlab}
"""


def template(home: Path, text: str = "one") -> Path:
    """A small template whose files hold ``text``."""
    home.mkdir(exist_ok=True)
    (home / "template.yml").write_text(MANIFEST)
    for name in ("readme", "pipeline", "seed", "lab"):
        (home / name).write_text(f"{text} of @{{ name }}@: ${{{{ secrets.KEY }}}} {{{{ inventory_dir }}}} [[ -f x ]]\n")
    return home


def render(tmp_path: Path, check: bool = False, **parameters: Any) -> dict[str, Any]:
    """Run the module over ``repo``."""
    arguments = {"src": str(tmp_path / "template"), "dest": str(tmp_path / "repo"), "parameters": parameters}
    return run_module("repo_template", arguments, check=check)


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {item["path"]: item["action"] for item in result["files"]}


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def test_it_renders_once_and_leaves_other_braces_alone(tmp_path: Path) -> None:
    template(tmp_path / "template")
    predicted = render(tmp_path, check=True, name="fleet")
    assert predicted["changed"] and not (tmp_path / "repo").exists()
    made = render(tmp_path, name="fleet")
    assert (
        actions(made)
        == actions(predicted)
        == dict.fromkeys((".ci/production.yml", ".ci/staging.yml", "README.md", "hosts.yml"), "created")
    )
    assert (
        tmp_path / "repo/README.md"
    ).read_text() == "one of fleet: ${{ secrets.KEY }} {{ inventory_dir }} [[ -f x ]]\n"
    before = tree(tmp_path / "repo")
    again = render(tmp_path)
    assert not again["changed"] and set(actions(again).values()) == {"unchanged"} and tree(tmp_path / "repo") == before
    assert again["diff"] == [] and again["parameters"] == made["parameters"]


def test_an_upgrade_writes_only_what_nobody_changed(tmp_path: Path) -> None:
    template(tmp_path / "template")
    render(tmp_path, name="fleet")
    repo = tmp_path / "repo"
    (repo / "README.md").write_text("ours\n")
    (repo / "hosts.yml").write_text("our hosts\n")
    (repo / ".ci/staging.yml").unlink()
    template(tmp_path / "template", "two")
    predicted = render(tmp_path, check=True)
    assert predicted["changed"] and (repo / ".ci/production.yml").read_text().startswith("one")
    done = render(tmp_path)
    assert actions(done) == actions(predicted) == {
        ".ci/production.yml": "updated", ".ci/staging.yml": "deleted", "README.md": "conflict", "hosts.yml": "kept",
    }  # fmt: skip
    assert done["conflicts"] == ["README.md"]
    shown = {item["before_header"]: item for item in done["diff"]}
    assert set(shown) == {"README.md (conflict)", ".ci/production.yml (updated)"}
    assert shown["README.md (conflict)"]["before"] == "ours\n"
    assert (repo / "README.md").read_text() == "ours\n" and (repo / "hosts.yml").read_text() == "our hosts\n"
    assert (repo / ".edgeai/new/README.md").read_text().startswith("two of fleet")
    assert not (repo / ".ci/staging.yml").exists()

    # A conflict is told once: dealt with, its file may go and stays away.
    (repo / ".edgeai/new/README.md").unlink()
    again = render(tmp_path)
    assert not again["changed"] and actions(again)["README.md"] == "kept"
    assert not (repo / ".edgeai/new/README.md").exists()


def test_another_forge_adds_and_removes_its_own_files_only(tmp_path: Path) -> None:
    template(tmp_path / "template")
    render(tmp_path, name="fleet", ci="github,gitlab")
    assert (tmp_path / "repo/.gitlab-ci.yml").exists()
    gone = render(tmp_path, ci=["github"])
    assert actions(gone)[".gitlab-ci.yml"] == "removed" and not (tmp_path / "repo/.gitlab-ci.yml").exists()
    render(tmp_path, ci=["gitlab"])
    (tmp_path / "repo/.gitlab-ci.yml").write_text("ours\n")
    kept = render(tmp_path, ci=["github"])
    assert actions(kept)[".gitlab-ci.yml"] == "kept" and (tmp_path / "repo/.gitlab-ci.yml").read_text() == "ours\n"


def test_files_that_were_there_before_are_nobodys_to_overwrite(tmp_path: Path) -> None:
    template(tmp_path / "template")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/README.md").write_text("theirs\n")
    done = render(tmp_path, name="fleet")
    assert actions(done)["README.md"] == "conflict" and (tmp_path / "repo/README.md").read_text() == "theirs\n"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    template(tmp_path / "template")
    (tmp_path / "repo").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "repo/.ci").symlink_to(tmp_path / "elsewhere")
    failed = render(tmp_path, name="fleet")
    assert failed["failed"] and "symbolic link" in failed["msg"] and not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("base", "disk", "new"), list(itertools.product((None, b"a", b"b"), (None, b"a", b"b", b"c"), (b"a", b"b")))
)
def test_only_what_was_rendered_last_is_written_over(base: bytes | None, disk: bytes | None, new: bytes) -> None:
    """Whatever the three states of a file are."""
    lock = upgrade.Lock(digests={} if base is None else {"f": str(upgrade.digest(base))})
    [step] = upgrade.decide({"f": Rendered(new)}, {"f": disk}, lock)
    if step.content is not None:
        assert disk == base or disk is None
    if disk is None and base is not None:
        assert step.action == upgrade.DELETED and step.content is None
    if disk not in (None, base, new):
        assert step.content is None and (step.aside == new) == (base != new)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"name": "../x"}, "name"),
        ({"name": "x", "ci": "travis"}, "ci"),
        ({"name": "x", "environments": []}, "environments"),
        ({"name": "x", "environments": ["a", "a"]}, "environments"),
        ({"name": "x", "environments": ["a/b"]}, "environments"),
        ({"name": "x", "owners": ["nobody"]}, "owners"),
        ({"name": "x", "runner": "a\nb"}, "runner"),
        ({"name": "x", "colour": "red"}, "colour"),
        ({}, "name"),
    ],
)
def test_a_bad_parameter_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(RepoError, match=named):
        complete(given, {})


def test_a_damaged_lock_is_no_empty_one(tmp_path: Path) -> None:
    template(tmp_path / "template")
    render(tmp_path, name="fleet")
    (tmp_path / "repo/.edgeai/template.json").write_text("{")
    failed = render(tmp_path)
    assert failed["failed"] and "take it back from git" in failed["msg"]

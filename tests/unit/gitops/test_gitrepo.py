"""A branch that several pipelines write: races are won or saved, never lost, and a token is never seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module
from support.pipelines import git

BRANCH = "edgeai/state/production"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A bare repository with one commit on main."""
    path = tmp_path / "fleet.git"
    path.mkdir()
    git(path, "init", "--bare", "--quiet")
    work = tmp_path / "first"
    work.mkdir()
    git(work, "init", "--quiet")
    git(work, "commit", "--quiet", "--allow-empty", "-m", "Begin")
    git(work, "push", "--quiet", str(path), "HEAD:refs/heads/main")
    return path


def clone(bare: Path, name: str) -> Path:
    path = bare.parent / name
    git(bare.parent, "clone", "--quiet", "--depth=1", f"file://{bare}", name)
    return path


def state(repo: Path, check: bool = False, **options: Any) -> dict[str, Any]:
    arguments = {"repo": repo, "path": repo / "state", "branch": BRANCH, "orphan": True, "ignore": ["*.log"], **options}
    return run_module("repo_branch", arguments, check=check)


def append(repo: Path, text: str, name: str = "ledger.jsonl") -> None:
    with open(repo / "state" / name, "a", encoding="utf-8") as handle:
        handle.write(text)


def test_a_branch_is_begun_written_and_read_by_another(bare: Path) -> None:
    one, two = clone(bare, "one"), clone(bare, "two")
    assert state(one)["changed"]
    append(one, "1\n")
    append(one, "noise\n", "watchdog.log")
    pushed = state(one, state="pushed", commit_message="first", author="Robot <robot@example.org>")
    assert pushed["changed"] and pushed["branch"] == BRANCH
    assert git(bare, "log", "-1", "--format=%an %ae %s", BRANCH) == "Robot robot@example.org first"
    assert git(bare, "ls-tree", "--name-only", BRANCH).split() == [".gitignore", "ledger.jsonl"]
    assert git(bare, "log", "--format=%s", "main") == "Begin"
    assert state(two)["changed"] and (two / "state/ledger.jsonl").read_text() == "1\n"
    assert not state(two)["changed"] and not state(two, state="pushed")["changed"]


def test_a_remote_may_be_a_relative_path(bare: Path) -> None:
    one = clone(bare, "one")
    git(one, "remote", "set-url", "origin", "../fleet.git")
    state(one)
    append(one, "1\n")
    assert state(one, state="pushed")["changed"] and git(bare, "show", f"{BRANCH}:ledger.jsonl") == "1"


def test_a_lost_race_is_repeated_on_top_of_the_winner(bare: Path) -> None:
    one, two = clone(bare, "one"), clone(bare, "two")
    state(one)
    state(one, state="pushed")
    state(two)
    append(one, "a\n", "plan-a.json")
    append(two, "b\n", "plan-b.json")
    assert state(one, state="pushed")["changed"] and state(two, state="pushed")["changed"]
    assert {"plan-a.json", "plan-b.json"} <= set(git(bare, "ls-tree", "--name-only", BRANCH).split())


def test_two_rollouts_at_once_are_told_and_both_are_kept(bare: Path) -> None:
    one, two = clone(bare, "one"), clone(bare, "two")
    state(one)
    append(one, "begin\n")
    state(one, state="pushed")
    state(two)
    append(one, "from one\n")
    append(two, "from two\n")
    state(one, state="pushed")
    failed = state(two, state="pushed")
    assert failed["failed"] and "two rollouts of one environment" in failed["msg"]
    [aside] = [name for name in git(bare, "branch", "--format=%(refname:short)").split() if "diverged" in name]
    assert git(bare, "show", f"{BRANCH}:ledger.jsonl") == "begin\nfrom one"
    assert git(bare, "show", f"{aside}:ledger.jsonl") == "begin\nfrom two"


def test_what_a_dead_job_left_is_kept_or_told(bare: Path) -> None:
    one, two = clone(bare, "one"), clone(bare, "two")
    state(one)
    append(one, "unpushed\n")
    assert not state(one)["changed"] and (one / "state/ledger.jsonl").read_text() == "unpushed\n"
    state(two)
    append(two, "other\n")
    state(two, state="pushed")
    failed = state(one)
    assert (
        failed["failed"]
        and "never pushed" in failed["msg"]
        and (one / "state/ledger.jsonl").read_text() == "unpushed\n"
    )


def test_check_mode_asks_and_touches_nothing(bare: Path) -> None:
    one = clone(bare, "one")
    assert state(one, check=True)["changed"] and not (one / "state").exists()
    state(one)
    append(one, "1\n")
    assert state(one, check=True, state="pushed")["changed"]
    assert BRANCH not in git(bare, "branch", "--format=%(refname:short)")


def test_a_proposal_replaces_the_one_before(bare: Path) -> None:
    one = clone(bare, "one")
    proposal = {"branch": "main", "orphan": False, "to": "edgeai/writeback/production", "replace": True}
    state(one, branch="main", orphan=False)
    assert not state(one, state="pushed", **proposal)["changed"], "nothing to propose"
    for text in ("first\n", "second\n"):
        (one / "state/models.yml").write_text(text)
        assert state(one, state="pushed", **proposal)["changed"]
        assert git(bare, "show", "edgeai/writeback/production:models.yml") == text.strip()
    assert not state(one, state="pushed", **proposal)["changed"]
    assert git(bare, "log", "--format=%s", "main") == "Begin"


def test_a_remote_that_says_no_is_told_with_its_words(bare: Path) -> None:
    one = clone(bare, "one")
    hook = bare / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    state(one)
    append(one, "1\n")
    failed = state(one, state="pushed")
    assert failed["failed"] and "main is protected" in failed["msg"] and "committed in" in failed["msg"]


def test_a_token_reaches_git_and_nobody_else(bare: Path, tmp_path: Path) -> None:
    """A git that records its arguments stands before the real one."""
    one = clone(bare, "one")
    tools = tmp_path / "tools"
    tools.mkdir()
    real = next(Path(part) / "git" for part in os.environ["PATH"].split(os.pathsep) if (Path(part) / "git").exists())
    (tools / "git").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/argv\n'
        f'test "$3 $4" = "-c credential.helper=" && printf "protocol=https\\nhost=example.org\\n\\n" |'
        f' {real} "$3" "$4" "$5" "$6" credential fill >> {tmp_path}/filled\nexec {real} "$@"\n'
    )
    (tools / "git").chmod(0o755)
    environment = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "EDGEAI_PUSH_TOKEN": "s3cret-token"}
    arguments = {"repo": one, "path": one / "state", "branch": BRANCH, "orphan": True}
    done = run_module("repo_branch", arguments, env=environment)
    assert done["changed"] and "s3cret-token" not in (tmp_path / "argv").read_text()
    assert "username=oauth2\npassword=s3cret-token" in (tmp_path / "filled").read_text()
    assert "s3cret-token" not in (one / ".git/config").read_text()

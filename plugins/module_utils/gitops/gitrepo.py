# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A branch of a repository in a directory of its own (a git work tree beside the checkout): fetched, and pushed back.

What a pipeline writes is evidence. A push that loses a race is repeated on top of what won; where both changed the same
lines (two rollouts of one environment at once), the loser's commits are pushed under a name of their own and the run
fails: nothing is overwritten and nothing is lost.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .errors import RepoError

ATTEMPTS = 5
TIMEOUT = 300
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
# The token is read from the environment by git's own child process: it is in no argument list and in no file.
_HELPER = '!f() {{ test "$1" = get && printf "username=%s\\npassword=%s\\n" "{user}" "${token}"; }}; f'


@dataclass(frozen=True)
class Author:
    """Who commits."""

    name: str = "edgeai.fleet"
    email: str = "edgeai-fleet@localhost"


@dataclass
class Git:
    """git in one directory. token_env: name of the environment variable that holds a token to push with."""

    path: str
    author: Author = field(default_factory=Author)
    token_env: str | None = None
    token_user: str = "oauth2"

    def run(self, *args: str, check: bool = True, data: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``git ARGS``; RepoError with git's own words when it fails and ``check`` is set."""
        command = ["git", "-C", self.path, *self._credentials(), *args]
        try:
            done = subprocess.run(
                command, input=data, capture_output=True, text=True, env=self._environment(),
                timeout=TIMEOUT, check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise RepoError("git is not installed here: install it") from error
        except subprocess.TimeoutExpired as error:
            raise RepoError(
                f"git {args[0]} in {self.path}: no answer in {TIMEOUT} s: is the remote reachable?"
            ) from error
        if check and done.returncode:
            raise RepoError(f"git {' '.join(args[:3])} in {self.path}: {_words(done)}")
        return done

    def out(self, *args: str) -> str:
        """The output of a git command that must succeed, stripped."""
        return self.run(*args).stdout.strip()

    def _credentials(self) -> list[str]:
        if not self.token_env or not os.environ.get(self.token_env):
            return []
        helper = _HELPER.format(user=self.token_user, token=self.token_env)
        return ["-c", "credential.helper=", "-c", f"credential.helper={helper}"]

    def _environment(self) -> dict[str, str]:
        kept = {
            key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
        }
        who = {
            f"GIT_{role}_{what}": getattr(self.author, what.lower())
            for role in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        return {**kept, **who, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


@dataclass(frozen=True)
class Branch:
    """Where a branch lives: repository (checkout), remote, name, and the directory it is to be in."""

    repo: str
    path: str
    name: str
    remote: str = "origin"
    orphan: bool = False
    ignore: Sequence[str] = ()

    @property
    def tracking(self) -> str:
        """The ref that says what the remote has."""
        return f"refs/remotes/{self.remote}/{self.name}"


def fetch(branch: Branch, git: Git) -> bool:
    """Bring the remote's branch into the directory; returns whether anything changed there. Raises RepoError.

    Work in the directory that was never pushed (of a job that died) is kept when the remote has not moved on.
    """
    git.run("worktree", "prune")
    there = _fetch_ref(branch, git)
    if not there and not branch.orphan:
        raise RepoError(f"{branch.remote} has no branch {branch.name}: push it first")
    if os.path.exists(os.path.join(branch.path, ".git")):
        return _refresh(branch, _at(git, branch.path), there)
    if os.path.isdir(branch.path) and os.listdir(branch.path):
        raise RepoError(f"{branch.path}: is there and is no work tree of git: move it away")
    start = branch.tracking if there else _first_commit(branch, git)
    git.run("worktree", "add", "--detach", "--force", branch.path, start)
    return True


def push(branch: Branch, git: Git, message: str, to: str | None = None, replace: bool = False) -> dict[str, object]:
    """Commit everything in the directory and push it to ``to`` (default: the branch). Raises RepoError.

    replace: the remote's branch is overwritten; for a branch that only proposes. Returns changed, commit and branch.
    """
    here = _at(git, branch.path)
    committed = commit(here, message)
    target = to or branch.name
    _fetch_ref(Branch(branch.repo, branch.path, target, branch.remote), git)
    tracking = f"refs/remotes/{branch.remote}/{target}"
    known = here.run("rev-parse", "--verify", "--quiet", tracking, check=False).stdout.strip()
    head = here.out("rev-parse", "HEAD")
    if replace and head == here.run("rev-parse", "--verify", "--quiet", branch.tracking, check=False).stdout.strip():
        return {"changed": False, "commit": head, "branch": target}
    proposed = _tree(here, known) == _tree(here, head) if replace and known else False
    if (
        known == head
        or proposed
        or (known and here.run("merge-base", "--is-ancestor", head, known, check=False).returncode == 0)
    ):
        return {"changed": committed, "commit": head, "branch": target}
    _send(branch, git, here, target, replace)
    return {"changed": True, "commit": here.out("rev-parse", "HEAD"), "branch": target}


def commit(git: Git, message: str) -> bool:
    """Commit everything that is not ignored; returns whether there was anything to commit."""
    git.run("add", "--all", "--", ".")
    if git.run("diff", "--cached", "--quiet", check=False).returncode == 0:
        return False
    git.run("commit", "--quiet", "--no-verify", "--file=-", data=message)
    return True


def pending(branch: Branch, git: Git) -> bool:
    """Whether the directory has anything that the remote's branch has not, as far as known here."""
    here = _at(git, branch.path)
    if not os.path.exists(os.path.join(branch.path, ".git")):
        return False
    return bool(here.out("status", "--porcelain")) or _ahead(branch, here)


def _send(branch: Branch, git: Git, here: Git, target: str, replace: bool) -> None:
    """Push from the checkout, not from the work tree: a remote may be a path that is relative to it."""
    error = ""
    for _attempt in range(ATTEMPTS):
        refspec = f"{'+' if replace else ''}{here.out('rev-parse', 'HEAD')}:refs/heads/{target}"
        done = git.run("push", "--quiet", branch.remote, refspec, check=False)
        if done.returncode == 0:
            return
        error = _words(done)
        if "rejected" not in error or "hook" in error or "protected" in error:
            break
        _fetch_ref(Branch(branch.repo, branch.path, target, branch.remote), git)
        if here.run("rebase", "--quiet", f"refs/remotes/{branch.remote}/{target}", check=False).returncode:
            here.run("rebase", "--abort", check=False)
            raise _diverged(branch, git, here, target)
    raise RepoError(
        f"{branch.remote} does not take {target}: {error}; what was to be pushed is committed in {branch.path}"
    )


def _diverged(branch: Branch, git: Git, here: Git, target: str) -> RepoError:
    head = here.out("rev-parse", "HEAD")
    aside = f"{target}-diverged-{head[:12]}"
    saved = git.run("push", "--quiet", branch.remote, f"{head}:refs/heads/{aside}", check=False).returncode == 0
    where = f"saved as branch {aside}" if saved else f"still in {branch.path}, and could not be pushed either"
    return RepoError(
        f"{target} was changed by another run in the same place: two rollouts of one environment ran at once. This "
        f"run's commits are {where}: look at both, and let only one run per environment at a time"
    )


def _fetch_ref(branch: Branch, git: Git) -> bool:
    """Fetch the remote's branch; False when the remote has none."""
    listed = git.run("ls-remote", "--heads", branch.remote, f"refs/heads/{branch.name}").stdout
    if not listed.strip():
        git.run("update-ref", "-d", branch.tracking)
        return False
    git.run("fetch", "--quiet", "--no-tags", branch.remote, f"+refs/heads/{branch.name}:{branch.tracking}")
    return True


def _refresh(branch: Branch, here: Git, there: bool) -> bool:
    if not there:
        return False
    dirty, ahead = bool(here.out("status", "--porcelain")), _ahead(branch, here)
    behind = here.out("rev-list", "--count", f"HEAD..{branch.tracking}") != "0"
    if (dirty or ahead) and behind:
        raise RepoError(
            f"{branch.path}: has work that was never pushed, and {branch.remote} has moved on: look at it there "
            "(git status, git log); commit and push it under another name, or remove the directory"
        )
    if behind:
        here.run("checkout", "--quiet", "--detach", branch.tracking)
    return behind


def _ahead(branch: Branch, here: Git) -> bool:
    if here.run("rev-parse", "--verify", "--quiet", branch.tracking, check=False).returncode:
        return True
    return here.out("rev-list", "--count", f"{branch.tracking}..HEAD") != "0"


def _first_commit(branch: Branch, git: Git) -> str:
    """A commit without a parent, with nothing in it but what is to be ignored."""
    tree = git.run("mktree", data="").stdout.strip() or _EMPTY_TREE
    if branch.ignore:
        blob = git.run(
            "hash-object", "-w", "--stdin", data="".join(f"{line}\n" for line in branch.ignore)
        ).stdout.strip()
        tree = git.run("mktree", data=f"100644 blob {blob}\t.gitignore\n").stdout.strip()
    return git.out("commit-tree", tree, "-m", f"Begin {branch.name}")


def _tree(git: Git, commit_id: str) -> str:
    """What a commit adds up to, with its parent: equal for the same proposal on the same base."""
    return git.run("rev-parse", f"{commit_id}^{{tree}}", f"{commit_id}^", check=False).stdout


def _at(git: Git, path: str) -> Git:
    return Git(path, git.author, git.token_env, git.token_user)


def _words(done: subprocess.CompletedProcess[str]) -> str:
    text = " ".join((done.stderr.strip() or done.stdout.strip()).split())
    return text[-600:] or f"exit status {done.returncode}"


def facts(values: Mapping[str, str]) -> str:
    """Trailers of a commit message: one ``Key: value`` a line."""
    return "".join(f"{key}: {value}\n" for key, value in values.items() if value)

"""Run the pipelines of a fleet repository as its forge would: the steps are read out of the CI files.

A `Forge` is a bare repository with pull requests. ``forge.pull_request(branch)`` runs what the CI files say for one,
``forge.merge(branch)`` merges it and runs what they say for a push. Every job has a fresh clone, the secrets it may
have, and a shell; an expression or an action that is not known here is an error, so that the files cannot drift.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from support import jenkins

JOB_TIMEOUT = 240
BIN = Path(sys.executable).parent


@dataclass
class Step:
    """A step that was run."""

    job: str
    command: str
    rc: int
    output: str
    seconds: float = 0.0


@dataclass
class Result:
    """A pipeline that came to its end: the steps in their order, the files that jobs kept."""

    steps: list[Step] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every step ended well."""
        return all(step.rc == 0 for step in self.steps)

    def find(self, text: str, job: str = "") -> Step:
        """The first step whose command holds the text."""
        return next(step for step in self.steps if text in step.command and job in step.job)

    def output(self) -> str:
        """Everything that was printed."""
        return "\n".join(f"$ {step.command}  [{step.job}: {step.rc}]\n{step.output}" for step in self.steps)

    def __repr__(self) -> str:
        return self.output()[-8000:]


class Api:
    """A forge's API as far as pipelines use it: comments and pull requests, kept in memory, every request recorded."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.authorized: set[str] = set()
        self.comments: dict[int, dict[str, Any]] = {}
        self.pulls: list[dict[str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_args: Any) -> None:
                pass

            def _answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                data = json.loads(self.rfile.read(size)) if size else None
                api.requests.append((self.command, self.path, data))
                api.authorized.add(self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or "")
                body = json.dumps(api.answer(self.command, self.path, data)).encode()
                self.send_response(201 if self.command == "POST" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_PUT = _answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, method: str, path: str, data: Any) -> Any:
        """What a forge answers."""
        name = path.split("?")[0]
        if name.endswith(("/comments", "/notes")):
            if method == "GET":
                return list(self.comments.values())
            number = len(self.comments) + 1
            self.comments[number] = {"id": number, **data}
            return self.comments[number]
        if re.search(r"/(comments|notes)/\d+$", name):
            number = int(name.rsplit("/", 1)[1])
            self.comments[number].update(data)
            return self.comments[number]
        if method == "GET":
            return self.pulls
        self.pulls.append({**data, "head": {"ref": data.get("head")}, "html_url": f"{self.url}/pulls/1"})
        return self.pulls[-1]

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()


def git(path: Path, *args: str) -> str:
    """Run git as a person would, with a name of its own; fail with its output."""
    who = ["-c", "user.name=Operator", "-c", "user.email=operator@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", "-C", str(path), *who, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"git {' '.join(args)}: {done.stdout}"
    return done.stdout.strip()


class Forge:
    """A bare repository and whoever runs its pipelines. kind: github, forgejo, gitlab or jenkins."""

    def __init__(self, home: Path, kind: str, environment: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        self.home, self.kind = home, kind
        self.bare = home / "fleet.git"
        self.folder = ".forgejo/workflows" if kind == "forgejo" else ".github/workflows"
        self.environment = dict(environment)
        self.secrets = dict(secrets)
        self.api = Api()
        self.number = 0
        self.commits: dict[str, str] = {}  # of the pipeline that runs: what its ref was when it began
        home.mkdir(parents=True, exist_ok=True)
        self.bare.mkdir()
        git(self.bare, "init", "--bare", "--quiet")

    def clone(self, name: str, ref: str = "refs/heads/main") -> Path:
        """A fresh clone with ``ref`` checked out, as a runner makes it: all jobs of a pipeline have the same commit."""
        path = self.home / "clones" / name
        path.mkdir(parents=True)
        git(path, "init", "--quiet")
        git(path, "remote", "add", "origin", str(self.bare))
        git(path, "fetch", "--quiet", "origin", f"+{ref}:refs/remotes/pipeline", "+refs/heads/*:refs/remotes/origin/*")
        git(path, "checkout", "--quiet", "--detach", self.commits.get(ref, "refs/remotes/pipeline"))
        return path

    def show(self, what: str) -> str:
        """A file on a branch: ``show("main:README.md")``."""
        return git(self.bare, "show", what)

    def pull_request(self, branch: str) -> Result:
        """Open (or update) a pull request of a branch that was pushed, and run its pipeline."""
        self.number += 1
        work = self.clone(f"pull-{self.number}")
        git(work, "merge", "--quiet", "--no-ff", "-m", f"Merge {branch}", f"origin/{branch}")
        ref = f"refs/pull/{self.number}/merge"
        git(work, "push", "--quiet", "origin", f"HEAD:{ref}")
        return self._run("pull_request", ref, [])

    def merge(self, branch: str) -> Result:
        """Merge a branch into main, and run the pipeline of that push."""
        self.number += 1
        work = self.clone(f"merge-{self.number}")
        before = git(work, "rev-parse", "HEAD")
        git(work, "merge", "--quiet", "--no-ff", "-m", f"Merge {branch}", f"origin/{branch}")
        git(work, "push", "--quiet", "origin", "HEAD:refs/heads/main")
        changed = git(work, "diff", "--name-only", before, "HEAD").splitlines()
        return self._run("push", "refs/heads/main", changed)

    def dispatch(self) -> Result:
        """Run what a person starts by hand."""
        self.number += 1
        return self._run("workflow_dispatch", "refs/heads/main", [])

    def pushed(self) -> Result:
        """Run what is run for a push of somebody else to main. Jenkins does so for pipelines' own pushes, too."""
        self.number += 1
        return self._run("push", "refs/heads/main", [])

    def _run(self, event: str, ref: str, changed: list[str]) -> Result:
        result = Result()
        run = {"gitlab": _gitlab, "jenkins": _jenkins}.get(self.kind, _github)
        self.commits = {ref: git(self.bare, "rev-parse", ref)}
        run(self, event, ref, changed, result)
        self.commits = {}
        assert result.steps, f"no pipeline for {event}"
        return result

    @staticmethod
    def path() -> str:
        """Where a runner finds programs."""
        return f"{BIN}{os.pathsep}{os.environ['PATH']}"

    def shell(self, path: Path, job: str, command: str, environment: Mapping[str, str], result: Result) -> int:
        """Run one step and keep it."""
        plain = {"PATH": self.path(), "HOME": str(self.home / "runner"), "LANG": "C.UTF-8"}
        plain.update(PIP_NO_INDEX="1", NO_COLOR="1", ANSIBLE_NOCOLOR="1", CI="true", PYTHONDONTWRITEBYTECODE="1")
        (self.home / "runner").mkdir(exist_ok=True)
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command], cwd=path, stdin=subprocess.DEVNULL,
            env={**plain, **self.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=JOB_TIMEOUT, check=False,
        )  # fmt: skip
        result.steps.append(Step(job, command, done.returncode, done.stdout, time.monotonic() - began))
        print(f"{result.steps[-1].seconds:5.1f} s  rc {done.returncode}  {job}: {command.splitlines()[-1]}", flush=True)
        return done.returncode

    def close(self) -> None:
        """Stop."""
        self.api.close()


def _in_order(jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any], list[str]]]:
    """Jobs after those they need."""
    done: list[str] = []
    while len(done) < len(jobs):
        ready = [name for name in jobs if name not in done and set(_list(jobs[name].get("needs"))) <= set(done)]
        assert ready, f"jobs need what is not there: {sorted(set(jobs) - set(done))}"
        for name in ready:
            done.append(name)
            yield name, jobs[name], _list(jobs[name].get("needs"))


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _keep(path: Path, patterns: list[str], result: Result) -> None:
    for pattern in patterns:
        found = path.glob(pattern.rstrip("/") + ("/*" if pattern.endswith("/") else ""))
        result.kept.update({str(file.relative_to(path)): file.read_text() for file in found if file.is_file()})


# GitHub and Forgejo


def _github(forge: Forge, event: str, ref: str, changed: list[str], result: Result) -> None:
    checkout = forge.clone(f"read-{forge.number}-{event}", ref)
    for file in sorted((checkout / forge.folder).glob("*.yml")):
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        triggers = workflow[True]  # YAML 1.1 reads `on` as true
        if event not in triggers or not _triggered(triggers[event] or {}, changed):
            continue
        failed: set[str] = set()
        for name, job, needs in _in_order(workflow["jobs"]):
            if failed & set(needs) or not _github_job(forge, workflow, name, job, ref, result):
                failed.add(name)


def _triggered(trigger: Mapping[str, Any], changed: list[str]) -> bool:
    assert set(trigger) <= {"branches", "paths"}, trigger
    if "main" not in trigger.get("branches", ["main"]):
        return False
    paths = trigger.get("paths")
    return paths is None or any(fnmatch.fnmatch(name, path.replace("**", "*")) for name in changed for path in paths)


def _github_job(
    forge: Forge, workflow: Mapping[str, Any], name: str, job: Mapping[str, Any], ref: str, result: Result
) -> bool:
    path, ok = forge.home, True
    protected = {} if "environment" in job else {"EDGEAI_LEDGER_KEY": ""}
    contexts = {
        "github.run_id": f"{os.getpid()}-{forge.number}",
        "github.run_attempt": "1", "github.token": forge.secrets["FORGE_TOKEN"],
        **{f"vars.{key}": value for key, value in forge.environment.items()},
        **{f"secrets.{key}": value for key, value in {**forge.secrets, **protected}.items()},
    }  # fmt: skip
    known = {
        "GITHUB_API_URL": forge.api.url,
        "GITHUB_REPOSITORY": "acme/fleet",
        "GITHUB_REF": ref,
        **_expand(workflow.get("env"), contexts),
    }
    for step in job["steps"]:
        condition = step.get("if", "success()")
        assert condition in ("success()", "always()"), condition
        if not ok and condition != "always()":
            continue
        if "uses" in step:
            action = step["uses"].split("@")[0].replace("https://code.forgejo.org/", "")
            assert action in ("actions/checkout", "actions/setup-python", "actions/upload-artifact"), action
            if action == "actions/checkout":
                path = forge.clone(f"{forge.number}-{workflow['name']}-{name}", ref)
            elif action == "actions/upload-artifact":
                _keep(path, step["with"]["path"].split(), result)
            continue
        environment = {**known, **_expand(step.get("env"), contexts)}
        ok = forge.shell(path, f"{workflow['name']}/{name}", step["run"], environment, result) == 0 and ok
    return ok


def _expand(values: Mapping[str, Any] | None, contexts: Mapping[str, str]) -> dict[str, str]:
    def one(match: re.Match[str]) -> str:
        key = match.group(1)
        if key.startswith(("vars.", "secrets.")):
            return contexts.get(key, "")
        return contexts[key]

    return {key: re.sub(r"\$\{\{\s*([\w.]+)\s*\}\}", one, str(value)) for key, value in (values or {}).items()}


# GitLab


def _gitlab(forge: Forge, event: str, ref: str, changed: list[str], result: Result) -> None:
    checkout = forge.clone(f"read-{forge.number}-{event}", ref)
    document = yaml.safe_load((checkout / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    source = {"pull_request": "merge_request_event", "push": "push", "workflow_dispatch": "schedule"}[event]
    known = {"CI_PIPELINE_SOURCE": source, "CI_DEFAULT_BRANCH": "main", "GITLAB_CI": "true"}
    known.update(CI_API_V4_URL=f"{forge.api.url}/api/v4", CI_PROJECT_ID="7")
    known.update(
        {"CI_MERGE_REQUEST_IID": str(forge.number)} if event == "pull_request" else {"CI_COMMIT_BRANCH": "main"}
    )
    if not _rules(document["workflow"]["rules"], known, changed):
        return
    reserved = {"stages", "workflow", "variables", "default"}
    jobs = {name: job for name, job in document.items() if name not in reserved}
    assert {job["stage"] for job in jobs.values()} <= set(document["stages"])
    jobs = {name: job for name, job in jobs.items() if _rules(job["rules"], known, changed)}
    failed: set[str] = set()
    for number, (name, job, needs) in enumerate(_in_order(jobs)):
        if failed & set(needs) or not _gitlab_job(
            forge, document, name, job, ref, {**known, "CI_JOB_ID": f"{os.getpid()}-{forge.number}-{number}"}, result
        ):
            failed.add(name)


def _gitlab_job(
    forge: Forge,
    document: Mapping[str, Any],
    name: str,
    job: Mapping[str, Any],
    ref: str,
    known: dict[str, str],
    result: Result,
) -> bool:
    path = forge.clone(f"{forge.number}-{name.replace(':', '-')}", ref)
    default = document["default"]
    secrets = {"EDGEAI_FORGE_TOKEN": forge.secrets["FORGE_TOKEN"]}
    if "environment" in job:
        secrets["EDGEAI_LEDGER_KEY"] = forge.secrets["EDGEAI_LEDGER_KEY"]
    environment = {**known, **secrets}
    for key, value in document["variables"].items():
        environment[key] = re.sub(r"\$(\w+)", lambda match: environment[match.group(1)], str(value))
    # One shell for before_script and script, as the runner does it; each line is told before it runs.
    lines = [*default.get("before_script", []), *job["script"]]
    ok = forge.shell(path, name, "\n".join(lines), environment, result) == 0
    for line in job.get("after_script", default.get("after_script", [])):
        forge.shell(path, name, line, environment, result)
    _keep(path, job.get("artifacts", {}).get("paths", []), result)
    return ok


def _rules(rules: list[Mapping[str, Any]], known: Mapping[str, str], changed: list[str]) -> bool:
    for rule in rules:
        assert set(rule) <= {"if", "changes", "when", "allow_failure"}, rule
        terms = [re.fullmatch(r"\$(\w+) == (\$\w+|\"[^\"]*\")", term.strip()) for term in rule["if"].split("&&")]
        assert all(terms), rule["if"]
        sides = [(known.get(term[1], ""), term[2]) for term in terms if term]
        met = all(left == (known.get(right[1:], "") if right[0] == "$" else right.strip('"')) for left, right in sides)
        paths = rule.get("changes")
        if met and paths:
            met = any(fnmatch.fnmatch(file, path.replace("**/*", "*")) for file in changed for path in paths)
        if met:
            return rule.get("when") != "manual"
    return False


# Jenkins


def _jenkins(forge: Forge, event: str, ref: str, _changed: list[str], result: Result) -> None:
    """A multibranch job: one workspace for all stages, secrets as files, every push to a branch builds it."""
    path = forge.clone(f"{forge.number}-{event}", ref)
    secrets = forge.home / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    for name in ("edgeai-ssh-key", "edgeai-ledger-key"):
        (secrets / name).write_text(forge.secrets["EDGEAI_LEDGER_KEY"])
    site_packages = next(path for path in sys.path if path.endswith("site-packages"))
    change = {"BRANCH_NAME": f"PR-{forge.number}", "CHANGE_ID": str(forge.number), "CHANGE_TARGET": "main"}
    environment = {
        "BUILD_TAG": f"jenkins-fleet-{os.getpid()}-{forge.number}", "WORKSPACE": str(path), "PATH": forge.path(),
        "PYTHONPATH": site_packages,  # what an index would give the workspace's own environment
        **(change if event == "pull_request" else {"BRANCH_NAME": "main"}),
    }  # fmt: skip
    build = jenkins.Build(
        environment,
        {"CATCH_UP": True} if event == "workflow_dispatch" else {},
        lambda stage, command, known: forge.shell(path, stage, command, known, result) == 0,
        lambda command: (
            subprocess.run(["sh", "-c", command], cwd=path, check=True, capture_output=True, text=True).stdout
        ),
        lambda patterns: _keep(path, patterns, result),
        {
            "edgeai-ssh-key": str(secrets / "edgeai-ssh-key"),
            "edgeai-ledger-key": str(secrets / "edgeai-ledger-key"),
            "edgeai-push-token": forge.secrets["FORGE_TOKEN"],
        },
    )
    build.go(jenkins.parse((path / "Jenkinsfile").read_text(encoding="utf-8")))

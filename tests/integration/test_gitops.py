"""The whole way from git to devices: a rendered repository, its own pipelines, real git, real devices; and back.

Nothing here repeats a pipeline: `support.pipelines` reads the steps out of the rendered CI files and runs them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fleet import MODEL, OLD_CPU, ROOT, Fleet
from support.pipelines import BIN, Forge, Result, git

from ansible_collections.edgeai.fleet.plugins.module_utils.device import setup
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import verify

pytestmark = pytest.mark.timeout(900)  # whole journeys; a minute or so each on an idle machine
MODELS = "inventories/{}/group_vars/edge/models.yml"
REFUSED = "inventories/{}/group_vars/edge/refused.yml"
TOKEN = "forge-token-that-nobody-may-read"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as an archive: what `requirements.yml` of the repository installs."""
    home = tmp_path_factory.mktemp("dist")
    command = [str(BIN / "ansible-galaxy"), "collection", "build", "--output-path", str(home)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    [path] = home.glob("*.tar.gz")
    return path


class Site:
    """A fleet, a forge, and the checkout of a person who works with both.

    environments: in their order; the last one has the hosts that are not called ENVIRONMENT-SOMETHING of another.
    """

    def __init__(self, home: Path, archive: Path, kind: str, hosts: dict[str, dict[str, Any]], **options: Any) -> None:
        self.environments = options.pop("environments", ["production"])
        self.fleet = Fleet(home / "fleet", hosts, options.pop("policy", None))
        self.collections = home.parent / "collections"
        environment = {
            "EDGEAI_LOCAL_HOME": str(self.fleet.home),
            "EDGEAI_LOCAL_RUNTIMES": str(self.fleet.home / "runtimes"),
            "EDGEAI_RELEASES": str(self.fleet.home / "releases"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
        }
        self.ledger_key = (self.fleet.home / "ledger.pem").read_text()
        self.forge = Forge(
            home / "forge", kind, environment, {"EDGEAI_LEDGER_KEY": self.ledger_key, "FORGE_TOKEN": TOKEN}
        )
        self.work = home / "work"
        self._make(archive, kind, options)

    def _make(self, archive: Path, kind: str, options: dict[str, Any]) -> None:
        parameters = {
            "dest": str(self.work),
            "repo_name": "fleet",
            "ci": kind,
            "fleet": "local",
            "collection": str(archive),
        }
        parameters.update({"environments": ",".join(self.environments), **options})
        self.playbook("new_repo", "-e", json.dumps(parameters))
        for name in ("release", "ledger"):
            text = (self.fleet.home / f"{name}.pub.pem").read_text()
            (self.work / "keys" / f"{name}.pub.pem").write_text(text)
        for environment in self.environments:
            folder = self.work / "inventories" / environment
            site = {"vars": {"edge_site": "harbour"}, "hosts": self.hosts(environment)}
            (folder / "hosts.yml").write_text(yaml.safe_dump({"edge": {"children": {"site_harbour": site}}}))
            policy = {"edge_policy": self.fleet.policy}
            (folder / "group_vars/edge/policy.yml").write_text(yaml.safe_dump(policy))
        git(self.work, "init", "--quiet")
        git(self.work, "remote", "add", "origin", str(self.forge.bare))
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "-m", "A fleet")
        git(self.work, "push", "--quiet", "origin", "HEAD:refs/heads/main")

    def hosts(self, environment: str) -> dict[str, dict[str, Any]]:
        """The devices of one environment."""
        named = {host: next((one for one in self.environments if host.startswith(f"{one}-")), self.environments[-1])
                 for host in self.fleet.hosts}  # fmt: skip
        return {host: self.fleet.hosts[host] for host, where in named.items() if where == environment}

    def playbook(self, name: str, *args: str, cwd: Path | None = None) -> str:
        """Run a playbook of the checkout by hand; fail with its output."""
        done = subprocess.run(
            [str(BIN / "ansible-playbook"), f"edgeai.fleet.{name}", *args], cwd=cwd or self.fleet.home,
            env=self.fleet.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def branch(self, name: str, **files: str) -> None:
        """Push a branch from the newest main that changes files."""
        git(self.work, "fetch", "--quiet", "origin")
        git(self.work, "checkout", "--quiet", "-B", name, "origin/main")
        for path, text in files.items():
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            (self.work / path).write_text(text)
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "-m", f"Change of {name}")
        git(self.work, "push", "--quiet", "origin", f"+HEAD:refs/heads/{name}")

    def want(self, version: str) -> str:
        """Push a branch that names another release everywhere, by changing one line a file as a person does."""
        git(self.work, "fetch", "--quiet", "origin")
        files = {}
        for environment in self.environments:
            path = MODELS.format(environment)
            text = git(self.work, "show", f"origin/main:{path}") + "\n"
            if "edge_models: {}" in text:
                text = text.replace("edge_models: {}", f'edge_models:\n  {MODEL}:\n    release: "{version}"')
            else:
                [line] = [line for line in text.splitlines() if line.strip().startswith("release:")]
                text = text.replace(line, f'    release: "{version}"')
            files[path] = text
        self.branch(f"release-{version}", **files)
        return f"release-{version}"

    def ledger(self, environment: str = "production") -> list[dict[str, Any]]:
        """The ledger as git has it, verified."""
        text = self.forge.show(f"edgeai/state/{environment}:ledger/ledger.jsonl") + "\n"
        path = self.fleet.home / "from-git.jsonl"
        path.write_text(text)
        report = verify(str(path), (self.work / "keys/ledger.pub.pem").read_bytes())
        assert report.ok, report.problems
        return [json.loads(line) for line in text.splitlines()]

    def models(self, environment: str = "production") -> dict[str, str]:
        """What main names now."""
        document = yaml.safe_load(self.forge.show(f"main:{MODELS.format(environment)}"))
        return {model: wish["release"] for model, wish in document["edge_models"].items()}

    def refused(self, environment: str = "production") -> list[dict[str, Any]]:
        """What main says is refused."""
        text = self.forge.show(f"main:{REFUSED.format(environment)}").replace("!unsafe ", "")
        return yaml.safe_load(text)["edge_refused"]

    def bare_devices(self) -> None:
        """Give every device its directory, and no server."""
        key = (self.fleet.home / "release.pub.pem").read_text()
        for host in self.fleet.hosts:
            settings = {"device_id": host, "server": None, "runtime": "onnxruntime", "python": sys.executable}
            root = str(self.fleet.root(host))
            setup.apply_setup(root, setup.plan_setup(root, settings, [key], []))

    def close(self) -> None:
        """Stop everything."""
        self.fleet.destroy()
        self.forge.close()


def must(result: Result) -> Result:
    """The pipeline went through; else fail with the step that did not."""
    failed = [step for step in result.steps if step.rc]
    if failed:
        pytest.fail(
            f"{failed[0].command}  [{failed[0].job}: {failed[0].rc}]\n{failed[0].output[-6000:]}", pytrace=False
        )
    return result


def no_secret(result: Result, site: Site) -> None:
    """Neither key nor token is in anything that was printed or kept, and no file with a key is left."""
    body = "".join(site.ledger_key.splitlines()[1:-1])[:40]
    for text in [result.output(), *result.kept.values()]:
        assert TOKEN not in text and body not in text.replace("\n", "")
    assert not list(Path("/tmp").glob(f"edgeai-*{os.getpid()}-*"))


@pytest.fixture
def make_site(tmp_path: Path, archive: Path) -> Iterator[Any]:
    made: list[Site] = []

    def make(kind: str, hosts: dict[str, dict[str, Any]], **options: Any) -> Site:
        made.append(Site(tmp_path, archive, kind, hosts, **options))
        return made[-1]

    yield make
    for site in made:
        site.close()


def test_a_release_goes_out_by_a_merge_and_git_says_what_was_refused(make_site: Any) -> None:
    """GitHub's files, real servers: a good release goes out, one that fails comes back, and git says so."""
    site = make_site("github", {"new-1": {"edge_redundancy_group": "gate"}, "old-1": {"edge_sysroot": OLD_CPU}})
    site.fleet.release("1.0.0")
    site.fleet.provision()

    branch = site.want("1.0.0")
    shown = site.forge.pull_request(branch)
    must(shown)
    page = shown.kept["build/plan-production.md"]
    plan = json.loads(shown.kept["build/plan-production.json"])
    [hash_] = [model["plan_hash"] for model in plan["models"].values()]
    assert hash_ in page and "2 of 2 devices" in page and site.fleet.serving() == dict.fromkeys(site.fleet.hosts)
    assert [comment["body"] for comment in site.forge.api.comments.values()] == [page]
    no_secret(shown, site)

    done = must(site.forge.merge(branch))
    no_secret(done, site)
    assert set(site.fleet.serving().values()) == {"1.0.0"}
    digests = {host: site.fleet.ready(host)["digest"] for host in site.fleet.hosts}
    assert set(digests.values()) == {plan["models"][MODEL]["digest"]}
    started = [record for record in site.ledger() if record["type"] == "rollout_started"]
    assert [record["data"]["plan_hash"] for record in started] == [hash_]
    assert site.models() == {MODEL: "1.0.0"}

    # Refused everywhere: git names again what the fleet serves, and says why.
    site.fleet.release("1.1.0", bad=["onnxruntime/fp32", "onnxruntime/fp32-old"])
    branch = site.want("1.1.0")
    must(site.forge.pull_request(branch))
    done = site.forge.merge(branch)
    assert not done.ok and done.find("edgeai.fleet.writeback").rc == 0, done
    assert set(site.fleet.serving().values()) == {"1.0.0"}
    assert site.models() == {MODEL: "1.0.0"}
    assert "# edgeai: 1.1.0 was refused by" in site.forge.show(f"main:{MODELS.format('production')}")
    assert {entry["version"] for entry in site.refused()} == {"1.1.0"} and len(site.refused()) == 2
    assert "[skip ci]" in git(site.forge.bare, "log", "-1", "--format=%s", "main")
    assert "quarantin" in done.kept["build/report-production.html"]

    no_secret(done, site)


def test_what_changed_after_the_plan_is_not_rolled_out(make_site: Any) -> None:
    """GitLab's files, devices without a server: a merge over a changed inventory is refused; catching up plans anew."""
    measured = {"gate": {"enabled": False}}  # there is no server to measure
    site = make_site("gitlab", {"one": {}, "two": {}, "three": {}}, writeback="pull_request", policy=measured)
    site.fleet.release("1.0.0")
    site.bare_devices()
    branch = site.want("1.0.0")
    shown = must(site.forge.pull_request(branch))
    [comment] = site.forge.api.comments.values()
    assert comment["body"] == shown.kept["build/plan-production.md"] and "3 of 3 devices" in comment["body"]
    no_secret(shown, site)

    # Another change of the same inventory is merged first, past this pull request.
    policy = "inventories/production/group_vars/edge/policy.yml"
    site.branch("other", **{policy: yaml.safe_dump({"edge_policy": {**site.fleet.policy, "soak": 1}})})
    git(site.work, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    refused = site.forge.merge(branch)
    job = refused.find("edgeai.fleet.apply")
    assert job.rc == 2 and policy in job.output and "no plan was approved" in job.output, refused
    assert active(site) == {None} and not site.forge.api.pulls

    done = must(site.forge.dispatch())
    assert active(site) == {"1.0.0"} and [record["type"] for record in site.ledger()].count("intent") == 6
    no_secret(done, site)
    assert "edgeai/writeback" not in git(site.forge.bare, "branch", "--format=%(refname:short)")

    # A person quarantines it: where pipelines must not push to main, that is a merge request and main stays as it is.
    plan = json.loads(shown.kept["build/plan-production.json"])["plans"][0]
    [stratum] = plan["strata"]
    about = f"model={MODEL} version=1.0.0 digest={plan['digest']} stratum={stratum} reason=ticket-4711"
    clone, hand = site.forge.clone("by-hand"), Result()
    known = {"CI_API_V4_URL": f"{site.forge.api.url}/api/v4", "CI_PROJECT_ID": "7", "EDGEAI_FORGE_TOKEN": TOKEN}
    before = git(site.forge.bare, "rev-parse", "main")
    for command in (
        "ansible-playbook edgeai.fleet.apply -i inventories/production -e edge_model=another",
        "ansible localhost -m edgeai.fleet.quarantine "
        f"-a 'ledger=$PWD/.edgeai/state/production/ledger state=quarantined {about}'",
        "ansible-playbook edgeai.fleet.writeback -i inventories/production",
        "ansible-playbook edgeai.fleet.writeback -i inventories/production",
    ):
        site.forge.shell(clone, "by hand", command.replace("$PWD", str(clone)), known, hand)
    must(hand)
    proposal = site.forge.show(f"edgeai/writeback/production:{MODELS.format('production')}")
    assert f"1.0.0 is refused by {stratum} (ticket-4711)" in proposal
    assert git(site.forge.bare, "rev-parse", "main") == before
    [proposed] = site.forge.api.pulls
    assert proposed["source_branch"] == "edgeai/writeback/production" and proposed["target_branch"] == "main"


def test_a_release_reaches_production_when_staging_has_kept_it(make_site: Any) -> None:
    """Jenkins' file, real servers: staging first, and what staging refused goes nowhere, not by a catch-up either."""
    both = ["staging", "production"]
    site = make_site("jenkins", {"staging-1": {}, "one": {}}, environments=both)
    site.fleet.release("1.0.0")
    site.fleet.provision()
    branch = site.want("1.0.0")
    shown = must(site.forge.pull_request(branch))
    assert {f"build/plan-{name}.{kind}" for name in both for kind in ("md", "json")} <= set(shown.kept)
    assert set(site.fleet.serving().values()) == {None}
    no_secret(shown, site)

    done = must(site.forge.merge(branch))
    applied = [step.command for step in done.steps if "edgeai.fleet.apply" in step.command]
    assert [command.rsplit("/", 1)[1] for command in applied] == both
    assert set(site.fleet.serving().values()) == {"1.0.0"}
    no_secret(done, site)

    site.fleet.release("1.1.0", bad=["onnxruntime/fp32"])
    branch = site.want("1.1.0")
    must(site.forge.pull_request(branch))
    done = site.forge.merge(branch)
    assert done.find("edgeai.fleet.apply", "staging").rc != 0 and done.find("edgeai.fleet.writeback", "staging").rc == 0
    assert not [step for step in done.steps if "production" in step.job], done
    assert site.models("staging") == {MODEL: "1.0.0"} and site.models() == {MODEL: "1.1.0"}
    assert {entry["version"] for entry in site.refused("staging")} == {"1.1.0"}

    # Jenkins builds every push, also what the pipeline wrote back: nothing is rolled out for that.
    assert not [step for step in must(site.forge.pushed()).steps if "Roll out" in step.job]

    # By hand, or at night: staging has nothing to do, and production still does not get what staging refused.
    caught = site.forge.dispatch()
    assert caught.find("edgeai.fleet.apply", "Roll out staging").rc == 0, caught
    blocked = caught.find("edgeai.fleet.apply", "Roll out production")
    assert blocked.rc != 0 and "1.1.0 has not earned its way out of staging: it is refused there by" in blocked.output
    assert set(site.fleet.serving().values()) == {"1.0.0"} and len(site.ledger("production")) > 0
    assert not [record for record in site.ledger() if record["data"].get("version") == "1.1.0"]


def test_forgejo_rolls_out_what_was_merged(make_site: Any) -> None:
    """Forgejo's files, devices without a server."""
    site = make_site("forgejo", {"one": {}, "two": {}}, policy={"gate": {"enabled": False}})
    site.fleet.release("1.0.0")
    site.bare_devices()
    branch = site.want("1.0.0")
    shown = must(site.forge.pull_request(branch))
    assert [comment["body"] for comment in site.forge.api.comments.values()] == [shown.kept["build/plan-production.md"]]
    done = must(site.forge.merge(branch))
    assert active(site) == {"1.0.0"} and site.models() == {MODEL: "1.0.0"}
    for result in (shown, done):
        no_secret(result, site)
    # A pipeline that runs again finds nothing to do.
    again = must(site.forge.dispatch())
    assert "nothing" in again.find("edgeai.fleet.apply").output


def active(site: Site) -> set[str | None]:
    """The versions that devices without a server have active."""
    roots = [site.fleet.root(host) / "models" / MODEL / "state.json" for host in site.fleet.hosts]
    return {json.loads(path.read_text())["active"]["version"] if path.exists() else None for path in roots}

"""CI files, playbooks, roles, documentation and action groups name only what is there."""

from __future__ import annotations

import configparser
import functools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.constants import config

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.parameters import CI, FLEETS, complete
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.template import MANIFEST, environment, render

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "templates" / "gitops"
PLAYBOOKS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").glob("*.yml")}
MODULES = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
PLUGINS = MODULES | {
    path.stem
    for kind in ("callback", "filter", "lookup", "inventory", "test", "event_source", "event_filter")
    for path in (ROOT / "plugins" / kind).glob("*.py")
}
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")])
COMMAND = re.compile(r"ansible-playbook(?:\s+-\S+\s+\S+)*?\s+edgeai\.fleet\.(\w+)([^\n'`#]*)")
EVERYWHERE = {"ansible_python_interpreter", "edge_hosts"}


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def words() -> Counter[str]:
    """Variables in everything that could use one, with how often they occur. CI files use what others have to read."""
    folders = ("playbooks", "roles", "plugins", "templates/gitops/inventory", "inventories")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yml", ".j2")]
    return Counter(name for path in files for name in re.findall(r"\b(?:edge|EDGEAI)_\w+", text(path)))


def wrong_commands(where: str, content: str) -> list[str]:
    """Playbooks that are not there, and extra variables that their playbook (or what it calls) does not know."""
    found = []
    for name, arguments in COMMAND.findall(content.replace("\\\n", " ")):
        if name not in PLAYBOOKS:
            found.append(f"{where}: there is no playbook edgeai.fleet.{name}")
            continue
        known = _with_calls(name)
        for variable in re.findall(r"-e\s+[\"']?(\w+)=", arguments):
            if variable not in EVERYWHERE and not re.search(rf"\b{variable}\b", known):
                found.append(f"{where}: edgeai.fleet.{name} knows no variable {variable}")
    return found


def _with_calls(name: str) -> str:
    """A playbook with the playbooks, task files and roles that it calls."""
    known = PLAYBOOKS[name]
    for called in re.findall(r"import_playbook:\s*(?:edgeai\.fleet\.)?(\w+)(?:\.yml)?", known):
        known += PLAYBOOKS.get(called, "")
    for called in re.findall(r"(?:include|import)_tasks:\s*(tasks/\w+\.yml)", known):
        known += text(ROOT / "playbooks" / called)
    for role in re.findall(r"name: edgeai\.fleet\.(\w+)", known):
        if role in ROLES:
            known += "\n".join(text(path) for path in (ROOT / "roles" / role).rglob("*.yml"))
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_the_documentation(page: Path) -> None:
    assert wrong_commands(page.name, text(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_of_the_documentation(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", text(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^\$ |`)make ([a-z][\w-]*)", text(page), re.MULTILINE))
    assert named - targets == set()


def test_commands_in_the_playbooks_own_words() -> None:
    wrong = [line for name, content in PLAYBOOKS.items() for line in wrong_commands(f"playbooks/{name}.yml", content)]
    assert wrong == []


def test_the_action_group_is_every_module() -> None:
    runtime = yaml.safe_load(text(ROOT / "meta" / "runtime.yml"))
    assert sorted(runtime["action_groups"]["fleet"]) == sorted(MODULES)


def test_the_changelog_names_every_plugin_and_its_page_is_generated() -> None:
    """`antsibull-changelog generate` writes the page."""
    releases = yaml.safe_load(text(ROOT / "changelogs" / "changelog.yaml"))["releases"].values()
    named = {"modules": {module["name"] for release in releases for module in release.get("modules", [])}}
    for release in releases:
        for kind, plugins in release.get("plugins", {}).items():
            named.setdefault(kind, set()).update(plugin["name"] for plugin in plugins)
    for kind, names in named.items():
        assert names == {path.stem for path in ROOT.glob(f"plugins/{kind}/*.py")}
    page = text(ROOT / "CHANGELOG.md").replace("\\", "")
    assert {name for names in named.values() for name in names if f"* edgeai.fleet.{name} - " not in page} == set()


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("plugins/*/*.py")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_references_of_plugins_to_each_other(path: Path) -> None:
    named = re.findall(r"[MP]\(edgeai\.fleet\.(\w+)|module: edgeai\.fleet\.(\w+)|O\(edgeai\.fleet\.(\w+)#", text(path))
    missing = {name for names in named for name in names if name} - PLUGINS - set(ROLES)
    assert missing == set()


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_name_entry_points_and_variables_that_are_there(role: str) -> None:
    home = ROOT / "roles" / role
    specs = home / "meta" / "argument_specs.yml"
    if not specs.exists():
        assert role.startswith("_"), f"{role}: needs meta/argument_specs.yml"
        return
    used = "\n".join(text(path) for path in home.rglob("*") if path.suffix in (".yml", ".j2") and path != specs)
    for entry, spec in yaml.safe_load(text(specs))["argument_specs"].items():
        assert (home / "tasks" / f"{entry}.yml").exists(), f"{role}: no tasks/{entry}.yml"
        for name in spec.get("options", {}):
            assert len(re.findall(rf"\b{name}\b", used)) > 0, f"{role}: nothing uses {name}"


# The template of a fleet repository


def rendered(**given: Any) -> dict[str, str]:
    """A repository with every pipeline."""
    parameters = complete({"name": "fleet", "ci": list(CI), **given}, {})
    files = render(str(TEMPLATE), parameters, "1.0.0", frozenset(PLAYBOOKS))
    return {path: item.content.decode("utf-8") for path, item in files.items()}


VARIATIONS = {
    "remote": {},
    "local": {"fleet": "local", "environments": ["production"]},
    "two-models": {"models": ["camera", "lidar"], "environments": ["lab", "staging", "production"]},
    "proposals": {"writeback": "pull_request", "branch": "trunk", "collection": "/srv/edgeai-fleet-1.0.0.tar.gz"},
}


@pytest.fixture(scope="module", params=VARIATIONS)
def repository(request: pytest.FixtureRequest) -> dict[str, str]:
    return rendered(**VARIATIONS[request.param])


def test_every_template_is_used_and_every_choice_tried() -> None:
    sources = {entry["src"] for entry in yaml.safe_load(text(TEMPLATE / MANIFEST))["files"]}
    included = set(re.findall(r"@% include '([^']+)'", "\n".join(text(path) for path in TEMPLATE.rglob("*.j2"))))
    assert {str(path.relative_to(TEMPLATE)) for path in TEMPLATE.rglob("*.j2")} == sources | included
    assert {options.get("fleet", "remote") for options in VARIATIONS.values()} == set(FLEETS)


def test_nothing_of_the_template_is_left(repository: dict[str, str]) -> None:
    engine = environment(str(TEMPLATE))
    for path, content in repository.items():
        for mark in (engine.variable_start_string, engine.block_start_string, engine.comment_start_string):
            assert mark not in content, f"{path}: {mark}"
        assert content.endswith("\n") and not re.search(r"[ \t]\n|\n\n\n", content), f"{path}: stray space"


def test_yaml_files_are_yaml_and_lines_are_not_endless(repository: dict[str, str]) -> None:
    for path, content in repository.items():
        if path.endswith((".yml", ".yaml")):
            assert yaml.safe_load(content.replace("!unsafe ", "")) is not None, path
            assert max(map(len, content.splitlines())) <= 160, path


def test_pipelines_and_pages_call_what_is_there(repository: dict[str, str]) -> None:
    calls = 0
    for path, content in repository.items():
        assert wrong_commands(path, content) == []
        calls += len(COMMAND.findall(content))
        for name in re.findall(r"-i (inventories/[\w-]+)", content):
            assert name == "inventories/ENVIRONMENT" or f"{name}/hosts.yml" in repository, f"{path}: {name}"
        for name in re.findall(r"(?<!`)`edgeai\.fleet\.(\w+)`", content):
            assert name in PLUGINS | set(PLAYBOOKS), f"{path}: edgeai.fleet.{name}"
    assert calls > 20


def test_pipelines_run_nothing_but_the_collection() -> None:
    """Steps are thin: installing, playbooks, and in GitLab the exit status around them."""
    allowed = re.compile(
        r"pip install .*|ansible-galaxy collection install -r requirements\.yml|python3 -m venv \.venv"
        r"|ansible-playbook edgeai\.fleet\.\w+( -i inventories/\w+)?( -e [\w=./$-]+)*( \|\| refused=\$\?)?"
        r"|exit \$\{refused:-0\}"
    )
    for path, content in rendered(models=["a", "b"]).items():
        lines: list[str] = []
        if "/workflows/" in path:
            jobs = yaml.safe_load(content)["jobs"].values()
            lines = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
        elif path == ".gitlab-ci.yml":
            jobs = [job for job in yaml.safe_load(content).values() if isinstance(job, dict)]
            lines = [
                line for job in jobs for key in ("before_script", "script", "after_script") for line in job.get(key, [])
            ]
        elif path == "Jenkinsfile":
            lines = re.findall(r"sh '([^']+)'", content)
        for line in lines:
            assert allowed.fullmatch(line), f"{path}: {line}"


def test_every_forge_runs_the_same_playbooks() -> None:
    files = rendered()
    by_forge = {
        "github": "".join(content for path, content in files.items() if path.startswith(".github/")),
        "forgejo": "".join(content for path, content in files.items() if path.startswith(".forgejo/")),
        "gitlab": files[".gitlab-ci.yml"],
        "jenkins": files["Jenkinsfile"],
    }
    called = {forge: {name for name, _arguments in COMMAND.findall(content)} for forge, content in by_forge.items()}
    assert len(set(map(frozenset, called.values()))) == 1, called
    assert {"check", "plan", "apply", "writeback", "ci_secrets"} <= called["github"]


def test_variables_of_the_environment_are_read_by_something(repository: dict[str, str]) -> None:
    for path, content in repository.items():
        for name in set(re.findall(r"\bEDGEAI_[A-Z_]+\b", content)):
            assert words()[name], f"{path}: nothing reads {name}"


def test_inventory_variables_are_used(repository: dict[str, str]) -> None:
    for path, content in repository.items():
        for name in set(re.findall(r"\bedge_[a-z_]+\b", content)) if path.startswith("inventories/") else ():
            assert words()[name] > 1, f"{path}: nothing uses {name}"


def test_the_configuration_is_ansibles(repository: dict[str, str]) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(repository["ansible.cfg"])
    known = {
        (ini["section"], ini["key"])
        for kind in (None, "callback", "connection")
        for settings in ([config.get_configuration_definitions()] if kind is None else _plugins(kind))
        for setting in settings.values()
        for ini in setting.get("ini") or ()
    }
    for section in parser.sections():
        for key in parser[section]:
            assert (section, key) in known, f"[{section}] {key} is no setting of Ansible"
    for name in re.findall(r"edgeai\.fleet\.(\w+)", repository["ansible.cfg"]):
        assert (ROOT / "plugins" / "callback" / f"{name}.py").exists()
    assert repository["ansible.cfg"].find(f"inventories/{list_environments(repository)[0]}") > 0


def _plugins(kind: str) -> list[dict[str, Any]]:
    from ansible.plugins.loader import connection_loader

    if kind == "connection":
        connection_loader.get("ssh", class_only=True)
        return [config.get_configuration_definitions("connection", "ssh")]
    return []


def list_environments(repository: dict[str, str]) -> list[str]:
    """Names of the environments, in the order of the parameters."""
    order = re.findall(r"rolls out exactly that plan, ([\w, ]+?)\. When", repository["README.md"].replace("\n", " "))
    return order[0].split(", then ")


def test_every_file_the_readme_names_is_there(repository: dict[str, str]) -> None:
    first = list_environments(repository)[0]
    for name in re.findall(r"`((?:inventories|keys|releases|policies)/[\w./*-]*)`", repository["README.md"]):
        path = name.replace("ENVIRONMENT", first).replace("*", first)
        written_later = ("refused.yml", ".pub.pem")
        assert path.endswith(written_later) or any(file.startswith(path) for file in repository), name


def test_conditions_that_are_secret_stay_out_of_a_pull_request() -> None:
    """What a pull request runs never gets the key of the ledger."""
    files = rendered()
    assert "EDGEAI_LEDGER_KEY" not in files[".github/workflows/plan.yml"] + files[".forgejo/workflows/plan.yml"]
    jobs = yaml.safe_load(files[".gitlab-ci.yml"])
    assert "ledger.pem" not in json.dumps([job for name, job in jobs.items() if name.startswith("plan:")])

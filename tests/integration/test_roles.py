"""Every role: its argument_specs against its defaults, its check mode, and the molecule scenarios that need no lab.

Scenarios on the lab's machines are run by tests/lab/test_molecule.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fleet import ROOT, Fleet
from support.molecule import run_scenario

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
#: What other roles include, without an entry point and a scenario of its own.
SHARED = ["_common", "_k3s"]


def load(*names: str) -> Any:
    return yaml.safe_load(ROOT.joinpath(*names).read_text(encoding="utf-8"))


def brings_its_machines(scenario: str) -> bool:
    """Whether a scenario has devices of its own on this machine, instead of the lab's."""
    return "executor" in ((load("molecule", scenario, "molecule.yml") or {}).get("ansible") or {})


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_equal_the_defaults(role: str) -> None:
    """Every option of every entry point has its default in defaults/main.yml, and nothing else is there."""
    specs = load("roles", role, "meta", "argument_specs.yml")["argument_specs"]
    defaults = load("roles", role, "defaults", "main.yml")
    assert ("main" in specs) is (role not in SHARED)
    seen = {}
    for entry, spec in specs.items():
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").is_file(), f"{role} has no entry point {entry}"
        for name, option in spec["options"].items():
            assert name.startswith(role + "_") and option["description"], f"{role}, {entry}: {name}"
            if option.get("required"):
                assert "default" not in option and name not in defaults, f"{role}, {entry}: {name} is required"
            else:
                assert seen.setdefault(name, option.get("default")) == option.get("default"), f"{role}, {entry}: {name}"
    assert seen == defaults


@pytest.mark.parametrize("role", [role for role in ROLES if role not in SHARED])
def test_every_role_has_a_scenario_and_a_readme(role: str) -> None:
    assert role in SCENARIOS
    assert f"# {role}\n" in (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if brings_its_machines(name)])
def test_molecule(scenario: str, tmp_path: Path) -> None:
    """Converge, converge again without a change, verify from outside with testinfra, clean up."""
    run_scenario(scenario, tmp_path)


def changes(output: str) -> int:
    """Return the number of changes in a run's last line."""
    return int(re.findall(r"changed=(\d+)", output)[-1])


def test_provision_predicts_and_the_second_run_changes_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {"one": {}})
    try:
        predicted = fleet.playbook("provision", "--check", "--diff")
        assert predicted.rc == 0 and not fleet.root("one").exists(), predicted
        done = fleet.playbook("provision")
        assert done.rc == 0 and changes(done.output) == changes(predicted.output) > 0, (predicted, done)
        for arguments in (["--check"], []):
            again = fleet.playbook("provision", *arguments)
            assert again.rc == 0 and changes(again.output) == 0, again
        gone = fleet.playbook("provision", "--check", "-e", "edge_state=absent")
        assert gone.rc == 0 and changes(gone.output) > 0 and fleet.root("one").exists(), gone
    finally:
        fleet.destroy()
    assert not fleet.root("one").exists()

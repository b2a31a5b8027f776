"""Every role: its molecule scenario, its argument_specs against its defaults, its check mode."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.fleet import ROOT, Fleet

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_equal_the_defaults(role: str) -> None:
    specs = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8"))
    options = specs["argument_specs"]["main"]["options"]
    assert {name: option.get("default") for name, option in options.items()} == defaults
    assert all(name.startswith(role + "_") and options[name]["description"] for name in options)


@pytest.mark.parametrize("role", ROLES)
def test_molecule(role: str) -> None:
    """Converge, converge again without a change, verify from outside with testinfra, clean up."""
    environment = {**os.environ, "MOLECULE_GLOB": "molecule/*/molecule.yml", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [str(Path(sys.executable).parent / "molecule"), "test", "-s", role],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


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

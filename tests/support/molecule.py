"""Run a molecule scenario as a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.fleet import ROOT


def run_scenario(scenario: str, home: Path) -> None:
    """Run ``molecule test`` for a scenario; AssertionError with the end of its output when it fails.

    Molecule installs the collection into Ansible's home, so it gets ``home`` and not the user's.
    """
    programs = Path(sys.executable).parent
    environment = {**os.environ, "MOLECULE_GLOB": "molecule/*/molecule.yml", "NO_COLOR": "1", "ANSIBLE_HOME": str(home)}
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [str(programs / "molecule"), "test", "-s", scenario],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]

"""Every molecule scenario that runs on the lab's machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fleet import ROOT


def on_the_lab(scenario: Path) -> bool:
    """Whether a scenario takes the shared configuration's machines, and none of its own."""
    return "executor" not in ((yaml.safe_load(scenario.read_text(encoding="utf-8")) or {}).get("ansible") or {})


SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml") if on_the_lab(path))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, lab: Any) -> None:
    """Predicted, converged, again without a change, predicted without a change, seen from outside, taken away."""
    environment = {**os.environ, "MOLECULE_GLOB": "molecule/*/molecule.yml", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [str(Path(sys.executable).parent / "molecule"), "test", "-s", scenario],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]

"""Every molecule scenario that runs on the lab's machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fleet import ROOT
from support.molecule import run_scenario


def on_the_lab(scenario: Path) -> bool:
    """Whether a scenario takes the shared configuration's machines, and none of its own."""
    return "executor" not in ((yaml.safe_load(scenario.read_text(encoding="utf-8")) or {}).get("ansible") or {})


SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml") if on_the_lab(path))


@pytest.mark.thorough  # the tests beside this file look at the same roles and playbooks more closely
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, lab: Any, tmp_path: Path) -> None:
    """Predicted, converged, again without a change, predicted without a change, seen from outside, taken away."""
    run_scenario(scenario, tmp_path)

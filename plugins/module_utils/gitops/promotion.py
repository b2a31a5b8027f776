# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Whether a release has earned its way into an environment: it stayed good in the one before (``edge_promoted_from``).

Pipelines start environments one after the other, but a catch-up, a schedule or a person starts one alone. So the
ledger of the earlier environment decides, and not the order of the jobs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..rollout.ledger import Ledger
from ..rollout.ledger_verify import verify
from .errors import RepoError
from .standing import Standing, read_standing


def obstacle(standing: Standing, version: str, digest: str) -> str:
    """Why a release may not follow yet; empty when it may. standing: of its model, in the earlier environment."""
    refused = [entry for entry in standing.refused if entry["digest"] == digest]
    if refused:
        strata = ", ".join(str(entry["stratum"]) for entry in refused)
        return f"it is refused there by {strata}: {refused[-1]['reason']}"
    rollouts = [(name, status) for name, (_version, known, status) in standing.rollouts.items() if known == digest]
    if not rollouts:
        return "it was never rolled out there"
    name, status = rollouts[-1]
    if status != "succeeded":
        return f"its rollout there ({name}) {'has not ended' if status is None else f'ended {status}'}"
    if not any(version in confirmed for confirmed in standing.serving.values()):
        return "no device there has kept it"
    return ""


def demand(environment: str, ledger: str, public_key: str, models: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise RepoError unless every release stayed good in ``environment``, by its ledger.

    ledger: directory; public_key: file with the PEM keys of its checkpoints; models: model -> version, digest, waves
    of a recorded plan. A plan without waves changes nothing and needs no proof.
    """
    wanted = {model: entry for model, entry in models.items() if entry["waves"]}
    if not wanted:
        return
    records = Ledger(ledger)
    if os.path.exists(records.path):
        with open(public_key, "rb") as handle:
            report = verify(ledger, handle.read())
        if not report.ok:
            raise RepoError(f"{records.path}: what {environment} says cannot be trusted: {'; '.join(report.problems)}")
    for model, entry in wanted.items():
        why = obstacle(read_standing(records.records(), model), str(entry["version"]), str(entry["digest"]))
        if why:
            raise RepoError(
                f"{model} {entry['version']} has not earned its way out of {environment}: {why}. Roll it out there "
                "first (edgeai.fleet.apply), or, when it has to go past it, run again with -e edge_promoted_from="
            )

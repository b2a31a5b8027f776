"""Whether a release has earned its way into an environment, by the ledger of the one before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import promotion
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger

ABOUT = {"model": "camera", "version": "1.1.0", "digest": "sha256:1.1.0"}
WANTED = {"version": "1.1.0", "digest": "sha256:1.1.0", "waves": 2}


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A key's private and its public file."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "ledger.pem", tmp_path / "ledger.pub.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return private, public


class Staging:
    """The ledger of staging, told in a few words."""

    def __init__(self, home: Path, keys: tuple[Path, Path]) -> None:
        self.directory, self.public = str(home / "staging"), str(keys[1])
        self.ledger = Ledger(self.directory, str(keys[0]))

    def rollout(self, name: str, status: str | None, *confirmed: str) -> None:
        self.ledger.append("rollout_started", {**ABOUT, "plan_hash": "sha256:p", "plan": {"unchanged": []}}, name)
        for host in confirmed:
            result = {**ABOUT, "action": "confirm", "result": "confirmed", "failed": False}
            self.ledger.append("result", result, name, host)
        if status:
            self.ledger.append("rollout_finished", {**ABOUT, "status": status}, name)
        self.ledger.checkpoint()

    def demand(self, **changed: Any) -> None:
        promotion.demand("staging", self.directory, self.public, {"camera": {**WANTED, **changed}})


@pytest.fixture
def staging(tmp_path: Path, keys: tuple[Path, Path]) -> Staging:
    return Staging(tmp_path, keys)


def test_what_stayed_good_may_follow(staging: Staging) -> None:
    staging.rollout("r1", "succeeded", "one")
    staging.demand()


def test_what_changes_nothing_needs_no_proof(staging: Staging) -> None:
    staging.demand(waves=0)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("halted", "r1) ended halted"),
        ("aborted", "r1) ended aborted"),
        ("stopped", "r1) ended stopped"),
        (None, "r1) has not ended"),
    ],
)
def test_what_did_not_end_well_waits(staging: Staging, status: str | None, why: str) -> None:
    staging.rollout("r1", status, "one")
    with pytest.raises(RepoError, match="has not earned its way out of staging") as refused:
        staging.demand()
    assert why in str(refused.value)


def test_the_last_rollout_counts(staging: Staging) -> None:
    staging.rollout("r1", "succeeded", "one")
    staging.rollout("r2", "halted")
    with pytest.raises(RepoError, match=r"r2\) ended halted"):
        staging.demand()
    staging.rollout("r2", "succeeded", "two")  # the same rollout, gone on with
    staging.demand()


def test_what_was_never_there_waits(staging: Staging) -> None:
    with pytest.raises(RepoError, match="was never rolled out there"):
        staging.demand()
    staging.rollout("r1", "succeeded", "one")
    with pytest.raises(RepoError, match="was never rolled out there"):  # same name, other bytes
        staging.demand(digest="sha256:other")


def test_what_a_person_took_back_waits(staging: Staging) -> None:
    staging.rollout("r1", "succeeded", "one")
    back = {**ABOUT, "action": "revert", "result": "reverted", "failed": False}
    staging.ledger.append("result", back, "r1", "one")
    with pytest.raises(RepoError, match="no device there has kept it"):
        staging.demand()


def test_what_is_in_quarantine_waits_until_it_is_lifted(staging: Staging) -> None:
    staging.rollout("r1", "succeeded", "one")
    entry = {**ABOUT, "stratum": "cpu", "reason": "ticket-1"}
    staging.ledger.append("quarantine", entry, "r1")
    with pytest.raises(RepoError, match="refused there by cpu: ticket-1"):
        staging.demand()
    staging.ledger.append("quarantine_lifted", entry)
    staging.demand()


def test_an_edited_ledger_proves_nothing(staging: Staging) -> None:
    staging.rollout("r1", "halted", "one")
    path = Path(staging.ledger.path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    finished = next(line for line in lines if line["type"] == "rollout_finished")
    finished["data"]["status"] = "succeeded"
    path.write_text("".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines))
    with pytest.raises(RepoError, match="cannot be trusted"):
        staging.demand()

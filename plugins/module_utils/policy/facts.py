# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What rules look at, as immutable data: the fleet as inventory, releases, ledger and declarations say it is."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .governance import Approval, Governance, ModelEntry, SiteEntry
from .scan import Scan

PASS, FAIL, INCONCLUSIVE, NO_DATA, NOT_APPLICABLE = "pass", "fail", "inconclusive", "no_data", "not_applicable"
VERDICTS = (FAIL, INCONCLUSIVE, NO_DATA, PASS, NOT_APPLICABLE)
"""Only ``pass`` passes. ``not_applicable`` needs a declaration that says so; not to know is ``no_data``."""


@dataclass(frozen=True)
class Place:
    """Where a person would mend it: a path, relative to the fleet repository where it is inside, and a line from 1."""

    path: str
    line: int = 1


@dataclass(frozen=True)
class ReleaseFacts:
    """A release that the inventory wants, or that was named.

    ``problem`` says why it is not verified (empty: signature and every byte hold); ``manifest`` is what release.json
    says, None when it cannot be read; ``scan`` is None when there were no golden samples to look into.
    """

    model: str
    version: str
    digest: str | None
    manifest: Mapping[str, Any] | None
    golden_sha256: str | None
    created: datetime.datetime | None
    key_id: str | None
    problem: str
    scan: Scan | None
    place: Place

    @property
    def subject(self) -> str:
        """How reports name it."""
        return f"release:{self.model}@{self.version}"


@dataclass(frozen=True)
class DeviceFacts:
    """A host of the inventory. ``values`` holds the variables that rules asked for and the host has.

    ``at_rest`` is what was seen on the device: whether its store lies on an encrypted volume; None when nobody looked.
    """

    name: str
    site: str | None
    models: tuple[str, ...]
    values: Mapping[str, Any]
    places: Mapping[str, Place]
    place: Place
    at_rest: bool | None = None

    @property
    def subject(self) -> str:
        """How reports name it."""
        return f"device:{self.name}"

    @property
    def group(self) -> str:
        """What a report folds devices of one finding into."""
        return f"site:{self.site or '(none)'}"


@dataclass(frozen=True)
class KeyFacts:
    """A public key in use: its role (release or ledger), id, file name, first and last thing it verifiably signed."""

    role: str
    key_id: str | None
    file: str
    problem: str
    first_used: datetime.datetime | None
    last_used: datetime.datetime | None
    place: Place

    @property
    def subject(self) -> str:
        """How reports name it."""
        return f"key:{self.role}:{self.file}"


@dataclass(frozen=True)
class LedgerFacts:
    """The ledger as configured and as found. ``problems`` is what verification said, ``error`` why there was none."""

    configured: bool
    signed: bool
    verified: bool
    error: str
    problems: tuple[str, ...]
    records: int
    unsigned_tail: int
    place: Place

    @property
    def subject(self) -> str:
        """How reports name it."""
        return "ledger"


@dataclass(frozen=True)
class ApprovalFacts:
    """An approval, and what is wrong with it besides what it says (unknown person, bad signature); signed or not."""

    approval: Approval
    problem: str
    signed: bool


@dataclass(frozen=True)
class Fleet:
    """Everything rules are evaluated over. ``now`` is the time they are evaluated at, aware, UTC."""

    now: datetime.datetime
    governance: Governance
    releases: tuple[ReleaseFacts, ...] = ()
    devices: tuple[DeviceFacts, ...] = ()
    keys: tuple[KeyFacts, ...] = ()
    ledger: LedgerFacts | None = None
    approvals: tuple[ApprovalFacts, ...] = ()
    plan: Mapping[str, Any] | None = None
    plan_place: Place = field(default_factory=lambda: Place("plan.json"))
    host_key_checking: bool = True

    def model(self, name: str) -> ModelEntry | None:
        """Return what is declared of a model."""
        return self.governance.models.get(name)

    def site(self, name: str | None) -> SiteEntry | None:
        """Return what is declared of a site."""
        return self.governance.sites.get(name) if name is not None else None

    def declared_at(self, line: int) -> Place:
        """Return a place in the governance file."""
        return Place(self.governance.where, line)


@dataclass(frozen=True)
class Result:
    """One verdict of one rule about one subject. ``group`` folds devices into their site."""

    verdict: str
    subject: str
    message: str
    place: Place
    group: str = ""

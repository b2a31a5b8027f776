# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""``governance.yml``: what people declare beside the signed releases, and ``approvals.yml``: who said yes to what.

Declarations are claims. A rule that finds one says so; what can be looked at instead is looked at.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import field_error
from .reader import DIGEST, HEX, MAX_LONG, NAME, WORD, Reader, check_format, mapping_at
from .yamlfile import Document

GDPR_BASES = (
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests",
)  # fmt: skip
"""GDPR Art. 6(1), points (a) to (f)."""
HIPAA_BASES = ("authorization", "operations", "limited_data_set", "deidentified", "research_waiver")
"""45 CFR 164.508, 164.506, 164.514(e), 164.514(a)-(b), 164.512(i)."""
DEIDENTIFICATION = ("safe_harbor", "expert_determination")
KINDS = ("images", "audio", "tabular", "text", "signals")
REGION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_YEARS_100 = 36525


@dataclass(frozen=True)
class Dataset:
    """What a model was trained on: digests (bare hex), origin, region, and on what ground it may be used."""

    name: str
    sha256: tuple[str, ...]
    origin: str
    region: str | None
    personal_data: bool | None
    special_categories: bool
    basis: str | None
    basis_reference: str | None
    article_9: str | None
    phi: bool | None
    hipaa_basis: str | None
    hipaa_reference: str | None
    deidentification: str | None
    line: int


@dataclass(frozen=True)
class GoldenDeclaration:
    """Somebody looked at these golden samples (bare hex SHA-256 of golden.npz) and says what is in them."""

    sha256: str
    kind: str
    personal_data: bool
    phi: bool | None
    reviewed_by: str
    reviewed: datetime.date
    line: int


@dataclass(frozen=True)
class Inputs:
    """What happens to the inputs of inference. ``retention_days`` is None when nothing is stored."""

    stored: bool
    retention_days: int | None
    region: str | None
    deletion: str | None
    line: int


@dataclass(frozen=True)
class ModelEntry:
    """What is declared of a model."""

    name: str
    tags: tuple[str, ...]
    datasets: tuple[str, ...]
    regions: tuple[str, ...]
    golden: tuple[GoldenDeclaration, ...]
    inputs: Inputs | None
    line: int


@dataclass(frozen=True)
class Encryption:
    """A declaration that encryption is on or off, and how."""

    enabled: bool
    method: str
    line: int


@dataclass(frozen=True)
class SiteEntry:
    """What is declared of a site."""

    name: str
    tags: tuple[str, ...]
    region: str | None
    at_rest: Encryption | None
    in_transit: Encryption | None
    line: int


@dataclass(frozen=True)
class KeyEntry:
    """When a key (by key id, or the name of its file) was made, and when it stopped to sign."""

    name: str
    created: datetime.date
    retired: datetime.date | None
    line: int


@dataclass(frozen=True)
class Approver:
    """A person who may approve releases and waivers. With a public key, only signed approvals count."""

    name: str
    full_name: str
    public_key: str | None
    line: int


@dataclass(frozen=True)
class Approval:
    """One person's yes to one release, and to one plan when ``plan_hash`` is there."""

    model: str
    version: str
    digest: str
    plan_hash: str | None
    approver: str
    time: datetime.datetime
    signature: str | None
    where: str
    line: int

    def statement(self) -> bytes:
        """Return the bytes that the approver signs (ECDSA, SHA-256)."""
        time = self.time.strftime("%Y-%m-%dT%H:%M:%SZ")
        parts = (
            "edgeai-approval-v1",
            self.model,
            self.version,
            self.digest,
            self.plan_hash or "-",
            self.approver,
            time,
        )
        return ("\n".join(parts) + "\n").encode("utf-8")


@dataclass(frozen=True)
class Governance:
    """A checked ``governance.yml``. ``raw`` is its data, for rules of a team's own."""

    where: str = "governance.yml"
    approvers: Mapping[str, Approver] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    sites: Mapping[str, SiteEntry] = field(default_factory=dict)
    keys: Mapping[str, KeyEntry] = field(default_factory=dict)
    ledger_retention_days: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


def read_governance(document: Document) -> Governance:
    """Return the checked declarations. Raises PolicyError naming file, line, field, value and fix."""
    known = ("approvers", "datasets", "models", "sites", "keys", "ledger")
    _format_first(document)
    top = Reader(document, (), ("format",), known)
    approvers = {name: _approver(top, name) for name in top.names("approvers")}
    _refuse_twins(document, approvers)
    datasets = {name: _dataset(top, name) for name in top.names("datasets")}
    models = {name: _model(top, name, datasets) for name in top.names("models")}
    retention = None
    if "ledger" in top:
        retention = top.below("ledger", required=("retention_days",)).integer("retention_days", 1, _YEARS_100)
    return Governance(
        where=document.where,
        approvers=approvers,
        datasets=datasets,
        models=models,
        sites={name: _site(top, name) for name in top.names("sites")},
        keys={name: _key(top, name) for name in top.names("keys")},
        ledger_retention_days=retention,
        raw=document.data,
    )


def _format_first(document: Document) -> None:
    """A later format may have other fields: say that, and not "unknown field"."""
    if "format" in mapping_at(document, ()):
        check_format(Reader(document, (), (), tuple(document.data)))


def _approver(top: Reader, name: str) -> Approver:
    fields = top.below("approvers", name, required=("name",), optional=("public_key",))
    key = fields.text("public_key") if "public_key" in fields else None
    return Approver(name, fields.text("name"), key, fields.line())


def _refuse_twins(document: Document, approvers: Mapping[str, Approver]) -> None:
    """One person with two entries would be two people."""
    for attribute in ("name", "full_name", "public_key"):
        seen: dict[str, str] = {}
        for approver in approvers.values():
            value = getattr(approver, attribute)
            if value is None:
                continue
            other = seen.setdefault(str(value).casefold(), approver.name)
            if other != approver.name:
                where = document.at("approvers", approver.name)
                fix = f"the same as that of {other}: one person is one approver"
                raise field_error(where, f"approvers.{approver.name}", value, fix)


def _optional_text(fields: Reader, name: str) -> str | None:
    return fields.text(name) if name in fields else None


def _optional_flag(fields: Reader, name: str) -> bool | None:
    return fields.flag(name) if name in fields else None


def _dataset(top: Reader, name: str) -> Dataset:
    optional = ("region", "personal_data", "special_categories", "lawful_basis", "phi", "hipaa_basis")
    fields = top.below("datasets", name, required=("origin", "sha256"), optional=optional)
    basis = reference = article_9 = hipaa = hipaa_reference = method = None
    if "lawful_basis" in fields:
        ground = fields.below("lawful_basis", required=("basis", "reference"), optional=("article_9",))
        basis, reference = ground.choice("basis", GDPR_BASES), ground.text("reference")
        article_9 = _optional_text(ground, "article_9")
    if "hipaa_basis" in fields:
        ground = fields.below("hipaa_basis", required=("basis", "reference"), optional=("method",))
        hipaa, hipaa_reference = ground.choice("basis", HIPAA_BASES), ground.text("reference")
        method = ground.choice("method", DEIDENTIFICATION) if "method" in ground else None
    return Dataset(
        name=name,
        sha256=fields.texts("sha256", HEX, 1),
        origin=fields.text("origin", limit=MAX_LONG),
        region=fields.text("region", REGION) if "region" in fields else None,
        personal_data=_optional_flag(fields, "personal_data"),
        special_categories=bool(_optional_flag(fields, "special_categories")),
        basis=basis,
        basis_reference=reference,
        article_9=article_9,
        phi=_optional_flag(fields, "phi"),
        hipaa_basis=hipaa,
        hipaa_reference=hipaa_reference,
        deidentification=method,
        line=fields.line(),
    )


def _model(top: Reader, name: str, datasets: Mapping[str, Dataset]) -> ModelEntry:
    optional = ("tags", "datasets", "regions", "golden", "inference_inputs")
    fields = top.below("models", name, optional=optional)
    used = fields.texts("datasets", NAME) if "datasets" in fields else ()
    for dataset in used:
        if dataset not in datasets:
            raise fields.error("datasets", f"{dataset!r} is not described: add it to datasets of this file")
    golden = fields.array("golden") if "golden" in fields else []
    return ModelEntry(
        name=name,
        tags=fields.texts("tags", WORD) if "tags" in fields else (),
        datasets=used,
        regions=fields.texts("regions", REGION) if "regions" in fields else (),
        golden=tuple(_golden(fields, index) for index in range(len(golden))),
        inputs=_inputs(fields) if "inference_inputs" in fields else None,
        line=fields.line(),
    )


def _golden(model: Reader, index: int) -> GoldenDeclaration:
    required = ("sha256", "kind", "personal_data", "reviewed_by", "reviewed")
    fields = model.below("golden", index, required=required, optional=("phi",))
    return GoldenDeclaration(
        sha256=fields.text("sha256", HEX, "use the 64 hex digits of golden.sha256 in release.json"),
        kind=fields.choice("kind", KINDS),
        personal_data=fields.flag("personal_data"),
        phi=_optional_flag(fields, "phi"),
        reviewed_by=fields.text("reviewed_by"),
        reviewed=fields.day("reviewed"),
        line=fields.line(),
    )


def _inputs(model: Reader) -> Inputs:
    fields = model.below("inference_inputs", required=("stored",), optional=("retention_days", "region", "deletion"))
    stored = fields.flag("stored")
    if not stored:
        for name in ("retention_days", "region", "deletion"):
            if name in fields:
                raise fields.error(name, "nothing is stored, so leave it out (or set stored: true)")
    return Inputs(
        stored=stored,
        retention_days=fields.integer("retention_days", 0, _YEARS_100) if "retention_days" in fields else None,
        region=fields.text("region", REGION) if "region" in fields else None,
        deletion=_optional_text(fields, "deletion"),
        line=fields.line(),
    )


def _encryption(site: Reader, name: str) -> Encryption | None:
    if name not in site:
        return None
    fields = site.below(name, required=("enabled",), optional=("method",))
    enabled = fields.flag("enabled")
    if enabled and "method" not in fields:
        raise fields.error("method", "say how, such as LUKS2 or WireGuard")
    return Encryption(enabled, fields.text("method") if "method" in fields else "", fields.line())


def _site(top: Reader, name: str) -> SiteEntry:
    optional = ("region", "encryption_at_rest", "encryption_in_transit")
    fields = top.below("sites", name, required=("tags",), optional=optional)
    return SiteEntry(
        name=name,
        tags=fields.texts("tags", WORD),
        region=fields.text("region", REGION) if "region" in fields else None,
        at_rest=_encryption(fields, "encryption_at_rest"),
        in_transit=_encryption(fields, "encryption_in_transit"),
        line=fields.line(),
    )


def _key(top: Reader, name: str) -> KeyEntry:
    fields = top.below("keys", name, required=("created",), optional=("retired",))
    created = fields.day("created")
    retired = fields.day("retired") if "retired" in fields else None
    if retired is not None and retired < created:
        raise fields.error("retired", f"it is before the key was created, {created}")
    return KeyEntry(name, created, retired, fields.line())


def read_approvals(document: Document) -> tuple[Approval, ...]:
    """Return the checked approvals. Raises PolicyError naming file, line, field, value and fix."""
    _format_first(document)
    top = Reader(document, (), ("format", "approvals"))
    return tuple(_approval(top, index) for index in range(len(top.array("approvals"))))


def _approval(top: Reader, index: int) -> Approval:
    required = ("model", "version", "digest", "approver", "time")
    fields = top.below("approvals", index, required=required, optional=("plan_hash", "signature"))
    fix = "use sha256: and 64 hex digits"
    return Approval(
        model=fields.text("model", NAME),
        version=fields.text("version"),
        digest=fields.text("digest", DIGEST, fix),
        plan_hash=fields.text("plan_hash", DIGEST, fix) if "plan_hash" in fields else None,
        approver=fields.text("approver"),
        time=fields.moment("time"),
        signature=_optional_text(fields, "signature"),
        where=top.document.where,
        line=fields.line(),
    )

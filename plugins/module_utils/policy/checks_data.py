# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checks of what a model is made of and what it takes in: provenance, legal ground, golden samples, retention. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .facts import FAIL, INCONCLUSIVE, NO_DATA, PASS, Fleet, Place, ReleaseFacts, Result
from .governance import Dataset, ModelEntry
from .scan import BLIND, Scan

Parameters = Mapping[str, Any]
_SHOWN = 3


def region_within(region: str, allowed: tuple[str, ...]) -> bool:
    """Tell whether a region is one of the allowed, or inside one: ``eu-de-1`` is inside ``eu-de`` and ``eu``."""
    return any(region == item or region.startswith(item + "-") for item in allowed)


def provenance(parameters: Parameters, fleet: Fleet, release: ReleaseFacts) -> Iterator[Result]:
    """The signed manifest names revision and data, and the data is one that governance describes."""
    unproven = _unproven(release)
    if unproven is not None:
        yield unproven
        return
    source = (release.manifest or {}).get("source") or {}
    missing = [name for name in parameters["required"] if not source.get(name)]
    if missing:
        names = ", ".join(f"source.{name}" for name in missing)
        yield Result(FAIL, release.subject, f"the signed release.json does not record {names}", release.place)
        return
    model = fleet.model(release.model)
    if model is None or not model.datasets:
        yield _undeclared(fleet, release.subject, release.model, model, "datasets")
        return
    digest = source.get("data_sha256")
    known = [name for name in model.datasets if digest in fleet.governance.datasets[name].sha256]
    place = fleet.declared_at(model.line)
    if digest and not known:
        names = ", ".join(model.datasets)
        text = f"its data ({digest[:12]}…) is none of the datasets declared for {release.model}: {names}"
        yield Result(FAIL, release.subject, text, place)
        return
    described = f"data {digest[:12]}… is {', '.join(known)}" if digest else "no data digest asked for"
    yield Result(PASS, release.subject, f"signed by {_key(release)}; {described}", place)


def lawful_basis(parameters: Parameters, fleet: Fleet, model: str) -> Iterator[Result]:
    """Each dataset says whether it holds personal data, and if so on what ground of Art. 6 (and 9) GDPR."""
    subject, entry = f"model:{model}", fleet.model(model)
    if entry is None or not entry.datasets:
        yield _undeclared(fleet, subject, model, entry, "datasets")
        return
    for name in entry.datasets:
        dataset = fleet.governance.datasets[name]
        verdict, text = _gdpr_ground(dataset)
        yield Result(verdict, subject, f"dataset {name}: {text}", fleet.declared_at(dataset.line))


def _gdpr_ground(dataset: Dataset) -> tuple[str, str]:
    if dataset.personal_data is None:
        return NO_DATA, "does not say whether it holds personal data (personal_data: true or false)"
    if not dataset.personal_data:
        if dataset.basis or dataset.special_categories:
            return INCONCLUSIVE, "says it holds no personal data, yet names a ground for it: one of them is wrong"
        return PASS, "declared to hold no personal data"
    if dataset.basis is None:
        return FAIL, "holds personal data and names no lawful_basis"
    if dataset.special_categories and not dataset.article_9:
        return FAIL, "holds special categories of personal data and names no lawful_basis.article_9"
    article_9 = f", Art. 9(2): {dataset.article_9}" if dataset.article_9 else ""
    return PASS, f"declared: {dataset.basis} ({dataset.basis_reference}){article_9}"


def phi_basis(parameters: Parameters, fleet: Fleet, model: str) -> Iterator[Result]:
    """Each dataset says whether it holds protected health information, and if so what permits its use."""
    subject, entry = f"model:{model}", fleet.model(model)
    if entry is None or not entry.datasets:
        yield _undeclared(fleet, subject, model, entry, "datasets")
        return
    for name in entry.datasets:
        dataset = fleet.governance.datasets[name]
        verdict, text = _hipaa_ground(dataset)
        yield Result(verdict, subject, f"dataset {name}: {text}", fleet.declared_at(dataset.line))


def _hipaa_ground(dataset: Dataset) -> tuple[str, str]:
    if dataset.hipaa_basis == "deidentified" and dataset.deidentification is None:
        return FAIL, "is called deidentified; hipaa_basis.method has to say safe_harbor or expert_determination"
    if dataset.phi is None:
        return NO_DATA, "does not say whether it holds protected health information (phi: true or false)"
    if dataset.phi and dataset.hipaa_basis == "deidentified":
        return INCONCLUSIVE, "says phi: true and deidentified: deidentified data is no PHI, so one of them is wrong"
    if dataset.phi and dataset.hipaa_basis is None:
        return FAIL, "holds protected health information and names no hipaa_basis"
    if dataset.hipaa_basis is None:
        return PASS, "declared to hold no protected health information"
    method = f", {dataset.deidentification}" if dataset.deidentification else ""
    return PASS, f"declared: {dataset.hipaa_basis}{method} ({dataset.hipaa_reference})"


def golden_samples(parameters: Parameters, fleet: Fleet, release: ReleaseFacts) -> Iterator[Result]:
    """The golden samples are declared free of personal data, by digest, and the scan found none."""
    subject, place, scan = release.subject, release.place, release.scan
    if scan is not None and scan.certain:
        yield Result(FAIL, subject, "the golden samples hold personal data: " + _hits(scan), place)
        return
    if release.golden_sha256 is None or scan is None:
        yield Result(NO_DATA, subject, release.problem or "there are no golden samples to look into", place)
        return
    model = fleet.model(release.model)
    declared = [item for item in model.golden if item.sha256 == release.golden_sha256] if model else []
    if not declared:
        short = release.golden_sha256[:12]
        text = f"nobody declared what is in these golden samples ({short}…): add them to models.{release.model}.golden"
        yield Result(NO_DATA, subject, text, fleet.declared_at(model.line) if model else place)
        return
    statement, place = declared[-1], fleet.declared_at(declared[-1].line)
    answer = statement.phi if parameters["about"] == "phi" else statement.personal_data
    if answer is None:
        yield Result(
            NO_DATA, subject, f"the declaration by {statement.reviewed_by} does not say whether there is PHI", place
        )
    elif answer:
        yield Result(FAIL, subject, f"declared by {statement.reviewed_by} to hold personal data", place)
    elif statement.reviewed > fleet.now.date():
        yield Result(INCONCLUSIVE, subject, f"the review is dated {statement.reviewed}, which is to come", place)
    elif release.problem:
        yield Result(INCONCLUSIVE, subject, f"the release does not verify ({release.problem})", place)
    elif scan.problems or scan.suspects:
        text = "; ".join([*scan.problems[:_SHOWN], *([_hits(scan)] if scan.suspects else [])])
        yield Result(INCONCLUSIVE, subject, f"a person has to look: {text}", place)
    else:
        found = f"none found in {scan.arrays} arrays ({scan.bytes} bytes)"
        found += f", none declared ({statement.reviewed_by}, {statement.reviewed})"
        yield Result(PASS, subject, f"{found}; {BLIND[statement.kind]}", place)


def _hits(scan: Scan) -> str:
    hits = scan.certain or scan.suspects
    shown = [f"{hit.kind} {hit.masked} ({hit.where})" for hit in hits[:_SHOWN]]
    more = f" and {len(hits) - _SHOWN} more" if len(hits) > _SHOWN else ""
    return ", ".join(shown) + more


def input_retention(parameters: Parameters, fleet: Fleet, model: str) -> Iterator[Result]:
    """What happens to inference inputs is declared; when they are kept, for how long and how they are deleted."""
    subject, entry = f"model:{model}", fleet.model(model)
    if entry is None or entry.inputs is None:
        yield _undeclared(fleet, subject, model, entry, "inference_inputs")
        return
    inputs, place, limit = entry.inputs, fleet.declared_at(entry.inputs.line), parameters["max_days"]
    if not inputs.stored:
        yield Result(
            PASS, subject, "declared: inputs are not stored (the model server of this collection stores none)", place
        )
    elif inputs.retention_days is None:
        yield Result(FAIL, subject, "inputs are stored and inference_inputs.retention_days is not set", place)
    elif inputs.retention_days > limit:
        yield Result(
            FAIL, subject, f"inputs are kept for {inputs.retention_days} days; at most {limit} are allowed", place
        )
    elif inputs.deletion is None:
        yield Result(FAIL, subject, "nothing says what deletes stored inputs (inference_inputs.deletion)", place)
    else:
        text = f"declared: kept for {inputs.retention_days} of at most {limit} days, deleted by {inputs.deletion}"
        yield Result(PASS, subject, text, place)


def data_region(parameters: Parameters, fleet: Fleet, model: str) -> Iterator[Result]:
    """Training data and stored inputs lie in the regions that the model is pinned to."""
    subject, entry = f"model:{model}", fleet.model(model)
    if entry is None or not entry.regions:
        yield _undeclared(fleet, subject, model, entry, "regions")
        return
    if not entry.datasets:
        yield _undeclared(fleet, subject, model, entry, "datasets")
    if entry.inputs is None:
        yield _undeclared(fleet, subject, model, entry, "inference_inputs")
    for name in entry.datasets:
        dataset = fleet.governance.datasets[name]
        yield _in_region(fleet, subject, f"dataset {name}", dataset.region, entry, dataset.line)
    if entry.inputs is not None and entry.inputs.stored:
        yield _in_region(fleet, subject, "stored inputs", entry.inputs.region, entry, entry.inputs.line)


def _in_region(fleet: Fleet, subject: str, what: str, region: str | None, entry: ModelEntry, line: int) -> Result:
    place, allowed = fleet.declared_at(line), ", ".join(entry.regions)
    if region is None:
        return Result(NO_DATA, subject, f"{what}: no region is declared", place)
    if not region_within(region, entry.regions):
        return Result(FAIL, subject, f"{what}: is in {region}; allowed is {allowed}", place)
    return Result(PASS, subject, f"{what}: declared in {region}, inside {allowed}", place)


def _undeclared(fleet: Fleet, subject: str, model: str, entry: ModelEntry | None, name: str) -> Result:
    text = f"{fleet.governance.where} says nothing: add models.{model}" + ("" if entry is None else f".{name}")
    return Result(NO_DATA, subject, text, Place(fleet.governance.where, entry.line if entry else 1))


def _unproven(release: ReleaseFacts) -> Result | None:
    if release.manifest is None:
        return Result(NO_DATA, release.subject, release.problem, release.place)
    if release.problem:
        return Result(FAIL, release.subject, f"what it says is not proven: {release.problem}", release.place)
    return None


def _key(release: ReleaseFacts) -> str:
    return f"key {release.key_id[:12]}…" if release.key_id else "a certificate"

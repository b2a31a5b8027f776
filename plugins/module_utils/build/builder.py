# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Build one unsigned release directory from a spec: all of it or nothing, once."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..release.digests import sha256_file
from ..release.errors import ReleaseError
from ..release.manifest import Manifest, dump_manifest, load_manifest, parse_manifest
from . import output
from .arrays import check_inputs, load_arrays, load_samples, save_golden
from .inputs import Gathered, OpenRegistry, gathered
from .libs import Captured, quiet
from .measure import (
    Host,
    Reference,
    breaches,
    compressed_size,
    costs,
    latency_ms,
    make_reference,
    measure,
    read_host,
    why_not_measured,
)
from .onnx_model import OnnxInfo, inspect
from .quantize import make_variant
from .record import Record, fingerprint, tool_versions
from .sessions import open_session
from .spec import CALIBRATED, SOURCE_FIELDS, Spec, VariantSpec, load_spec

DATA_ROLES = ("calibration", "golden", "validation")
GOLDEN_PATH = "golden/golden.npz"


@dataclass
class Result:
    """What a build did. ``changed`` in check mode: what it would do."""

    changed: bool
    path: Path
    spec: Spec
    fingerprint: str
    source: dict[str, Any]
    manifest: Manifest | None = None
    not_measured: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Context:
    spec: Spec
    info: OnnxInfo
    host: Host
    tree: Path
    source: dict[str, Any]
    draft: Manifest  # the manifest before any artifact is there: budgets as a device will read them


def build_release(
    spec_path: Path,
    releases: Path,
    source: Mapping[str, Any],
    check_mode: bool = False,
    registry: OpenRegistry | None = None,
    converter: Sequence[str] = (),
) -> Result:
    """Build ``releases/<model>/<version>`` from the spec, or leave it alone when it is there already.

    ``source`` overrides fields of the spec's ``source`` (git_revision, data_sha256, parent, mlflow_run).
    ``registry`` opens the model registry, for specs that name one; ``converter`` is the command that makes ONNX of a
    SavedModel (none: tf2onnx, where it is installed).
    Raises ReleaseError: bad spec or input, a variant over its budget, a different release under the same version.
    """
    with gathered(load_spec(spec_path), registry, converter) as inputs:
        return _build(inputs, releases, source, check_mode)


def _build(inputs: Gathered, releases: Path, source: Mapping[str, Any], check_mode: bool) -> Result:
    spec = inputs.spec
    info = inspect(spec.onnx)
    hashes = {role: sha256_file(path, follow=True) for role, path in spec.inputs().items()}
    hashes.update(("onnx:" + name, sha256_file(spec.onnx.parent / name, follow=True)) for name in info.external)
    if inputs.identity:
        hashes = {**{role: value for role, value in hashes.items() if not role.startswith("onnx")}, **inputs.identity}
    facts = _source(inputs, hashes, source)
    draft = _draft(spec, info, facts)
    mark = fingerprint(spec, hashes)
    target = releases / spec.model / spec.version
    result = Result(changed=True, path=target, spec=spec, fingerprint=mark, source=facts)
    if _existing(result) or check_mode:
        if result.changed:
            _load_inputs(spec, info)  # a check run finds the same faults in the arrays
        return result
    with output.locked(target) as state:
        if not _existing(result):
            with output.workspace(target) as tree:
                context = _Context(spec, info, read_host(), tree, facts, draft)
                manifest = _fill(context, result)
                output.seal(tree)
                Record(mark, manifest.digest, tool_versions(spec)).save(state)
                output.publish(tree, target)
            result.manifest = manifest
    return result


def _source(inputs: Gathered, hashes: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's ``source``. Without a data digest of the user's, it is that of the arrays the build used."""
    facts = {name: given.get(name) or inputs.spec.source.get(name) for name in sorted(SOURCE_FIELDS)}
    facts["mlflow_run"] = facts["mlflow_run"] or inputs.mlflow_run
    if not facts["data_sha256"]:
        data = {role: value for role, value in hashes.items() if role.partition(":")[0] in DATA_ROLES}
        facts["data_sha256"] = output.digest_of(data)
    if inputs.provenance:
        facts["inputs"] = inputs.provenance
    return facts


def _existing(result: Result) -> bool:
    """Whether the target is this very release, whole. Another or a damaged one is an error: releases are immutable."""
    target = result.path
    if not os.path.lexists(target):
        return False
    record = Record.load(output.state_path(target))
    remedy = f"raise `version` in {result.spec.path} (a released version never changes)"
    if record is None:
        raise ReleaseError(
            f"{target}: it exists, and there is no record of how it was built: {remedy}, or move it away"
        )
    manifest = load_manifest(target)
    if record.digest != manifest.digest or record.fingerprint != result.fingerprint:
        raise ReleaseError(f"{target}: it exists and was built from other inputs or another spec: {remedy}")
    for entry in manifest.files():
        path = target / entry.path
        if not path.is_file() or sha256_file(path) != entry.sha256:
            raise ReleaseError(f"{target}: {entry.path} is missing or damaged; move the directory away and build again")
    result.manifest, result.changed = manifest, False
    result.warnings.extend(_drift(record, manifest, result))
    return True


def _drift(record: Record, manifest: Manifest, result: Result) -> list[str]:
    """What a build now would write otherwise, though not from other inputs: the release stays, and one is told."""
    now, found = tool_versions(result.spec), []
    for name in sorted(now):
        if record.tools.get(name) != now[name]:
            found.append(f"was built with {name} {record.tools.get(name)}; this host has {now[name]}")
    for name, value in sorted(result.source.items()):
        if name != "inputs" and getattr(manifest.source, name) != value:
            found.append(f"has {getattr(manifest.source, name)} as source.{name}, not {value}")
    return [f"{result.path} {text}. It stays as it is." for text in found]


def _draft(spec: Spec, info: OnnxInfo, source: dict[str, Any]) -> Manifest:
    """Let the manifest's own reader see budgets, requirements and source before minutes of work go in."""
    nothing = {"size": 1, "sha256": "0" * 64}
    variants = []
    for variant in spec.variants:
        path = f"variants/{variant.id}/model"
        variants.append(_variant_entry(variant, path, [{"path": path, **nothing}], {}))
    golden = {"path": GOLDEN_PATH, **nothing, "samples": 1, "metric": spec.metric, "reference_score": 1.0}
    return parse_manifest(dump_manifest(_document(spec, info, source, variants, golden)), str(spec.path))


def _document(
    spec: Spec, info: OnnxInfo, source: dict[str, Any], variants: list[Any], golden: dict[str, Any]
) -> dict[str, Any]:
    return {
        "format": 1,
        "model": spec.model,
        "version": spec.version,
        "created": _created(),
        "security_counter": spec.security_counter,
        "source": source,
        "inputs": info.inputs,
        "outputs": info.outputs,
        "variants": variants,
        "golden": golden,
        "budgets": spec.budgets,
    }


def _created() -> str:
    """Now, or SOURCE_DATE_EPOCH (reproducible-builds.org) when it is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(epoch) if epoch.isdigit() else time.time()))


def _variant_entry(
    variant: VariantSpec, entry: str, files: list[dict[str, Any]], measured: dict[str, Any]
) -> dict[str, Any]:
    return {
        **({"budget": dict(variant.budget)} if variant.budget else {}),
        "id": variant.id,
        "runtime": variant.runtime,
        "precision": variant.precision,
        "entry": entry,
        "architectures": list(variant.architectures),
        "requires": variant.requires,
        "files": files,
        "measured": measured,
    }


def _load_inputs(spec: Spec, info: OnnxInfo) -> tuple[Any, Any]:
    """Golden and validation samples; calibration arrays are only checked here, and loaded again when needed."""
    golden = load_samples(spec.golden, "golden", info.inputs)
    validation = load_samples(spec.validation, "validation", info.inputs) if spec.validation else golden
    for path in {variant.calibration or spec.calibration for variant in spec.variants if _calibrates(variant)}:
        _calibration(path, info)
    return golden, validation


def _calibrates(variant: VariantSpec) -> bool:
    return variant.method in CALIBRATED


def _calibration(path: Path | None, info: OnnxInfo) -> dict[str, Any]:
    if path is None:  # load_spec refuses a calibrated variant without one
        raise ReleaseError("a calibrated variant has no calibration arrays")
    arrays = load_arrays(path, "calibration")
    check_inputs(path, "", arrays, info.inputs)
    return arrays


def _fill(context: _Context, result: Result) -> Manifest:
    """Write golden samples, variants and release.json into the tree."""
    spec, info, tree = context.spec, context.info, context.tree
    samples = _load_inputs(spec, info)
    with quiet() as captured:
        references = _references(context, samples, captured)
        golden_file = tree / GOLDEN_PATH
        golden_file.parent.mkdir()
        save_golden(
            golden_file, references[0].samples, dict(zip([t["name"] for t in info.outputs], references[0].outputs))
        )
        variants = [_build_variant(context, variant, references, result, captured) for variant in spec.variants]
    golden = {
        **output.file_entry(tree, golden_file),
        "samples": references[0].samples.count,
        "metric": spec.metric,
        "reference_score": round(references[0].score, 9),
    }
    raw = dump_manifest(_document(spec, info, context.source, variants, golden))
    manifest = parse_manifest(raw, str(spec.path))
    (tree / "release.json").write_bytes(raw)
    return manifest


def _references(context: _Context, samples: tuple[Any, Any], captured: Captured) -> tuple[Reference, Reference]:
    """What the fp32 model answers on the golden and the validation samples."""
    spec, info = context.spec, context.info
    try:
        session = _open(context, "onnxruntime", spec.onnx)
        golden = make_reference(session, samples[0], spec.metric, info.fixed_batch)
        files = [spec.onnx, *(spec.onnx.parent / name for name in info.external)]
        golden = replace(
            golden,
            p50_ms=latency_ms(session, golden.samples, info.fixed_batch or 1)[0],
            size=sum(path.stat().st_size for path in files),
            compressed=compressed_size(files),
        )
        if samples[1] is samples[0]:
            return golden, golden
        return golden, make_reference(session, samples[1], spec.metric, info.fixed_batch)
    except ReleaseError:
        raise
    except Exception as exc:  # onnxruntime raises its own types
        raise ReleaseError(f"{spec.onnx}: onnxruntime cannot run it: {_with_tail(exc, captured)}") from exc


def _open(context: _Context, runtime: str, entry: Path) -> Any:
    names = [[tensor["name"] for tensor in tensors] for tensors in (context.info.inputs, context.info.outputs)]
    return open_session(runtime, entry, names[0], names[1])


def _build_variant(
    context: _Context, variant: VariantSpec, references: tuple[Reference, Reference], result: Result, captured: Captured
) -> dict[str, Any]:
    """Make, measure and judge one variant; returns its manifest entry."""
    directory = context.tree / "variants" / variant.id
    directory.mkdir(parents=True)
    try:
        path = variant.calibration or context.spec.calibration
        calibration = _calibration(path, context.info) if _calibrates(variant) else None
        made = make_variant(context.spec, variant, context.info, calibration, directory)
        del calibration
        files = [output.file_entry(context.tree, path) for path in sorted(directory.rglob("*")) if path.is_file()]
        measured = _measured(context, variant, directory / made.entry, references, result)
    except ReleaseError:
        raise
    except Exception as exc:  # quantizers and runtimes raise whatever they like
        raise ReleaseError(
            f"{context.spec.path}: variant {variant.id} could not be built ({variant.method}): "
            + _with_tail(exc, captured)
        ) from exc
    gc.collect()  # sessions and calibration graphs are large, and cyclic
    if measured:
        paths = [context.tree / item["path"] for item in files]
        measured.update(size_bytes=sum(item["size"] for item in files), compressed_bytes=compressed_size(paths))
        measured.update(costs(references[0], measured), host=context.host.architecture, method=made.method)
        if made.sparsity is not None:
            measured["sparsity"] = made.sparsity
    return _variant_entry(variant, f"variants/{variant.id}/{made.entry}", files, measured)


def _measured(
    context: _Context, variant: VariantSpec, entry: Path, references: tuple[Reference, Reference], result: Result
) -> dict[str, Any]:
    """Figures of a variant, held against its budget; {} when this host cannot tell them."""
    spec = context.spec
    reason = why_not_measured(variant, context.host)
    if reason:
        result.not_measured[variant.id] = reason
        result.warnings.append(f"variant {variant.id} of {spec.model} {spec.version} was not measured: {reason}")
        return {}
    session = _open(context, variant.runtime, entry)
    measured, golden_drop = measure(session, spec.metric, references[0], references[1], context.info.fixed_batch)
    stratum = context.host.stratum(variant.runtime)
    over = breaches(measured, golden_drop, context.draft.budget(stratum, variant.id))
    if over:
        raise ReleaseError(
            f"{spec.path}: variant {variant.id} breaks its budget for {stratum}: {'; '.join(over)}. "
            "Nothing was written. Look at its calibration data and options, leave the variant out, or change `budgets`"
        )
    return measured


def _with_tail(exc: Exception, captured: Captured) -> str:
    tail = captured.tail()
    return "{}: {}{}".format(type(exc).__name__, exc, "; last output: " + tail if tail else "")

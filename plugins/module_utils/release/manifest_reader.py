# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The strict reader of ``release.json``, format 1: unknown fields are refused at every depth."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from . import model as m
from .digests import release_digest
from .errors import field_error
from .paths import check_name, check_relative, check_version
from .schema import Fields, is_int, load_json

RUNTIMES = ("onnxruntime", "openvino", "litert", "tensorrt")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
METRICS = ("top1", "relative_error")
# The datatypes of the Open Inference Protocol v2, without BYTES: golden samples of strings cannot be compared.
DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64",
)  # fmt: skip

MAX_FILE = 2**40 - 1
"""Largest accepted size of one file, bytes: below 1 TiB."""
MAX_VARIANTS = 64
MAX_FILES = 4096
MAX_TENSORS = 64
MAX_RANK = 16
MAX_STRATA = 256
MAX_SAMPLES = 1_000_000
MAX_INPUTS = 256
MAX_COUNTER = 2**53 - 1
"""Largest security counter: the largest integer every JSON reader keeps exact."""
MAX_MIB = 2**24

_HEX = re.compile(r"[0-9a-f]{64}")
_HEX_FIX = "use 64 lower-case hex digits without a prefix"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_SUFFIX = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/+-]{0,127}")
_CLAUSE = r"(?:>=|<=|==|!=|~=|<|>)\s*[0-9]+(?:\.[0-9]+)*(?:\.\*|[A-Za-z0-9.+-]*)?"
_SPECIFIER = re.compile(rf"{_CLAUSE}(?:\s*,\s*{_CLAUSE})*")
_STRATUM = re.compile(r"[A-Za-z0-9_.*?\[\]!/=:-]{1,256}")


def read_manifest(raw: bytes, where: str) -> m.Manifest:
    """Return the checked manifest in ``raw``; raises ReleaseError naming ``where``, field, value and fix."""
    document = load_json(raw, where, m.MAX_MANIFEST)
    names = ("format", "model", "version", "created", "security_counter", "source", "inputs", "outputs", "variants",
             "golden", "budgets")  # fmt: skip
    # The format is looked at first: a later format may have other fields, and that is not "unknown field".
    if isinstance(document, dict) and "format" in document:
        _check_format(document["format"], where)
    top = Fields(document, where, "", names)
    version = check_version(top.get("version"), where, "version")
    variants = _read_variants(top)
    golden = _read_golden(top)
    _refuse_clashes(where, variants, golden)
    default, strata = _read_budgets(top)
    return m.Manifest(
        model=check_name(top.get("model"), where, "model"),
        version=version,
        created=_read_created(top),
        security_counter=top.integer("security_counter", 0, MAX_COUNTER),
        source=_read_source(top, version),
        inputs=_read_tensors(top, "inputs"),
        outputs=_read_tensors(top, "outputs"),
        variants=variants,
        golden=golden,
        budget_default=default,
        budget_strata=strata,
        raw=raw,
        digest=release_digest(raw),
    )


def _check_format(value: Any, where: str) -> None:
    if not is_int(value) or value != m.FORMAT:
        raise field_error(where, "format", value, f"this version reads format {m.FORMAT}; update edgeai.fleet here")


def _read_created(top: Fields) -> str:
    fix = "use a UTC time such as '2026-01-31T12:00:00Z'"
    text = top.text("created", _TIME, fix)
    try:
        datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise top.error("created", fix) from None
    return text


def _read_source(top: Fields, version: str) -> m.Source:
    names = ("git_revision", "data_sha256", "parent", "mlflow_run")
    fields = Fields(top.get("source"), top.where, "source", (), (*names, "inputs"))
    values: dict[str, str | None] = dict.fromkeys(names)
    if fields.get("git_revision") is not None:
        values["git_revision"] = fields.text("git_revision", _REVISION)
    if fields.get("data_sha256") is not None:
        values["data_sha256"] = fields.text("data_sha256", _HEX, _HEX_FIX)
    if fields.get("parent") is not None:
        values["parent"] = check_version(fields.get("parent"), top.where, "source.parent")
        if values["parent"] == version:
            raise fields.error("parent", "a release is not its own parent; name the one before it, or null")
    if fields.get("mlflow_run") is not None:
        values["mlflow_run"] = fields.text("mlflow_run")
    return m.Source(**values, inputs=_read_inputs(fields))


def _read_inputs(source: Fields) -> tuple[m.InputFile, ...]:
    found = []
    for index, value in enumerate(source.array("inputs", 1, MAX_INPUTS) if "inputs" in source else ()):
        fields = Fields(value, source.where, f"source.inputs[{index}]", ("role", "uri", "size", "sha256"))
        found.append(
            m.InputFile(
                role=fields.text("role"),
                uri=fields.text("uri"),
                size=fields.integer("size", 0, MAX_FILE),
                sha256=fields.text("sha256", _HEX, _HEX_FIX),
            )
        )
    return tuple(found)


def _read_tensors(top: Fields, name: str) -> tuple[m.TensorSpec, ...]:
    tensors: list[m.TensorSpec] = []
    for index, value in enumerate(top.array(name, 1, MAX_TENSORS)):
        fields = Fields(value, top.where, f"{name}[{index}]", ("name", "datatype", "shape"))
        shape = fields.array("shape", 0, MAX_RANK)
        for length in shape:
            if not is_int(length) or not (length == -1 or 1 <= length <= 2**31 - 1):
                raise field_error(top.where, fields.at("shape"), length, "use -1 or a positive integer for each axis")
        tensor = m.TensorSpec(fields.text("name"), fields.choice("datatype", DATATYPES), tuple(shape))
        if any(tensor.name == other.name for other in tensors):
            raise fields.error("name", f"the name appears twice in {name}; names are unique")
        tensors.append(tensor)
    return tuple(tensors)


def _read_file(value: Any, where: str, path: str) -> m.FileEntry:
    fields = Fields(value, where, path, ("path", "size", "sha256"))
    name = check_relative(fields.get("path"), where, fields.at("path"))
    return m.FileEntry(name, fields.integer("size", 0, MAX_FILE), fields.text("sha256", _HEX, _HEX_FIX))


def _read_requires(variant: Fields) -> m.Requires:
    optional = ("cpu_flags_any", "runtime_version", "memory_mib")
    fields = Fields(variant.get("requires"), variant.where, variant.at("requires"), ("accelerators",), optional)
    specifier = ""
    if fields.get("runtime_version"):
        specifier = fields.text("runtime_version", _SPECIFIER, "use a version range such as '>=1.17,<2'")
    elif "runtime_version" in fields:
        specifier = fields.text("runtime_version", empty=True)
    return m.Requires(
        accelerators=fields.texts("accelerators", _WORD, 1, 32),
        cpu_flags_any=fields.texts("cpu_flags_any", _WORD, 0, 64) if "cpu_flags_any" in fields else (),
        runtime_version=specifier,
        memory_mib=fields.integer("memory_mib", 0, MAX_MIB) if "memory_mib" in fields else 0,
    )


def _read_measured(variant: Fields) -> Mapping[str, Any]:
    numbers = {
        **{"accuracy": (0, 1), "accuracy_drop": (-1, 1), "p50_ms": (0, 1e9), "p95_ms": (0, 1e9), "sparsity": (0, 1)},
        **{"size_ratio": (0, 1e9), "compressed_ratio": (0, 1e9), "p50_ratio": (0, 1e9)},
    }
    names = (*tuple(numbers), "size_bytes", "compressed_bytes", "runtime_version", "host", "method")
    fields = Fields(variant.get("measured"), variant.where, variant.at("measured"), (), names)
    result: dict[str, Any] = {}
    for name in names:
        if name not in fields:
            continue
        if name in numbers:
            result[name] = fields.number(name, *numbers[name])
        elif name.endswith("_bytes"):
            result[name] = fields.integer(name, 0, MAX_FILE)
        else:
            result[name] = fields.text(name)
    return MappingProxyType(result)


def _read_variant_budget(variant: Fields) -> Mapping[str, float]:
    if "budget" not in variant:
        return MappingProxyType({})
    limits = {"accuracy_drop": (0.0, 1.0), "p95_ms": (1e-6, 1e9)}
    fields = Fields(variant.get("budget"), variant.where, variant.at("budget"), (), tuple(limits))
    return MappingProxyType({name: fields.number(name, *limits[name]) for name in limits if name in fields})


def _check_id(fields: Fields, runtime: str, precision: str) -> str:
    """Return the variant's id when it is runtime/precision, or that with ``-`` and a suffix."""
    value = fields.get("id")
    base = f"{runtime}/{precision}"
    suffix = value[len(base) + 1 :] if isinstance(value, str) and value.startswith(base + "-") else None
    if value != base and (suffix is None or not _SUFFIX.fullmatch(suffix)):
        raise fields.error("id", f"it disagrees with runtime and precision: use '{base}' or '{base}-<suffix>'")
    return str(value)


def _read_variant(value: Any, where: str, path: str) -> m.Variant:
    names = ("id", "runtime", "precision", "entry", "architectures", "requires", "files", "measured")
    fields = Fields(value, where, path, names, ("budget",))
    runtime = fields.choice("runtime", RUNTIMES)
    precision = fields.choice("precision", PRECISIONS)
    variant_id = _check_id(fields, runtime, precision)
    directory = f"variants/{variant_id}/"
    files = []
    for index, item in enumerate(fields.array("files", 1, MAX_FILES)):
        at = f"{path}.files[{index}]"
        entry = _read_file(item, where, at)
        if not entry.path.startswith(directory):
            raise field_error(where, at + ".path", entry.path, f"it is outside the variant's directory '{directory}'")
        files.append(entry)
    entry_path = check_relative(fields.get("entry"), where, fields.at("entry"))
    if entry_path not in {entry.path for entry in files}:
        raise fields.error("entry", "it is not one of the variant's files")
    return m.Variant(
        id=variant_id,
        runtime=runtime,
        precision=precision,
        entry=entry_path,
        architectures=fields.texts("architectures", _WORD, 1, 16),
        requires=_read_requires(fields),
        files=tuple(files),
        measured=_read_measured(fields),
        budget=_read_variant_budget(fields),
    )


def _read_variants(top: Fields) -> tuple[m.Variant, ...]:
    variants: list[m.Variant] = []
    for index, value in enumerate(top.array("variants", 1, MAX_VARIANTS)):
        path = f"variants[{index}]"
        variant = _read_variant(value, top.where, path)
        if any(variant.id == other.id for other in variants):
            raise field_error(top.where, path + ".id", variant.id, "the id appears twice; ids are unique")
        variants.append(variant)
    if sum(len(variant.files) for variant in variants) > MAX_FILES:
        raise top.error("variants", f"they have more than {MAX_FILES} files together")
    return tuple(variants)


def _read_golden(top: Fields) -> m.Golden:
    names = ("path", "size", "sha256", "samples", "metric", "reference_score")
    fields = Fields(top.get("golden"), top.where, "golden", names)
    path = check_relative(fields.get("path"), top.where, "golden.path")
    if not (path.startswith("golden/") and path.endswith(".npz")):
        raise fields.error("path", "use a .npz file below 'golden/', such as 'golden/golden.npz'")
    metric = fields.choice("metric", METRICS)
    score = fields.number("reference_score", 0, 1)
    if metric == "relative_error" and score != 1:
        raise fields.error("reference_score", "the reference agrees with itself: use 1 with metric relative_error")
    return m.Golden(
        path=path,
        size=fields.integer("size", 1, MAX_FILE),
        sha256=fields.text("sha256", _HEX, _HEX_FIX),
        samples=fields.integer("samples", 1, MAX_SAMPLES),
        metric=metric,
        reference_score=score,
    )


def _refuse_clashes(where: str, variants: tuple[m.Variant, ...], golden: m.Golden) -> None:
    """Refuse paths that are listed twice, differ in case only, or are both a file and a directory."""
    seen: set[str] = set()
    for variant_index, variant in enumerate(variants):
        for index, entry in enumerate(variant.files):
            # Case is folded because a store may lie on a file system that does not tell case (vfat, exfat).
            if entry.path.casefold() in seen:
                at = f"variants[{variant_index}].files[{index}].path"
                raise field_error(where, at, entry.path, "the path appears twice (case does not count)")
            seen.add(entry.path.casefold())
    seen.add(golden.path.casefold())
    for path in seen:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent in seen:
                raise field_error(where, "files", parent, f"it is a file and also the directory of '{path}'")


def _read_budget(value: Any, where: str, path: str, complete: bool) -> dict[str, Any]:
    fields = Fields(value, where, path, m.BUDGET_FIELDS if complete else (), m.BUDGET_FIELDS)
    result: dict[str, Any] = {}
    if "accuracy_drop" in fields:
        result["accuracy_drop"] = fields.number("accuracy_drop", 0, 1)
    if "p95_ms" in fields:
        result["p95_ms"] = fields.number("p95_ms", 1e-6, 1e9)
    if "p95_ratio" in fields:
        result["p95_ratio"] = fields.number("p95_ratio", 1e-3, 1e6)
    if "memory_mib" in fields:
        result["memory_mib"] = fields.integer("memory_mib", 1, MAX_MIB)
    return result


def _read_budgets(top: Fields) -> tuple[m.Budget, Mapping[str, Mapping[str, float]]]:
    fields = Fields(top.get("budgets"), top.where, "budgets", ("default",), ("strata",))
    default = m.Budget(**_read_budget(fields.get("default"), top.where, "budgets.default", True))
    strata: dict[str, Mapping[str, float]] = {}
    raw = fields.get("strata") if "strata" in fields else {}
    if not isinstance(raw, dict) or len(raw) > MAX_STRATA:
        raise fields.error("strata", f"use an object of at most {MAX_STRATA} patterns")
    for pattern, value in raw.items():
        at = f"budgets.strata.{pattern[:80]}"
        if not _STRATUM.fullmatch(pattern):
            raise field_error(top.where, at, pattern, "use a pattern of a stratum, such as 'cpu/openvino/*'")
        strata[pattern] = MappingProxyType(_read_budget(value, top.where, at, False))
    return default, MappingProxyType(strata)

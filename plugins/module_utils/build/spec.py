# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The release spec: the short YAML file a release is built from. Nothing here opens the files it names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..registry.errors import RegistryError
from ..registry.uris import SCHEME, parse_uri
from ..release.errors import ReleaseError, field_error
from ..release.paths import check_name, check_version
from .libs import require
from .savedmodel import TfxSpec, tfx_spec
from .spec_fields import boolean, file, known, optional_file, strings, text
from .spec_methods import CALIBRATED, pruning, quantization, variant_budget

METRICS = ("top1", "relative_error")
ARCHITECTURES = ("x86_64", "aarch64")
VARIANT_ID = re.compile(
    r"^(onnxruntime|openvino|litert|tensorrt)/(fp32|fp16|bf16|int8|int4)(-[a-z0-9][a-z0-9._-]{0,31})?$"
)
MAX_SPEC_BYTES = 1 << 20
REMOTE_ROLES = ("onnx", "calibration", "golden", "validation")

TOP_FIELDS = frozenset(
    (
        *("model", "version", "security_counter", "onnx", "calibration", "golden", "validation", "metric"),
        *("variants", "budgets", "source", "skip_validation", "tfx"),
    )
)
SOURCE_FIELDS = frozenset(("git_revision", "data_sha256", "parent", "mlflow_run"))


@dataclass(frozen=True)
class VariantSpec:
    """One variant to build. ``artifact`` holds prebuilt files, the entry first; then ``method`` is ``none``."""

    id: str
    runtime: str
    precision: str
    architectures: tuple[str, ...]
    requires: dict[str, Any]
    method: str
    options: dict[str, Any]
    calibration: Path | None
    artifact: tuple[Path, ...]
    skip_validation: bool
    prune: dict[str, Any] = field(default_factory=dict)  # empty: not pruned
    budget: dict[str, float] = field(default_factory=dict)  # tightens the release's, for this variant


@dataclass(frozen=True)
class Spec:
    """A parsed release spec; every path is absolute."""

    path: Path
    model: str
    version: str
    security_counter: int
    onnx: Path
    calibration: Path | None
    golden: Path
    validation: Path | None
    metric: str
    variants: tuple[VariantSpec, ...]
    budgets: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    tfx: TfxSpec | None = None  # then `onnx` means nothing here
    remote: dict[str, str] = field(default_factory=dict)  # role -> models:/ address; its path here means nothing

    def inputs(self) -> dict[str, Path]:
        """Role -> input file, for every file the spec names."""
        found: dict[str, Path] = {"onnx": self.onnx, "golden": self.golden}
        for role, path in (("calibration", self.calibration), ("validation", self.validation)):
            if path is not None:
                found[role] = path
        for variant in self.variants:
            if variant.calibration is not None:
                found["calibration:" + variant.id] = variant.calibration
            for number, path in enumerate(variant.artifact):
                found[f"artifact:{variant.id}:{number}"] = path
        return found


def load_spec(path: Path) -> Spec:
    """Read and check a spec file; ReleaseError names file, field, value and remedy."""
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise ReleaseError(f"{path}: larger than 1 MiB, which no release spec is; is it the right file?")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ReleaseError(f"{path}: cannot read the release spec: {exc}") from exc
    yaml = require("yaml", "Reading a release spec")
    try:
        document = yaml.load(text, Loader=_strict_loader(yaml))  # a SafeLoader subclass
    except yaml.YAMLError as exc:
        raise ReleaseError(f"{path}: not valid YAML: {exc}") from exc
    return parse_spec(document, path)


def _strict_loader(yaml: Any) -> Any:
    """A SafeLoader that refuses duplicate keys: the last one would win in silence."""

    class StrictLoader(yaml.SafeLoader):  # type: ignore[misc,name-defined]
        """SafeLoader without duplicate keys."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """Build a mapping, refusing a key that is there twice."""
            seen = set()
            for key_node, _value in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, str) and key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
                seen.add(str(key))
            return super().construct_mapping(node, deep)

    return StrictLoader


def parse_spec(document: Any, path: Path) -> Spec:
    """Check a spec document; ``path`` names the file in errors and is where relative paths start."""
    where = str(path)
    if not isinstance(document, Mapping):
        raise ReleaseError(f"{where}: the spec is not a mapping; it starts with `model:`, `version:`, ...")
    known(where, "", document, TOP_FIELDS)
    base = path.resolve().parent
    version = document.get("version")
    if not isinstance(version, str):
        raise field_error(where, "version", version, 'a string such as "1.4.0" (quote it: YAML reads 1.4 as a number)')
    counter = document.get("security_counter")
    if not isinstance(counter, int) or isinstance(counter, bool) or counter < 0:
        raise field_error(
            where, "security_counter", counter, "a whole number, 0 or more, that never falls between releases"
        )
    metric = document.get("metric", "top1")
    if metric not in METRICS:
        raise field_error(where, "metric", metric, "one of " + ", ".join(METRICS))
    skip = boolean(where, "skip_validation", document.get("skip_validation", False))
    document, remote = _remote(where, document)
    tfx = _tfx(where, document, base)
    document = {**document, "onnx": "converted"} if tfx else document
    spec = Spec(
        path=path,
        remote=remote,
        tfx=tfx,
        model=check_name(text(where, "model", document.get("model")), where, "model"),
        version=check_version(version, where, "version"),
        security_counter=counter,
        onnx=file(where, "onnx", document.get("onnx"), base),
        calibration=optional_file(where, "calibration", document.get("calibration"), base),
        golden=file(where, "golden", document.get("golden"), base),
        validation=optional_file(where, "validation", document.get("validation"), base),
        metric=metric,
        variants=_variants(where, document.get("variants"), base, skip),
        budgets=_budgets(where, document.get("budgets")),
        source=_source(where, document.get("source")),
    )
    for variant in spec.variants:
        if variant.method in CALIBRATED and (variant.calibration or spec.calibration) is None:
            raise field_error(
                where,
                "calibration",
                None,
                f"variant {variant.id} is calibrated: name an .npz with one array per model input",
            )
    return spec


def _tfx(where: str, document: Mapping[str, Any], base: Path) -> TfxSpec | None:
    if document.get("tfx") is None:
        return None
    if document.get("onnx") is not None:
        raise field_error(where, "tfx", document["tfx"], "one of `onnx` and `tfx`: the model comes from one place")
    return tfx_spec(where, document["tfx"], base)


def _remote(where: str, document: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    """The document with a name in place of every address of a registry, and the addresses by role."""
    found: dict[str, str] = {}
    for role in REMOTE_ROLES:
        value = document.get(role)
        if isinstance(value, str) and value.startswith(SCHEME):
            try:
                uri = parse_uri(value)
            except RegistryError as exc:
                raise field_error(where, role, value, str(exc)) from exc
            if role != "onnx" and uri.path is None:
                raise field_error(where, role, value, "an address with #PATH: which file of the model version is it?")
            found[role] = value
    return {**document, **dict.fromkeys(found, "remote")}, found


def _variants(where: str, value: Any, base: Path, skip: bool) -> tuple[VariantSpec, ...]:
    if not isinstance(value, list) or not value:
        raise field_error(
            where, "variants", value, "a list with at least one {id: runtime/precision}, most preferred first"
        )
    variants = tuple(_variant(where, f"variants[{i}]", item, base, skip) for i, item in enumerate(value))
    ids = [variant.id for variant in variants]
    for number, name in enumerate(ids):
        if name in ids[:number]:
            raise field_error(
                where, f"variants[{number}].id", name, f"an id that is there once; add a suffix, as in {name}-b"
            )
    return variants


def _variant(where: str, at: str, value: Any, base: Path, skip: bool) -> VariantSpec:
    if not isinstance(value, Mapping):
        raise field_error(where, at, value, "a mapping with at least `id: runtime/precision`")
    fields = (
        *("id", "requires", "architectures", "quantize", "artifact", "calibration", "skip_validation"),
        *("prune", "budget"),
    )
    known(where, at + ".", value, frozenset(fields))
    found = VARIANT_ID.match(value["id"]) if isinstance(value.get("id"), str) else None
    if not found:
        raise field_error(
            where,
            at + ".id",
            value.get("id"),
            "runtime/precision[-suffix], for example onnxruntime/int8, openvino/fp32, litert/int8",
        )
    runtime, precision = found.group(1), found.group(2)
    artifact = _artifact(where, at + ".artifact", value.get("artifact"), base)
    method, options = quantization(where, at + ".quantize", value.get("quantize"), runtime, precision, bool(artifact))
    requires = value.get("requires") or {}
    if not isinstance(requires, Mapping):
        raise field_error(where, at + ".requires", requires, "a mapping, for example {cpu_flags_any: [avx_vnni]}")
    return VariantSpec(
        id=value["id"],
        runtime=runtime,
        precision=precision,
        architectures=tuple(strings(where, at + ".architectures", value.get("architectures", list(ARCHITECTURES)))),
        requires={"accelerators": ["cpu"], **requires},
        method=method,
        options=options,
        calibration=optional_file(where, at + ".calibration", value.get("calibration"), base),
        artifact=artifact,
        skip_validation=boolean(where, at + ".skip_validation", value.get("skip_validation", skip)),
        prune=pruning(where, at + ".prune", value.get("prune"), bool(artifact)),
        budget=variant_budget(where, at + ".budget", value.get("budget")),
    )


def _artifact(where: str, at: str, value: Any, base: Path) -> tuple[Path, ...]:
    if value is None:
        return ()
    names = strings(where, at, [value] if isinstance(value, str) else value)
    if not names:
        raise field_error(where, at, value, "a path or a list of paths, the file that the runtime opens first")
    paths = tuple(base / name for name in names)
    if len({path.name for path in paths}) != len(paths):
        raise field_error(where, at, value, "files with different names: they end in one directory")
    return paths


def _budgets(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("default"), Mapping):
        raise field_error(
            where, "budgets", value, "a mapping {default: {accuracy_drop, p95_ms, p95_ratio, memory_mib}, strata: {}}"
        )
    known(where, "budgets.", value, frozenset(("default", "strata")))
    return {"default": dict(value["default"]), "strata": dict(value.get("strata") or {})}


def _source(where: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise field_error(where, "source", value, "a mapping with any of " + ", ".join(sorted(SOURCE_FIELDS)))
    known(where, "source.", value, SOURCE_FIELDS)
    return dict(value)

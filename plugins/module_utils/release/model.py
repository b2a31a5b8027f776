# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a release is, as immutable data: the parts of ``release.json``, format 1."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ReleaseError

FORMAT = 1
MANIFEST_NAME = "release.json"
SIGNATURE_NAME = "model.sig"
MAX_MANIFEST = 4 * 1024 * 1024
"""Largest accepted ``release.json``, bytes."""

BUDGET_FIELDS = ("accuracy_drop", "p95_ms", "p95_ratio", "memory_mib")


@dataclass(frozen=True)
class FileEntry:
    """One file of a release: path relative to it, size in bytes, bare hex SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the model: Open Inference Protocol datatype, shape with -1 for any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class InputFile:
    """A file that was fetched for the build: what it was for, where from (a version, not an alias), size in bytes."""

    role: str
    uri: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where the release came from; None where it is not known."""

    git_revision: str | None
    data_sha256: str | None
    parent: str | None
    mlflow_run: str | None
    inputs: tuple[InputFile, ...] = ()


@dataclass(frozen=True)
class Requires:
    """What a variant asks of a device; empty tuples, an empty text and 0 ask for nothing."""

    accelerators: tuple[str, ...]
    cpu_flags_any: tuple[str, ...]
    runtime_version: str
    memory_mib: int


@dataclass(frozen=True)
class Variant:
    """One build of the model for a runtime and precision; ``entry`` is the path the runtime is given."""

    id: str
    runtime: str
    precision: str
    entry: str
    architectures: tuple[str, ...]
    requires: Requires
    files: tuple[FileEntry, ...]
    measured: Mapping[str, Any]
    budget: Mapping[str, float] = field(default_factory=dict)
    """Limits of this variant alone; they tighten those of the stratum."""

    @property
    def directory(self) -> str:
        """The variant's directory inside the release; all its files are below it."""
        return "variants/" + self.id

    @property
    def size(self) -> int:
        """Sum of the sizes of the variant's files, bytes."""
        return sum(entry.size for entry in self.files)


@dataclass(frozen=True)
class Golden:
    """The golden samples: their file, how many, how outputs are scored, and the fp32 reference's score (0..1)."""

    path: str
    size: int
    sha256: str
    samples: int
    metric: str
    reference_score: float

    @property
    def entry(self) -> FileEntry:
        """The golden file as a file of the release."""
        return FileEntry(self.path, self.size, self.sha256)


@dataclass(frozen=True)
class Budget:
    """What a device may lose: share of accuracy, p95 in ms, p95 relative to the incumbent, peak memory in MiB."""

    accuracy_drop: float
    p95_ms: float
    p95_ratio: float
    memory_mib: int


@dataclass(frozen=True)
class Manifest:
    """A checked ``release.json``. ``raw`` is the file's bytes, ``digest`` the release digest (``sha256:`` + hex)."""

    model: str
    version: str
    created: str
    security_counter: int
    source: Source
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...]
    golden: Golden
    budget_default: Budget
    budget_strata: Mapping[str, Mapping[str, float]]
    raw: bytes
    digest: str

    @property
    def created_at(self) -> datetime.datetime:
        """``created`` as an aware datetime in UTC."""
        naive = datetime.datetime.strptime(self.created, "%Y-%m-%dT%H:%M:%SZ")
        return naive.replace(tzinfo=datetime.timezone.utc)

    def variant(self, variant_id: str) -> Variant:
        """Return the variant with this id. Raises ReleaseError when the release has none."""
        for candidate in self.variants:
            if candidate.id == variant_id:
                return candidate
        known = ", ".join(candidate.id for candidate in self.variants)
        raise ReleaseError(f"release {self.model} {self.version}: has no variant '{variant_id}'; it has {known}")

    def files(self, variant_ids: Iterable[str] | None = None) -> list[FileEntry]:
        """Return the golden file and the files of the named variants (all of them when None), golden first."""
        wanted = self.variants if variant_ids is None else [self.variant(item) for item in variant_ids]
        entries = [self.golden.entry]
        for variant in wanted:
            entries.extend(variant.files)
        return entries

    def budget(self, stratum: str, variant_id: str | None = None) -> Budget:
        """Return the budget of a stratum: the default, overlaid by each matching pattern, the longest last.

        A variant's own limits tighten it. Raises ReleaseError when the release has no such variant.
        """
        merged: dict[str, Any] = {name: getattr(self.budget_default, name) for name in BUDGET_FIELDS}
        for pattern in sorted(self.budget_strata, key=lambda item: (len(item), item)):
            if fnmatch.fnmatchcase(stratum, pattern):
                merged.update(self.budget_strata[pattern])
        for name, limit in (self.variant(variant_id).budget if variant_id else {}).items():
            merged[name] = min(merged[name], limit)
        return Budget(**merged)

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The record beside a release of what it was built from; it is not part of the release."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..release.errors import ReleaseError
from . import libs
from .output import digest_of, write_durably
from .spec import Spec

FORMAT = 1  # raise it when the same inputs are to give another release


@dataclass(frozen=True)
class Record:
    """Fingerprint of inputs and spec, digest of the release that came of them, versions of the tools."""

    fingerprint: str
    digest: str
    tools: dict[str, str | None]

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """The record at ``path``; None when there is none."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(values["fingerprint"], values["digest"], dict(values["tools"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ReleaseError(
                f"{path}: cannot read the build record ({exc}); move it and its release away and build again"
            ) from exc

    def save(self, path: Path) -> None:
        """Write it durably."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"
        write_durably(path, text.encode("utf-8"))


def fingerprint(spec: Spec, hashes: Mapping[str, str]) -> str:
    """Hex sha256 over what the release follows from: the spec's content and the input files' digests.

    Paths do not count: the same files elsewhere give the same release. Neither do versions of tools, or an upgrade of
    onnxruntime would turn every released version into a conflict, nor the source facts, or every commit would.
    """
    # An option that is not used leaves no trace: releases from before it existed keep their fingerprint.
    variants = [
        {
            key: value
            for key, value in asdict(variant).items()
            if key not in ("calibration", "artifact") and (value or key not in ("prune", "budget"))
        }
        | {"artifact": [os.path.basename(path) for path in variant.artifact]}
        for variant in spec.variants
    ]
    values = {
        "format": FORMAT,
        "model": spec.model,
        "version": spec.version,
        "security_counter": spec.security_counter,
        "metric": spec.metric,
        "variants": variants,
        "budgets": spec.budgets,
        "files": dict(hashes),
    }
    return digest_of(values)


def tool_versions(spec: Spec) -> dict[str, str | None]:
    """Installed versions of the tools that this spec uses."""
    names = {"onnx", "onnxruntime", "numpy"}
    for variant in spec.variants:
        names.update({"openvino": ("openvino",), "litert": ("ai_edge_litert",)}.get(variant.runtime, ()))
        names.update({"nncf": ("nncf",), "litert-static": ("ai_edge_quantizer",)}.get(variant.method, ()))
    return {name: libs.version(name) for name in sorted(names)}

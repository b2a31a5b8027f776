"""The real K3s for tests, from the directory in EDGEAI_ARTIFACTS."""

from __future__ import annotations

from pathlib import Path

from support.artifacts import make_artifacts


def sign_k3s(given: Path, made: Path) -> str:
    """Sign a copy of the newest K3s in ``given`` as ``made/artifacts``, its key beside it. Returns its version."""
    programs = [*given.glob("k3s/*/x86_64/k3s"), *given.glob("k3s/*/k3s")]
    if not programs:
        raise FileNotFoundError(f"{given}: no k3s/VERSION/x86_64/k3s in there")
    program = max(programs)
    version = program.relative_to(given).parts[1]
    made.mkdir(parents=True, exist_ok=True)
    content = {("k3s", version, "x86_64", "k3s"): program.read_bytes()}
    make_artifacts(made / "artifacts", content, made / "release.pem")
    return version

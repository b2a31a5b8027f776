"""Sign a copy of the K3s in a directory of artifacts: artifacts.py FROM TO. Prints the version."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / ".ansible" / "collections")]

from support.artifacts import make_artifacts


def main(given: Path, made: Path) -> None:
    """Write ``made/artifacts`` with the newest version in ``given``, and the key beside it."""
    program = max(given.glob("k3s/*/x86_64/k3s"), default=None) or max(given.glob("k3s/*/k3s"))
    version = program.relative_to(given).parts[1]
    made.mkdir(parents=True, exist_ok=True)
    content = {("k3s", version, "x86_64", "k3s"): program.read_bytes()}
    make_artifacts(made / "artifacts", content, made / "release.pem")
    sys.stdout.write(version)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

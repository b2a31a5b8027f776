"""Sign a copy of the K3s in a directory of artifacts: artifacts.py FROM TO. Prints the version."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / ".ansible" / "collections")]

from support.cluster import sign_k3s

if __name__ == "__main__":
    sys.stdout.write(sign_k3s(Path(sys.argv[1]), Path(sys.argv[2])))

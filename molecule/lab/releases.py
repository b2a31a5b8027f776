"""Build and sign the releases of the scenarios, those that are not there yet: tiny real models, for every architecture.

Usage: releases.py FLEET_HOME   (keys/release.pem below it signs, releases/ receives)
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / ".ansible" / "collections")]

from support.fleet import MODEL, build_release


def main(home: Path) -> None:
    """Build what is missing below ``home``."""
    for version in ("1.0.0", "1.1.0"):
        if not (home / "releases" / MODEL / version / "model.sig").exists():
            build_release(home / "releases", version, home / "keys" / "release.pem")
            print(version)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Small virtual environments below build/ for tests that need a big package: made once, shared by all runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def ensure(name: str) -> Path:
    """Return the ``bin`` of ``build/<name>``, which has what ``requirements/<name>.txt`` names."""
    requirements = ROOT / "requirements" / f"{name}.txt"
    home = ROOT / "build" / name
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    stamp = home / "edgeai-requirements.sha256"
    home.parent.mkdir(exist_ok=True)
    with open(home.parent / f".{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
            install = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
            environment = {**os.environ, "PIP_NO_INPUT": "1"}
            subprocess.run([*install, "-r", str(requirements)], check=True, timeout=900, env=environment)
            stamp.write_text(wanted, encoding="utf-8")
    return home / "bin"

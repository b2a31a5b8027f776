"""Tools that need an environment of their own: made once below build/, through pip, and kept."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from support.fleet import ROOT


def tool_venv(name: str, *requirements: str) -> Path:
    """Return the directory of a virtual environment with ``requirements``, with its programs in ``bin``."""
    home = ROOT / "build" / "venvs" / name
    home.parent.mkdir(parents=True, exist_ok=True)
    stamp = home / "requirements"
    with open(home.parent / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != "\n".join(requirements):
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=120)
            pip = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *requirements], check=True, timeout=280)
            stamp.write_text("\n".join(requirements), encoding="utf-8")
    return home

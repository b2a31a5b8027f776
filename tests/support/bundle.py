"""Collections of others, out of PyPI's bundle of collections: it needs no Galaxy server."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import zipfile
from pathlib import Path

from support.fleet import ROOT

BUNDLE = "ansible==12.3.0"  # awx.awx 24.6.1, community.general 12.2.0, kubernetes.core 6.2.0
WANTED = ("awx/awx", "community/general", "kubernetes/core")


def collections() -> Path:
    """Return a directory for ANSIBLE_COLLECTIONS_PATH, filled once through pip."""
    base = ROOT / "build" / "venvs" / "collections"
    base.mkdir(parents=True, exist_ok=True)
    with open(base / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete, content = base / "complete", "\n".join((BUNDLE, *WANTED))
        if not complete.exists() or complete.read_text(encoding="utf-8") != content:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--dest", str(base), BUNDLE], check=True, timeout=280)
            (wheel,) = base.glob("ansible-*.whl")
            wanted = tuple(f"ansible_collections/{name}/" for name in WANTED)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(base, [name for name in archive.namelist() if name.startswith(wanted)])
            wheel.unlink()
            complete.write_text(content, encoding="utf-8")
    return base

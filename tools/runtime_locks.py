# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Write requirements/locks.json, the locks of all environments in the table of runtimes, and runtime-*.txt beside it.

    python3 tools/runtime_locks.py                 resolve what is new in the table, keep the rest
    python3 tools/runtime_locks.py --refresh       resolve everything again: newer dependencies, newer hashes
    python3 tools/runtime_locks.py --requirements  only requirements/runtime-*.txt, from the table

The hashes are those that the package index states for each wheel; look at the difference before it is committed.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ansible" / "collections"))

from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import (
    Environment,
    dump,
    read_locks,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse_build import (
    all_wishes,
    requirement_files,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse_resolve import resolve
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_lock import Package

LOCKS = ROOT / "requirements" / "locks.json"


def write_requirements() -> None:
    """Write requirements/runtime-*.txt."""
    for name, text in requirement_files().items():
        (ROOT / "requirements" / name).write_text(text, encoding="utf-8")


def write_locks(refresh: bool) -> None:
    """Write requirements/locks.json, after each environment: what was resolved stays when a later one fails."""
    old = read_locks(LOCKS) if LOCKS.exists() and not refresh else None
    kept = {(item.package, item.version, item.target): item for item in old.environments} if old else {}
    wheels, environments = dict(old.wheels) if old else {}, []
    wishes = all_wishes()
    for wish in wishes:
        before = kept.get((wish.package, wish.version, wish.target))
        if before is not None and before.requirements == wish.requirements:
            environments.append(before)
            continue
        print(f"resolving {wish.package} {wish.version}, {wish.target.python} {wish.target.architecture}", flush=True)
        found = [item.package for item in resolve(wish.requirements, wish.target)]
        wheels.update({package.file: package for package in found})
        files = tuple(sorted(package.file for package in found))
        environments.append(
            Environment(wish.runtime, wish.package, wish.version, wish.target, wish.requirements, files)
        )
        write([*environments, *kept.values()], wheels)
    if old is None or set(environments) != set(old.environments):
        write(environments, wheels)


def write(environments: list[Environment], wheels: dict[str, Package]) -> None:
    """Write the file: each environment once, and the wheels that one of them has."""
    unique = {(item.package, item.version, item.target): item for item in reversed(environments)}
    used = {file: wheels[file] for item in unique.values() for file in item.wheels}
    created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    LOCKS.write_bytes(dump(created, unique.values(), used))


def main() -> None:
    """Read the options and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--refresh", action="store_true", help="resolve everything again")
    parser.add_argument("--requirements", action="store_true", help="write only requirements/runtime-*.txt")
    options = parser.parse_args()
    write_requirements()
    if not options.requirements:
        write_locks(options.refresh)


if __name__ == "__main__":
    main()

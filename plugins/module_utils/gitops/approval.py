# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What was approved: a plan's hash, recorded for exactly the files it was made from.

A pull request's pipeline records the plan under the digest of its inputs (inventory, policies, keys, configuration).
The pipeline after the merge looks it up by the digest of what it has checked out: no record means that something
changed after the plan was looked at, and the record closest to it says what.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from . import files
from .errors import RepoError

FORMAT = 1
FOLDER = "plans"
MAX_INPUTS = 10_000
_SKIPPED = (".git", "__pycache__")


def read_inputs(repo: str, paths: Iterable[str]) -> dict[str, str]:
    """Return path -> hex SHA-256 of every file at or below ``paths`` (relative to the repository). Raises RepoError."""
    found: dict[str, str] = {}
    for path in paths:
        for name in _walk(repo, os.path.normpath(path)):
            content = files.read(repo, name)
            if content is not None:
                found[name] = hashlib.sha256(content).hexdigest()
            if len(found) > MAX_INPUTS:
                raise RepoError(f"{repo}: more than {MAX_INPUTS} files below {path}: is that the inventory?")
    if not found:
        raise RepoError(f"{repo}: nothing is at {', '.join(paths)}: is this a fleet repository?")
    return dict(sorted(found.items()))


def _walk(repo: str, path: str) -> list[str]:
    if path.startswith(("/", "..")):
        raise RepoError(f"{path}: is not inside the repository")
    full = os.path.join(repo, path)
    if not os.path.isdir(full):
        return [path] if os.path.lexists(full) else []
    names = []
    for folder, folders, here in os.walk(full):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        names += [
            os.path.relpath(os.path.join(folder, name), repo) for name in sorted(here) if not name.endswith(".pyc")
        ]
    return names


def inputs_digest(inputs: Mapping[str, str]) -> str:
    """Hex SHA-256 over all inputs, with their paths."""
    text = json.dumps(dict(inputs), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def record(
    environment: str, inputs: Mapping[str, str], plans: Iterable[Mapping[str, Any]], commit: str
) -> dict[str, Any]:
    """Return what is remembered of these plans; nothing in it is a time, so the same plan is the same record."""
    models = {
        str(plan["model"]): {
            "plan_hash": plan["plan_hash"],
            "version": plan["version"],
            "digest": plan["digest"],
            "devices": len(plan["hosts"]),
            "waves": len(plan["waves"]),
        }
        for plan in plans
    }
    return {
        "format": FORMAT, "environment": environment, "commit": commit, "inputs_digest": inputs_digest(inputs),
        "inputs": dict(inputs), "models": models,
    }  # fmt: skip


def write_record(folder: str, document: Mapping[str, Any], check: bool = False) -> bool:
    """Keep a record below ``folder``; returns whether that changes anything. The commit alone is no change.

    check: write nothing.
    """
    path = f"{FOLDER}/{document['inputs_digest']}.json"
    known = _load(folder, path)
    if known is not None and {**known, "commit": ""} == {**document, "commit": ""}:
        return False
    if not check:
        files.write(folder, path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("utf-8"))
    return True


def find_record(folder: str, environment: str, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the record for exactly these inputs. Raises RepoError that names what changed since a plan was made."""
    wanted = inputs_digest(inputs)
    known = _load(folder, f"{FOLDER}/{wanted}.json")
    if known is not None and known.get("environment") == environment:
        return known
    closest = _closest(folder, inputs)
    if closest is None:
        raise RepoError(
            f"{environment}: no plan was ever recorded: plan first (edgeai.fleet.plan -e edge_record=true), "
            "which a pull request's pipeline does"
        )
    raise RepoError(
        f"{environment}: no plan was approved for what is checked out. Against the nearest plan, of commit "
        f"{closest['commit'][:12] or 'unknown'}, these differ: {', '.join(_changes(closest['inputs'], inputs))}. "
        "Plan again, look at it, and approve it"
    )


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    changed = [path for path in sorted({*before, *now}) if before.get(path) != now.get(path)]
    return changed[:10] + ([f"and {len(changed) - 10} more"] if len(changed) > 10 else [])


def _closest(folder: str, inputs: Mapping[str, str]) -> dict[str, Any] | None:
    base = os.path.join(folder, FOLDER)
    names = sorted(os.listdir(base)) if os.path.isdir(base) else []
    found = [document for name in names if (document := _load(folder, f"{FOLDER}/{name}")) is not None]
    return min(found, key=lambda item: len(_changes(item["inputs"], inputs)), default=None)


def _load(folder: str, path: str) -> dict[str, Any] | None:
    raw = files.read(folder, path)
    if raw is None:
        return None
    try:
        document = json.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise RepoError(f"{folder}/{path}: not a recorded plan: {error}; take it back from git") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RepoError(f"{folder}/{path}: not a recorded plan of format {FORMAT}: take it back from git")
    return document

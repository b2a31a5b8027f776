# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What rendering again does to a repository that people have worked in. Pure: three digests in, one decision out.

Three states of a file meet: as it was rendered last (`base`, remembered in the lock file), as it is now (`disk`), and
as the template gives it today (`new`). Only a file that is byte for byte what was rendered last is ever written over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import RepoError
from .template import Rendered

LOCK = ".edgeai/template.json"
ASIDE = ".edgeai/new"
FORMAT = 1

CREATED = "created"
UPDATED = "updated"
REMOVED = "removed"
UNCHANGED = "unchanged"
KEPT = "kept"
DELETED = "deleted"
CONFLICT = "conflict"
WRITES = (CREATED, UPDATED, REMOVED)


@dataclass
class Lock:
    """The lock file: what was rendered last, and with which parameters. digests: path -> hex SHA-256."""

    parameters: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    digests: dict[str, str] = field(default_factory=dict)

    def dump(self) -> bytes:
        """The file's content: sorted, one entry a line, so that a diff of it says what an upgrade did."""
        document = {
            "about": "Written by edgeai.fleet.new_repo; it tells files that the team changed from those it did not.",
            "format": FORMAT,
            "version": self.version,
            "parameters": self.parameters,
            "files": self.digests,
        }
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("utf-8")


def parse_lock(raw: bytes | None) -> Lock:
    """Return the lock of a lock file's content, an empty one for None. Raises RepoError when it is damaged."""
    if raw is None:
        return Lock()
    fix = f"{LOCK}: not what was written there: take it back from git (git checkout -- {LOCK})"
    try:
        document = json.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise RepoError(f"{fix}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RepoError(f"{fix}; a newer format needs a newer edgeai.fleet")
    parameters, files = document.get("parameters"), document.get("files")
    if not isinstance(parameters, dict) or not isinstance(files, dict):
        raise RepoError(fix)
    return Lock(parameters, str(document.get("version") or ""), {str(key): str(value) for key, value in files.items()})


@dataclass(frozen=True)
class Step:
    """What happens to one path. content: what is written there; aside: the new version, put out of the way."""

    path: str
    action: str
    content: bytes | None = None
    aside: bytes | None = None
    reason: str = ""


def digest(content: bytes | None) -> str | None:
    """Hex SHA-256 of a file's content, None for a file that is not there."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def decide(new: Mapping[str, Rendered], disk: Mapping[str, bytes | None], lock: Lock) -> list[Step]:
    """Return a step for every path of the template, now or last time. disk: content of each such path, None: absent."""
    steps = [_present(path, new[path], disk.get(path), lock.digests.get(path)) for path in sorted(new)]
    steps += [_gone(path, disk.get(path), lock.digests[path]) for path in sorted(set(lock.digests) - set(new))]
    return sorted(steps, key=lambda step: step.path)


def next_lock(new: Mapping[str, Rendered], parameters: Mapping[str, Any], version: str) -> Lock:
    """The lock after the steps were done: what the template gives today, also where the team's file stays."""
    return Lock(dict(parameters), version, {path: str(digest(item.content)) for path, item in new.items()})


def _present(path: str, item: Rendered, disk: bytes | None, base: str | None) -> Step:
    want, have = digest(item.content), digest(disk)
    if have == want:
        return Step(path, UNCHANGED)
    if disk is None:
        if base is None:
            return Step(path, CREATED, item.content)
        return Step(path, DELETED, reason="the team deleted it; it stays deleted")
    if item.seed:
        return Step(path, KEPT, reason="it is the team's own since it was made")
    if have == base:
        return Step(path, UPDATED, item.content)
    if want == base:
        return Step(path, KEPT, reason="the team changed it, the template did not")
    why = "the team changed it and so did the template" if base else "it was here before and is not the template's"
    return Step(path, CONFLICT, aside=item.content, reason=f"{why}; the new version is in {ASIDE}/{path}")


def _gone(path: str, disk: bytes | None, base: str) -> Step:
    if disk is None:
        return Step(path, UNCHANGED)
    if digest(disk) == base:
        return Step(path, REMOVED, reason="it is no longer part of the template")
    return Step(path, KEPT, reason="it is no longer part of the template, but the team changed it")

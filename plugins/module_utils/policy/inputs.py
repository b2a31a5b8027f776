# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Where rules, declarations and desired releases are found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..release.errors import ReleaseError
from ..release.paths import check_name, check_version
from .errors import PolicyError, field_error

SHIPPED = ("gdpr", "hipaa")
_UP = 6


def find_repository(start: str) -> str:
    """Return the nearest directory from ``start`` upwards that has a ``governance.yml``, else ``start``."""
    directory = os.path.abspath(start)
    for _level in range(_UP):
        if os.path.exists(os.path.join(directory, "governance.yml")):
            return directory
        directory = os.path.dirname(directory)
    return os.path.abspath(start)


def inside(path: str, root: str, collection: str | None = None) -> str:
    """Return a path as reports show it: relative to the repository, else to the collection, else the name alone."""
    full = os.path.abspath(os.path.join(root, path))
    for base, prefix in ((root, ""), (collection, "edgeai.fleet/")):
        if base is not None and os.path.commonpath((full, os.path.abspath(base))) == os.path.abspath(base):
            return prefix + os.path.relpath(full, base).replace(os.sep, "/")
    return os.path.basename(full)


def rule_files(given: Sequence[str] | None, root: str, collection: str) -> list[str]:
    """Return the paths of rule files: names of shipped sets or paths; by default ``rules/*.yml`` of the repository.

    Raises PolicyError when there are none: no rules is not "nothing wrong".
    """
    if given is None:
        folder = os.path.join(root, "rules")
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        files = [os.path.join(folder, name) for name in names if name.endswith((".yml", ".yaml")) and name[0] != "."]
        if not files:
            raise PolicyError("there is no rules/*.yml in the fleet repository: write one, or give rules: [gdpr]")
        return files
    if not given:
        raise field_error("arguments", "rules", list(given), "name at least one rule file or shipped set")
    files = []
    for item in given:
        if item in SHIPPED:
            files.append(os.path.join(collection, "rulesets", item + ".yml"))
        elif item.endswith((".yml", ".yaml")):
            files.append(os.path.join(root, os.path.expanduser(item)))
        else:
            known = ", ".join(SHIPPED)
            raise field_error("arguments", "rules", item, f"use a shipped set ({known}) or the path of a .yml file")
    return files


def wanted_models(host: str, edge_models: Any) -> dict[str, str]:
    """Return model to version of what the inventory wants on a host. Raises PolicyError naming host and field."""
    where = f"host {host}"
    if edge_models is None:
        return {}
    if not isinstance(edge_models, Mapping):
        raise field_error(where, "edge_models", edge_models, 'write {NAME: {release: "1.0.0"}}')
    wanted = {}
    for model, wish in edge_models.items():
        if not isinstance(wish, Mapping) or not isinstance(wish.get("release"), str):
            raise field_error(where, f"edge_models.{model}", wish, 'write {release: "1.0.0"}, the version in quotes')
        try:
            name = check_name(model, where, f"edge_models.{model}")
            wanted[name] = check_version(wish["release"], where, f"edge_models.{model}.release")
        except ReleaseError as error:
            raise PolicyError(str(error)) from error
    return wanted

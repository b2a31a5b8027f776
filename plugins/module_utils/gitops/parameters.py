# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The parameters of a fleet repository: checked, completed with those it was rendered with last. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import RepoError, field_error

CI = ("github", "gitlab", "forgejo", "jenkins")
WRITEBACK = ("commit", "pull_request")
FLEETS = ("remote", "local")
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_OWNER = re.compile(r"@[A-Za-z0-9][A-Za-z0-9._/-]*|[^@\s]+@[^@\s]+\.[^@\s]+")
_LINE = re.compile(r"[^\x00-\x1f\x7f\"'\\]{1,300}")
DEFAULTS: dict[str, Any] = {
    "name": None,
    "ci": ["github"],
    "environments": ["staging", "production"],
    "models": [],
    "sites": ["harbour", "quarry"],
    "fleet": "remote",
    "writeback": "commit",
    "branch": "main",
    "owners": ["@your-org/edge-approvers"],
    "collection": "git+https://github.com/edgeai-fleet/edgeai.fleet.git",
    "runner": "ubuntu-24.04",
    "image": "python:3.12-slim",
    "python": "3.12",
}


def complete(given: Mapping[str, Any], remembered: Mapping[str, Any], where: str = "parameters") -> dict[str, Any]:
    """Return every parameter: as given now, else as remembered from the last time, else the default.

    Raises RepoError for an unknown parameter and for a value that would not give a working repository.
    """
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise RepoError(f"{where}: {', '.join(unknown)}: unknown; there are {', '.join(DEFAULTS)}")
    kept = {key: value for key, value in remembered.items() if key in DEFAULTS}
    wanted = {**DEFAULTS, **kept, **{key: value for key, value in given.items() if value is not None}}
    result = {
        "name": _text(where, "name", wanted["name"], _REPOSITORY, "letters, digits, . _ - (up to 100)"),
        "ci": _choices(where, "ci", wanted["ci"], CI),
        "environments": _names(where, "environments", wanted["environments"], 1),
        "models": _models(where, wanted["models"]),
        "sites": _names(where, "sites", wanted["sites"], 1),
        "fleet": _choice(where, "fleet", wanted["fleet"], FLEETS),
        "writeback": _choice(where, "writeback", wanted["writeback"], WRITEBACK),
        "branch": _text(where, "branch", wanted["branch"], _BRANCH, "the name of a branch"),
        "owners": [
            _text(where, "owners", item, _OWNER, "@user, @org/team or an address") for item in _list(wanted["owners"])
        ],
    }
    for name in ("collection", "runner", "image", "python"):
        result[name] = _text(where, name, wanted[name], _LINE, "one line without quotes")
    return result


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _text(where: str, field: str, value: Any, pattern: re.Pattern[str], fix: str) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool) or not pattern.fullmatch(str(value)):
        raise field_error(where, field, value, fix)
    return str(value)


def _choice(where: str, field: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise field_error(where, field, value, f"one of {', '.join(allowed)}")
    return str(value)


def _choices(where: str, field: str, value: Any, allowed: tuple[str, ...]) -> list[str]:
    items = [_choice(where, field, item, allowed) for item in _list(value)]
    if not items:
        raise field_error(where, field, value, f"at least one of {', '.join(allowed)}")
    return sorted(set(items), key=allowed.index)


def _names(where: str, field: str, value: Any, least: int) -> list[str]:
    fix = "small letters, digits, - and _, beginning with a letter"
    items = [_text(where, field, item, _NAME, fix) for item in _list(value)]
    if len(items) < least or len(set(items)) != len(items):
        raise field_error(where, field, value, f"at least {least}, each once")
    return items


def _models(where: str, value: Any) -> list[str]:
    pattern = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
    items = [
        _text(where, "models", item, pattern, "names of models, as in their release.json") for item in _list(value)
    ]
    return list(dict.fromkeys(items))

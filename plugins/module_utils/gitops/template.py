# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Render the template of a fleet repository: a manifest of files, and what they are with these parameters.

The template's own delimiters are ``@{ }@``, ``@% %@`` and ``@# #@``: nothing that CI files (``${{ }}``), inventories
(``{{ }}``), shell (``${ }``, ``[[ ]]``) or YAML use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import RepoError, field_error

MANIFEST = "template.yml"
_FIELDS = frozenset(("src", "dest", "ci", "fleet", "each", "seed", "needs_playbook"))


@dataclass(frozen=True)
class Rendered:
    """One file of the repository. ``seed``: written once and then the team's own; an upgrade never looks at it."""

    content: bytes
    seed: bool = False


def environment(directory: str) -> Any:
    """Return the template engine for a directory; a name that is not a parameter is an error, not nothing."""
    try:
        import jinja2
    except ImportError as error:
        raise RepoError(f"Jinja2 is needed to render the repository and cannot be imported: {error}") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory),
        variable_start_string="@{", variable_end_string="}@",
        block_start_string="@%", block_end_string="%@",
        comment_start_string="@#", comment_end_string="#@",
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def render(
    directory: str, parameters: Mapping[str, Any], version: str, playbooks: frozenset[str]
) -> dict[str, Rendered]:
    """Return path -> file for these parameters.

    version: of the collection, told in files that name it; playbooks: those that this collection has, so that no
    pipeline calls one that is not there. Raises RepoError naming the template's file.
    """
    engine = environment(directory)
    result: dict[str, Rendered] = {}
    for entry in _entries(os.path.join(directory, MANIFEST)):
        for variables in _contexts(entry, parameters, version, playbooks):
            path = _path(engine, entry, variables)
            if path in result:
                raise RepoError(f"{MANIFEST}: {path} is made twice")
            result[path] = Rendered(_file(engine, entry["src"], variables), bool(entry.get("seed")))
    return dict(sorted(result.items()))


def _entries(path: str) -> list[dict[str, Any]]:
    try:
        import yaml
    except ImportError as error:
        raise RepoError(f"PyYAML is needed to read {path} and cannot be imported: {error}") from error
    try:
        with open(path, encoding="utf-8") as handle:
            document = yaml.safe_load(handle)
    except (OSError, yaml.YAMLError) as error:
        raise RepoError(f"{path}: not the manifest of a template: {error}") from error
    if not isinstance(document, dict) or document.get("format") != 1 or not isinstance(document.get("files"), list):
        raise RepoError(f"{path}: not the manifest of a template: it needs format: 1 and a list of files")
    for entry in document["files"]:
        if not isinstance(entry, dict) or not {"src", "dest"} <= set(entry) <= _FIELDS:
            raise field_error(path, "files", entry, f"src and dest, and of the rest only {', '.join(sorted(_FIELDS))}")
    return list(document["files"])


def _contexts(
    entry: Mapping[str, Any], parameters: Mapping[str, Any], version: str, playbooks: frozenset[str]
) -> list[dict[str, Any]]:
    """The variables of each file that an entry makes: none, one, or one for each item of a list parameter."""
    if entry.get("ci") and not set(_list(entry["ci"])) & set(parameters["ci"]):
        return []
    if entry.get("fleet") and entry["fleet"] != parameters["fleet"]:
        return []
    if entry.get("needs_playbook") and entry["needs_playbook"] not in playbooks:
        return []
    base = {**parameters, "collection_version": version, "playbooks": playbooks}
    if "ci" in entry:
        base["forge"] = next(name for name in _list(entry["ci"]) if name in parameters["ci"])
    if not entry.get("each"):
        return [base]
    name = entry["each"]
    return [{**base, name[:-1]: item} for item in parameters[name]]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _path(engine: Any, entry: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    path = str(engine.from_string(entry["dest"]).render(variables))
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..", ".git") for part in parts):
        raise field_error(MANIFEST, "dest", path, "a relative path inside the repository")
    return path


def _file(engine: Any, source: str, variables: Mapping[str, Any]) -> bytes:
    import jinja2

    try:
        text = engine.get_template(source).render(variables)
    except jinja2.TemplateNotFound as error:
        raise RepoError(f"{MANIFEST}: there is no {source}") from error
    except jinja2.TemplateError as error:
        raise RepoError(f"template {source}: {error}") from error
    return str(text).encode("utf-8")

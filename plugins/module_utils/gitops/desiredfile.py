# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The file with ``edge_models``: change its one line and the note above it, and leave every other byte. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import RepoError

NOTE = "# edgeai: "
_RELEASE = re.compile(
    r"""^(?P<indent>\s+)release:(?P<gap>\s+)(?P<quote>["']?)(?P<value>[^"'\s#]+)(?P=quote)(?P<rest>\s*(?:\#.*)?)$"""
)
_FORM = 'write it as three lines: edge_models:, "  MODEL:" and \'    release: "1.0.0"\''


def read_models(text: str, where: str) -> dict[str, str]:
    """Return model -> release of a file with ``edge_models``. Raises RepoError."""
    document = _yaml(text, where)
    models = document.get("edge_models") if isinstance(document, Mapping) else None
    if models is None:
        return {}
    if not isinstance(models, Mapping):
        raise RepoError(f"{where}: edge_models is not a mapping: {_FORM}")
    found = {}
    for name, wish in models.items():
        release = wish.get("release") if isinstance(wish, Mapping) else None
        if not isinstance(release, str):
            raise RepoError(f"{where}: edge_models.{name}.release is {release!r}: {_FORM}, the version in quotes")
        found[str(name)] = release
    return found


def set_release(text: str, model: str, release: str, note: str, where: str) -> str:
    """Return the text with this release for the model and this note above the line, instead of any earlier one.

    note: empty for none. Raises RepoError when the file is not written in a way that can be edited line by line.
    """
    before = read_models(text, where)
    lines = text.split("\n")
    number = _find(lines, model, where)
    match = _RELEASE.match(lines[number])
    if match is None:
        raise RepoError(f"{where} line {number + 1}: not a plain release: {_FORM}")
    rest = match["rest"].rstrip()
    lines[number] = f'{match["indent"]}release:{match["gap"]}"{release}"{rest}'
    while lines[number - 1].strip().startswith(NOTE.strip()):
        del lines[number - 1]
        number -= 1
    if note:
        lines[number:number] = [f"{match['indent']}{NOTE}{line}" for line in _wrap(note)]
    result = "\n".join(lines)
    if read_models(result, where) != {**before, model: release}:
        raise RepoError(f"{where}: edge_models.{model} could not be changed alone: {_FORM}")
    return result


def refused_file(entries: Iterable[Mapping[str, Any]]) -> str:
    """The file that says in git what the fleet refuses, as variables of the inventory."""
    lines = [
        "---",
        "# Written back from the ledger after every rollout; do not edit. edgeai.fleet.quarantine lifts an entry.",
    ]
    fields = ("model", "version", "digest", "stratum", "reason", "rollout", "time")
    items = [{name: entry.get(name) for name in fields} for entry in entries]
    if not items:
        return "\n".join([*lines, "edge_refused: []"]) + "\n"
    lines.append("edge_refused:")
    for item in items:
        for position, name in enumerate(fields):
            # JSON's text is YAML's double-quoted text; `!unsafe`: a reason comes from a device and is no template
            value = json.dumps(" ".join(str(item[name]).split())) if item[name] is not None else "null"
            tag = "!unsafe " if name == "reason" else ""
            lines.append(f"{'  - ' if position == 0 else '    '}{name}: {tag}{value}")
    return "\n".join(lines) + "\n"


def _find(lines: list[str], model: str, where: str) -> int:
    """The number of the line with the model's release."""
    names = {f"{model}:", f'"{model}":', f"'{model}':"}
    inside = found = False
    depth = 0
    for number, line in enumerate(lines):
        stripped, indent = line.strip(), len(line) - len(line.lstrip())
        if not stripped or stripped.startswith("#"):
            continue
        if indent == 0:
            inside, found = stripped.split("#")[0].strip() == "edge_models:", False
        elif inside and found and indent > depth:
            if stripped.startswith("release:"):
                return number
        elif inside:
            found = stripped.split(" #")[0].strip() in names
            depth = indent
    raise RepoError(f"{where}: no line with the release of {model}: {_FORM}")


def _wrap(note: str, width: int = 130) -> list[str]:
    """Whole words in lines; a note is never markup and never ends the comment it is in."""
    lines: list[str] = []
    for word in "".join(char if char.isprintable() else " " for char in note).split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _yaml(text: str, where: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise RepoError(f"PyYAML is needed to read {where} and cannot be imported: {error}") from error

    class Loader(yaml.SafeLoader):  # type: ignore[misc,name-defined]
        """SafeLoader that takes Ansible's tags as plain values."""

    Loader.add_multi_constructor("!", lambda loader, _suffix, node: getattr(node, "value", None))
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise RepoError(f"{where}: not YAML: {error}") from error

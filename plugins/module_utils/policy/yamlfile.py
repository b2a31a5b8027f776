# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Strict YAML with line numbers: what rule files, governance and approvals are read with.

Stricter than YAML: no key twice, no anchors, no tags, keys are texts, and a date stays the text that was written. Every
value knows its line, because a finding that points at a line is one that is mended.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from typing import Any

from .errors import PolicyError

MAX_TEXT = 4 * 1024 * 1024
MAX_DEPTH = 32
_MAP, _SEQ = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
_PLAIN = ("bool", "int", "float", "null")
Path = tuple[Any, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file. ``where``: the name errors give; ``data``: plain types; ``lines``: path of a value to its line."""

    where: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, *path: Any) -> int:
        """Return the line (from 1) of the value at ``path``, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def at(self, *path: Any) -> str:
        """Return ``file, line n`` for errors."""
        return f"{self.where}, line {self.line(*path)}"


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError as error:
        raise PolicyError(
            f"reading rules needs the Python package PyYAML; {sys.executable} has none ({error}); "
            f"install it with: {sys.executable} -m pip install PyYAML"
        ) from error


def load_yaml(text: str, where: str) -> Document:
    """Parse one YAML document. Raises PolicyError naming ``where`` and line for what is not plain and unique."""
    if len(text) > MAX_TEXT:
        raise PolicyError(f"{where}: has {len(text)} characters; at most {MAX_TEXT} are allowed")
    yaml = _yaml()
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            builder = _Builder(where, loader)
            data = None if node is None else builder.build(node, ())
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        raise PolicyError(f"{where}{line}: is not YAML: {reason}") from error
    except RecursionError as error:
        raise PolicyError(f"{where}: is nested too deeply; at most {MAX_DEPTH} levels are allowed") from error
    except ValueError as error:
        raise PolicyError(f"{where}: a value cannot be read: {error}") from error
    return Document(where, data, builder.lines)


class _Builder:
    """Turns nodes into plain data, noting lines."""

    def __init__(self, where: str, loader: Any) -> None:
        self.where = where
        self.loader = loader
        self.lines: dict[Path, int] = {}
        self._seen: set[int] = set()

    def fail(self, node: Any, text: str) -> PolicyError:
        return PolicyError(f"{self.where}, line {node.start_mark.line + 1}: {text}")

    def build(self, node: Any, path: Path) -> Any:
        if id(node) in self._seen:
            raise self.fail(node, "anchors and aliases (& and *) are not allowed here: write the value out")
        self._seen.add(id(node))
        if len(path) > MAX_DEPTH:
            raise self.fail(node, f"is nested more than {MAX_DEPTH} levels deep")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag == _MAP:
            return self._mapping(node, path)
        if node.tag == _SEQ:
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
                raise self.fail(key_node, "keys have to be plain texts (no lists, no <<)")
            if key in result:
                raise self.fail(key_node, f"the key {key!r} appears twice; keep one of them")
            inner = (*path, key)
            self.lines[inner] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, inner)
        return result

    def _scalar(self, node: Any) -> Any:
        kind = node.tag.rpartition(":")[2]
        if kind in ("str", "timestamp"):
            return node.value
        if node.tag == f"tag:yaml.org,2002:{kind}" and kind in _PLAIN:
            return self.loader.construct_object(node)
        hint = "encrypt the whole file with ansible-vault instead" if node.tag == "!vault" else "write a plain value"
        raise self.fail(node, f"the tag {node.tag} is not allowed here: {hint}")

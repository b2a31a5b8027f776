# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""``models:/`` addresses: which version of a registered model, and which of its files."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import RegistryError

SCHEME = "models:/"
_URI = re.compile(r"models:/(?P<name>[^/@#]+)(?:@(?P<alias>[^/@#]+)|/(?P<version>[0-9]+))(?:#(?P<path>.+))?")


@dataclass(frozen=True)
class ModelUri:
    """``models:/name@alias`` or ``models:/name/version``, with ``#path`` of a file inside when one is meant."""

    name: str
    alias: str | None
    version: str | None
    path: str | None

    def __str__(self) -> str:
        """Return the address as it is written."""
        which = f"@{self.alias}" if self.alias else f"/{self.version}"
        return f"{SCHEME}{self.name}{which}{'#' + self.path if self.path else ''}"


def parse_uri(text: str) -> ModelUri:
    """Return the parts of an address. Raises RegistryError."""
    found = _URI.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise RegistryError(
            f"{text!r} is no address of a registered model: use models:/NAME@ALIAS or models:/NAME/VERSION, with "
            "#PATH behind it for one file of the model version"
        )
    path = found.group("path")
    if path is not None:
        check_path(path)
    return ModelUri(found.group("name"), found.group("alias"), found.group("version"), path)


def check_path(path: str) -> str:
    """Return a relative path that stays below its directory. Raises RegistryError: an answer is not trusted."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts) or not path.isprintable():
        raise RegistryError(f"the artifact path {path!r} is absolute, climbs out or is not printable: it is not used")
    return path

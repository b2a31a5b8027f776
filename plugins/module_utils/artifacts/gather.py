# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What has to be fetched: components and versions times architectures, through the catalog. Pure; never guesses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from ..release.errors import shown
from .catalog import BASE_URLS, DIGESTS, ROWS, VERSIONS, Row, fill
from .errors import ArtifactError
from .manifest import ANY, ARCHITECTURES, COMPONENT, FILE, VERSION, Key

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})|(?:sha512:)?([0-9a-f]{128})")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Extra(NamedTuple):
    """A file that upstream does not have: its logical name, what it is for, where it lies, its digest when known."""

    name: str
    architecture: str
    path: str
    digest: str


class Component(NamedTuple):
    """One component that is wanted. ``only``: logical names, empty for all that upstream has."""

    name: str
    version: str
    architectures: tuple[str, ...]
    digests: Mapping[str, str]
    only: tuple[str, ...]
    extras: tuple[Extra, ...]


class Item(NamedTuple):
    """One file to bring, and what comes of it.

    :param upstream: its file name
    :param folder: its place below the directory of artifacts
    :param url: where it is; empty for an extra file
    :param checksum_url: upstream's checksum file; empty when there is none
    :param digest: hex SHA-256 or SHA-512 that it has to have; empty when upstream's checksum file says it
    :param path: where an extra file lies on the controller
    :param outputs: the file of each key: its path inside the archive, empty for the file itself
    :param digests: the digest of single outputs, where the user gave one
    :param parts: the files that it is put together from; it has no digest of its own then, they have
    """

    upstream: str
    folder: str
    url: str
    checksum_url: str
    digest: str
    path: str
    outputs: Mapping[Key, str]
    digests: Mapping[Key, str]
    parts: tuple[Item, ...] = ()

    @property
    def archive(self) -> bool:
        """Whether the files are inside it."""
        return any(self.outputs.values())

    def target(self, key: Key) -> str:
        """The path of an output in the directory of artifacts."""
        return f"{self.folder}/{key.file if self.outputs[key] else self.upstream}"


def _refuse(field: str, value: Any, fix: str) -> ArtifactError:
    return ArtifactError(f"{field} is {shown(value)}: {fix}")


def read_digest(value: Any, field: str) -> str:
    """A digest as bare hex: SHA-256 or SHA-512 by its length. Raises ArtifactError."""
    match = _DIGEST.fullmatch(str(value).strip().lower())
    if not match:
        raise _refuse(field, value, "use the 64 hex digits of a SHA-256 or the 128 of a SHA-512")
    return match[1] or match[2]


def _architecture(value: Any, field: str, known: Sequence[str] = ARCHITECTURES) -> str:
    if value not in known:
        raise _refuse(field, value, f"there is nothing for this architecture; use one of {', '.join(known)}")
    return str(value)


def _extra(value: Mapping[str, Any], field: str) -> Extra:
    name, path = str(value.get("name") or ""), str(value.get("path") or "")
    if not FILE.fullmatch(name):
        raise _refuse(f"{field}.name", name, f"use a name that matches {FILE.pattern}")
    base = path.rpartition("/")[2]
    if not FILE.fullmatch(base):
        raise _refuse(f"{field}.path", path, f"use the path of a file whose name matches {FILE.pattern}")
    digest = read_digest(value["sha256"], f"{field}.sha256") if value.get("sha256") else ""
    architecture = _architecture(value.get("architecture"), f"{field}.architecture", (*ARCHITECTURES, ANY))
    return Extra(name, architecture, path, digest)


def _component(value: Mapping[str, Any], field: str) -> Component:
    name, version = str(value.get("name") or ""), str(value.get("version") or "")
    extras = tuple(_extra(item, f"{field}.files[{index}]") for index, item in enumerate(value.get("files") or ()))
    if not COMPONENT.fullmatch(name) or (name not in VERSIONS and not extras):
        raise _refuse(f"{field}.name", name, f"use one of {', '.join(VERSIONS)}, or any name with files of your own")
    pattern, example = VERSIONS.get(name, (VERSION, "1.0"))
    if not pattern.fullmatch(version):
        raise _refuse(f"{field}.version", version, f"use the name of a release, such as {example}")
    wanted = [
        _architecture(item, f"{field}.architectures[{index}]")
        for index, item in enumerate(value.get("architectures") or ())
    ]
    digests = {
        str(key): read_digest(digest, f"{field}.digests[{key!r}]")
        for key, digest in sorted((value.get("digests") or {}).items())
    }
    only = tuple(map(str, value.get("only") or ()))
    return Component(name, version, tuple(dict.fromkeys(wanted)), digests, only, extras)


def read_components(values: Iterable[Mapping[str, Any]], architectures: Sequence[str]) -> list[Component]:
    """Check what is asked for; entries of one component and version count as one.

    :param architectures: of components that name none

    Raises ArtifactError that names field and value.
    """
    usual = tuple(_architecture(item, f"architectures[{index}]") for index, item in enumerate(architectures))
    merged: dict[tuple[str, str], Component] = {}
    for index, value in enumerate(values):
        component = _component(value, f"components[{index}]")
        name = (component.name, component.version)
        merged[name] = _merged(merged[name], component) if name in merged else component
    for name, component in merged.items():
        if component.name in VERSIONS and not component.architectures + usual:
            raise ArtifactError(
                f"{component.name}: there is no architecture; name those of the devices (architectures)"
            )
        merged[name] = component._replace(architectures=component.architectures or usual)
    return list(merged.values())


def _merged(one: Component, other: Component) -> Component:
    """Two wishes for the same version as one. Raises ArtifactError when they give two digests for one file."""
    for key, digest in other.digests.items():
        if one.digests.get(key, digest) != digest:
            raise _refuse(f"{one.name} {one.version}: digests[{key!r}]", digest, f"elsewhere it is {one.digests[key]}")
    return Component(
        one.name,
        one.version,
        tuple(dict.fromkeys(one.architectures + other.architectures)),
        {**one.digests, **other.digests},
        tuple(dict.fromkeys(one.only + other.only)) if one.only and other.only else (),
        tuple(dict.fromkeys(one.extras + other.extras)),
    )


def _url(base: str, version: str, path: str, allow_http: bool) -> str:
    """Where a file is. Raises ArtifactError for a base that is no https URL (or http, to this machine or allowed)."""
    parts = urlsplit(base)
    plain = parts.scheme == "http" and (allow_http or parts.hostname in LOOPBACK)
    if not (parts.scheme == "https" or plain) or not parts.hostname or parts.username or parts.password:
        raise _refuse("base_urls", base, "use an https URL without a password (http: only with allow_http)")
    return f"{base.replace('{version}', quote(version, safe='')).rstrip('/')}/{quote(path)}"


def _item(component: Component, row: Row, architecture: str, bases: Mapping[str, str], allow_http: bool) -> Item:
    version, upstream = component.version, fill(row.upstream, component.version, architecture)
    base = bases.get(row.base) or BASE_URLS[row.base]
    outputs, digests = {}, {}
    digest = component.digests.get(upstream) or DIGESTS.get((component.name, version), {}).get(upstream, "")
    for name, member in row.files.items():
        if component.only and name not in component.only:
            continue
        key = Key(component.name, version, architecture, name)
        outputs[key] = fill(member, version, architecture)
        given = component.digests.get(f"{architecture}/{name}", "")
        if given and member:
            digests[key] = given
        elif given:
            digest = given
    checksum = _url(base, version, fill(row.checksum, version, architecture), allow_http)
    return Item(
        upstream,
        f"{component.name}/{version}/{architecture}",
        _url(base, version, upstream, allow_http),
        checksum if row.checksum else "",
        digest,
        "",
        outputs,
        digests,
        tuple(_part(component, path, _url(base, version, path, allow_http)) for path in row.parts),
    )


def _part(component: Component, path: str, url: str) -> Item:
    """One piece of a file that is put together."""
    name = path.rpartition("/")[2]
    digest = component.digests.get(name) or DIGESTS.get((component.name, component.version), {}).get(name, "")
    key = Key(component.name, component.version, ANY, name)
    return Item(name, f"{component.name}/{component.version}/{ANY}", url, "", digest, "", {key: ""}, {})


def _extra_item(component: Component, extra: Extra) -> Item:
    key = Key(component.name, component.version, extra.architecture, extra.name)
    folder = f"{component.name}/{component.version}/{extra.architecture}"
    return Item(extra.path.rpartition("/")[2], folder, "", "", extra.digest, extra.path, {key: ""}, {})


def _refuse_unused(component: Component, items: Sequence[Item], names: set[str]) -> None:
    """A digest or a name that nothing has is a typing error, and what it was meant for would go unchecked."""
    single = [piece for item in items for piece in (item.parts or (item,))]
    known = {item.upstream for item in single}
    known |= {f"{key.architecture}/{key.file}" for item in items if not item.parts for key in item.outputs}
    for key in component.digests:
        if key not in known:
            raise _refuse(
                f"{component.name}: digests", key, f"nothing has this name; use one of {', '.join(sorted(known))}"
            )
    for name in component.only:
        if name not in names:
            raise _refuse(
                f"{component.name}: only", name, f"nothing has this name; use one of {', '.join(sorted(names))}"
            )


def plan(components: Sequence[Component], base_urls: Mapping[str, str], allow_http: bool = False) -> list[Item]:
    """Everything to bring for the components, in a fixed order.

    :param base_urls: in place of the catalog's, by its names
    :param allow_http: take plain http from other machines too

    Raises ArtifactError for what the catalog does not have.
    """
    for name in base_urls:
        if name not in BASE_URLS:
            raise _refuse("base_urls", name, f"use the names {', '.join(BASE_URLS)}")
    items: list[Item] = []
    for component in components:
        rows = [row for row in ROWS if row.component == component.name]
        mine = [
            _item(component, row, architecture, base_urls, allow_http)
            for row in rows
            for architecture in ((ANY,) if row.common else component.architectures)
        ]
        _refuse_unused(component, mine, {name for row in rows for name in row.files})
        mine = [item for item in mine if item.outputs] + [_extra_item(component, item) for item in component.extras]
        names = [item.target(key) for item in mine for key in item.outputs]
        names += [str(key) for item in mine for key in item.outputs]
        for name in names:
            if names.count(name) > 1:
                raise ArtifactError(f"components: {name} is there twice; give each file a name of its own")
        items += mine
    return items

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A release as an OCI image: its layers, its manifests, and the bytes of every document. Pure.

The files are tar layers of an ordinary image, so a registry takes it and a kubelet mounts it as an image volume. One
manifest for each architecture differs in its configuration alone, because a node takes only what names its own. What
decides is the release: the same signed release has the same digest, wherever and whenever it is packed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..release.errors import ReleaseError
from ..release.model import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from ..workloads.image import PLATFORMS

ARTIFACT_TYPE = "application/vnd.edgeai.release.v1"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
#: As what a layer may come back: registries' clients compress, and Docker's words are the older ones.
LAYERS = {LAYER: False, LAYER + "+gzip": True, "application/vnd.docker.image.rootfs.diff.tar.gzip": True}
MANIFESTS = (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"
RELEASE = "fleet.edgeai.release"
PART = "fleet.edgeai.part"
#: Largest document that is read, bytes.
MAX_DOCUMENT = 4 * 1024 * 1024
#: What has to be read before anything is believed: the first layer.
IDENTITY = (MANIFEST_NAME, SIGNATURE_NAME)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Layer(NamedTuple):
    """One layer: what it holds (a word for people), digest with ``sha256:``, and size in bytes."""

    part: str
    digest: str
    size: int


class Image(NamedTuple):
    """Every document by its digest, the layout's own listing (``index.json``), and the digest of the image's index."""

    documents: dict[str, bytes]
    listing: bytes
    digest: str


def parts(manifest: Manifest) -> list[tuple[str, list[str]]]:
    """What each layer holds: first what identifies the release, then the golden samples, then every variant.

    A release that shares a variant with another shares its layer. A file that several variants name is in the first.
    """
    found: list[tuple[str, list[str]]] = [("identity", list(IDENTITY)), ("golden", [manifest.golden.path])]
    seen = {path for _part, paths in found for path in paths}
    for variant in manifest.variants:
        paths = sorted({entry.path for entry in variant.files} - seen)
        seen.update(paths)
        if paths:
            found.append((variant.id, paths))
    return found


def platforms(manifest: Manifest) -> list[str]:
    """OCI's platforms that the release has variants for; all known ones when it names none of them."""
    named = {word for variant in manifest.variants for word in variant.architectures}
    return [platform for word, platform in sorted(PLATFORMS.items()) if word in named] or sorted(PLATFORMS.values())


def notes_of(manifest: Manifest) -> dict[str, str]:
    """What everybody can read of it without a layer."""
    return {
        "org.opencontainers.image.title": manifest.model,
        "org.opencontainers.image.version": manifest.version,
        "org.opencontainers.image.created": manifest.created,
        RELEASE: manifest.digest,
    }


def encode(value: Any) -> bytes:
    """The one way in which a document is written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest_of(raw: bytes) -> str:
    """``sha256:`` and the hex digest."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def _descriptor(kind: str, raw: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(raw), "size": len(raw), **more}


def _platform(words: str) -> dict[str, str]:
    system, architecture, *variant = words.split("/")
    return {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}


def image(manifest: Manifest, layers: Sequence[Layer]) -> Image:
    """All documents of a release whose layers have these digests."""
    notes = notes_of(manifest)
    described = [
        {"mediaType": LAYER, "digest": layer.digest, "size": layer.size, "annotations": {PART: layer.part}}
        for layer in layers
    ]
    documents: dict[str, bytes] = {}
    entries = []
    for words in platforms(manifest):
        platform = _platform(words)
        filesystem = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
        config = encode({**platform, "created": manifest.created, "config": {}, "rootfs": filesystem})
        one = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT_TYPE, "annotations": notes}
        raw = encode({**one, "config": _descriptor(CONFIG, config), "layers": described})
        documents[digest_of(config)], documents[digest_of(raw)] = config, raw
        entries.append(_descriptor(MANIFEST, raw, platform=platform, artifactType=ARTIFACT_TYPE))
    whole = {"schemaVersion": 2, "mediaType": INDEX, "artifactType": ARTIFACT_TYPE, "annotations": notes}
    raw = encode({**whole, "manifests": entries})
    documents[digest_of(raw)] = raw
    named = {REF_NAME: tag(manifest.version), RELEASE: manifest.digest}
    top = _descriptor(INDEX, raw, artifactType=ARTIFACT_TYPE, annotations=named)
    layout = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]})
    return Image(documents, layout, digest_of(raw))


def tag(version: str) -> str:
    """The image's name for a version: a tag has no `+`, which SemVer has."""
    return version.replace("+", "_")


def decode(raw: bytes, where: str) -> dict[str, Any]:
    """A document as it was read. Raises ReleaseError."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{where}: is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ReleaseError(f"{where}: is not an object of OCI's image format")
    return value


def descriptors(document: dict[str, Any], field: str, where: str) -> list[dict[str, Any]]:
    """The descriptors in one field, each with a digest by SHA-256, a size, a media type, annotations as a dict.

    Raises ReleaseError.
    """
    found = document.get(field)
    if not isinstance(found, list):
        raise ReleaseError(f"{where}: field '{field}' is no list; it is not what an image layout holds")
    return [check_descriptor(item, f"{where}: {field}[{number}]") for number, item in enumerate(found)]


def check_descriptor(item: Any, where: str) -> dict[str, Any]:
    """One descriptor, checked. Raises ReleaseError."""
    if not isinstance(item, dict) or not _DIGEST.fullmatch(str(item.get("digest"))):
        raise ReleaseError(f"{where}: has no digest by SHA-256; only those are taken")
    size = item.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ReleaseError(f"{where}: its size is {size!r}, not a number of bytes")
    notes = item.get("annotations") or {}
    if not isinstance(notes, dict):
        raise ReleaseError(f"{where}: its annotations are no object")
    return {**item, "annotations": notes, "mediaType": str(item.get("mediaType"))}

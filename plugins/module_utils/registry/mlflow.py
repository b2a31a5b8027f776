# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a release needs of MLflow's model registry: which version an alias means, its files, and its tags.

Over MLflow's REST API alone, so that no MLflow is needed where releases are built. An alias takes one request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from .errors import RegistryError
from .http import Server, call, stream
from .uris import ModelUri, check_path, parse_uri

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MAX_FILES = 4096
MAX_TAG = 5000
"""Longest value of a tag of a model version that MLflow's own database takes, characters."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version. ``run`` is None for one that no run logged."""

    name: str
    version: str
    run: str | None
    source: str
    status: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """The address that always means this version."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Fetched:
    """A file that was downloaded: where it is, and where it came from (``uri`` names version and path)."""

    path: Path
    uri: str
    size: int
    sha256: str
    run: str | None


def resolve(server: Server, uri: ModelUri) -> ModelVersion:
    """Return the version an address means, with one request. Raises RegistryError."""
    if uri.alias:
        path = f"{API}/registered-models/alias?{urlencode({'name': uri.name, 'alias': uri.alias})}"
    else:
        path = f"{API}/model-versions/get?{urlencode({'name': uri.name, 'version': uri.version})}"
    answer = call(server, "GET", path)
    try:
        told = answer["model_version"]
        return ModelVersion(
            name=str(told["name"]),
            version=str(told["version"]),
            run=told.get("run_id") or None,
            source=str(told.get("source") or ""),
            status=str(told.get("status") or ""),
            aliases=tuple(told.get("aliases") or ()),
            tags={str(tag["key"]): str(tag.get("value") or "") for tag in told.get("tags") or ()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"{server.url}: its answer about {uri} names no model version: {error!r}") from error


def artifact_root(server: Server, version: ModelVersion) -> str:
    """Return the path of a version's directory below the server's artifact API. Raises RegistryError."""
    query = urlencode({"name": version.name, "version": version.version})
    uri = str(call(server, "GET", f"{API}/model-versions/get-download-uri?{query}").get("artifact_uri") or "")
    if uri.startswith(server.url + ARTIFACTS + "/"):
        return check_path(uri[len(server.url + ARTIFACTS) + 1 :].strip("/"))
    parts = urlsplit(uri)
    if parts.scheme != "mlflow-artifacts":
        raise RegistryError(
            f"{version.uri}: its files are at {uri or 'no known place'}, which the MLflow server does not hand out: "
            "start it with --artifacts-destination (and no --default-artifact-root), and register the model again"
        )
    return check_path(parts.path.strip("/"))


def list_files(server: Server, root: str, folder: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """Yield (path below root, size in bytes) of every file. Raises RegistryError."""
    where = f"{root}/{folder}" if folder else root
    entries = call(server, "GET", f"{ARTIFACTS}?{urlencode({'path': where})}").get("files") or []
    for entry in entries:
        name = check_path(str(entry.get("path") or ""))
        path = f"{folder}/{name}" if folder else name
        if not entry.get("is_dir"):
            yield path, int(entry.get("file_size") or 0)
        elif depth < 8:
            yield from list_files(server, root, path, depth + 1)


def download(server: Server, root: str, path: str, size: int, target: Path) -> str:
    """Write one file to ``target`` and return its hex SHA-256. Raises RegistryError unless it has ``size`` bytes."""
    digest, count = hashlib.sha256(), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as sink:
            for piece in stream(server, f"{ARTIFACTS}/{quote(f'{root}/{path}')}"):
                digest.update(piece)
                count += len(piece)
                sink.write(piece)
    except OSError as error:
        raise RegistryError(f"{target}: cannot write the download: {error}") from error
    if count != size:
        raise RegistryError(f"{path}: {count} bytes came, the server lists {size}: try again")
    return digest.hexdigest()


class Registry:
    """One server and one directory for downloads. What was resolved once stays, whatever an alias does meanwhile."""

    def __init__(self, server: Server, directory: Path) -> None:
        """``directory`` exists and belongs to the caller."""
        self.server = server
        self.directory = directory
        self._versions: dict[str, tuple[ModelVersion, str, dict[str, int]]] = {}

    def fetch(self, text: str) -> Fetched:
        """Download the file that an address means: ``#path``, or the version's only ``.onnx`` file."""
        uri = parse_uri(text)
        version, root, files = self._look_up(uri)
        path = uri.path or _only_onnx(version, files)
        if path not in files:
            raise RegistryError(f"{version.uri}: has no file {path!r}; it has {_names(files)}")
        target = self.directory / quote(version.name, safe="") / version.version / path
        digest = download(self.server, root, path, files[path], target)
        return Fetched(target, f"{version.uri}#{path}", files[path], digest, version.run)

    def _look_up(self, uri: ModelUri) -> tuple[ModelVersion, str, dict[str, int]]:
        key = f"{uri.name}@{uri.alias}/{uri.version}"
        if key not in self._versions:
            version = resolve(self.server, uri)
            if version.status not in ("READY", ""):
                raise RegistryError(f"{version.uri}: its status is {version.status}, not READY: try again later")
            root = artifact_root(self.server, version)
            files: dict[str, int] = {}
            for path, size in list_files(self.server, root):
                files[path] = size
                if len(files) > MAX_FILES:
                    raise RegistryError(f"{version.uri}: has more than {MAX_FILES} files: that is no model")
            self._versions[key] = (version, root, files)
        return self._versions[key]

    def beside(self, fetched: Fetched, name: str) -> Fetched:
        """Download a file that lies beside another one, such as its weights."""
        base, path = fetched.uri.split("#", 1)
        return self.fetch(f"{base}#{os.path.join(os.path.dirname(path), name)}")


def _only_onnx(version: ModelVersion, files: Mapping[str, int]) -> str:
    found = sorted(path for path in files if path.endswith(".onnx"))
    if len(found) != 1:
        raise RegistryError(
            f"{version.uri}: has {len(found)} .onnx files ({_names(files)}): say which with #PATH behind the address"
        )
    return found[0]


def _names(files: Mapping[str, int]) -> str:
    names = sorted(files)
    return ", ".join(names[:12]) + (" and more" if len(names) > 12 else "") or "none"


def set_tags(server: Server, version: ModelVersion, tags: Mapping[str, str]) -> list[str]:
    """Set the tags that differ; returns their names. Raises RegistryError."""
    changed = [key for key in sorted(tags) if version.tags.get(key) != tags[key]]
    for key in changed:
        body = {"name": version.name, "version": version.version, "key": key, "value": tags[key]}
        call(server, "POST", f"{API}/model-versions/set-tag", body)
    return changed

"""artifacts.json: what is accepted, what is refused and in which words, and which file a machine gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.manifest import Entry, Key, dump, parse, pick

ENTRY = {"path": "k3s/v1.32.5+k3s1/x86_64/k3s", "sha256": "a" * 64, "size": 7}


def document(**change: Any) -> dict[str, Any]:
    entry = {**ENTRY, **change}
    return {"format": "edgeai.artifacts/1", "components": {"k3s": {"v1.32.5+k3s1": {"x86_64": {"k3s": entry}}}}}


def read(value: Any) -> Any:
    return parse(json.dumps(value).encode(), "artifacts.json")


def test_what_is_written_is_read_again() -> None:
    entries = {
        Key("k3s", "v1.32.5+k3s1", "aarch64", "k3s"): Entry("k3s/v1.32.5+k3s1/aarch64/k3s-arm64", "b" * 64, 9),
        Key("k3s", "v1.32.5+k3s1", "x86_64", "k3s"): Entry("k3s/v1.32.5+k3s1/x86_64/k3s", "a" * 64, 7),
        Key("kubeedge", "v1.23.1", "any", "rule.yaml"): Entry("kubeedge/v1.23.1/any/rule.yaml", "c" * 64, 0),
    }
    raw = dump(entries)
    assert parse(raw, "here").entries == entries
    assert raw == dump(dict(reversed(entries.items())))
    assert parse(dump({}), "here").entries == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "top level"),
        ({"format": "edgeai.artifacts/2", "components": {}}, "format.* is .edgeai.artifacts/2.*edgeai.artifacts/1"),
        ({"format": "edgeai.artifacts/1"}, "field 'components' is missing"),
        ({"format": "edgeai.artifacts/1", "components": {}, "more": 1}, "field 'more' is 1: unknown"),
        ({"format": "edgeai.artifacts/1", "components": {"k3s": {}}}, r"components\['k3s'\].*at least one"),
        ({"format": "edgeai.artifacts/1", "components": {"../k3s": {"v1": {}}}}, r"'\.\./k3s'"),
        ({"format": "edgeai.artifacts/1", "components": {"k3s": {"..": {}}}}, r"'\.\.'"),
        ({"format": "edgeai.artifacts/1", "components": {"k3s": {"v1": {"amd64": {}}}}}, "'amd64'.*x86_64"),
        (document(path="k3s/v1.32.5+k3s1/x86_64/../../../k3s"), r"path.*has the component '\.\.'"),
        (document(path="/etc/passwd"), "path.*absolute"),
        (document(path="k3s/v1.32.5+k3s1/aarch64/k3s"), "path.*use k3s/v1.32.5"),
        (document(path="k3s/v1.32.5+k3s1/x86_64/sub/k3s"), "path.*use k3s/v1.32.5"),
        (document(path="k3s/v1.32.5+k3s1/x86_64/.hidden"), "path.*use k3s/v1.32.5"),
        (document(sha256="A" * 64), "sha256.*64 lower-case hex"),
        (document(size=-1), "size.* is -1: use an integer"),
        (document(size=True), "size.* is True: use an integer"),
        (document(mode="0755"), "mode.*unknown field"),
    ],
)  # fmt: skip
def test_refused(value: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=r"artifacts\.json.*" + said):
        read(value)


def test_two_files_with_one_path() -> None:
    value = document()
    value["components"]["k3s"]["v1.32.5+k3s1"]["x86_64"]["other"] = dict(ENTRY)
    with pytest.raises(ArtifactError, match="two files have this path"):
        read(value)


def test_a_key_twice() -> None:
    with pytest.raises(ArtifactError, match="appears twice"):
        parse(b'{"format": "edgeai.artifacts/1", "components": {}, "components": {}}', "artifacts.json")


def test_what_there_is_instead() -> None:
    manifest = read(document())
    assert list(manifest.candidates("k3s", "v1.32.5+k3s1", "k3s")) == ["x86_64"]
    with pytest.raises(ArtifactError, match=r"no file 'k3s' of k3s v1\.32\.6\+k3s1; it has k3s v1\.32\.5\+k3s1"):
        manifest.candidates("k3s", "v1.32.6+k3s1", "k3s")


def test_a_machine_gets_its_own_or_what_suits_all() -> None:
    assert pick({"x86_64": 1, "any": 2}, "x86_64", "k3s") == "x86_64"
    assert pick({"any": 2}, "riscv64", "rules") == "any"
    with pytest.raises(ArtifactError, match=r"k3s: there is none for the architecture 'riscv64'.*aarch64, x86_64"):
        pick({"x86_64": 1, "aarch64": 2}, "riscv64", "k3s")

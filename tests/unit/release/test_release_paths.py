"""Names, versions and paths that end up in paths on a device."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.release.paths import (
    check_name,
    check_relative,
    check_version,
    version_key,
)


@pytest.mark.parametrize("path", ["a", "a/b/c.onnx", ".hidden", "a..b", "...", "Mödel/x y", "a" * 255])
def test_safe_paths_are_returned(path: str) -> None:
    assert check_relative(path, "f", "p") == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "a/../b", "../a", "a\\b", "..\\a", "a\0b", "a\nb",
     "a\x7fb", "a\u202eb", "a\ud800", "a\u2028b", "e\u0301", "a" * 256, "ä" * 128,
     "/".join("a" * 256), "a/" * 600, None, 3],
)  # fmt: skip
def test_unsafe_paths_are_refused(path: Any) -> None:
    with pytest.raises(ReleaseError, match=r"field 'p' is .*relative path"):
        check_relative(path, "f", "p")


def test_versions_sort_by_semver_precedence() -> None:
    # The example of semver.org, section 11, with a numeric case added.
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
               "1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0", "2.0.0"]  # fmt: skip
    assert sorted(ordered, key=version_key) == ordered
    assert version_key("1.0.0+a") == version_key("1.0.0+b")


@pytest.mark.parametrize("version", ["", "1.0", "v1.0.0", "1.0.0.0", "1.0.0-01", "1.0.0+", " 1.0.0", "1.0.0 ", None])
def test_other_versions_are_refused(version: Any) -> None:
    with pytest.raises(ReleaseError, match="SemVer"):
        check_version(version, "f", "v")


@pytest.mark.parametrize("name", ["", ".", "..", "-a", ".a", "a/b", "a b", "a\n", "ä", None])
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(ReleaseError):
        check_name(name, "f", "n")

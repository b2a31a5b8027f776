"""What is fetched for which devices: upstream's names and addresses, and everything that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts import catalog
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.errors import ArtifactError
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.gather import Item, plan, read_components
from ansible_collections.edgeai.fleet.plugins.module_utils.artifacts.manifest import ARCHITECTURES, Key

K3S = {"name": "k3s", "version": "v1.32.5+k3s1"}
KUBEEDGE = {"name": "kubeedge", "version": "v1.23.1"}
DIGEST = "a" * 64


def planned(
    *components: dict[str, Any], architectures: tuple[str, ...] = ARCHITECTURES, **bases: str
) -> dict[str, Item]:
    return {item.upstream: item for item in plan(read_components(components, architectures), bases)}


def test_k3s_by_upstreams_names() -> None:
    items = planned(K3S)
    assert list(items) == [
        "k3s", "k3s-arm64", "k3s-armhf",
        "k3s-airgap-images-amd64.tar.zst", "k3s-airgap-images-arm64.tar.zst", "k3s-airgap-images-arm.tar.zst",
    ]  # fmt: skip
    release = "https://github.com/k3s-io/k3s/releases/download/v1.32.5%2Bk3s1/"
    assert items["k3s-armhf"].url == release + "k3s-armhf"
    assert items["k3s-armhf"].checksum_url == release + "sha256sum-arm.txt"
    key = Key("k3s", "v1.32.5+k3s1", "armv7l", "k3s")
    assert items["k3s-armhf"].target(key) == "k3s/v1.32.5+k3s1/armv7l/k3s-armhf"
    assert Key("k3s", "v1.32.5+k3s1", "aarch64", "images") in items["k3s-airgap-images-arm64.tar.zst"].outputs


def test_kubeedge_comes_out_of_its_archive() -> None:
    items = planned(KUBEEDGE, architectures=("armv7l",))
    archive = items["kubeedge-v1.23.1-linux-arm.tar.gz"]
    assert archive.checksum_url.endswith("/v1.23.1/checksum_kubeedge-v1.23.1-linux-arm.tar.gz.txt")
    inside = {key.file: member for key, member in archive.outputs.items()}
    assert inside == {
        "edgecore": "kubeedge-v1.23.1-linux-arm/edge/edgecore",
        "cloudcore": "kubeedge-v1.23.1-linux-arm/cloud/cloudcore/cloudcore",
    }
    manifests = items["manifests.yaml"]
    assert len(manifests.parts) == 13 and all(len(part.digest) == 64 for part in manifests.parts)
    assert [str(key) for key in manifests.outputs] == ["kubeedge v1.23.1 (any): manifests"]
    assert {part.upstream: part.url for part in manifests.parts}["router_v1_rule.yaml"] == (
        "https://raw.githubusercontent.com/kubeedge/kubeedge/v1.23.1/build/crds/router/router_v1_rule.yaml"
    )


def test_what_is_for_every_machine_comes_once() -> None:
    one, all_of_them = (planned(KUBEEDGE, architectures=names) for names in (("x86_64",), ARCHITECTURES))
    assert len(all_of_them) == len(one) + 2


def test_a_mirror_and_digests_of_ones_own() -> None:
    pinned = {**K3S, "digests": {"k3s": "sha256:" + DIGEST, "x86_64/images": "B" * 128}}
    items = planned(pinned, architectures=("x86_64",), k3s="https://mirror.example/{version}/k3s/")
    assert items["k3s"].url == "https://mirror.example/v1.32.5%2Bk3s1/k3s/k3s"
    assert items["k3s"].digest == DIGEST and items["k3s-airgap-images-amd64.tar.zst"].digest == "b" * 128


def test_only_what_is_needed() -> None:
    assert list(planned({**K3S, "only": ["k3s"], "architectures": ["aarch64"]})) == ["k3s-arm64"]


def test_what_several_devices_wish_is_one() -> None:
    wishes = [{**K3S, "architectures": [name], "only": ["k3s"]} for name in ("aarch64", "x86_64", "aarch64")]
    assert sorted(planned(*wishes)) == ["k3s", "k3s-arm64"]
    assert len(planned(*wishes, {**K3S, "architectures": ["x86_64"]})) == 4
    assert sorted(planned(wishes[0], {**K3S, "only": ["k3s"], "digests": {"k3s-arm64": DIGEST}})) == ["k3s-arm64"]


def test_files_of_ones_own() -> None:
    files = [{"name": "pause", "architecture": "aarch64", "path": "/media/pause-arm64.tar"}]
    items = planned({"name": "images", "version": "1.0", "files": files})
    assert items["pause-arm64.tar"].path == "/media/pause-arm64.tar"
    assert list(items["pause-arm64.tar"].outputs) == [Key("images", "1.0", "aarch64", "pause")]


FILE = {"name": "pause", "architecture": "x86_64", "path": "/media/pause.tar"}


@pytest.mark.parametrize(
    ("component", "said"),
    [
        ({**K3S, "architectures": ["riscv64"]}, r"components\[0\]\.architectures\[0\] is 'riscv64': there is nothing"),
        ({**K3S, "architectures": ["amd64"]}, "'amd64'.*use one of x86_64, aarch64, armv7l"),
        ({**K3S, "version": "v1.32.5"}, r"version is 'v1\.32\.5'.*such as v1\.32\.5\+k3s1"),
        ({**K3S, "version": "../../v1"}, "version is"),
        ({**KUBEEDGE, "version": "1.23.1"}, r"such as v1\.23\.1"),
        ({"name": "k8s", "version": "v1"}, r"components\[0\]\.name is 'k8s': use one of k3s, kubeedge, cni"),
        ({"name": "../x", "version": "v1", "files": [FILE]}, "name is"),
        ({**K3S, "digests": {"k3s": "abc"}}, r"digests\['k3s'\] is 'abc': use the 64 hex digits"),
        ({**K3S, "digests": {"k3s-amd64": DIGEST}}, "digests is 'k3s-amd64': nothing has this name; use one of"),
        ({**K3S, "only": ["binary"]}, "only is 'binary': nothing has this name; use one of images, k3s"),
        ({"name": "images", "version": "1", "files": [{**FILE, "architecture": "i686"}]}, r"files\[0\]\.architecture"),
        ({"name": "images", "version": "1", "files": [{**FILE, "path": "/media/..", }]}, r"files\[0\]\.path"),
        ({"name": "images", "version": "1", "files": [FILE, FILE]}, "is there twice"),
        ({"name": "images", "version": "1", "files": [FILE, {**FILE, "name": "other"}]}, "is there twice"),
    ],
)  # fmt: skip
def test_refused(component: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        planned(component)


def test_refused_as_a_whole() -> None:
    with pytest.raises(ArtifactError, match=r"digests\['k3s'\] is 'bbb.*elsewhere it is aaa"):
        planned({**K3S, "digests": {"k3s": DIGEST}}, {**K3S, "digests": {"k3s": "b" * 64}})
    with pytest.raises(ArtifactError, match="k3s: there is no architecture; name those of the devices"):
        planned(K3S, architectures=())
    for base in ("http://mirror.example/", "ftp://mirror.example/", "https://me:secret@mirror.example/", "mirror"):
        with pytest.raises(ArtifactError, match="use an https URL without a password"):
            planned(K3S, k3s=base)
    with pytest.raises(ArtifactError, match="base_urls is 'k8s': use the names"):
        planned(K3S, k8s="https://mirror.example")
    assert plan(read_components([K3S], ["x86_64"]), {"k3s": "http://mirror.example/"}, allow_http=True)


def test_another_version_of_the_custom_resources_needs_digests() -> None:
    digests = {"router_v1_rule.yaml": DIGEST}
    parts = planned({**KUBEEDGE, "version": "v1.22.0", "only": ["manifests"], "digests": digests})[
        "manifests.yaml"
    ].parts
    assert {part.digest for part in parts} == {"", DIGEST}


def test_the_table_names_every_architecture_there_is() -> None:
    assert set(catalog.WORDS) == set(catalog.K3S_SUFFIXES) == set(ARCHITECTURES)
    assert {row.component for row in catalog.ROWS} == set(catalog.VERSIONS)
    assert {row.base for row in catalog.ROWS} == set(catalog.BASE_URLS)
    assert all(row.parts or len(row.files) == 1 or all(row.files.values()) for row in catalog.ROWS)

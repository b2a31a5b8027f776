# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What upstream calls its files, where they are, and what says that they are right. Data; nothing is opened.

Upstream's words for architectures are in this file and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

#: The collection's word, and upstream's in most names.
WORDS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
#: Only the name of K3s's own binary has these.
K3S_SUFFIXES = {"x86_64": "", "aarch64": "-arm64", "armv7l": "-armhf"}

#: Where the files are; ``{version}`` is the tag as a URL has it (``+`` is ``%2B``). A site's mirror replaces them.
BASE_URLS = {
    "k3s": "https://github.com/k3s-io/k3s/releases/download/{version}",
    "kubeedge": "https://github.com/kubeedge/kubeedge/releases/download/{version}",
    "kubeedge-crds": "https://raw.githubusercontent.com/kubeedge/kubeedge/{version}/build/crds",
    "cni": "https://github.com/containernetworking/plugins/releases/download/{version}",
}

#: What a version has to look like: the tag of the release.
VERSIONS = {
    "k3s": (re.compile(r"v\d+\.\d+\.\d+(-[a-z0-9.]+)?\+k3s\d+"), "v1.32.5+k3s1"),
    "kubeedge": (re.compile(r"v\d+\.\d+\.\d+(-[a-z0-9.]+)?"), "v1.23.1"),
    "cni": (re.compile(r"v\d+\.\d+\.\d+(-[a-z0-9.]+)?"), "v1.6.2"),
}


class Row(NamedTuple):
    """One upstream file. In names, ``{version}``, ``{word}`` and ``{suffix}`` stand for the tag and the architecture.

    :param files: logical name to the path inside the archive; an empty path is the file itself
    :param upstream: its name
    :param checksum: name of upstream's checksum file; empty when there is none, and a digest has to be known otherwise
    :param base: which of BASE_URLS
    :param common: it suits every architecture
    :param parts: paths below the base of what this file is put together from, when upstream has it in pieces (YAML)
    """

    component: str
    files: Mapping[str, str]
    upstream: str
    checksum: str
    base: str
    common: bool = False
    parts: tuple[str, ...] = ()


_KUBEEDGE = "kubeedge-{version}-linux-{word}"
_CNI = "cni-plugins-linux-{word}-{version}.tgz"
_CNI_PLUGINS = ("bridge", "firewall", "host-local", "loopback", "portmap")

#: Custom resources of KubeEdge 1.23: directory, file, SHA-256 at the tag v1.23.1 (upstream publishes no checksums).
_CRDS = (
    ("apps", "apps_v1alpha1_edgeapplication.yaml", "463183cc9b2f3f686505cf5d6597ee4e46330017e60b750472eee84078cbc01f"),
    ("apps", "apps_v1alpha1_nodegroup.yaml", "7bea1fd2fd29b107227a6530e99b72f14a17317448d723202e008b33fcdce93c"),
    ("devices", "devices_v1beta1_device.yaml", "274656d670e8c5a264aadb4493c9b31cf55d4cc5047b2b82cc96af46d0c52e9d"),
    ("devices", "devices_v1beta1_devicemodel.yaml", "0dd13ee618fda96a92376828c91397b4ab0d62b720946573615c66e08f05c8c8"),
    (
        "devices",
        "devices_v1beta1_devicestatus.yaml",
        "a7bf6b83ed1fa0789bab7ebfc44dd3cc3b0aa934ea6088aa18e497c2a248340f",
    ),
    (
        "operations",
        "operations_v1alpha2_configupdatejob.yaml",
        "0feba69ac2c3245ba23f022d6292516d5648984973eb30fe3c93c7ce43fb5be7",
    ),
    (
        "operations",
        "operations_v1alpha2_imageprepulljob.yaml",
        "2d31822b871e0c0979ca6f53f4625ba1f21620977b6b210b16f26f09e5e2b61e",
    ),
    (
        "operations",
        "operations_v1alpha2_nodeupgradejob.yaml",
        "fe91ae67243688f0d98182c7aab50ef44827d5d30975de25ade16bc4d3505162",
    ),
    (
        "policy",
        "policy_v1alpha1_serviceaccountaccess.yaml",
        "6977742bc34b40864deef51c275a00069580dbadeb4c42e132b9282cffe77231",
    ),
    (
        "reliablesyncs",
        "cluster_objectsync_v1alpha1.yaml",
        "bd890e4ab124a3e63e195e00cfb241cbab793276a087bc8427088041e1427d5c",
    ),
    ("reliablesyncs", "objectsync_v1alpha1.yaml", "0c51775b6fb73b6dd3ddf2ce19af451294039158a0ca6994017ef9965451167c"),
    ("router", "router_v1_rule.yaml", "9ebcbf7cec1b8f97a98efce2f48b63770c021ee758cf735c1adf38287ae59398"),
    ("router", "router_v1_ruleEndpoint.yaml", "2b64062a9b865200ee2b911bb162395135da1b0bbff934bcb0e7dc2ec957bd8a"),
)

ROWS: tuple[Row, ...] = (
    Row("k3s", {"k3s": ""}, "k3s{suffix}", "sha256sum-{word}.txt", "k3s"),
    Row("k3s", {"images": ""}, "k3s-airgap-images-{word}.tar.zst", "sha256sum-{word}.txt", "k3s"),
    Row(
        "kubeedge",
        {"edgecore": _KUBEEDGE + "/edge/edgecore", "cloudcore": _KUBEEDGE + "/cloud/cloudcore/cloudcore"},
        _KUBEEDGE + ".tar.gz",
        "checksum_" + _KUBEEDGE + ".tar.gz.txt",
        "kubeedge",
    ),
    Row(
        "kubeedge",
        {"manifests": ""},
        "manifests.yaml",
        "",
        "kubeedge-crds",
        True,
        tuple(f"{folder}/{name}" for folder, name, _sha256 in _CRDS),
    ),
    Row("cni", {name: name for name in _CNI_PLUGINS}, _CNI, _CNI + ".sha256", "cni"),
)

#: Digests that are known here: (component, version) to upstream's file name to SHA-256.
DIGESTS: dict[tuple[str, str], dict[str, str]] = {
    ("kubeedge", "v1.23.1"): {name: sha256 for _folder, name, sha256 in _CRDS},
}


def fill(text: str, version: str, architecture: str) -> str:
    """A name of the table for one version and architecture. Pure."""
    return text.format(version=version, word=WORDS.get(architecture, ""), suffix=K3S_SUFFIXES.get(architecture, ""))

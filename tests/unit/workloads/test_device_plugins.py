"""Device plugins: none unless declared, by digest alone, and only where their accelerator is."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.device_plugins import PLUGINS
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.devices import RESOURCES
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.errors import WorkloadError
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.live import is_ours
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.manifests import manifests

IMAGES = {"onnxruntime": "localhost/edgeai/model-server:1"}
PINNED = {"image": "registry.example/plugin:v1@sha256:" + "a" * 64}
GPU = {
    "name": "gate-1",
    "node": "gate-1",
    "platform": "k3s",
    "stratum": "nvidia-gpu/onnxruntime/x86_64",
    "root": "/var/lib/edgeai",
    "uid": 998,
    "gid": 997,
    "host": "127.0.0.1",
    "port": 9001,
    "memory_mib": 0,
}
CPU = {**GPU, "stratum": "cpu-int8/onnxruntime/x86_64"}


def objects(device: dict[str, Any] | None = None, **options: Any) -> dict[str, dict[str, Any]]:
    found = manifests([device or CPU], IMAGES, **options)
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in found}


def plugin(name: str, **declared: Any) -> dict[str, Any]:
    found = objects(plugins={name: {**PINNED, **declared}})[f"DaemonSet/edgeai-device-plugin-{name}"]
    assert is_ours(found)
    return dict(found["spec"]["template"]["spec"])


def test_without_a_word_there_is_no_plugin_and_no_class() -> None:
    found = objects(GPU)
    assert not [name for name in found if "plugin" in name or name.startswith("RuntimeClass")]


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_a_plugin_runs_only_where_the_label_names_its_accelerator(name: str) -> None:
    (term,) = plugin(name)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    rule = term["matchExpressions"][0]
    assert rule["key"] == "edgeai.fleet/accelerator" and rule["operator"] == "In"
    assert not [value for value in rule["values"] if value.startswith("cpu")]
    assert {RESOURCES[value] for value in rule["values"]} == {PLUGINS[name].resource}


def test_every_accelerator_with_a_known_resource_has_its_plugin() -> None:
    assert {kind for item in PLUGINS.values() for kind in item.accelerators} == set(RESOURCES)


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_only_what_searches_usb_is_privileged_and_nobody_has_an_api_token(name: str) -> None:
    spec = plugin(name)
    security = spec["containers"][0]["securityContext"]
    assert security.get("privileged", False) is (name == "coral")
    assert name == "coral" or security["capabilities"] == {"drop": ["ALL"]}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["containers"][0]["image"] == PINNED["image"]


def test_nvidias_plugin_runs_in_its_runtime_class() -> None:
    assert plugin("nvidia")["runtimeClassName"] == "nvidia"
    assert [name for name in PLUGINS if "runtimeClassName" in plugin(name)] == ["nvidia"]


def test_the_runtime_class_comes_where_it_is_asked_for_and_named() -> None:
    assert "RuntimeClass/nvidia" in objects(GPU, nvidia_class=True)
    assert "RuntimeClass/nvidia" in objects(CPU, nvidia_class=True, plugins={"nvidia": PINNED})
    assert "RuntimeClass/nvidia" not in objects(CPU, nvidia_class=True, plugins={"coral": PINNED})


def test_a_plugin_can_be_told_something_else() -> None:
    assert plugin("coral", args=["--device", "x"], pull_policy="Never")["containers"][0]["args"] == ["--device", "x"]
    assert '"18d1"' in plugin("coral")["containers"][0]["args"][1]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"nvidia": {"image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.1"}},
            "device_plugins.nvidia.image.*by its digest",
        ),
        ({"nvidia": {"image": "nvcr.io/nvidia/k8s-device-plugin@sha256:abc"}}, "device_plugins.nvidia.image"),
        ({"nvidia": {}}, "device_plugins.nvidia.image"),
        ({"nvidia": "image"}, "device_plugins.nvidia"),
        ({"nvidia": {**PINNED, "tag": "v1"}}, "device_plugins.nvidia"),
        ({"hailo": PINNED}, "known are coral, intel-gpu"),
        ({"coral": {**PINNED, "pull_policy": "Always"}}, "device_plugins.coral.pull_policy"),
        ({"coral": {**PINNED, "args": "--device"}}, "device_plugins.coral.args"),
        (["nvidia"], "give a dict"),
    ],
    ids=["tag", "short", "none", "text", "field", "unknown", "policy", "args", "list"],
)
def test_what_is_not_pinned_or_not_known_is_refused_with_its_name(given: Any, says: str) -> None:
    with pytest.raises(WorkloadError, match=says):
        manifests([CPU], IMAGES, plugins=given)

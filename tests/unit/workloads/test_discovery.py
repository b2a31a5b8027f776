"""What nodes' labels say against what devices found: only what contradicts is told, and both sides are named."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.filter.node_disagreements import node_disagreements
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.discovery import kinds

NFD = "feature.node.kubernetes.io/"


def said(accelerator: str, detected: list[str], *features: str, arch: str = "amd64") -> list[str]:
    device = {"name": "gate_1", "node": "gate-1", "stratum": f"{accelerator}/onnxruntime/x86_64", "detected": detected}
    labels = {"kubernetes.io/arch": arch, **{NFD + feature: "true" for feature in features}}
    return node_disagreements([device], [{"metadata": {"name": "gate-1", "labels": labels}}])


@pytest.mark.parametrize(
    ("features", "found"),
    [
        (["pci-0302_10de.present"], {"nvidia-gpu"}),
        (["pci-0300_10de_2236.present"], {"nvidia-gpu"}),
        (["pci-0300_8086.present", "pci-1200_8086.present"], {"intel-gpu", "intel-npu"}),
        (["pci-0380_1002.present"], {"amd-gpu"}),
        (["usb-fe_1a6e_089a.present"], {"coral"}),
        (["usb-ff_18d1_9302.present"], {"coral"}),
        (["usb-18d1_9302.present"], {"coral"}),
        (["pci-0300_1a03.present", "pci-0200_8086.present", "usb-ff_18d1_4ee7.present"], set()),
        (["pci-10de.present", "pci-0302_10de.sriov.capable", "cpu-cpuid.AVX2"], set()),
    ],
    ids=["class", "device", "intel", "amd", "coral-new", "coral", "coral-plain", "others", "too-little"],
)
def test_labels_are_read_whichever_fields_they_have(features: list[str], found: set[str]) -> None:
    assert kinds({NFD + name: "true" for name in features}) == found
    assert kinds({NFD + name: "false" for name in features}) == set()


@pytest.mark.parametrize(
    ("accelerator", "detected", "features"),
    [
        ("nvidia-gpu", ["nvidia-gpu", "cpu"], []),
        ("nvidia-gpu", ["nvidia-gpu", "cpu"], ["pci-0302_10de.present"]),
        ("cpu-int8", ["intel-gpu", "cpu"], ["pci-0300_8086.present", "cpu-cpuid.AVXVNNI"]),
        ("cpu", ["cpu"], ["cpu-cpuid.AVX2", "kernel-version.major"]),
        ("jetson", ["jetson", "cpu"], ["pci-0300_10de.present"]),
        ("coral", ["coral", "cpu"], ["cpu-cpuid.AVX2"]),
        ("hailo", ["hailo", "cpu"], ["cpu-cpuid.AVX2"]),
    ],
    ids=["no-nfd", "same", "unused-gpu", "cpu", "jetson", "coral-pcie", "not-shown"],
)
def test_where_they_agree_or_labels_cannot_tell_nothing_is_said(
    accelerator: str, detected: list[str], features: list[str]
) -> None:
    assert said(accelerator, detected, *features) == []


def test_a_disagreement_names_device_node_and_both_views() -> None:
    assert said("nvidia-gpu", ["nvidia-gpu", "cpu"], "pci-0300_8086.present") == [
        "gate_1, node gate-1: the device computes on nvidia-gpu, Node Feature Discovery saw intel-gpu",
        "gate_1, node gate-1: Node Feature Discovery saw intel-gpu, the device found nvidia-gpu",
    ]
    assert said("cpu", ["cpu"], "usb-fe_1a6e_089a.present") == [
        "gate_1, node gate-1: Node Feature Discovery saw coral, the device found no accelerator"
    ]
    assert said("cpu-int8", ["cpu"], "cpu-cpuid.AVX2") == [
        "gate_1, node gate-1: the device's processor has int8 dot products, Node Feature Discovery saw none"
    ]


def test_the_architecture_is_compared_without_any_of_its_labels() -> None:
    assert said("cpu", ["cpu"], arch="arm64") == ["gate_1, node gate-1: the device is x86_64, the node says arm64"]


def test_a_node_that_is_not_there_is_left_out() -> None:
    assert node_disagreements([{"name": "a", "node": "a", "stratum": "cpu/onnxruntime/x86_64"}], []) == []


@pytest.mark.parametrize(
    ("devices", "nodes"),
    [("text", []), ([{"name": "a"}], []), ([], [{}]), ([{"name": "a", "node": "a", "stratum": "cpu"}], [])],
    ids=["text", "fields", "node", "stratum"],
)
def test_wrong_input_is_an_error_of_the_filter(devices: Any, nodes: Any) -> None:
    with pytest.raises(AnsibleFilterError):
        node_disagreements(devices, nodes or [{"metadata": {"name": "a", "labels": {}}}])

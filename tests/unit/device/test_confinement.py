# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the server's unit may use: from facts of machines to device nodes, memory and exceptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device.confinement import (
    MEMORY_FLOOR_MIB,
    NODES,
    Node,
    confine,
    find_nodes,
    memory_controlled,
    stale_reasons,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.device.hostfs import Tree
from ansible_collections.edgeai.fleet.plugins.module_utils.device.server_facts import environment_of, server_facts


def facts(accelerator: str, runtime: str | None = "onnxruntime", memory: int = 4000) -> dict[str, Any]:
    return {"accelerator": accelerator, "runtime": runtime, "memory_mib": memory}


def machine(tmp_path: Path, *paths: str, **texts: str) -> Tree:
    """A tree with files standing for device nodes, and texts in files (name with __ for /)."""
    for path in paths:
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(mode=0o660)
    for name, text in texts.items():
        place = tmp_path / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return Tree(str(tmp_path))


def test_a_cpu_gets_no_device_and_no_jit() -> None:
    for kind in ("cpu", "cpu-int8"):
        decided = confine(facts(kind), [], 70, True)
        assert (decided.devices, decided.groups, decided.jit, decided.warnings) == ([], [], False, [])
        assert (decided.memory_high_mib, decided.memory_max_mib) == (2520, 2800)


@pytest.mark.parametrize(
    ("kind", "runtime"), [("cpu", "openvino"), ("cpu-int8", "litert"), ("cpu", None), ("nvidia-gpu", "onnxruntime")]
)
def test_what_compiles_code_may(kind: str, runtime: str | None) -> None:
    assert confine(facts(kind, runtime), [Node("/dev/x", None)], 70, True).jit is True


@pytest.mark.parametrize(
    ("kind", "there", "others"),
    [
        ("nvidia-gpu", ["/dev/nvidia0", "/dev/nvidia-uvm", "/dev/nvidiactl", "/dev/nvidia-caps/cap1"], ["/dev/nvram"]),
        ("intel-npu", ["/dev/accel/accel0"], ["/dev/dri/renderD128", "/dev/accel/by-path"]),
        ("amd-gpu", ["/dev/kfd", "/dev/dri/renderD129"], ["/dev/dri/card1", "/dev/kmsg"]),
        ("coral", ["/dev/apex_0"], ["/dev/video0"]),
        ("hailo", ["/dev/hailo0"], ["/dev/hailo"]),
        ("jetson", ["/dev/nvgpu/igpu0/as", "/dev/nvhost-ctrl", "/dev/nvmap"], ["/dev/mmcblk0"]),
        ("rockchip-npu", ["/dev/rknpu", "/dev/dma_heap/system"], ["/dev/rga"]),
        ("qualcomm-htp", ["/dev/dma_heap/system", "/dev/fastrpc-cdsp"], ["/dev/fastrpc-adsp", "/dev/dma_heap/cma"]),
    ],
)  # fmt: skip
def test_only_nodes_of_the_accelerator_are_found(
    tmp_path: Path, kind: str, there: list[str], others: list[str]
) -> None:
    tree = machine(tmp_path, *there, *others)
    if kind == "amd-gpu":
        tree = machine(tmp_path, sys__class__drm__renderD129__device__vendor="0x1002\n")
    assert sorted(node.path for node in find_nodes(tree, kind)) == sorted(there)
    assert set(NODES) >= {kind}


def test_the_other_gpu_of_a_machine_is_left_out(tmp_path: Path) -> None:
    tree = machine(
        tmp_path,
        "/dev/dri/renderD128",
        "/dev/dri/renderD129",
        sys__class__drm__renderD128__device__vendor="0x8086\n",
        sys__class__drm__renderD129__device__vendor="0x10de\n",
    )
    assert [node.path for node in find_nodes(tree, "intel-gpu")] == ["/dev/dri/renderD128"]


def test_groups_of_the_nodes_are_joined() -> None:
    nodes = [
        Node("/dev/dri/renderD128", "render"),
        Node("/dev/kfd", "render"),
        Node("/dev/x", None),
        Node("/y", "root"),
    ]
    decided = confine(facts("amd-gpu"), nodes, 70, True)
    assert decided.groups == ["render"]
    assert decided.devices[0] == "/dev/dri/renderD128 rw" and len(decided.devices) == 4


def test_a_usb_coral_is_allowed_by_its_class_because_its_number_changes() -> None:
    decided = confine(facts("coral", "litert"), [], 70, True)
    assert decided.devices == ["char-usb_device rw"] and decided.netlink and decided.warnings == []


def test_an_accelerator_without_nodes_is_said() -> None:
    assert "intel-npu was detected" in confine(facts("intel-npu"), [], 70, True).warnings[0]


def test_memory_has_a_floor_and_needs_a_kernel_that_limits_it() -> None:
    assert confine(facts("cpu", memory=200), [], 10, True).memory_max_mib == MEMORY_FLOOR_MIB
    decided = confine(facts("cpu"), [], 70, False)
    assert decided.memory_max_mib == decided.memory_high_mib == 0
    assert "cgroup_enable=memory" in decided.warnings[0]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys__fs__cgroup__cgroup.controllers": "cpuset cpu io memory pids\n"}, True),
        ({"sys__fs__cgroup__cgroup.controllers": "cpuset cpu io pids\n"}, False),
        ({"sys__fs__cgroup__memory__tasks": ""}, True),
        ({}, False),
    ],
)
def test_whether_the_kernel_limits_memory(tmp_path: Path, files: dict[str, str], expected: bool) -> None:
    assert memory_controlled(machine(tmp_path, **files)) is expected


WANTED = {"bundle": "sha256:b", "environment": "/e/new", "url": "http://127.0.0.1:9001", "tls": None}


@pytest.mark.parametrize(
    ("running", "words"),
    [
        ({}, []),
        (WANTED, []),
        ({**WANTED, "start_id": "x", "pid": 7}, []),
        ({**WANTED, "environment": "/e/old"}, ["runtime environment: /e/old runs, /e/new is set"]),
        ({**WANTED, "bundle": "sha256:a", "url": "http://127.0.0.1:1"}, ["program", "address"]),
        ({**WANTED, "tls": {"certificate": "/c"}}, ["certificate paths"]),
        ({"bundle": "sha256:b"}, []),
    ],
)
def test_a_server_is_stale_when_what_it_runs_is_not_what_is_installed(
    running: dict[str, Any], words: list[str]
) -> None:
    reasons = stale_reasons(running, WANTED)
    assert len(reasons) == len(words) and all(reason.startswith(word) for reason, word in zip(reasons, words))


def test_an_environment_is_known_by_where_its_link_leads(tmp_path: Path) -> None:
    (tmp_path / "ort-1" / "bin").mkdir(parents=True)
    (tmp_path / "ort-1" / "bin" / "python").symlink_to("/usr/bin/python3")
    (tmp_path / "current").symlink_to("ort-1")
    assert environment_of(str(tmp_path / "current" / "bin" / "python")) == str(tmp_path.resolve() / "ort-1")


def test_facts_of_a_fresh_device(tmp_path: Path) -> None:
    told = server_facts(str(tmp_path / "nothing"), 70)
    assert told["provisioned"] is False and told["running"] == {} and told["stale"] == []
    assert told["memory_mib"] > 0 and not (tmp_path / "nothing").exists()

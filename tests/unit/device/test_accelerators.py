"""Detection over described machines, and the guards around every read."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
from support.sysfs import MACHINES, materialise

from ansible_collections.edgeai.fleet.plugins.module_utils.device.accelerators import RANKING, detect, gfx_name, rank
from ansible_collections.edgeai.fleet.plugins.module_utils.device.cpu import cpu_flags, normal_architecture
from ansible_collections.edgeai.fleet.plugins.module_utils.device.hostfs import READ_LIMIT, Tree


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_is_recognised(name: str, tmp_path: Path) -> None:
    machine = materialise(name, tmp_path)
    expect = machine["expect"]
    found = detect(str(tmp_path))
    assert [[r["kind"], r["usable"]] for r in found["accelerators"]] == expect["accelerators"]
    assert found["architecture"] == expect["architecture"]
    assert found["cpu_label"] == expect["cpu_label"]
    assert found["memory_mib"] == machine["memory_kib"] // 1024
    tree = Tree(str(tmp_path))
    for record in found["accelerators"]:
        assert tree.exists(record["evidence"]), "the evidence is a path that is there"
        assert (record["reason"] is None) == record["usable"], "unusable always says why"
        assert record["name"]


def records(name: str, root: Path, kind: str) -> list[dict]:
    materialise(name, root)
    return [record for record in detect(str(root))["accelerators"] if record["kind"] == kind]


def test_there_are_enough_machines() -> None:
    assert len(MACHINES) >= 18


def test_names_and_drivers_are_read(tmp_path: Path) -> None:
    (jetson,) = records("jetson-orin-jp6", tmp_path / "a", "jetson")
    assert (jetson["name"], jetson["driver"]) == ("NVIDIA Jetson AGX Orin Developer Kit", "L4T 36.4.3")
    (nvidia,) = records("x86-nvidia", tmp_path / "b", "nvidia-gpu")
    assert (nvidia["name"], nvidia["driver"]) == ("NVIDIA RTX A2000 12GB", "nvidia 580.95.05")
    (amd,) = records("rocm", tmp_path / "c", "amd-gpu")
    assert amd["name"] == "AMD GPU gfx1100"
    (npu,) = records("lunar-lake", tmp_path / "d", "intel-npu")
    assert (npu["driver"], npu["evidence"]) == ("intel_vpu", "/sys/bus/pci/devices/0000:00:0b.0")


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("x86-nvidia-no-driver", "nvidia-gpu", "driver nouveau is bound; it needs nvidia"),
        ("x86-nvidia-unbound", "nvidia-gpu", "no /proc/driver/nvidia/version"),
        ("coral-usb-before", "coral", "firmware is not loaded yet"),
        ("coral-pcie-no-driver", "coral", "no driver is bound; it needs apex"),
        ("meteor-lake-no-npu-driver", "intel-npu", "it needs intel_vpu"),
        ("rk3588-disabled", "rockchip-npu", "the device tree disables it"),
        ("jetson-orin-no-driver", "jetson", "install the board's L4T drivers"),
        ("pi5-hailo8-no-driver", "hailo", "/sys/class/hailo_chardev"),
    ],
)
def test_unusable_says_what_to_repair(name: str, kind: str, said: str, tmp_path: Path) -> None:
    (record,) = records(name, tmp_path, kind)
    assert said in record["reason"]


def test_an_audio_function_or_a_foreign_display_is_not_an_accelerator(tmp_path: Path) -> None:
    materialise("x86-nvidia", tmp_path)
    (tmp_path / "sys/devices/pci/0000:41:00.0/class").write_text("0x040300\n")
    # The GPU now claims to be audio: with the PCI tree silent, the driver's own list is the evidence left.
    found = [r for r in detect(str(tmp_path))["accelerators"] if r["kind"] == "nvidia-gpu"]
    assert [r["evidence"] for r in found] == ["/proc/driver/nvidia/gpus/0000:41:00.0/information"]


def test_the_order_is_the_ranking_whatever_the_bus_says(tmp_path: Path) -> None:
    materialise("x86-two-accelerators", tmp_path)
    kinds = [r["kind"] for r in detect(str(tmp_path))["accelerators"]]
    assert kinds == sorted(kinds, key=RANKING.index)
    assert rank("something new") > rank("cpu")


def test_a_board_with_two_cards_lists_both(tmp_path: Path) -> None:
    materialise("x86-nvidia", tmp_path)
    second = tmp_path / "sys/devices/pci/0000:81:00.0"
    second.mkdir()
    for key, value in {"vendor": "0x10de", "device": "0x2571", "class": "0x030200"}.items():
        (second / key).write_text(value)
    (tmp_path / "sys/bus/pci/devices/0000:81:00.0").symlink_to("../../../devices/pci/0000:81:00.0")
    assert len([r for r in detect(str(tmp_path))["accelerators"] if r["kind"] == "nvidia-gpu"]) == 2


def test_a_card_given_to_a_virtual_machine_is_not_usable(tmp_path: Path) -> None:
    materialise("x86-nvidia", tmp_path)
    link = tmp_path / "sys/devices/pci/0000:41:00.0/driver"
    link.unlink()
    link.symlink_to("../../../bus/pci/drivers/vfio-pci")
    (record,) = [r for r in detect(str(tmp_path))["accelerators"] if r["kind"] == "nvidia-gpu"]
    assert not record["usable"] and "vfio-pci" in record["reason"]


def test_device_tree_link_stays_inside_the_tree(tmp_path: Path) -> None:
    materialise("jetson-orin-jp6", tmp_path)
    assert os.readlink(tmp_path / "proc/device-tree") == "/sys/firmware/devicetree/base"
    tree = Tree(str(tmp_path))
    assert "nvidia,tegra234" in tree.strings("/proc/device-tree/compatible")
    (tmp_path / "proc/escape").symlink_to("../../../../../../../../etc")
    assert tree.locate("/proc/escape/passwd") == str(tmp_path / "etc/passwd")


def test_loops_and_odd_files_are_absent_not_errors(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "proc/cpuinfo")  # opening it would block for ever
    tree = Tree(str(tmp_path))
    assert tree.read("/a") is None and tree.names("/a") == [] and not tree.exists("/a")
    assert tree.read("/proc/cpuinfo") is None
    (tmp_path / "huge").write_bytes(b"x" * (READ_LIMIT + 10))
    assert len(tree.read("/huge") or b"") == READ_LIMIT
    assert detect(str(tmp_path))["accelerators"][0]["kind"] == "cpu"


def test_garbage_in_every_file_is_survived(tmp_path: Path) -> None:
    materialise("x86-two-accelerators", tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(b"\xff\xfe\x00garbage\x00:\n\n:\n")
    found = detect(str(tmp_path))
    assert [r["kind"] for r in found["accelerators"] if r["usable"]][-1] == "cpu"
    assert found["cpu_flags"] == [] and found["memory_mib"] == 0 and found["architecture"] == "unknown"


def test_an_empty_tree_is_a_cpu_of_unknown_architecture(tmp_path: Path) -> None:
    found = detect(str(tmp_path))
    assert found["architecture"] == "unknown", "never this machine's"
    assert [r["kind"] for r in found["accelerators"]] == ["cpu"]


def test_the_kernels_own_architecture_file_comes_first(tmp_path: Path) -> None:
    materialise("pi3", tmp_path)
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/arch").write_text("arm64\n")
    assert detect(str(tmp_path))["architecture"] == "aarch64"


def test_flags_are_those_of_the_smallest_core() -> None:
    text = "processor : 0\nFeatures : asimd asimddp i8mm\n\nprocessor : 1\nFeatures : asimd asimddp\n"
    assert cpu_flags(text) == ["asimd", "asimddp"]


def test_this_machine() -> None:
    found = detect("/")
    assert found["architecture"] == normal_architecture(platform.machine())
    assert found["memory_mib"] > 100
    assert any(record["kind"] == "cpu" and record["usable"] for record in found["accelerators"])


def test_gfx_names() -> None:
    assert [gfx_name(n) for n in (90010, 110003, 100302, 90402)] == ["gfx90a", "gfx1103", "gfx1032", "gfx942"]

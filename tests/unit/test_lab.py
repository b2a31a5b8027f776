"""The pure parts of the lab: names, addresses, keys of images, the inventory, slow links and the clock's library."""

from __future__ import annotations

import ctypes
import ipaddress
import random
import struct
from pathlib import Path

import pytest
import yaml
from lab import clock, clocklib, emulation, host, plan
from lab.errors import LabError
from lab.relay import QUEUE, Direction
from lab.state import State, process_start

LAB = "a1b2c3"


def test_devices_by_count_and_by_name() -> None:
    names = [(spec.name, spec.arch) for spec in plan.specs(2, 1)]
    assert names == [("lab-01", "amd64"), ("lab-02", "amd64"), ("lab-arm-01", "arm64")]
    assert [spec.name for spec in plan.specs(6, 1, only=["lab-04", "lab-04"])] == ["lab-04"]


@pytest.mark.parametrize("name", ["lab-00", "lab-1", "other", "lab-arm-1", "lab-01; rm"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(LabError, match="names are lab-01 to"):
        plan.specs(1, 0, only=[name])


def test_no_device_is_an_error() -> None:
    with pytest.raises(LabError, match="above 0"):
        plan.specs(0, 0)


def test_every_device_has_names_and_addresses_of_its_own() -> None:
    specs = plan.specs(plan.MAX_DEVICES, plan.MAX_DEVICES)
    for make in (lambda n: plan.link(LAB, n), lambda n: plan.mac(LAB, n), lambda n: plan.address("198.18.7.0/24", n)):
        assert len({make(spec.number) for spec in specs} | {make(0)}) == len(specs) + 1
    links = [name for spec in specs for name in (plan.link(LAB, spec.number), *plan.relay_links(LAB, spec.number))]
    assert max(len(name) for name in [*links, plan.bridge(LAB)]) <= 15, "the kernel's limit"
    assert all(
        ipaddress.ip_address(plan.address("198.18.7.0/24", spec.number)) in ipaddress.ip_network("198.18.7.0/24")
        for spec in specs
    )


def test_labs_of_two_directories_differ() -> None:
    assert plan.lab_id("/a/build/lab") != plan.lab_id("/b/build/lab")
    assert len(plan.lab_id("/a")) == 6


def test_a_subnet_that_nobody_uses() -> None:
    first = plan.free_subnet(LAB, [])
    second = plan.free_subnet(LAB, [first, "fe80::/64", "10.0.0.0/8"])
    assert first != second
    assert not ipaddress.ip_network(first).overlaps(ipaddress.ip_network(second))
    with pytest.raises(LabError, match=r"every /24 of 198\.18\.0\.0/15 is in use"):
        plan.free_subnet(LAB, ["198.18.0.0/15"])


def test_image_key_follows_everything_that_decides_the_content() -> None:
    hooks = plan.image_hooks("amd64", "amd64")
    key = plan.image_key(plan.PACKAGES, "bookworm", "amd64", hooks)
    assert key == plan.image_key(reversed(plan.PACKAGES), "bookworm", "amd64", hooks)
    others = {
        plan.image_key((*plan.PACKAGES, "vim"), "bookworm", "amd64", hooks),
        plan.image_key(plan.PACKAGES, "trixie", "amd64", hooks),
        plan.image_key(plan.PACKAGES, "bookworm", "arm64", hooks),
        plan.image_key(plan.PACKAGES, "bookworm", "amd64", plan.image_hooks("arm64", "amd64")),
    }
    assert len(others | {key}) == 5


def test_inventory_is_strict_about_host_keys() -> None:
    text = plan.inventory(Path("/lab/ssh"), [(spec, f"198.18.0.{spec.number}") for spec in plan.specs(1, 1)])
    inventory = yaml.safe_load(text)["edge"]
    assert inventory["vars"]["ansible_user"] == "admin" and inventory["vars"]["ansible_become"] is True
    assert "StrictHostKeyChecking=yes" in inventory["vars"]["ansible_ssh_common_args"]
    hosts = inventory["hosts"]
    assert hosts["lab-arm-01"] == {"ansible_host": "198.18.0.101", "lab_architecture": "arm64"}


def test_slowness_from_words() -> None:
    assert plan.Slowness.parse("100ms", "2%", "1mbit") == plan.Slowness(0.1, 0.02, 125000.0)
    assert plan.Slowness.parse(delay="1.5s") == plan.Slowness(1.5, 0.0, 0.0)


@pytest.mark.parametrize("words", [{"delay": "100"}, {"loss": "0.1"}, {"rate": "1mb"}, {"loss": "101%"}, {}])
def test_slowness_that_means_nothing(words: dict[str, str]) -> None:
    with pytest.raises(LabError, match=r"delay|loss|rate"):
        plan.Slowness.parse(**words)


def test_frames_wait_for_each_other_on_a_throttled_link() -> None:
    way = Direction(0.1, 0.0, 1000.0, random.Random(1))
    assert [way.due(10.0, 100), way.due(10.0, 100), way.due(20.0, 100)] == pytest.approx([10.2, 10.3, 20.2])


def test_a_link_loses_its_share_and_what_does_not_fit_its_queue() -> None:
    way = Direction(0.0, 0.25, 0.0, random.Random(1))
    lost = 0
    for _number in range(4000):
        if way.due(0.0, 100) is None:
            lost += 1
        else:
            way.left()
    assert 850 < lost < 1150
    full = Direction(1.0, 0.0, 0.0, random.Random(1))
    assert [full.due(0.0, 100) is None for _number in range(QUEUE + 1)] == [False] * QUEUE + [True]


def test_clock_times() -> None:
    assert clock.seconds("1970-01-01") == 0
    assert clock.seconds("1970-01-01T01:00:00+01:00") == 0
    assert clock.seconds("2031-05-01T12:00") == 1935403200
    assert clock.seconds("now") is None
    with pytest.raises(LabError, match="yesterday"):
        clock.seconds("yesterday")


def test_the_library_of_this_architecture_loads_and_shifts_the_clock(tmp_path: Path) -> None:
    arch = host.native_architecture()
    library = bytearray(clocklib.library(arch))
    at = clocklib.constant_at(arch)
    library[at : at + 8] = struct.pack("<q", -1000)
    (tmp_path / "clock.so").write_bytes(library)
    loaded, libc = ctypes.CDLL(str(tmp_path / "clock.so")), ctypes.CDLL(None)
    for function in (loaded.time, libc.time):
        function.restype = ctypes.c_long
    assert libc.time(None) - loaded.time(None) in (1000, 1001, 999)
    here, there = (ctypes.c_long * 2)(), (ctypes.c_long * 2)()
    for number, shift in ((0, 1000), (5, 1000), (1, 0), (7, 0)):
        assert libc.clock_gettime(number, here) == 0 and loaded.clock_gettime(number, there) == 0
        assert here[0] - there[0] in (shift - 1, shift, shift + 1)
    assert libc.gettimeofday(here, None) == 0 and loaded.gettimeofday(there, None) == 0
    assert here[0] - there[0] in (999, 1000, 1001)
    assert loaded.clock_gettime(99, here) == -1


@pytest.mark.parametrize("arch", sorted(clocklib.MACHINES))
def test_the_library_has_its_constant_where_it_says(arch: str) -> None:
    library = clocklib.library(arch)
    at = clocklib.constant_at(arch)
    assert library[at : at + 8] == bytes(8)
    assert struct.unpack_from("<H", library, 18)[0] == clocklib.MACHINES[arch].elf


def test_emulator_rule_keeps_setuid_and_needs_nothing_in_the_container() -> None:
    rule = emulation.rule("name", "/usr/bin/qemu-aarch64-static")
    assert rule.startswith(":name:M::") and rule.endswith(":/usr/bin/qemu-aarch64-static:OCF")
    assert len(rule) < 256, "the kernel's limit"


def test_capabilities_of_a_process() -> None:
    assert host.capabilities("Name:\tx\nCapEff:\t0000000002000000\n") == 1 << 25
    assert host.capabilities("") == 0


def test_state_is_kept_and_damage_is_told(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.put("subnet", "198.18.0.0/24")
    state.put_device("lab-01", {"cut": True})
    assert State(tmp_path).get("subnet") == "198.18.0.0/24"
    assert state.device("lab-01") == {"cut": True}
    state.put_device("lab-01", None)
    assert state.device("lab-01") == {}
    state.path.write_text("{")
    with pytest.raises(LabError, match="is damaged"):
        state.load()


def test_a_process_is_told_from_the_next_one_of_its_number() -> None:
    assert process_start(1) is not None
    assert process_start(2**22 + 1) is None

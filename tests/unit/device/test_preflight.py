"""Preflight: one changed fact at a time in what a real Debian 12 gave, and all of them together."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import preflight, preflight_facts
from ansible_collections.edgeai.fleet.plugins.module_utils.device.preflight import (
    ERROR,
    WARNING,
    Limits,
    clashes,
    judge,
)

RECORDED = json.loads((Path(__file__).parent / "preflight" / "debian-12-container.json").read_text(encoding="utf-8"))
NOW = datetime.fromtimestamp(RECORDED["time"], timezone.utc).isoformat()
# What is true of every such container here: no time service, no memory controller.
USUAL = [("kernel_memory_cgroup", WARNING), ("time_sync", WARNING)]


def facts(**changes: Any) -> dict[str, Any]:
    """The recorded facts with some of them changed: ``disks__edge_root__free_mib=3``."""
    made = copy.deepcopy(RECORDED)
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = made
        for name in parents:
            at = at[name]
        assert last in at
        at[last] = value
    return made


def limits(**changes: Any) -> Limits:
    return Limits(NOW)._replace(**changes)


def found(machine: dict[str, Any], **changes: Any) -> list[tuple[str, str]]:
    return [(problem.name, problem.severity) for problem in judge(machine, limits(**changes))]


def test_a_recorded_machine_is_fit() -> None:
    assert found(facts()) == USUAL


@pytest.mark.parametrize(
    ("changes", "name", "severity", "words"),
    [
        ({"uid": 1000}, "root", ERROR, "ansible_become"),
        ({"architecture": "riscv64"}, "architecture", ERROR, "riscv64"),
        ({"architecture": "aarch64", "python_bits": 32}, "architecture", ERROR, "64-bit edition"),
        ({"os": {"ID": "fedora", "VERSION_ID": "41", "PRETTY_NAME": "Fedora 41"}}, "system", ERROR, "Fedora 41"),
        ({"os": {"ID": "debian", "VERSION_ID": "10"}}, "system", WARNING, "debian 10"),
        ({"os": {"ID": "linuxmint", "VERSION_ID": "22", "ID_LIKE": "ubuntu debian"}}, "system", WARNING, "related"),
        ({"os": {}}, "system", ERROR, "os-release"),
        ({"python": [3, 8, 10]}, "python", ERROR, "edge_system_python"),
        ({"python_modules__ensurepip": False}, "python_venv", ERROR, "python3.11-venv"),
        ({"kernel": [4, 9, 337]}, "kernel", WARNING, "4.9"),
        ({"kernel_features__seccomp": False}, "kernel_features", ERROR, "CONFIG_SECCOMP_FILTER"),
        ({"systemd": {"booted": False, "version": 0}}, "systemd", ERROR, "edge_platform: local"),
        ({"systemd__version": 245}, "systemd", ERROR, "247"),
        ({"disks__edge_root__read_only": True}, "disk", ERROR, "read-only"),
        ({"disks__edge_root__type": "vfat"}, "disk", ERROR, "ext4"),
        ({"disks__edge_root__type": "nfs4"}, "disk", WARNING, "local file system"),
        ({"disks__edge_root__type": "tmpfs"}, "disk", WARNING, "reboot"),
        ({"disks__edge_runtime_home__noexec": True}, "disk", ERROR, "noexec"),
        ({"disks__edge_runtime_home__free_mib": 900}, "disk", ERROR, "device_min_runtime_disk_mib"),
        ({"disks__edge_root__free_mib": 255, "disks__edge_root__in_use": False}, "disk", ERROR, "255 MiB"),
        ({"disks__edge_root__free_mib": 255, "disks__edge_root__in_use": True}, "disk", WARNING, "255 MiB"),
        ({"disks__edge_root__free_mib": 15, "disks__edge_root__in_use": True}, "disk", ERROR, "15 MiB"),
        ({"disks__edge_root__free_inodes": 10}, "disk", ERROR, "df -i"),
        ({"memory_mib": 399}, "memory", ERROR, "device_min_memory_mib"),
        ({"load": 9.0, "cpus": 2}, "load", WARNING, "4.5 per CPU"),
        ({"time": 60.0}, "clock", ERROR, "no battery"),
        ({"time": RECORDED["time"] + 3600}, "clock", ERROR, "60 minutes ahead"),
        ({"time": RECORDED["time"] - 121}, "clock", ERROR, "2 minutes behind"),
        ({"port": 22}, "port", ERROR, "sshd"),
        ({"port": 443}, "port", ERROR, "1024"),
        ({"listen_possible": False, "listen": "10.1.2.3"}, "address", ERROR, "10.1.2.3"),
        ({"known_device_id": "bench-02"}, "device_id", ERROR, "device_rename"),
        ({"hostname": "localhost"}, "hostname", WARNING, "device_hostname"),
        ({"machine_id": "uninitialized"}, "machine_id", WARNING, "systemd-machine-id-setup"),
        ({"service_user": {"uid": 0, "shell": "/bin/bash", "ours": False}}, "service_user", ERROR, "is root"),
        ({"service_user": {"uid": 1000, "shell": "/bin/bash", "ours": False}}, "service_user", ERROR, "/bin/bash"),
        ({"place": {"path": "/var", "entries": ["lib"], "directory": True}}, "edge_root", ERROR, "of its own"),
        ({"place": {"path": "/srv/a", "entries": ["photos"], "directory": True}}, "edge_root", ERROR, "photos"),
    ],
)
def test_one_thing_wrong_is_one_problem(changes: dict[str, Any], name: str, severity: str, words: str) -> None:
    problems = [problem for problem in judge(facts(**changes), limits()) if (problem.name, WARNING) not in USUAL]
    assert [(problem.name, problem.severity) for problem in problems if problem.name == name][:1] == [(name, severity)]
    assert {problem.name for problem in problems} == {name}
    assert words in preflight.describe(problems) and all(problem.fix for problem in problems)


@pytest.mark.parametrize(
    "changes",
    [
        {"time": RECORDED["time"] + 119},
        {"architecture": "armv7l", "python_bits": 32},
        {"port": 0},
        {"service_user": None},
        {"service_user": {"uid": 998, "shell": "/usr/sbin/nologin", "ours": False}},
        {"disks__edge_root__inodes": 0, "disks__edge_root__free_inodes": 0},
        {"known_device_id": ""},
        {"place": {"path": "/srv/a", "entries": None, "directory": True}},
        {"place": {"path": "/srv/a", "entries": ["lost+found"], "directory": True}},
        {
            "port": 22,
            "listeners": [{"address": "0.0.0.0", "port": 22, "process": "python3", "ours": True}],
            "first_port": 0,
        },
    ],
)
def test_what_is_no_problem(changes: dict[str, Any]) -> None:
    assert found(facts(**changes)) == USUAL


def test_everything_is_named_at_once_errors_first() -> None:
    broken = facts(time=60.0, memory_mib=100, disks__edge_root__free_mib=1, python=[3, 8, 1], port=22)
    names = found(broken)
    assert {"clock", "memory", "disk", "python", "port", "time_sync"} <= {name for name, severity in names}
    severities = [severity for name, severity in names]
    assert severities == sorted(severities) and severities.count(ERROR) >= 5


def test_what_is_accepted_only_warns() -> None:
    assert ("clock", WARNING) in found(facts(time=60.0), accept=("clock",))
    assert ("clock", ERROR) in found(facts(time=60.0), accept=("memory",))


def test_the_time_service() -> None:
    runs = facts(time_sync__units=["chrony"], time_sync__synchronized=False)
    assert ("time_sync", WARNING) in found(runs) and ("time_sync", WARNING) in found(runs, time_sync="require")
    assert ("time_sync", ERROR) in found(facts(), time_sync="require")
    assert found(facts(), time_sync="ignore") == USUAL[:1]
    assert found(facts(time_sync__units=["chrony"], time_sync__synchronized=True)) == USUAL[:1]


def test_time_servers_need_the_service_they_are_set_for() -> None:
    assert ("time_sync", ERROR) in found(facts(container=""), time_servers=True, time_sync="ignore")
    assert ("time_sync", ERROR) in found(facts(time_sync__timesyncd=True), time_servers=True)  # it never runs in one
    assert found(facts(container="", time_sync__timesyncd=True), time_servers=True) == USUAL[:1]


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.1", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "10.0.0.1", True),
        ("127.0.0.1", "::", True),
        ("::", "10.0.0.1", True),
        ("::1", "0.0.0.0", False),
        ("::1", "127.0.0.1", False),
    ],
)
def test_addresses_that_clash(first: str, second: str, clash: bool) -> None:
    assert clashes(first, second) is clash


def test_listeners_as_the_kernel_prints_them() -> None:
    four = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:2329 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1116177 1 0\n"
        "   1: 0400580A:0016 0100580A:802C 01 00000000:00000000 02:000AE950 00000000     0        0 1219837 2 0\n"
    )
    six = (
        "  sl  local_address                         remote_address                        st\n"
        "   0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 "
        "00:00000000 00000000     0        0 1116179 1 00000000d1bff006 100 0 0 10 0\n"
    )
    assert preflight_facts.parse_listeners(four) == [("127.0.0.1", 9001, "1116177")]
    assert preflight_facts.parse_listeners(six) == [("::1", 22, "1116179")]
    assert preflight_facts.parse_listeners("") == []


def test_the_file_system_of_a_path() -> None:
    mounts = (
        "overlay / overlay rw,relatime 0 0\n"
        "tmpfs /var tmpfs rw,noexec 0 0\n"
        "/dev/loop0 /var/lib/edgeai ext4 ro,relatime 0 0\n"
        "/dev/sda1 /media/a\\040b vfat rw 0 0\n"
        "/dev/loop1 /var/lib/edgeai xfs rw 0 0\n"
        "broken\n"
    )
    assert preflight_facts.parse_mounts(mounts, "/var/lib/edgeai/blobs") == ("/var/lib/edgeai", "xfs", ["rw"])
    assert preflight_facts.parse_mounts(mounts, "/var/lib/edgeai2") == ("/var", "tmpfs", ["rw", "noexec"])
    assert preflight_facts.parse_mounts(mounts, "/opt")[0] == "/"
    assert preflight_facts.parse_mounts(mounts, "/media/a b/c")[1] == "vfat"


def test_facts_of_this_very_machine(tmp_path: Path) -> None:
    gathered = preflight_facts.gather(
        str(tmp_path / "edge" / "root"), str(tmp_path / "runtimes"), "127.0.0.1", 1, "nobody", "here"
    )
    assert set(gathered) == set(RECORDED)
    assert gathered["memory_mib"] > 0 and gathered["disks"]["edge_root"]["free_mib"] >= 0
    assert gathered["place"]["entries"] is None and gathered["service_user"]["ours"] is False
    json.dumps(gathered)
    judge(gathered, limits())

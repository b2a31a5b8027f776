"""The lab itself: every fault it can make is seen by the device, or by who talks to it, and it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.api import Lab
from lab.device import Device
from lab.errors import LabError

NAME = "lab-90"  # a device of these tests alone
LAB = [sys.executable, str(Path(__file__).with_name("lab.py"))]
ANSIBLE = str(Path(sys.executable).with_name("ansible"))


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Iterator[Device]:
    lab.up(only=[NAME])
    yield lab.device(NAME)
    lab.remove(NAME)


@pytest.fixture
def device(bare: Device) -> Iterator[Device]:
    """A bare device without a fault, before the test and behind it."""
    yield bare
    bare.repair()
    bare.exec(["find", plan.DATA_PATH, "-mindepth", "1", "-delete"])


def ssh(lab: Lab, device: Device, *command: str, text: str = "", timeout: float = 60) -> subprocess.CompletedProcess:
    options = plan.ssh_options(str(lab.home / "ssh" / "known_hosts")).split()
    argv = ["ssh", "-i", str(lab.home / "ssh" / "id_ed25519"), *options, f"{plan.USER}@{device.address}", *command]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout, input=text)


def test_ansible_reaches_every_device_as_root(lab: Lab) -> None:
    argv = [ANSIBLE, "all", "-i", str(lab.inventory), "-m", "ansible.builtin.command", "-a", "id -u"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for device in lab.devices:
        assert f"{device.name} | CHANGED | rc=0 >>\n0\n" in done.stdout


def test_devices_are_bare_and_have_no_way_out(device: Device) -> None:
    assert device.boot_state() == "running"
    assert device.exec(["ip", "route", "show", "default"]).stdout == ""
    assert device.exec(["ls", "-A", plan.DATA_PATH]).stdout == ""
    assert device.exec(["python3", "-c", "import cryptography"], check=False).returncode != 0


def test_a_device_cannot_set_the_clock_that_it_shares_with_the_host(device: Device) -> None:
    status = device.exec(["cat", "/proc/1/status"]).stdout
    effective = int(status.partition("CapBnd:")[2].split()[0], 16)
    assert not effective >> 25 & 1  # CAP_SYS_TIME


def test_up_again_keeps_what_is_right_and_repairs_what_is_not(lab: Lab, device: Device) -> None:
    others = {other.name: other.pid() for other in lab.devices if other.name != device.name}
    device.power_cut()
    lab.up(only=[other.name for other in lab.devices])
    assert device.ssh_answers()
    assert {name: lab.device(name).pid() for name in others} == others


def test_cut_off_and_joined(lab: Lab, device: Device) -> None:
    device.cut()
    assert not device.ssh_answers()
    assert device.exec(["cat", "/sys/class/net/eth0/carrier"]).stdout.strip() == "0"
    device.join()
    assert ssh(lab, device, "true").returncode == 0


def test_a_cut_outlasts_a_power_cut(device: Device) -> None:
    device.cut()
    device.power_cut()
    device.power_on()
    assert not device.ssh_answers()
    device.join()
    assert device.ssh_answers()


def test_power_cut_keeps_what_was_synced_and_only_that(lab: Lab, device: Device) -> None:
    device.exec(["sh", "-c", "cd /var/lib/edgeai && echo kept >kept && sync . kept && echo lost >lost"])
    boot, key = device.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout, device.host_key.read_bytes()
    device.power_cut()
    assert device.boot_state() == "off"
    device.power_on()
    assert device.exec(["ls", plan.DATA_PATH]).stdout.split() == ["kept"]
    assert device.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != boot
    assert device.host_key.read_bytes() == key
    assert ssh(lab, device, "true").returncode == 0, "same address and same host key"


def test_whoever_talks_to_a_device_does_not_hear_of_its_power_cut(lab: Lab, device: Device) -> None:
    options = plan.ssh_options(str(lab.home / "ssh" / "known_hosts")).split()
    argv = ["ssh", "-i", str(lab.home / "ssh" / "id_ed25519"), *options, f"{plan.USER}@{device.address}"]
    with subprocess.Popen([*argv, "echo here; sleep 600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdout.readline() == b"here\n"
        device.power_cut()
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(3)
        assert client.wait(60) == 255  # ServerAliveInterval


def test_full_disk(device: Device) -> None:
    device.fill(leave_mib=1)
    full = device.exec(["dd", "if=/dev/zero", f"of={plan.DATA_PATH}/big", "bs=1M", "count=3"], check=False)
    assert "No space left on device" in full.stderr
    assert device.exec(["ls", plan.DATA_PATH]).stdout.split() == ["big"], "the ballast is out of sight"
    device.exec(["rm", f"{plan.DATA_PATH}/big"])
    device.drain()
    device.exec(["dd", "if=/dev/zero", f"of={plan.DATA_PATH}/big", "bs=1M", "count=3"])


def connect_seconds(device: Device) -> float:
    """The best of five TCP handshakes: one round trip."""
    best = 60.0
    for _attempt in range(5):
        started = time.monotonic()
        with socket.create_connection((device.address, 22), timeout=30):
            best = min(best, time.monotonic() - started)
    return best


def test_slow_network_is_slow_and_carries_everything(lab: Lab, device: Device) -> None:
    device.slow(delay="100ms", loss="3%", rate="4mbit")
    assert connect_seconds(device) >= 0.2, "100 ms there and 100 ms back"
    text = "0123456789abcdef" * 16384
    started = time.monotonic()
    assert ssh(lab, device, "cat", text=text).stdout == text
    assert time.monotonic() - started > 0.5, "256 KiB at 4 Mbit/s"
    device.power_cut()
    device.power_on()
    assert connect_seconds(device) >= 0.2, "slow over a power cut, too"
    device.fast()
    assert connect_seconds(device) < 0.1


def test_clock_of_1970(lab: Lab, device: Device) -> None:
    device.set_clock("1970-01-01")
    for command in (["date", "+%Y"], ["sudo", "python3", "-c", "'import datetime; print(datetime.date.today().year)'"]):
        assert ssh(lab, device, *command).stdout.strip() == "1970"
    slept = "import time; a = time.monotonic(); time.sleep(0.2); print(0.1 < time.monotonic() - a < 5)"
    assert device.exec(["python3", "-c", slept], timeout=20).stdout.strip() == "True"
    hardened = ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "MemoryDenyWriteExecute=yes", "date", "+%Y"]
    assert device.exec(hardened).stdout.strip() == "1970"
    device.power_cut()
    device.power_on()
    assert ssh(lab, device, "date", "+%Y").stdout.strip() == "1970", "no battery: every boot begins there"
    device.set_clock("now")
    assert abs(int(ssh(lab, device, "date", "+%s").stdout) - time.time()) < 5


@pytest.mark.thorough
def test_arm64(mixed_lab: Lab) -> None:
    lab = mixed_lab
    arm = [device for device in lab.devices if device.spec.arch == "arm64"]
    assert ssh(lab, arm[0], "uname", "-m").stdout.strip() == "aarch64"
    assert ssh(lab, arm[0], "sudo", "id", "-u").stdout.strip() == "0"


def test_wait_unit_tells_the_journal_of_a_unit_that_does_not_come(device: Device) -> None:
    device.wait_unit("ssh.service")
    with pytest.raises(LabError, match=r"(?s)nothing.service on lab-90 is active; it is inactive"):
        device.wait_unit("nothing.service", seconds=1)


def test_command_line(lab: Lab, device: Device) -> None:
    done = subprocess.run([*LAB, "exec", device.name, "--", "hostname"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, device.name)
    done = subprocess.run([*LAB, "cut", "lab-77"], check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "lab-77" in done.stderr

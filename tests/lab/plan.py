# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""What a lab consists of: names, addresses, image keys and file contents. Pure functions, no I/O."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import LabError

USER = "admin"
SUITE = "bookworm"
DATA_PATH = "/var/lib/edgeai"
DATA_MIB = 512
NETWORKS = ipaddress.ip_network("198.18.0.0/15")  # reserved for benchmarks: no site routes it
FIRST_HOST = 11
MAX_DEVICES = 99
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# A device is bare: an init, Python, ssh. Nothing of what provisioning is there to install.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-venv",
    "openssh-server",
    "sudo",
    "iproute2",
    "ca-certificates",
    "procps",
)
# Units that would change the host's kernel, which all devices share, or that make no sense in a container.
MASKED = (
    "systemd-timesyncd.service",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "console-getty.service",
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
# Oneshot units that fail when qemu-user emulates the architecture, and are of no use in a container.
MASKED_EMULATED = (
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "e2scrub_reap.service",
)


@dataclass(frozen=True)
class Spec:
    """One device: its name, architecture (Debian's word), suite and number within the lab."""

    name: str
    arch: str
    number: int
    suite: str = SUITE

    def to_json(self) -> dict:
        return asdict(self)


def lab_id(home: str) -> str:
    """Six hex digits that tell the labs of several directories on one machine apart."""
    return hashlib.sha256(home.encode()).hexdigest()[:6]


def bridge(lab: str) -> str:
    return "edl" + lab


def link(lab: str, number: int) -> str:
    """The host's end of a device's cable; at most 15 characters, as the kernel wants."""
    return f"edl{lab}-{number:02d}"


def relay_links(lab: str, number: int) -> tuple[str, str]:
    """The second cable of a slow link: the end on the bridge and the end that the relay holds."""
    return f"edb{lab}-{number:02d}", f"edr{lab}-{number:02d}"


def mac(lab: str, number: int) -> str:
    """A device's hardware address: its own over every boot, or the host would talk to the old one for a while."""
    return "02:ed:" + ":".join((lab[:2], lab[2:4], lab[4:6])) + f":{number:02x}"


def container(lab: str, name: str) -> str:
    return f"edgeai-lab-{lab}-{name}"


def specs(devices: int, arm64: int, only: Iterable[str] = (), native: str = "amd64", suite: str = SUITE) -> list[Spec]:
    """The devices asked for: lab-01.. of this machine's architecture, lab-arm-01.. of arm64.

    ``only`` names the devices to take, whatever the two counts are.
    Raises LabError for a name or a count that cannot be.
    """
    wanted = list(dict.fromkeys(only))
    if not wanted:
        wanted = [f"lab-{n:02d}" for n in range(1, devices + 1)] + [f"lab-arm-{n:02d}" for n in range(1, arm64 + 1)]
    if not wanted:
        raise LabError("no device asked for: give --devices or --arm64 a count above 0")
    return [_spec(name, native, suite) for name in wanted]


def _spec(name: str, native: str, suite: str) -> Spec:
    match = re.fullmatch(r"lab-(arm-)?(\d\d)", name)
    number = int(match.group(2)) if match else 0
    if not match or not 1 <= number <= MAX_DEVICES:
        raise LabError(f"device {name!r}: names are lab-01 to lab-{MAX_DEVICES} and lab-arm-01 to lab-arm-99")
    if match.group(1):
        return Spec(name, "arm64", number + 100, suite)
    return Spec(name, native, number, suite)


def subnets(lab: str) -> list[ipaddress.IPv4Network]:
    """Every /24 the lab may use, its own favourite first, so that two labs rarely meet."""
    every = list(NETWORKS.subnets(new_prefix=24))
    start = int(lab, 16) % len(every)
    return every[start:] + every[:start]


def free_subnet(lab: str, taken: Iterable[str]) -> str:
    """The first /24 that overlaps none of the networks in ``taken``; LabError when all are used."""
    used = [ipaddress.ip_network(text, strict=False) for text in taken]
    for network in subnets(lab):
        if not any(network.overlaps(other) for other in used if other.version == 4):
            return str(network)
    raise LabError(f"every /24 of {NETWORKS} is in use here: take other labs down (lab.py down in their checkouts)")


def address(subnet: str, number: int) -> str:
    """The address of device ``number``; 0 is the host itself."""
    network = ipaddress.ip_network(subnet)
    if number == 0:
        return str(network[1])
    return str(network[FIRST_HOST - 1 + number])


def image_key(packages: Iterable[str], suite: str, arch: str, hooks: Iterable[str]) -> str:
    """Sixteen hex digits over everything that decides what is in an image."""
    text = json.dumps([sorted(packages), suite, arch, list(hooks)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def image_hooks(arch: str, native: str) -> list[str]:
    """Commands that mmdebstrap runs on the tree ($1) after the packages are in."""
    hooks = [
        f'chroot "$1" useradd --create-home --shell /bin/bash {USER}',
        f'echo "{USER} ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/{USER}" && chmod 0440 "$1/etc/sudoers.d/{USER}"',
        'rm -f "$1"/etc/ssh/ssh_host_*',  # each device gets its own at "up"
        ': >"$1/etc/machine-id"',
        f'mkdir -p "$1{DATA_PATH}"',
        'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*',
        ': >"$1/etc/resolv.conf"',
    ]
    masked = MASKED if arch == native else MASKED + MASKED_EMULATED
    return hooks + [f'ln -sf /dev/null "$1/etc/systemd/system/{unit}"' for unit in masked]


def ssh_options(known_hosts: str) -> str:
    """Options of every ssh to a device: strict about host keys, and a dead link is noticed in seconds."""
    return (
        f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
        " -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
    )


def inventory(ssh: Path, devices: Iterable[tuple[Spec, str]]) -> str:
    """The inventory as YAML, for the directory of the ssh key, and pairs of a device and its address.

    Paths are absolute: testinfra reads the inventory, too, and knows no templates.
    """
    # Variables of the group, not of everything: the controller itself is in "all", too.
    lines = ["# Written by tests/lab/lab.py; removed by it, too.", "edge:", "  vars:"]
    for key, value in (
        ("ansible_user", USER),
        ("ansible_become", "true"),
        ("ansible_python_interpreter", "/usr/bin/python3"),
        ("ansible_ssh_private_key_file", f'"{ssh}/id_ed25519"'),
        ("ansible_ssh_common_args", f'"{ssh_options(f"{ssh}/known_hosts")}"'),
    ):
        lines.append(f"    {key}: {value}")
    lines.append("  hosts:")
    for spec, host in devices:
        lines += [f"    {spec.name}:", f"      ansible_host: {host}", f"      lab_architecture: {spec.arch}"]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Slowness:
    """How bad a link is, the same in both directions."""

    delay: float = 0.0  # seconds, one way
    loss: float = 0.0  # share of the frames, 0 to 1
    rate: float = 0.0  # bytes a second; 0: no limit

    @classmethod
    def parse(cls, delay: str = "0", loss: str = "0", rate: str = "0") -> Slowness:
        """From words: ``100ms`` or ``0.1s``, ``2%``, ``256kbit`` or ``1mbit``. LabError for what is none of these."""
        slow = cls(_quantity("delay", delay, DELAYS), _quantity("loss", loss, LOSSES), _quantity("rate", rate, RATES))
        if slow.loss > 1:
            raise LabError(f"loss {loss!r}: more than 100%")
        if slow == cls():
            raise LabError("slow: give at least one of delay (100ms), loss (2%) and rate (1mbit)")
        return slow


DELAYS = {"ms": 1e-3, "s": 1.0}
LOSSES = {"%": 1e-2}
RATES = {"kbit": 125.0, "mbit": 125e3, "gbit": 125e6}


def _quantity(field: str, text: str, units: dict[str, float]) -> float:
    if text == "0":
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(\D+)", text)
    if not match or match.group(2) not in units:
        raise LabError(f"{field} {text!r}: give a number and one of {', '.join(units)}")
    return float(match.group(1)) * units[match.group(2)]

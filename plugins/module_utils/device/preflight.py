# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Is this machine fit to become a device? Pure: facts and limits in, every problem out, each with how to fix it.

`preflight_facts.gather` collects the facts. One check does not hide another: all problems are named at once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .clock import format_time, parse_time
from .removal import Look, setup_refusal

ERROR = "error"
WARNING = "warning"
ARCHITECTURES = ("x86_64", "aarch64", "armv7l")
SYSTEMS = {"debian": ("11", "12", "13"), "raspbian": ("11", "12", "13"), "ubuntu": ("22.04", "24.04")}
PYTHON = (3, 9)
SYSTEMD = 247
KERNEL = (5, 4)
#: File systems that cannot hold what the store relies on: links, owners, renames that are whole.
UNFIT = ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "iso9660", "squashfs")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs")
VOLATILE = ("tmpfs", "ramfs")
BARELY_MIB = 16
MIN_INODES = 2000
NO_SHELL = ("nologin", "false", "sync")
# Before this moment nobody can have run this program: the clock was never set.
FIRST_YEAR = 1767225600


class Limits(NamedTuple):
    """What is asked of the machine: MiB, seconds, load per CPU. ``accept`` names problems that only warn.

    ``time_servers`` says that time servers are to be set, for which systemd-timesyncd has to be there.
    """

    controller_time: str
    min_disk_mib: int = 256
    min_runtime_disk_mib: int = 1024
    min_memory_mib: int = 400
    max_clock_skew: float = 120.0
    max_load_per_cpu: float = 4.0
    time_sync: str = WARNING
    time_servers: bool = False
    accept: tuple[str, ...] = ()


class Problem(NamedTuple):
    """One thing that is wrong: what was found, what is wanted, how to get there; ``error`` or ``warning``."""

    name: str
    found: str
    wanted: str
    fix: str
    severity: str = ERROR


Facts = Mapping[str, Any]


def judge(facts: Facts, limits: Limits) -> list[Problem]:
    """Return every problem, errors first. Problems named in ``limits.accept`` are warnings."""
    found: list[Problem] = []
    for check in CHECKS:
        found += check(facts, limits)
    found = [item._replace(severity=WARNING) if item.name in limits.accept else item for item in found]
    return [item for item in found if item.severity == ERROR] + [item for item in found if item.severity != ERROR]


def describe(problems: Iterable[Problem]) -> str:
    """One line per problem, for people."""
    return "\n".join(f"- {p.name}: found {p.found}; wanted {p.wanted}. Fix: {p.fix}" for p in problems)


def _root(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if facts["uid"] != 0:
        yield Problem("root", f"user id {facts['uid']}", "root", "set ansible_become: true, or connect as root")


def _architecture(facts: Facts, limits: Limits) -> Iterator[Problem]:
    machine, bits = facts["architecture"], facts["python_bits"]
    if machine not in ARCHITECTURES:
        yield Problem(
            "architecture", machine, " or ".join(ARCHITECTURES), "use another machine: no runtime exists for it"
        )
    elif machine != "armv7l" and bits != 64:
        wanted = "64-bit programs, as its kernel is"
        fix = "install the 64-bit edition of the system: runtimes for this kernel do not load into 32-bit programs"
        yield Problem("architecture", f"{machine} kernel with {bits}-bit programs", wanted, fix)


def _system(facts: Facts, limits: Limits) -> Iterator[Problem]:
    name, version = facts["os"].get("ID", ""), facts["os"].get("VERSION_ID", "")
    if version in SYSTEMS.get(name, ()):
        return
    found = facts["os"].get("PRETTY_NAME") or f"{name} {version}".strip() or "no /etc/os-release"
    related = name in SYSTEMS or {"debian", "ubuntu"} & set(facts["os"].get("ID_LIKE", "").split())
    wanted = "Debian 11 to 13, Ubuntu 22.04 or 24.04"
    fix = (
        "install one of these"
        if not related
        else "install one of these, or go on at your own risk: it is related to them"
    )
    yield Problem("system", found, wanted, fix, WARNING if related else ERROR)


def _python(facts: Facts, limits: Limits) -> Iterator[Problem]:
    version = tuple(facts["python"][:2])
    if version < PYTHON:
        fix = "upgrade the system, or set edge_system_python to a newer interpreter on the device"
        yield Problem("python", "{}.{}".format(*version), "{}.{} or newer".format(*PYTHON), fix)
    missing = [name for name in ("venv", "ensurepip") if not facts["python_modules"].get(name)]
    if missing:
        package = "python{}.{}-venv".format(*version)
        fix = f"apt-get install python3-venv (or {package}; in an air-gapped site from the installation medium)"
        yield Problem("python_venv", "no module {}".format(" and ".join(missing)), "Python with venv", fix)


def _kernel(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if tuple(facts["kernel"][:2]) < KERNEL:
        found, wanted = "{}.{}".format(*facts["kernel"][:2]), "{}.{} or newer".format(*KERNEL)
        yield Problem("kernel", found, wanted, "upgrade the kernel (vendor image)", WARNING)
    missing = [name for name in ("seccomp", "mount namespaces") if not facts["kernel_features"].get(name)]
    if missing:
        fix = (
            "use a kernel with CONFIG_SECCOMP_FILTER and CONFIG_NAMESPACES: without them the services are not confined"
        )
        yield Problem("kernel_features", "no {}".format(" and no ".join(missing)), "a kernel that has them", fix)
    if not facts["kernel_features"].get("memory cgroup"):
        fix = (
            "add cgroup_enable=memory cgroup_memory=1 to the kernel's command line (Raspberry Pi: "
            "/boot/firmware/cmdline.txt) and reboot; until then no memory ceiling holds"
        )
        yield Problem("kernel_memory_cgroup", "no memory controller", "a memory controller", fix, WARNING)


def _systemd(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if not facts["systemd"]["booted"]:
        fix = "use a machine booted with systemd, or edge_platform: local for a directory and a process"
        yield Problem("systemd", "another init", "a machine booted with systemd", fix)
    elif facts["systemd"]["version"] < SYSTEMD:
        fix = "upgrade the system: services would not be confined as promised"
        yield Problem("systemd", str(facts["systemd"]["version"]), f"{SYSTEMD} or newer", fix)


def _disk(facts: Facts, limits: Limits) -> Iterator[Problem]:
    for name, least in (("edge_root", limits.min_disk_mib), ("edge_runtime_home", limits.min_runtime_disk_mib)):
        disk = facts["disks"][name]
        where = f"{disk['path']} (on {disk['mount']})"
        if disk["read_only"]:
            yield Problem(
                "disk", f"{where} is read-only", "a writable file system", f"remount it, or set {name} elsewhere"
            )
            continue
        if disk["type"] in UNFIT:
            fix = f"put {name} on ext4, xfs, btrfs or f2fs"
            yield Problem("disk", f"{where} is {disk['type']}", "a file system with links and owners", fix)
        elif disk["type"] in REMOTE:
            fix = f"put {name} on a disk of the device: it has to serve when the network is gone"
            yield Problem("disk", f"{where} is {disk['type']}", "a local file system", fix, WARNING)
        elif disk["type"] in VOLATILE:
            yield Problem(
                "disk", f"{where} is {disk['type']}", "a disk", f"{name} would not outlive a reboot: move it", WARNING
            )
        if name == "edge_runtime_home" and disk["noexec"]:
            yield Problem(
                "disk", f"{where} is mounted noexec", "programs can run there", f"remount it, or set {name} elsewhere"
            )
        yield from _space(name, disk, least, where)


def _space(name: str, disk: Facts, least: int, where: str) -> Iterator[Problem]:
    # What is there already may have taken the space it was meant for: then only what stops this run is an error.
    free = disk["free_mib"]
    hard = BARELY_MIB if disk["in_use"] else least
    if free < least:
        severity = ERROR if free < hard else WARNING
        option = "device_min_disk_mib" if name == "edge_root" else "device_min_runtime_disk_mib"
        fix = f"free space there, or set {name} elsewhere, or lower {option}"
        yield Problem("disk", f"{free} MiB free at {where}", f"{least} MiB", fix, severity)
    if disk["inodes"] and disk["free_inodes"] < MIN_INODES:
        fix = "remove files there (df -i shows them)"
        yield Problem("disk", f"{disk['free_inodes']} free inodes at {where}", f"{MIN_INODES} or more", fix)


def _memory(facts: Facts, limits: Limits) -> Iterator[Problem]:
    total = facts["memory_mib"]
    if total < limits.min_memory_mib:
        fix = "use a machine with more memory, or lower device_min_memory_mib when the models are tiny"
        yield Problem("memory", f"{total} MiB", f"{limits.min_memory_mib} MiB or more", fix)


def _load(facts: Facts, limits: Limits) -> Iterator[Problem]:
    load = facts["load"] / max(1, facts["cpus"])
    if load > limits.max_load_per_cpu:
        fix = "see with top what keeps it busy: latencies measured now are not true; or raise device_max_load_per_cpu"
        yield Problem("load", f"{load:.1f} per CPU", f"{limits.max_load_per_cpu:g} or less", fix, WARNING)


def _clock(facts: Facts, limits: Limits) -> Iterator[Problem]:
    wanted = parse_time(limits.controller_time, "controller_time").timestamp()
    skew = facts["time"] - wanted
    if abs(skew) <= limits.max_clock_skew:
        return
    found = f"{format_time(facts['time'])} ({_duration(abs(skew))} {'ahead' if skew > 0 else 'behind'})"
    fix = f"let it synchronise its time (device_ntp_servers), or once by hand: date -u -s @{wanted:.0f}"
    if facts["time"] < FIRST_YEAR:
        fix = "its clock was never set (no battery?): " + fix
    within = f"within {limits.max_clock_skew:g} s of {format_time(wanted)}"
    yield Problem("clock", found, within, fix + "; or device_allow_wrong_clock: true")


def _duration(seconds: float) -> str:
    for size, name in ((31557600.0, "years"), (86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _time_sync(facts: Facts, limits: Limits) -> Iterator[Problem]:
    if limits.time_servers:
        if facts["container"]:
            fix = "empty device_ntp_servers: a container has its host's clock, which is to be kept right there"
            yield Problem("time_sync", f"a container ({facts['container']})", "a machine with a clock", fix)
        elif not facts["time_sync"]["timesyncd"]:
            fix = (
                "apt-get install systemd-timesyncd, or empty device_ntp_servers and configure what keeps the time there"
            )
            yield Problem("time_sync", "no systemd-timesyncd", "it, for device_ntp_servers", fix)
        return
    if limits.time_sync == "ignore" or facts["time_sync"]["synchronized"]:
        return
    units = facts["time_sync"]["units"]
    if units:
        found, fix = (
            f"{units[0]} runs and has no time yet",
            "see that it reaches its servers (timedatectl timesync-status)",
        )
    else:
        found = "no time service"
        fix = "apt-get install systemd-timesyncd (or chrony) and name device_ntp_servers; or device_time_sync: ignore"
    severity = ERROR if limits.time_sync == "require" and not units else WARNING
    yield Problem("time_sync", found, "a clock that is kept right", fix, severity)


def _port(facts: Facts, limits: Limits) -> Iterator[Problem]:
    listen, port = facts["listen"], facts["port"]
    for other in facts["listeners"]:
        if other["port"] == port and not other["ours"] and clashes(listen, other["address"]):
            who = other["process"] or "another program"
            fix = f"stop {who}, or set edge_port to a free port"
            yield Problem(
                "port", f"{who} listens on {other['address']} port {port}", f"{listen} port {port} is free", fix
            )
            break
    if 0 < port < facts["first_port"]:
        fix = f"set edge_port to {facts['first_port']} or higher: the server has no right to a lower one"
        yield Problem("port", f"port {port}", f"a port from {facts['first_port']} on", fix)
    if not facts["listen_possible"]:
        fix = "set edge_listen to an address of this device, to 127.0.0.1, or to 0.0.0.0 or :: for all"
        yield Problem("address", f"{listen} is no address of this device", "an address of its own", fix)


def clashes(first: str, second: str) -> bool:
    """Whether two programs cannot listen on these addresses with the same port. Pure."""
    one, two = (ipaddress.ip_address(address) for address in (first, second))
    if one.is_unspecified or two.is_unspecified:
        every = one if one.is_unspecified else two
        return every.version == 6 or one.version == two.version
    return one == two


def _identity(facts: Facts, limits: Limits) -> Iterator[Problem]:
    known, wanted = facts["known_device_id"], facts["device_id"]
    if known and known != wanted:
        fix = (
            "see whether two inventory names lead to this machine (ansible_host); if it really gets a new name, "
            "set device_rename: true"
        )
        yield Problem("device_id", f"this machine is device {known}", f"device {wanted}", fix)
    if facts["hostname"] in ("", "localhost", "localhost.localdomain"):
        fix = "set device_hostname, so that its logs and metrics can be told from those of others"
        yield Problem("hostname", facts["hostname"] or "none", "a name of its own", fix, WARNING)
    if len(facts["machine_id"]) != 32:
        fix = "run systemd-machine-id-setup; an image must be shipped with an empty /etc/machine-id"
        yield Problem("machine_id", facts["machine_id"] or "none", "an id of its own", fix, WARNING)


def _account(facts: Facts, limits: Limits) -> Iterator[Problem]:
    user, name = facts["service_user"], facts["service_user_name"]
    if user is None:
        return
    fix = "set edge_user to a name of its own, for example edgeai"
    if user["uid"] == 0:
        yield Problem("service_user", f"{name} is root", "a user without rights", fix)
    elif not user["ours"] and user["shell"].rpartition("/")[2] not in NO_SHELL:
        wanted = "a system user that nobody logs in as"
        yield Problem("service_user", f"{name} is somebody's account (shell {user['shell']})", wanted, fix)


def _place(facts: Facts, limits: Limits) -> Iterator[Problem]:
    place = facts["place"]
    look = Look(None if place["entries"] is None else tuple(place["entries"]), False, False, place["directory"])
    refused = setup_refusal(place["path"], look)
    if refused:
        yield Problem("edge_root", place["path"], "a directory of its own", refused)


CHECKS = (
    _root,
    _architecture,
    _system,
    _python,
    _kernel,
    _systemd,
    _place,
    _disk,
    _memory,
    _load,
    _clock,
    _time_sync,
    _port,
    _identity,
    _account,
)

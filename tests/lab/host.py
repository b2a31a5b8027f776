# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""What the host is and offers: rights, packages, cgroups, and the mount namespace the lab works in."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from .errors import LabError
from .plan import ARCHITECTURES
from .state import State, process_start

CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 12, 21, 24
# Rights over what the host and the devices share: the clock, kernel modules, raw hardware.
NEVER = ("sys_time", "sys_module", "sys_rawio", "wake_alarm", "mac_admin", "mac_override")
PROGRAMS = {
    "podman": "podman",
    "crun": "crun",
    "conmon": "conmon",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "tc": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
EMULATOR = {"arm64": ("qemu-aarch64-static", "qemu-user-static")}
ARCH_TEST = ("arch-test", "arch-test")  # mmdebstrap asks it whether a foreign program runs here
LIBRARIES = {"/usr/lib/podman/netavark": "netavark"}
SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def say(text: str) -> None:
    """One line of progress, on stderr: stdout belongs to what a command answers."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def run(argv: list[str], timeout: float = 60, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Run a command to its end, text in and out. LabError names the command and its last words."""
    options = {"text": True, **options}
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    try:
        done = subprocess.run(argv, check=False, capture_output=True, timeout=timeout, **options)
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv[:6])}: not done after {timeout:g} s") from None
    except OSError as error:
        raise LabError(f"{argv[0]}: {error.strerror}") from error
    if check and done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-1500:]
        raise LabError(f"{' '.join(argv[:12])}: exit status {done.returncode}: {words}")
    return done


def capabilities(status: str) -> int:
    """The effective capabilities, from the text of /proc/self/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def has_capability(number: int) -> bool:
    return bool(capabilities(Path("/proc/self/status").read_text()) >> number & 1)


def native_architecture() -> str:
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise LabError(f"this machine is {machine}; the lab runs on {' and '.join(ARCHITECTURES)}")
    return ARCHITECTURES[machine]


def require_rights() -> None:
    """LabError unless this process may make mounts, network links and containers."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root (mounts, network links, containers): run it with sudo")
    missing = [
        name
        for name, number in (("CAP_SYS_ADMIN", CAP_SYS_ADMIN), ("CAP_NET_ADMIN", CAP_NET_ADMIN))
        if not has_capability(number)
    ]
    if missing:
        raise LabError(f"root without {' and '.join(missing)}: run the lab on a machine, or in a privileged container")


def missing_packages(architectures: set[str], native: str) -> list[str]:
    """Debian packages whose programs are not here."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *SBIN])
    wanted = {package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)}
    wanted |= {package for file, package in LIBRARIES.items() if not Path(file).exists()}
    for arch in architectures - {native}:
        for program, package in (EMULATOR[arch], ARCH_TEST):
            if not shutil.which(program, path=path):
                wanted |= {package}
    return sorted(wanted)


def install_packages(packages: list[str]) -> None:
    """Install with apt, without a question; LabError names the packages when apt is not here or fails."""
    if not packages:
        return
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise LabError(f"missing here: {names} (Debian's names); install them")
    say(f"installing {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], timeout=300, env=environment)
    command = ["apt-get", "install", "-y", "-qq", *packages]
    run(command, timeout=540, env=environment)


def cgroup2_mounted() -> bool:
    return run(["stat", "-f", "-c", "%T", "/sys/fs/cgroup"]).stdout.strip() == "cgroup2fs"


class Namespace:
    """The mount namespace in which podman and the lab's mounts live.

    Where /sys/fs/cgroup is cgroup v2, that is the one we are in. Elsewhere a holder process keeps a private one
    in which cgroup v2 is mounted there, and every command joins it.
    """

    HOLD = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && echo ready && exec sleep infinity"

    def __init__(self, state: State) -> None:
        self.state = state

    def holder(self) -> int | None:
        """The process that keeps the namespace, when there is one and it lives."""
        record = self.state.get("holder")
        if record and process_start(record["pid"]) == record["start"]:
            return record["pid"]
        return None

    def ensure(self) -> bool:
        """Make the namespace when one is needed and not there. True when it was made now."""
        if cgroup2_mounted() or self.holder():
            return False
        holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", self.HOLD],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if holder.stdout is None or holder.stdout.readline().strip() != "ready":
            words = holder.stderr.read().strip() if holder.stderr else ""
            raise LabError(f"cgroup v2 cannot be mounted in a private mount namespace: {words}")
        self.state.put("holder", {"pid": holder.pid, "start": process_start(holder.pid)})
        return True

    def prefix(self) -> list[str]:
        """What to put before a command to run it in the namespace, without the rights no device may have.

        podman gives a privileged container all that it may have itself; so it must not have them.
        """
        dropped = ",".join(f"-{name}" for name in NEVER)
        bounded = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", "--"]
        pid = self.holder()
        if pid is not None:
            return ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "--", *bounded]
        if self.state.get("holder"):
            raise LabError("the process that holds the lab's mounts is gone: lab.py up starts the devices again")
        return bounded

    def run(self, argv: list[str], timeout: float = 60, check: bool = True, **options) -> subprocess.CompletedProcess:
        return run([*self.prefix(), *argv], timeout, check, **options)

    def release(self) -> None:
        """End the holder, and with it the namespace and all its mounts."""
        pid = self.holder()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self.holder() is None, 10, "the holder of the lab's mounts ends")
        self.state.put("holder", None)


def wait_until(condition, seconds: float, what: str, every: float = 0.1):
    """Poll ``condition`` until it is true and return its value; LabError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:g} s in vain until {what}")
        time.sleep(every)

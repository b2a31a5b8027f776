# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""One device of the lab, and what can happen to it."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import subprocess
import tarfile
import uuid
from pathlib import Path

from . import clock, plan
from .container import Podman
from .disk import Disk
from .errors import LabError
from .host import run, wait_until
from .net import Network
from .plan import Spec
from .state import State

BOOT_SECONDS = {True: 240, False: 600}  # by "native"
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # the kernel's own is the host's and outlives a device's boots
UP = ("running", "degraded")


class Device:
    """A device by its name. Its container, its cable and its disk may or may not be there."""

    def __init__(self, spec: Spec, home: Path, state: State, podman: Podman, network: Network, native: bool) -> None:
        self.spec = spec
        self.name = spec.name
        self.native = native
        self.directory = home / "devices" / spec.name
        self.boot_id = self.directory / "boot_id"
        self.ssh = home / "ssh"
        self.log = home / "logs" / f"{spec.name}.console.log"
        self.state = state
        self.podman = podman
        self.network = network
        self.container = plan.container(network.lab, spec.name)
        self.disk = Disk(self.directory, plan.DATA_MIB, podman.namespace)

    # -- what is

    @property
    def address(self) -> str:
        return plan.address(self.state.get("subnet"), self.spec.number)

    @property
    def host_key(self) -> Path:
        return self.directory / "ssh_host_ed25519_key"

    def pid(self) -> int | None:
        """Process id of the device's init on the host; None: the device is off."""
        return self.podman.pid(self.container)

    def is_cut(self) -> bool:
        return bool(self.state.device(self.name).get("cut"))

    def boot_state(self) -> str:
        """systemd's word: running, degraded, starting, ...; "off" without power."""
        if self.pid() is None:
            return "off"
        return self.exec(["systemctl", "is-system-running"], check=False).stdout.strip() or "starting"

    def ssh_answers(self) -> bool:
        """True when sshd greets: TCP from the host to the device's port 22."""
        try:
            with socket.create_connection((self.address, 22), timeout=2) as connection:
                connection.settimeout(5)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    # -- making and removing

    def create(self, image: str) -> None:
        """The container, with its disk, its journal, its keys; not started."""
        journal = self.directory / "journal"
        journal.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.disk.ensure()
        self._host_key()
        self.boot_id.touch()
        volumes = {self.disk.root: plan.DATA_PATH, journal: "/var/log/journal", self.boot_id: BOOT_ID}
        self.podman.create(self.container, self.name, self.spec.arch, image, volumes, self.log)
        self.state.put_device(self.name, self.spec.to_json())
        self.refresh()

    def refresh(self) -> None:
        """Write the files that make the device itself, when they are not those it has."""
        files = self._files()
        digest = hashlib.sha256(files).hexdigest()
        if self.state.device(self.name).get("files") != digest:
            self.podman.copy_in(self.container, files)
            self._remember("files", digest)

    def _host_key(self) -> None:
        if not self.host_key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(self.host_key)])

    def _files(self) -> bytes:
        """What makes this device itself, as a tar archive over its root."""
        hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {self.name}\n".encode()
        owner = (1000, 1000)
        home = f"home/{plan.USER}"
        entries = [
            ("etc/hosts", hosts, 0o644, (0, 0)),
            ("etc/ssh/ssh_host_ed25519_key", self.host_key.read_bytes(), 0o600, (0, 0)),
            ("etc/ssh/ssh_host_ed25519_key.pub", self.host_key.with_suffix(".pub").read_bytes(), 0o644, (0, 0)),
            (f"{home}/.ssh", None, 0o700, owner),
            (f"{home}/.ssh/authorized_keys", (self.ssh / "id_ed25519.pub").read_bytes(), 0o600, owner),
        ]
        # A unit with ProtectKernelTunables gets a /proc of its own, in which the boot id is the host's again.
        drop_in = f"[Service]\nBindReadOnlyPaths={BOOT_ID}\n"
        if not self.native:
            drop_in += "PrivateNetwork=no\nPrivateUsers=no\n"  # user-mode emulation sets neither up
        entries.append(("etc/systemd/system/edgeai-.service.d/50-edgeai-lab.conf", drop_in.encode(), 0o644, (0, 0)))
        buffer = io.BytesIO()
        entries += [(path, content, mode, (0, 0)) for path, content, mode in clock.files(self.spec.arch)]
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, target in clock.LINKS.items():
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
            for path, content, mode, (uid, gid) in entries:
                entry = tarfile.TarInfo(path)
                entry.mode, entry.uid, entry.gid = mode, uid, gid
                entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
                entry.size = len(content or b"")
                archive.addfile(entry, io.BytesIO(content or b""))
        return buffer.getvalue()

    def remove(self) -> None:
        """The device and all that is its own."""
        self.podman.remove(self.container)
        self.network.unplug(self.spec.number)
        self.disk.unmount()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.state.put_device(self.name, None)

    # -- power

    def power_on(self, wait: bool = True) -> None:
        """Start the device, with the cable as it was; back when it has booted and, unless cut off, ssh answers."""
        if self.pid() is None:
            self.network.unplug(self.spec.number)
            self.disk.ensure()
            self.boot_id.write_text(f"{uuid.uuid4()}\n")
            pid = self.podman.start(self.container)
            self.podman.namespace.run(
                ["nsenter", "-t", str(pid), "-m", "find", "/dev", "-xdev", "-type", "b", "-delete"]
            )
            self.network.plug(self.spec.number, pid, self.state.get("subnet"))
            self._relay(pid)
            self.network.set_link(self.spec.number, not self.is_cut())
        if wait:
            self.wait_booted()

    def wait_booted(self) -> None:
        seconds = BOOT_SECONDS[self.native]
        wait_until(lambda: self.boot_state() in UP, seconds, f"{self.name} has booted (see {self.log})", every=0.3)
        if not self.is_cut():
            wait_until(self.ssh_answers, seconds, f"{self.name} answers on port 22")

    def power_cut(self) -> None:
        """Pull the plug: nothing leaves the device any more, every process dies, what was not synced is lost."""
        if self.pid() is None:
            return
        self.network.unplug(self.spec.number)
        self.podman.kill(self.container)
        self.disk.lose_power()

    def power_off(self) -> None:
        """An orderly shutdown."""
        self.podman.stop(self.container)
        self.network.unplug(self.spec.number)

    # -- the network

    def cut(self) -> None:
        """Take the network away: the cable is out until join, also over a power cut."""
        self._remember("cut", True)
        if self.pid() is not None:
            self.network.set_link(self.spec.number, False)

    def join(self) -> None:
        """Put the cable in again; back when ssh answers."""
        self._remember("cut", None)
        if self.pid() is not None:
            self.network.set_link(self.spec.number, True)
            wait_until(self.ssh_answers, 30, f"{self.name} answers on port 22")

    def slow(self, delay: str = "0", loss: str = "0", rate: str = "0") -> None:
        """Make the network bad in both directions (``100ms`` one way, ``2%``, ``1mbit``) until fast."""
        slowness = plan.Slowness.parse(delay, loss, rate)
        self._remember("slow", [slowness.delay, slowness.loss, slowness.rate])
        self._relay(self.pid())

    def fast(self) -> None:
        """Make the network good again."""
        self._remember("slow", None)
        if self.pid() is not None:
            self.network.fast(self.spec.number)

    def is_slow(self) -> bool:
        return bool(self.state.device(self.name).get("slow"))

    def _relay(self, pid: int | None) -> None:
        figures = self.state.device(self.name).get("slow")
        if figures and pid is not None:
            self.network.slow(self.spec.number, pid, plan.Slowness(*figures))

    # -- the clock

    def set_clock(self, when: str, restart: bool = True) -> None:
        """Boot at a wrong time (``1970-01-01``) from now on, or at the right one again (``now``).

        With ``restart`` False, only processes that start later see it, until the next boot.
        """
        seconds = clock.seconds(when)
        command = (
            f"rm -f /{clock.TARGET}" if seconds is None else f"echo {seconds} >/{clock.TARGET} && sync /{clock.TARGET}"
        )
        self.exec(["sh", "-c", command])
        if restart:
            self.restart()
        else:
            self.exec(
                ["systemctl", "restart", clock.UNIT] if seconds is not None else ["rm", "-f", f"/{clock.PRELOAD}"]
            )

    def restart(self) -> None:
        """An orderly reboot."""
        self.power_off()
        self.power_on()

    # -- the disk

    def fill(self, leave_mib: float = 1) -> None:
        self.disk.fill(leave_mib)

    def drain(self) -> None:
        self.disk.drain()

    def repair(self) -> None:
        """End every fault: power, network, disk and clock as they should be. The disk's files stay."""
        self.disk.drain()
        if self.is_slow():
            self.fast()
        self._remember("cut", None)
        self.power_on(wait=False)
        self.network.set_link(self.spec.number, True)
        self.wait_booted()
        if self.exec(["test", "-e", f"/{clock.TARGET}"], check=False).returncode == 0:
            self.set_clock("now")

    # -- commands

    def exec_argv(self, command: list[str]) -> list[str]:
        """The command line that runs ``command`` on the device as root, without the network."""
        return self.podman.exec_argv(self.container, command)

    def exec(
        self, command: list[str], timeout: float = 60, check: bool = True, **options
    ) -> subprocess.CompletedProcess:
        """Run a command as root, by way of the container and not of the network. LabError when it fails."""
        return run(self.exec_argv(command), timeout, check, env=self.podman.environment(), **options)

    def wait_unit(self, unit: str, state: str = "active", seconds: float = 60) -> None:
        """Wait until a unit is in a state (active, inactive, failed); LabError carries its journal."""
        seen = ""

        def reached() -> bool:
            nonlocal seen
            seen = self.exec(["systemctl", "is-active", unit], check=False).stdout.strip()
            return seen == state

        try:
            wait_until(reached, seconds, f"{unit} on {self.name} is {state}", every=0.2)
        except LabError as error:
            journal = self.exec(["journalctl", "--no-pager", "-n", "20", "-u", unit], check=False).stdout
            raise LabError(f"{error}; it is {seen}:\n{journal}") from None

    def _remember(self, key: str, value: object) -> None:
        record = self.state.device(self.name)
        record.pop(key, None)
        self.state.put_device(self.name, record if value is None else {**record, key: value})

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""The lab for Python: ``Lab().up(devices=3)``, ``lab.device("lab-01").cut()``, ``lab.down()``."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import emulation, host, images, plan
from .container import Podman
from .device import Device
from .errors import LabError
from .host import Namespace, run, say
from .net import Network
from .plan import Spec
from .state import State, write_atomic

SPEC_KEYS = ("name", "arch", "number", "suite")
AT_ONCE = 4
DIRECTORIES = ("devices", "logs", "podman", "ssh")
FILES = ("inventory.yml", "state.json", "state.lock", "lab.lock")


def default_home() -> Path:
    """Where the lab's files are: EDGEAI_LAB_HOME, or build/lab below the checkout."""
    return Path(os.environ.get("EDGEAI_LAB_HOME") or images.CHECKOUT / "build" / "lab")


class Lab:
    """The lab of one directory. Making the object touches nothing; ``up`` does."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = (home or default_home()).resolve()
        self.id = plan.lab_id(str(self.home))
        self.state = State(self.home)
        self.namespace = Namespace(self.state)
        self.podman = Podman(self.home, self.id, self.namespace)
        self.network = Network(self.id, self.namespace)

    # -- what is

    @property
    def inventory(self) -> Path:
        return self.home / "inventory.yml"

    @property
    def devices(self) -> list[Device]:
        """The devices that are there, powered or not, by number."""
        records = self.state.get("devices", {}).values()
        return [self._device(Spec(*(record[key] for key in SPEC_KEYS))) for record in self._sorted(records)]

    @staticmethod
    def _sorted(records: Iterable[dict]) -> list[dict]:
        return sorted(records, key=lambda record: record["number"])

    def device(self, name: str) -> Device:
        for device in self.devices:
            if device.name == name:
                return device
        names = ", ".join(device.name for device in self.devices) or "none; run up first"
        raise LabError(f"device {name!r} is not in this lab: there are {names}")

    def _device(self, spec: Spec) -> Device:
        native = spec.arch == host.native_architecture()
        return Device(spec, self.home, self.state, self.podman, self.network, native)

    # -- up

    def up(self, devices: int = 6, arm64: int = 1, only: Iterable[str] = (), suite: str = plan.SUITE) -> None:
        """Bring the devices up; what is right is kept, what is not is repaired. Back when all answer over ssh."""
        host.require_rights()
        native = host.native_architecture()
        wanted = plan.specs(devices, arm64, only, native, suite)
        started = time.monotonic()
        with self.state.exclusive():
            self._prepare({spec.arch for spec in wanted}, native)
            missing = [spec for spec in wanted if self.podman.inspect(self._device(spec).container) is None]
            tags = self._images({(spec.suite, spec.arch) for spec in missing}, native)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda spec: self._bring_up(spec, tags.get((spec.suite, spec.arch))), wanted))
            self._write_inventory()
        say(f"{len(wanted)} devices are up in {time.monotonic() - started:.0f} s; inventory: {self.inventory}")

    def build_images(self, devices: int = 6, arm64: int = 1, suite: str = plan.SUITE) -> None:
        """Build the images that ``up`` would need, minutes for an emulated one. Other calls may go on meanwhile."""
        host.require_rights()
        native = host.native_architecture()
        kinds = {(spec.suite, spec.arch) for spec in plan.specs(devices, arm64, (), native, suite)}
        with self.state.exclusive():
            self._prepare({arch for _suite, arch in kinds}, native)
        for kind in sorted(kinds):
            images.image_tar(*kind, native)

    def _prepare(self, architectures: set[str], native: str) -> None:
        host.install_packages(host.missing_packages(architectures, native))
        emulation.ensure(self.id, architectures - {native})
        self._enter()
        self.podman.configure()
        if not self.state.get("subnet"):
            self.state.put("subnet", plan.free_subnet(self.id, self.network.taken()))
        self.network.ensure_bridge(self.state.get("subnet"))
        key = self.home / "ssh" / "id_ed25519"
        if not key.exists():
            key.parent.mkdir(parents=True, exist_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgeai-lab", "-f", str(key)])

    def _enter(self) -> None:
        """Make the lab's mount namespace. Devices that ran outside of it, or before the host's boot, start anew."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        new = self.namespace.ensure()
        if self.state.get("devices") and (new or self.state.get("boot", boot) != boot):
            say("the devices of an earlier run have lost their host: starting them again")
            self.podman.kill_everything()
        self.state.put("boot", boot)

    def _images(self, kinds: set[tuple[str, str]], native: str) -> dict[tuple[str, str], str]:
        tags = {}
        for suite, arch in sorted(kinds):
            tar = images.image_tar(suite, arch, native)
            tags[suite, arch] = self.podman.import_image(tar, arch)
        return tags

    def _bring_up(self, spec: Spec, image: str | None) -> None:
        """Create the device from ``image`` (None: it is there), bring its files up to date, start it."""
        started = time.monotonic()
        device = self._device(spec)
        if image is not None:
            device.create(image)
        device.refresh()
        device.power_on()
        say(f"{spec.name} ({spec.arch}, {device.address}) is up after {time.monotonic() - started:.1f} s")

    def _write_inventory(self) -> None:
        devices = self.devices
        known = "".join(
            f"{device.address},{device.name} {' '.join(device.host_key.with_suffix('.pub').read_text().split()[:2])}\n"
            for device in devices
        )
        write_atomic(self.home / "ssh" / "known_hosts", known)
        pairs = ((device.spec, device.address) for device in devices)
        write_atomic(self.inventory, plan.inventory(self.home / "ssh", pairs))

    # -- down

    def down(self, remove_images: bool = False) -> None:
        """Remove devices, network, mounts and files; the images stay in their cache unless told."""
        if remove_images:
            shutil.rmtree(images.cache_directory(), ignore_errors=True)
        if not self.state.path.exists():
            return
        host.require_rights()
        with self.state.exclusive():
            self._enter()
            for name in self.podman.names():
                self.podman.remove(name)
            for device in self.devices:
                self.network.unplug(device.spec.number)
                device.disk.unmount()
            for link in self.network.links():
                run(["ip", "link", "del", link], check=False)
            self.network.remove_bridge()
            self.podman.remove_cgroup()
            self._unmount_rest()
            self.podman.forget()
            self.namespace.release()
            emulation.remove(self.id)
        self._remove_files()
        say("down")

    def _unmount_rest(self) -> None:
        """podman keeps its storage directory mounted over itself."""
        storage = self.podman.base / "storage" / "overlay"
        self.namespace.run(["umount", "--recursive", "--quiet", str(storage)], check=False)

    def remove(self, name: str) -> None:
        """Remove one device; the others stay as they are."""
        with self.state.exclusive():
            self.device(name).remove()
            self._write_inventory()

    def renew(self, names: Iterable[str]) -> None:
        """Make devices bare again, whatever was done to them: they are removed and made anew."""
        names = list(names)
        for name in names:
            self.remove(name)
        self.up(only=names)

    def _remove_files(self) -> None:
        """What the lab wrote, and not what others keep beside it."""
        for name in DIRECTORIES:
            shutil.rmtree(self.home / name, ignore_errors=True)
        for name in FILES:
            (self.home / name).unlink(missing_ok=True)
        if not any(self.home.iterdir()):
            self.home.rmdir()

    # -- by name, for tests that read better so

    def exec(self, name: str, command: list[str], **options) -> subprocess.CompletedProcess:
        return self.device(name).exec(command, **options)

    def wait_unit(self, name: str, unit: str, state: str = "active", seconds: float = 60) -> None:
        self.device(name).wait_unit(unit, state, seconds)

    def status(self) -> list[dict]:
        """A record a device: name, architecture, address, state, cut, free MiB of its disk."""
        return [
            {
                "name": device.name,
                "architecture": device.spec.arch,
                "address": device.address,
                "state": device.boot_state(),
                "cut": device.is_cut(),
                "slow": device.is_slow(),
                "free_mib": round(device.disk.free() / (1 << 20)),
            }
            for device in self.devices
        ]

"""Write a machine that is described in tests/sysfs/machines as a tree of files and links."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SYSFS = Path(__file__).resolve().parent.parent / "sysfs"
MACHINES = sorted(path.stem for path in (SYSFS / "machines").glob("*.json"))


def load_machine(name: str) -> dict[str, Any]:
    """The description of a machine (keys: see tests/sysfs/README.md)."""
    return json.loads((SYSFS / "machines" / f"{name}.json").read_text())


def materialise(name: str, root: Path) -> dict[str, Any]:
    """Write the machine below ``root`` and return its description."""
    machine = load_machine(name)
    _write(root, "/proc/cpuinfo", _cpuinfo(machine["cpu"]))
    _write(root, "/proc/meminfo", f"MemTotal:       {machine['memory_kib']} kB\nMemFree:  1000 kB\n")
    for path, text in machine.get("files", {}).items():
        _write(root, path, text)
    for path, strings in machine.get("strings", {}).items():
        _write(root, path, "".join(text + "\0" for text in strings))
    if "strings" in machine:
        # As on every machine: an absolute link, which must be resolved inside the tree.
        (root / "proc" / "device-tree").symlink_to("/sys/firmware/devicetree/base")
    for path in machine.get("directories", []):
        (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for path in machine.get("nodes", []):
        _write(root, path, "")
    for address, device in machine.get("pci", {}).items():
        _pci(root, address, device)
    for address, device in machine.get("usb", {}).items():
        for key, value in device.items():
            _write(root, f"/sys/bus/usb/devices/{address}/{key}", value + "\n")
    for name_, address in machine.get("render", {}).items():
        _class_device(root, "drm", name_, address)
    for name_, device in machine.get("accel", {}).items():
        _accel(root, name_, device)
    return machine


def _write(root: Path, path: str, text: str) -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(text.encode())


def _cpuinfo(names: list[str]) -> str:
    cpus = json.loads((SYSFS / "cpus.json").read_text())
    blocks = [
        f"processor\t: {number}\n" + "".join(f"{key}\t: {value}\n" for key, value in cpus[name].items())
        for number, name in enumerate(names)
    ]
    return "\n".join(blocks) + "\n"


def _pci(root: Path, address: str, device: dict[str, str]) -> None:
    """The device below /sys/devices, and the link to it from /sys/bus/pci/devices, as the kernel lays them out."""
    real = f"/sys/devices/pci/{address}"
    for key in ("vendor", "device", "class"):
        _write(root, f"{real}/{key}", device[key] + "\n")
    if "driver" in device:
        _driver(root, root / real.lstrip("/"), "pci", device["driver"])
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / address).symlink_to(f"../../../devices/pci/{address}")


def _driver(root: Path, device: Path, bus: str, name: str) -> None:
    driver = root / "sys/bus" / bus / "drivers" / name
    driver.mkdir(parents=True, exist_ok=True)
    depth = len(device.relative_to(root / "sys").parts)
    (device / "driver").symlink_to("../" * depth + f"bus/{bus}/drivers/{name}")


def _class_device(root: Path, kind: str, name: str, address: str) -> None:
    place = root / "sys/class" / kind / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "device").symlink_to(f"../../../devices/pci/{address}")


def _accel(root: Path, name: str, device: Any) -> None:
    if isinstance(device, str):
        _class_device(root, "accel", name, device)
        return
    real = root / "sys/devices/platform" / name
    real.mkdir(parents=True)
    _driver(root, real, "platform", device["driver"])
    place = root / "sys/class/accel" / name
    place.mkdir(parents=True)
    (place / "device").symlink_to(f"../../../devices/platform/{name}")

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which accelerators a machine has, from sysfs, procfs and the device tree alone: no vendor tool, no root.

A record says what was seen (``evidence``, a path), which driver is bound, and whether it can be used now. A device
that is there without its driver is reported with ``usable`` false and the reason: that is what a person has to repair.
"""

from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple

from .cpu import architecture, cpu_flags, cpu_label, cpu_record, memory_mib
from .hostfs import Tree

Record = dict[str, Any]  # kind, name, evidence, driver, usable, reason: plain data, it becomes a fact

#: Kinds in the order in which one is chosen when several can be used: the fastest first. The GPU goes before the NPU of
#: the same Intel processor because it takes models with a free batch size; inventories can override the choice.
RANKING = (
    "jetson",
    "nvidia-gpu",
    "amd-gpu",
    "hailo",
    "coral",
    "rockchip-npu",
    "qualcomm-htp",
    "intel-gpu",
    "intel-npu",
    "amd-npu",
    "cpu",
)

_INTEL_NPU = frozenset({"7d1d", "ad1d", "643e", "b03e", "fd3e"})
_AMD_NPU = frozenset({"1502", "17f0"})
_HAILO = {"2864": ("Hailo-8", "hailo_chardev"), "45c4": ("Hailo-10H", "hailo1x")}
_JETSON = {"tegra194": "Jetson Xavier", "tegra234": "Jetson Orin", "tegra264": "Jetson Thor"}
_THOR_GPU = "2b00"  # Thor's own GPU is on PCI: it is the Jetson's, not a second one
_ROCKCHIP = re.compile(r"^rockchip,(rk\w+?)-(?:rknpu|rknn-core)$")
_NOT_COMPUTE = frozenset({"vfio-pci", "pci-stub", "nouveau", "xen-pciback"})


class PciDevice(NamedTuple):
    """A PCI function; identifiers are lower-case hexadecimal without 0x, ``driver`` is the bound one or None."""

    path: str
    vendor: str
    device: str
    device_class: str
    driver: str | None


def _hex(value: str | None) -> str:
    text = (value or "").lower()
    return text[2:] if text.startswith("0x") else text


def pci_devices(tree: Tree) -> list[PciDevice]:
    """Every PCI function of the tree, in address order."""
    base = "/sys/bus/pci/devices"
    found = []
    for name in tree.names(base):
        path = f"{base}/{name}"
        found.append(
            PciDevice(
                path,
                _hex(tree.text(path + "/vendor")),
                _hex(tree.text(path + "/device")),
                _hex(tree.text(path + "/class")),
                tree.link_name(path + "/driver"),
            )
        )
    return found


def _record(kind: str, name: str, evidence: str, driver: str | None, reason: str | None) -> Record:
    return {
        "kind": kind,
        "name": name,
        "evidence": evidence,
        "driver": driver,
        "usable": reason is None,
        "reason": reason,
    }


def _unbound(found: PciDevice, wanted: tuple[str, ...]) -> str | None:
    """Why the function's driver is not one of ``wanted``; None when it is."""
    if found.driver in wanted:
        return None
    names = " or ".join(wanted)
    if found.driver is None:
        return f"no driver is bound; it needs {names}"
    return f"driver {found.driver} is bound; it needs {names}"


def _jetson(tree: Tree, _pci: list[PciDevice]) -> list[Record]:
    for base in ("/proc/device-tree", "/sys/firmware/devicetree/base"):
        for text in tree.strings(base + "/compatible"):
            chip = text.rpartition(",")[2]
            if chip in _JETSON and text.startswith("nvidia,"):
                name = tree.text(base + "/model") or _JETSON[chip]
                return [_record("jetson", name, base + "/compatible", _l4t(tree), _jetson_missing(tree))]
    return []


def _l4t(tree: Tree) -> str | None:
    """``L4T 36.4.3`` from /etc/nv_tegra_release, whose first line reads "# R36 (release), REVISION: 4.3, ..."."""
    match = re.search(r"R(\d+)\b.*?REVISION:\s*([\d.]+)", tree.text("/etc/nv_tegra_release") or "")
    return "L4T {}.{}".format(*match.groups()) if match else None


def _jetson_missing(tree: Tree) -> str | None:
    places = ("/sys/module/nvgpu", "/dev/nvhost-gpu", "/dev/nvgpu", "/proc/driver/nvidia/version")
    if any(tree.exists(place) for place in places):
        return None
    return "the GPU driver is not loaded (none of {}): install the board's L4T drivers".format(", ".join(places))


def _nvidia(tree: Tree, pci: list[PciDevice]) -> list[Record]:
    on_jetson = bool(_jetson(tree, pci))
    version_file = "/proc/driver/nvidia/version"
    version = tree.text(version_file)
    release = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", version or "")
    driver = f"nvidia {release.group(1)}" if release else None
    records = []
    for found in pci:
        if found.vendor != "10de" or not found.device_class.startswith("03"):
            continue
        if on_jetson and found.device == _THOR_GPU:
            continue
        reason = None
        if found.driver in _NOT_COMPUTE:
            reason = f"driver {found.driver} is bound; it needs nvidia"
        elif version is None:
            reason = f"the NVIDIA driver is not loaded (no {version_file})"
        records.append(_record("nvidia-gpu", _nvidia_name(tree, found), found.path, driver or found.driver, reason))
    if records or version is None or on_jetson:
        return records
    # A container or WSL sees the driver without the PCI tree.
    for name in tree.names("/proc/driver/nvidia/gpus"):
        path = f"/proc/driver/nvidia/gpus/{name}/information"
        records.append(_record("nvidia-gpu", _field(tree, path, "Model") or "NVIDIA GPU", path, driver, None))
    return records


def _field(tree: Tree, path: str, key: str) -> str | None:
    for line in (tree.text(path) or "").splitlines():
        name, _colon, value = line.partition(":")
        if name.strip() == key:
            return value.strip() or None
    return None


def _nvidia_name(tree: Tree, found: PciDevice) -> str:
    address = found.path.rpartition("/")[2]
    told = _field(tree, f"/proc/driver/nvidia/gpus/{address}/information", "Model")
    return told or f"NVIDIA GPU 10de:{found.device}"


def _amd_gpu(tree: Tree, pci: list[PciDevice]) -> list[Record]:
    records = []
    base = "/sys/class/kfd/kfd/topology/nodes"
    for node in tree.names(base):
        path = f"{base}/{node}/properties"
        match = re.search(r"^gfx_target_version\s+(\d+)", tree.text(path) or "", re.MULTILINE)
        if match is None or int(match.group(1)) == 0:
            continue  # a node of the topology that is a processor
        reason = None if tree.exists("/dev/kfd") else "/dev/kfd is missing: compute needs the amdgpu driver with KFD"
        records.append(_record("amd-gpu", f"AMD GPU {gfx_name(int(match.group(1)))}", path, "amdgpu", reason))
    if records:
        return records
    for found in pci:
        if found.vendor == "1002" and found.device_class.startswith("03"):
            reason = _unbound(found, ("amdgpu",)) or f"no compute node in {base} (ROCm does not support this GPU)"
            records.append(_record("amd-gpu", f"AMD GPU 1002:{found.device}", found.path, found.driver, reason))
    return records


def gfx_name(version: int) -> str:
    """The compiler's name of an AMD GPU target: 110003 is gfx1103, 90010 is gfx90a (minor and step in hexadecimal)."""
    return f"gfx{version // 10000:d}{version // 100 % 100:x}{version % 100:x}"


def _intel_gpu(tree: Tree, pci: list[PciDevice]) -> list[Record]:
    records = []
    for name in tree.names("/sys/class/drm"):
        path = f"/sys/class/drm/{name}/device"
        if not name.startswith("renderD") or _hex(tree.text(path + "/vendor")) != "8086":
            continue
        driver = tree.link_name(path + "/driver")
        reason = None if driver in ("i915", "xe") else f"driver {driver} is bound; it needs i915 or xe"
        title = "Intel GPU 8086:{}".format(_hex(tree.text(path + "/device")))
        records.append(_record("intel-gpu", title, path + "/vendor", driver, reason))
    if records:
        return records
    for found in pci:
        if found.vendor == "8086" and found.device_class.startswith("03"):
            reason = _unbound(found, ("i915", "xe")) or "no render node in /sys/class/drm"
            records.append(_record("intel-gpu", f"Intel GPU 8086:{found.device}", found.path, found.driver, reason))
    return records


def _pci_npus(tree: Tree, pci: list[PciDevice]) -> list[Record]:
    records = []
    for found in pci:
        if found.vendor == "8086" and (found.device in _INTEL_NPU or found.driver == "intel_vpu"):
            kind, name, driver = "intel-npu", f"Intel NPU 8086:{found.device}", "intel_vpu"
        elif found.vendor == "1022" and (found.device in _AMD_NPU or found.driver == "amdxdna"):
            kind, name, driver = "amd-npu", f"AMD XDNA NPU 1022:{found.device}", "amdxdna"
        else:
            continue
        records.append(_record(kind, name, found.path, found.driver, _unbound(found, (driver,))))
    return records


def _coral(tree: Tree, pci: list[PciDevice]) -> list[Record]:
    records = []
    base = "/sys/bus/usb/devices"
    for name in tree.names(base):
        path = f"{base}/{name}"
        pair = (_hex(tree.text(path + "/idVendor")), _hex(tree.text(path + "/idProduct")))
        if pair == ("18d1", "9302"):
            records.append(_record("coral", "Coral USB Accelerator", path, None, None))
        elif pair == ("1a6e", "089a"):
            reason = "its firmware is not loaded yet (1a6e:089a): libedgetpu loads it at first use"
            records.append(_record("coral", "Coral USB Accelerator", path, None, reason))
    for found in pci:
        if (found.vendor, found.device) == ("1ac1", "089a"):
            missing: str | None = None
            if not any(name.startswith("apex") for name in tree.names("/sys/class/apex")):
                missing = _unbound(found, ("apex",)) or "no device in /sys/class/apex: the gasket driver is not ready"
            records.append(_record("coral", "Coral PCIe Accelerator", found.path, found.driver, missing))
    return records


def _hailo(tree: Tree, pci: list[PciDevice]) -> list[Record]:
    records = []
    for found in pci:
        if found.vendor != "1e60" or found.device not in _HAILO:
            continue
        name, device_class = _HAILO[found.device]
        reason = None
        if not tree.names("/sys/class/" + device_class):
            reason = f"no device in /sys/class/{device_class}: the HailoRT PCIe driver is not loaded"
        records.append(_record("hailo", name, found.path, found.driver, reason))
    return records


def _rockchip(tree: Tree, _pci: list[PciDevice]) -> list[Record]:
    base = "/proc/device-tree" if tree.exists("/proc/device-tree") else "/sys/firmware/devicetree/base"
    tops = [name for name in tree.names(base) if "npu" in name or "rknn" in name]
    nested = ["soc/" + name for name in tree.names(base + "/soc") if "npu" in name or "rknn" in name]
    for node in tops + nested:
        path = f"{base}/{node}"
        for text in tree.strings(path + "/compatible"):
            match = _ROCKCHIP.match(text)
            if match is None:
                continue
            driver, reason = _rockchip_driver(tree)
            if (tree.text(path + "/status") or "okay") not in ("okay", "ok"):
                reason = f"the device tree disables it ({path}/status)"
            return [_record("rockchip-npu", f"Rockchip {match.group(1)} NPU", path + "/compatible", driver, reason)]
    return []


def _rockchip_driver(tree: Tree) -> tuple[str | None, str | None]:
    if tree.exists("/sys/bus/platform/drivers/RKNPU") or tree.exists("/sys/module/rknpu"):
        return "rknpu", None
    if any(driver == "rocket" for _path, driver in _accel_class(tree)):
        return "rocket", None
    return None, "no driver is bound; it needs rknpu (vendor kernel) or rocket (mainline)"


def _qualcomm(tree: Tree, _pci: list[PciDevice]) -> list[Record]:
    for path in ("/dev/fastrpc-cdsp", "/dev/fastrpc-cdsp-secure"):
        if tree.exists(path):
            return [_record("qualcomm-htp", "Qualcomm Hexagon compute DSP", path, "fastrpc", None)]
    return []


def _accel_class(tree: Tree) -> list[tuple[str, str | None]]:
    base = "/sys/class/accel"
    names = [name for name in tree.names(base) if re.match(r"^accel\d+$", name)]
    return [(f"{base}/{name}", tree.link_name(f"{base}/{name}/device/driver")) for name in names]


def _other_npus(tree: Tree, _pci: list[PciDevice]) -> list[Record]:
    """Devices of the kernel's accel class that no rule above explains: reported, not used."""
    known = {"intel_vpu", "amdxdna", "rocket"}
    return [
        _record("npu", f"accelerator of driver {driver}", path, driver, "no supported runtime drives this device")
        for path, driver in _accel_class(tree)
        if driver not in known
    ]


_RULES: tuple[Callable[[Tree, list[PciDevice]], list[Record]], ...] = (
    _jetson,
    _nvidia,
    _amd_gpu,
    _hailo,
    _coral,
    _rockchip,
    _qualcomm,
    _intel_gpu,
    _pci_npus,
    _other_npus,
)


def rank(kind: str) -> int:
    """The place of a kind in RANKING; unknown kinds come last."""
    return RANKING.index(kind) if kind in RANKING else len(RANKING)


def detect(sysroot: str = "/") -> dict[str, Any]:
    """What the machine below ``sysroot`` is.

    Returns ``architecture``, ``cpu_flags``, ``cpu_label`` (cpu or cpu-int8), ``memory_mib`` and ``accelerators``:
    records {kind, name, evidence, driver, usable, reason}, usable ones first, then in RANKING's order, the CPU always
    among them. Never raises: what cannot be read was not found.
    """
    tree = Tree(sysroot)
    cpuinfo = tree.text("/proc/cpuinfo") or ""
    flags = cpu_flags(cpuinfo)
    pci = pci_devices(tree)
    records = [record for rule in _RULES for record in rule(tree, pci)]
    records.append(cpu_record(tree))
    records.sort(key=lambda record: (not record["usable"], rank(record["kind"]), record["evidence"] or ""))
    return {
        "architecture": architecture(tree, cpuinfo),
        "cpu_flags": flags,
        "cpu_label": cpu_label(flags),
        "memory_mib": memory_mib(tree),
        "accelerators": records,
    }

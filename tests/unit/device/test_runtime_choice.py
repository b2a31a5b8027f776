"""Which runtime a device gets: every row of the table, every recorded machine, what the inventory says, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.sysfs import MACHINES, materialise

from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse_build import requirement_files
from ansible_collections.edgeai.fleet.plugins.module_utils.device import runtime_facts, runtime_table
from ansible_collections.edgeai.fleet.plugins.module_utils.device.accelerators import RANKING
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_choice import Wishes, choose, numbers
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_table import ROWS, Row
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtimes import drives

ROOT = Path(__file__).resolve().parents[3]
OPENCL = ("libOpenCL.so.1", "libigdrcl.so")
NPU = ("libze_loader.so.1", "libze_intel_npu.so.1")


def facts_of(root: Path, python: str = "3.11.2", libraries: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """The facts of a recorded machine, with libraries and a Python that its record does not have."""
    machine = runtime_facts.detect(str(root))
    known = {name for row in ROWS for name, _brought_by in row.libraries}
    assert set(libraries) <= known
    return {
        "architecture": machine["architecture"],
        "accelerators": machine["accelerators"],
        "python": {"version": python},
        "libraries": {name: name in libraries for name in known},
        "packages": {},
        "system_packages": False,
        **more,
    }


CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
#: machine -> (its Python, libraries beside it, accelerator, package==version, provider)
EXPECTED: dict[str, tuple[str, tuple[str, ...], str, str, str]] = {
    "amd-xdna": ("3.12.3", (), "cpu", "onnxruntime==1.32.0", CPU),
    "coral-pcie": ("3.11.2", ("libedgetpu.so.1",), "coral", "ai-edge-litert==2.3.0", "edgetpu"),
    "coral-pcie-no-driver": ("3.11.2", ("libedgetpu.so.1",), "cpu", "onnxruntime==1.32.0", CPU),
    "coral-usb-after": ("3.11.2", ("libedgetpu.so.1",), "coral", "ai-edge-litert==2.3.0", "edgetpu"),
    "coral-usb-before": ("3.11.2", ("libedgetpu.so.1",), "coral", "ai-edge-litert==2.3.0", "edgetpu"),
    "gaudi": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "jetson-orin-jp6": ("3.10.12", (), "cpu", "onnxruntime==1.23.2", CPU),
    "jetson-orin-no-driver": ("3.10.12", (), "cpu", "onnxruntime==1.23.2", CPU),
    "jetson-thor-jp7": ("3.12.3", (), "jetson", "onnxruntime-gpu[cuda,cudnn]==1.31.1", CUDA),
    "jetson-xavier": ("3.9.5", (), "cpu", "onnxruntime==1.19.2", CPU),
    "lunar-lake": ("3.12.3", OPENCL + NPU, "intel-gpu", "openvino==2026.4.1", "GPU"),
    "meteor-lake": ("3.12.3", NPU, "intel-npu", "openvino==2026.4.1", "NPU"),
    "meteor-lake-no-npu-driver": ("3.12.3", NPU, "cpu", "onnxruntime==1.32.0", CPU),
    "nuc-igpu": ("3.11.2", OPENCL, "intel-gpu", "openvino==2026.4.1", "GPU"),
    "pi3": ("3.13.5", (), "cpu", "python3-onnxruntime==None", CPU),
    "pi4": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "pi5": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "pi5-hailo10h": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "pi5-hailo8": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "pi5-hailo8-no-driver": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "qcs6490": ("3.12.3", (), "cpu", "onnxruntime==1.32.0", CPU),
    "rk3588": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "rk3588-disabled": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "rk3588-mainline": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "rocm": ("3.12.3", (), "cpu", "onnxruntime==1.32.0", CPU),
    "x86-nvidia": ("3.11.2", (), "nvidia-gpu", "onnxruntime-gpu[cuda,cudnn]==1.31.1", CUDA),
    "x86-nvidia-no-driver": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "x86-nvidia-unbound": ("3.11.2", (), "cpu", "onnxruntime==1.32.0", CPU),
    "x86-plain": ("3.9.2", (), "cpu", "onnxruntime==1.19.2", CPU),
    "x86-two-accelerators": ("3.11.2", OPENCL, "nvidia-gpu", "onnxruntime-gpu[cuda,cudnn]==1.31.1", CUDA),
    "x86-vnni": ("3.13.5", (), "cpu", "onnxruntime==1.32.0", CPU),
}


def test_every_recorded_machine_has_an_expectation() -> None:
    assert set(EXPECTED) >= set(MACHINES)


@pytest.mark.parametrize("name", MACHINES)
def test_recorded_machines(name: str, tmp_path: Path) -> None:
    materialise(name, tmp_path)
    python, libraries, accelerator, package, provider = EXPECTED[name]
    facts = facts_of(tmp_path, python, libraries, system_packages=name == "pi3")
    choice = choose(facts)
    assert (choice.accelerator, f"{choice.package}=={choice.version}", choice.provider) == (
        accelerator,
        package,
        provider,
    ), choice
    assert not choice.overridden and choice.why
    # Whatever is better and was not taken is named with its reason: nothing ends on the CPU in silence.
    better = [
        record["kind"]
        for record in facts["accelerators"]
        if (RANKING.index(record["kind"]) if record["kind"] in RANKING else len(RANKING))
        < RANKING.index(choice.accelerator)
    ]
    assert sorted(text.split(" ")[0] for text in choice.passed_over) == sorted(better)
    assert all(": " in text for text in choice.passed_over)


DRIVERS = {"jetson": "L4T {}", "nvidia-gpu": "nvidia {}"}


def machine_for(row: Row) -> dict[str, Any]:
    """The least machine that fits a row."""
    driver = DRIVERS.get(row.accelerator, "driver {}").format(".".join(map(str, row.driver or (1,))))
    record = {"kind": row.accelerator, "name": "it", "usable": True, "reason": None, "driver": driver}
    return {
        "architecture": row.architectures[0],
        "accelerators": [record],
        "python": {"version": ".".join(map(str, row.python)) + ".4"},
        "libraries": {name: True for name, _brought_by in row.libraries},
        "packages": dict.fromkeys(row.system, "1.0"),
        "system_packages": False,
    }


def stock_for(row: Row) -> set[str] | None:
    version = dict(row.pins).get(row.package) or "1.0"
    return {f"{row.package}=={version}"} if row.source == "vendor" else None


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row.accelerator}-{row.package}-{'.'.join(map(str, row.driver))}"
)
def test_every_row(row: Row) -> None:
    """Each row is taken by the least machine that fits it, and refused by one that lacks any one thing."""
    facts, stocked = machine_for(row), stock_for(row)
    wishes = Wishes(runtime=row.runtime if row.runtime in ("openvino", "litert") else "")
    if row.source == "declared":
        with pytest.raises(DeviceError) as caught:
            choose(facts, wishes)
        assert row.why in caught.value.message
        return
    choice = choose(facts, wishes, stocked)
    assert (choice.package, choice.provider, choice.accelerator) == (row.package, row.provider, row.accelerator)
    assert row.why in choice.why and choice.passed_over == ()
    assert choice.source == {"system": "system", "vendor": "wheelhouse", "wheels": "index"}[row.source]
    worse: list[dict[str, Any]] = [{"architecture": "riscv64"}, {"python": {"version": "3.8.10"}}]
    if row.libraries:
        worse.append({"libraries": {}, "packages": {}})
    if row.driver:
        worse.append({"accelerators": [{**facts["accelerators"][0], "driver": "nvidia 1.0"}]})
        worse.append({"accelerators": [{**facts["accelerators"][0], "driver": None}]})
    if row.below:
        worse.append({"accelerators": [{**facts["accelerators"][0], "driver": f"L4T {row.below[0]}.0"}]})
    if row.source == "system":
        worse.append({"packages": {}})
    for change in worse:
        try:
            other = choose({**facts, **change}, wishes, stocked)
        except DeviceError as error:
            assert error.code in ("no_variant", "bad_input") and row.accelerator in error.message
        else:
            assert (other.package, other.why) != (row.package, choice.why)
    if row.source == "vendor":
        with pytest.raises(DeviceError, match="no wheelhouse is given"):
            choose(facts, wishes, None)


def test_every_provider_is_one_that_the_device_reports() -> None:
    """What a row promises, the device's own facts must be able to see: else its stratum would be another."""
    for row in ROWS:
        if row.source == "declared":
            continue
        info = {"providers": [row.provider], "devices": [row.provider], "delegates": [row.provider]}
        assert drives(row.runtime, info, row.accelerator), row


def test_jetpack_6_takes_the_vendors_wheel_from_the_wheelhouse(tmp_path: Path) -> None:
    materialise("jetson-orin-jp6", tmp_path)
    facts = facts_of(tmp_path, "3.10.12")
    choice = choose(facts, stocked={"onnxruntime-gpu==1.20.0", "onnxruntime==1.23.2"})
    assert (choice.package, choice.version, choice.provider) == ("onnxruntime-gpu", "1.20.0", CUDA)
    assert choice.source == "wheelhouse" and "JetPack 6" in choice.why
    without = choose(facts, stocked={"onnxruntime==1.23.2"})
    assert (
        without.package == "onnxruntime" and "no wheelhouse is given that has onnxruntime-gpu" in without.passed_over[0]
    )
    assert "TensorRT" in without.passed_over[0]


def test_cuda_12_drivers_get_the_older_build(tmp_path: Path) -> None:
    materialise("x86-nvidia", tmp_path)
    facts = facts_of(tmp_path)
    for record in facts["accelerators"]:
        if record["kind"] == "nvidia-gpu":
            record["driver"] = "nvidia 550.90.07"
    assert choose(facts).version == "1.23.2" and "CUDA 12" in choose(facts).why
    for record in facts["accelerators"]:
        if record["kind"] == "nvidia-gpu":
            record["driver"] = "nvidia 470.1"
    choice = choose(facts)
    assert choice.accelerator == "cpu" and "needs driver 525, the device has 470.1" in choice.passed_over[0]


def test_the_inventory_wins_and_is_reported(tmp_path: Path) -> None:
    materialise("nuc-igpu", tmp_path)
    facts = facts_of(tmp_path, libraries=OPENCL)
    runtime = choose(facts, Wishes(runtime="onnxruntime"))
    assert (runtime.runtime, runtime.accelerator, runtime.overridden) == ("onnxruntime", "cpu", True)
    assert "set in the inventory: runtime onnxruntime" in runtime.why
    assert "nothing drives it" in runtime.passed_over[0] and "onnxruntime" in runtime.passed_over[0]
    accelerator = choose(facts, Wishes(accelerator="cpu-int8", runtime="openvino"))
    assert (accelerator.provider, accelerator.passed_over) == ("CPU", ())
    version = choose(facts, Wishes(version="2025.3.0"))
    assert (version.version, version.provider, version.overridden) == ("2025.3.0", "GPU", True)


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(runtime="torch"), "use one of onnxruntime, openvino, litert"),
        (Wishes(runtime="tensorrt"), "no runtime fits this device with tensorrt"),
        (Wishes(accelerator="coral"), "was not detected"),
        (Wishes(accelerator="intel-gpu", runtime="litert"), "no runtime fits"),
    ],
)
def test_wishes_that_cannot_be_met(wishes: Wishes, said: str, tmp_path: Path) -> None:
    materialise("nuc-igpu", tmp_path)
    with pytest.raises(DeviceError, match=said) as caught:
        choose(facts_of(tmp_path, libraries=OPENCL), wishes)
    assert caught.value.code == "bad_input"


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    materialise("x86-plain", tmp_path)
    with pytest.raises(DeviceError, match=r"no runtime fits.*not for riscv64") as caught:
        choose({**facts_of(tmp_path), "architecture": "riscv64"})
    assert caught.value.code == "no_variant"


def test_armv7_needs_debian_13_and_its_packages(tmp_path: Path) -> None:
    materialise("pi3", tmp_path)
    choice = choose(facts_of(tmp_path, "3.13.5", system_packages=True))
    assert choice.source == "system" and "python3-onnxruntime" in choice.system_packages and choice.version is None
    with pytest.raises(DeviceError, match=r"needs Python 3\.13, the device has 3\.11\.2"):
        choose(facts_of(tmp_path, "3.11.2", system_packages=True))
    with pytest.raises(DeviceError, match="may be installed from the distribution"):
        choose(facts_of(tmp_path, "3.13.5"))


def test_opencl_is_installed_where_that_is_allowed(tmp_path: Path) -> None:
    materialise("nuc-igpu", tmp_path)
    allowed = choose(facts_of(tmp_path, system_packages=True))
    assert allowed.provider == "GPU" and allowed.system_packages == ("ocl-icd-libopencl1", "intel-opencl-icd")
    refused = choose(facts_of(tmp_path))
    assert refused.accelerator == "cpu" and "libOpenCL.so.1 is not on the device" in refused.passed_over[0]


def test_libraries_and_packages_are_read_from_the_machine(tmp_path: Path) -> None:
    materialise("nuc-igpu", tmp_path)
    library = tmp_path / "usr/lib/x86_64-linux-gnu/libOpenCL.so.1"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"")
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: ocl-icd-libopencl1\nStatus: install ok installed\nVersion: 2.3.1-1\n\n"
        "Package: intel-opencl-icd\nStatus: deinstall ok config-files\nVersion: 22.43\n"
    )
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    facts = runtime_facts.gather("python3", str(tmp_path))
    assert facts["libraries"]["libOpenCL.so.1"] and not facts["libraries"]["libigdrcl.so"]
    assert facts["packages"] == {"ocl-icd-libopencl1": "2.3.1-1"}
    assert facts["os"] == {"id": "debian", "version": "12"} and numbers(facts["python"]["version"]) >= (3, 9)
    assert facts["python"]["libc"][0] == "glibc"


@pytest.mark.parametrize("python", ["/nonexistent", "/bin/true", "/bin/false"])
def test_an_interpreter_that_is_none(python: str) -> None:
    with pytest.raises(DeviceError, match="edge_system_python"):
        runtime_facts.ask_python(python)


def test_requirement_files_are_written_from_the_table() -> None:
    for name, text in requirement_files().items():
        assert (ROOT / "requirements" / name).read_text(encoding="utf-8") == text, "run tools/runtime_locks.py"


def test_pins() -> None:
    assert runtime_table.pinned("numpy", (3, 9)) == "2.0.2" and runtime_table.pinned("numpy", (3, 13)) == "2.4.6"
    assert runtime_table.pinned("openvino", (3, 9), "aarch64") == "2025.2.0"
    assert runtime_table.pinned("onnxruntime-gpu", (3, 9)) is None
    assert {row.source for row in ROWS} == set(runtime_table.SOURCES)

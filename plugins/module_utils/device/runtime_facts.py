# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the choice of a runtime needs to know of a device: accelerators, Python, C library, libraries, packages."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable
from typing import Any

from .accelerators import detect
from .errors import DeviceError
from .hostfs import Tree
from .runtime_table import ROWS

_TRIPLETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "armv7l": "arm-linux-gnueabihf"}
_ASK = r"""
import json, os, sys, sysconfig
version = "%d.%d.%d" % sys.version_info[:3]
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps({"version": version, "implementation": sys.implementation.name, "executable": os.path.realpath(base),
 "debug": hasattr(sys, "gettotalrefcount"), "threads": not sysconfig.get_config_var("Py_GIL_DISABLED"),
 "libc": (os.confstr("CS_GNU_LIBC_VERSION") or "").split(), "bits": 64 if sys.maxsize > 2**32 else 32}))
"""


def ask_python(python: str) -> dict[str, Any]:
    """What an interpreter says of itself: version, implementation, executable (the one behind a virtual environment).

    Raises DeviceError(bad_input) when it cannot be run or is not CPython.
    """
    fix = "name the device's own interpreter in edge_system_python"
    try:
        done = subprocess.run(
            [python, "-I", "-c", _ASK], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError("bad_input", f"python {python!r} cannot be run ({error}); {fix}") from error
    except ValueError as error:
        tail = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise DeviceError("bad_input", f"python {python!r} gave no answer ({tail}); {fix}") from error
    if answer["implementation"] != "cpython" or answer["debug"] or not answer["threads"]:
        raise DeviceError("bad_input", f"python {python!r} is not an ordinary CPython; {fix}")
    return answer


def find_libraries(tree: Tree, names: Iterable[str], architecture: str) -> dict[str, bool]:
    """Which of the shared libraries lie where the loader looks; vendors' directories of OpenCL and JetPack too."""
    triplet = _TRIPLETS.get(architecture, architecture + "-linux-gnu")
    places = [f"/usr/lib/{triplet}", f"/lib/{triplet}", "/usr/lib", "/lib", "/usr/lib64", "/usr/local/lib",
              f"/usr/lib/{triplet}/intel-opencl", "/usr/local/lib/intel-opencl", "/usr/lib/intel-opencl"]  # fmt: skip
    return {name: any(tree.exists(f"{place}/{name}") for place in places) for name in sorted(names)}


def installed_packages(tree: Tree, names: Iterable[str]) -> dict[str, str]:
    """Versions of the Debian packages among ``names`` that are installed, from dpkg's own list; no dpkg is run."""
    wanted, found = set(names), {}
    place = tree.locate("/var/lib/dpkg/status")
    try:
        with open(place or "", encoding="utf-8", errors="replace") as stream:
            for block in stream.read().split("\n\n"):
                name = re.match(r"Package: (\S+)", block)
                if name is None or name.group(1) not in wanted or "\nStatus: install ok installed" not in block:
                    continue
                version = re.search(r"^Version: (\S+)", block, re.MULTILINE)
                found[name.group(1)] = version.group(1) if version else ""
    except OSError:
        pass  # not a Debian: nothing of it is installed
    return found


def os_release(tree: Tree) -> dict[str, str]:
    """``id`` and ``version`` of the distribution, empty when /etc/os-release does not say."""
    fields = {}
    for line in (tree.text("/etc/os-release") or "").splitlines():
        key, _equals, value = line.partition("=")
        fields[key] = value.strip().strip('"')
    return {"id": fields.get("ID", ""), "version": fields.get("VERSION_ID", "")}


def gather(python: str, sysroot: str = "/", system_packages: bool = False) -> dict[str, Any]:
    """The facts `runtime_choice.choose` decides by.

    :param python: the interpreter that the environment will be made from
    :param system_packages: whether packages of the distribution may be installed when they are missing

    Raises DeviceError(bad_input) when the interpreter does not answer.
    """
    tree = Tree(sysroot)
    machine = detect(sysroot)
    libraries = {name for row in ROWS for name, _brought_by in row.libraries}
    packages = {name for row in ROWS for name in row.system}
    return {
        "architecture": machine["architecture"],
        "accelerators": machine["accelerators"],
        "cpu_label": machine["cpu_label"],
        "memory_mib": machine["memory_mib"],
        "os": os_release(tree),
        "python": ask_python(os.path.expanduser(python)),
        "libraries": find_libraries(tree, libraries, machine["architecture"]),
        "packages": installed_packages(tree, packages),
        "system_packages": system_packages,
    }

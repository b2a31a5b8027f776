"""Wheels and locks: what fits a device, and that nothing is unpacked that is not accounted for."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.wheels import make_wheel, record_line

from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_lock import (
    Lock,
    check_wheel_name,
    dump_lock,
    misfit,
    read_lock,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_wheel import describe_wheel, unpack

X86 = ((3, 11), "x86_64", (2, 36))


@pytest.mark.parametrize(
    ("tags", "device", "said"),
    [
        ("py3-none-any", X86, None),
        ("py2.py3-none-any", X86, None),
        ("cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64", X86, None),
        ("cp39-abi3-manylinux2014_x86_64", X86, None),
        ("cp310-cp310-manylinux_2_28_x86_64", X86, "is for Python cp310"),
        ("cp312-abi3-manylinux_2_28_x86_64", X86, "is for Python cp312"),
        ("cp311-cp311-manylinux_2_28_aarch64", X86, "the device is x86_64"),
        ("cp311-cp311-manylinux_2_39_x86_64", X86, "with glibc 2.36"),
        ("cp311-cp311-musllinux_1_2_x86_64", X86, "the device is x86_64"),
        ("cp311-cp311-macosx_11_0_arm64", X86, "the device is x86_64"),
        ("cp311-cp311-win_amd64", X86, "the device is x86_64"),
        ("cp310-cp310-linux_aarch64", ((3, 10), "aarch64", (2, 35)), None),
        ("py3-none-manylinux_2_5_x86_64.manylinux1_x86_64", X86, None),
        ("cp311-cp311-manylinux2014_aarch64", ((3, 11), "aarch64", (2, 16)), "glibc 2.16"),
        ("py27-none-any", X86, "is for Python py27"),
    ],
)
def test_what_fits(tags: str, device: Any, said: str | None) -> None:
    reason = misfit(f"numpy-1.0-{tags}.whl", *device)
    assert (reason is None) if said is None else (said in str(reason))


@pytest.mark.parametrize(
    "name", ["", "../a-1-py3-none-any.whl", "a.whl", "a-1.tar.gz", "a/b-1-py3-none-any.whl", 7, "-"]
)
def test_names_that_are_no_wheels(name: Any) -> None:
    with pytest.raises(DeviceError, match="use the name of a wheel"):
        check_wheel_name(name)


def entry(path: Path) -> dict[str, Any]:
    return describe_wheel(str(path))._asdict()


def document(*packages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"runtime": "onnxruntime", "version": "1.0", "python": "3.11", "packages": list(packages), **more}


def test_a_lock_has_one_name_whatever_the_order(tmp_path: Path) -> None:
    one, two = entry(make_wheel(tmp_path)), entry(make_wheel(tmp_path, "other"))
    lock = read_lock(document(one, two))
    assert read_lock(document(two, one)) == lock and lock.name == f"onnxruntime-1.0-{lock.digest[:12]}"
    assert read_lock(dump_lock(lock)) == lock
    without = [{key: item[key] for key in ("file", "sha256")} for item in (one, two)]
    assert read_lock(document(*without)).name == lock.name, (
        "an index's lock and a wheelhouse's are the same environment"
    )
    for change in ({"python": "3.12"}, {"packages": [one]}, {"system": {"python3-numpy": "1"}}):
        assert read_lock({**document(one, two), **change}).digest != lock.digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "../../etc"}, "version is"),
        ({"runtime": "a/b"}, "runtime is"),
        ({"python": "3"}, "python is"),
        ({"packages": [{"file": "a-1-py3-none-any.whl", "sha256": "xyz"}]}, "64 lower-case hex digits"),
        ({"packages": [{"file": "a-1-py3-none-any.whl", "sha256": "0" * 64, "size": -1}]}, "size of a-1"),
        ({"packages": [{"file": "a-1-py3-none-any.whl", "sha256": "0" * 64, "url": "x"}]}, "use an object with"),
        ({"packages": [{"file": f"a-{v}-py3-none-any.whl", "sha256": "0" * 64} for v in "12"]}, "appears twice"),
    ],
)
def test_locks_that_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DeviceError, match=said):
        read_lock({**document(), **change})


def unpack_it(path: Path, **change: Any) -> Path:
    site = path.parent / "site"
    package = describe_wheel(str(path)) if not change else describe_wheel(str(path))._replace(**change)
    unpack(str(path), package, str(site), str(path.parent / "prefix"))
    return site


def test_a_wheel_lands_where_it_belongs(tmp_path: Path) -> None:
    files = {
        "tiny/__init__.py": b"A = 1\n",
        "tiny-1.0.data/purelib/tiny/more.py": b"B = 2\n",
        "tiny-1.0.data/data/share/tiny.txt": b"text",
        "tiny-1.0.data/scripts/tiny": b"#!python\n",
    }
    site = unpack_it(make_wheel(tmp_path, files=files))
    assert (site / "tiny/more.py").read_bytes() == b"B = 2\n"
    assert (tmp_path / "prefix/share/tiny.txt").read_bytes() == b"text"
    assert not list(tmp_path.glob("**/bin")) and (site / "tiny-1.0.dist-info/RECORD").is_file()
    assert oct((site / "tiny/more.py").stat().st_mode & 0o777) == "0o644"


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "altered file": ({"record": {"tiny/__init__.py": record_line("tiny/__init__.py", b"VALUE = 2\n")}}, "is not what"),
    "unlisted file": ({"extra": {"sitecustomize.py": b"import os\n"}}, "does not list"),
    "missing file": ({"record": {"tiny/gone.py": record_line("tiny/gone.py", b"")}}, "lacks 'tiny/gone.py'"),
    "file left out of RECORD": ({"record": {"tiny/__init__.py": None}}, "does not list"),
    "no hash": ({"record": {"tiny/__init__.py": "tiny/__init__.py,,"}}, "gives no hash"),
    "weak hash": ({"record": {"tiny/__init__.py": record_line("tiny/__init__.py", b"VALUE = 1\n", "md5")}}, "no SHA-2"),
    "climbs out": ({"files": {"../evil.py": b"x"}}, "unsafe"),
    "absolute": ({"files": {"/etc/evil": b"x"}}, "unsafe"),
    "data climbs out": ({"files": {"tiny-1.0.data/data/../../evil": b"x"}}, "unsafe"),
    "backslash": ({"files": {"a\\b.py": b"x"}}, "unsafe"),
    "hash that is none": ({"record": {"tiny/__init__.py": "tiny/__init__.py,sha256=!!,1"}}, "hash"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wheels_that_are_refused(fault: str, tmp_path: Path) -> None:
    arguments, said = FAULTS[fault]
    path = make_wheel(tmp_path / "in", **arguments)
    with pytest.raises(DeviceError, match=said) as caught:
        unpack_it(path)
    assert caught.value.code == "digest_mismatch" and path.name in caught.value.message
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("sitecustomize.py"))


def test_other_bytes_than_the_locks(tmp_path: Path) -> None:
    path = make_wheel(tmp_path)
    package = describe_wheel(str(path))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DeviceError, match="the lock says"):
        unpack(str(path), package, str(tmp_path / "site"), str(tmp_path))
    with pytest.raises(DeviceError, match="the lock says"):
        unpack(str(path), package._replace(size=0), str(tmp_path / "site"), str(tmp_path))
    with pytest.raises(DeviceError, match="RECORD is not the one of the lock"):
        unpack_it(make_wheel(tmp_path / "b"), record="0" * 64)
    assert not (tmp_path / "site").exists()


def test_a_torn_archive_with_the_right_hash(tmp_path: Path) -> None:
    """A lock can be right about a file that is no wheel."""
    path = make_wheel(tmp_path)
    whole = path.read_bytes()
    package = describe_wheel(str(path))
    for data in (whole[: len(whole) // 2], b"", b"PK\3\4 nothing"):
        path.write_bytes(data)
        torn = package._replace(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(DeviceError, match="not a whole wheel") as caught:
            unpack(str(path), torn, str(tmp_path / "site"), str(tmp_path))
        assert caught.value.code == "digest_mismatch"


def test_a_link_in_a_wheel(tmp_path: Path) -> None:
    path = make_wheel(tmp_path)
    with zipfile.ZipFile(path) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name.startswith("tiny/") else 0o100644) << 16
            archive.writestr(info, data)
    with pytest.raises(DeviceError, match="or a link"):
        unpack_it(path)


def test_a_wheel_of_another_name_or_version(tmp_path: Path) -> None:
    path = make_wheel(tmp_path)
    for name in ("other-1.0-py3-none-any.whl", "tiny-2.0-py3-none-any.whl"):
        other = path.rename(tmp_path / name)
        with pytest.raises(DeviceError, match="its name says"):
            describe_wheel(str(other))
        other.rename(path)


def test_two_packages_with_the_same_file(tmp_path: Path) -> None:
    """Allowed when the content is the same (vendors' empty namespace files), else the lock is no environment."""
    site = tmp_path / "site"
    for name, text in (("one", b"same"), ("two", b"same"), ("three", b"other")):
        path = make_wheel(tmp_path, name, files={"shared/file.py": text})
        package = describe_wheel(str(path))
        if text == b"same":
            unpack(str(path), package, str(site), str(tmp_path))
            continue
        with pytest.raises(DeviceError, match="also in another package"):
            unpack(str(path), package, str(site), str(tmp_path))
    assert (site / "shared/file.py").read_bytes() == b"same"


def test_memory_does_not_grow_with_the_wheel(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, files={"big.bin": os.urandom(1024) * (64 * 1024)})
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_wheel import *\n"
        "p = describe_wheel(sys.argv[2]); b = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "unpack(sys.argv[2], p, sys.argv[3], sys.argv[3])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - b)"
    )
    import subprocess

    collections = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    done = subprocess.run(
        [sys.executable, "-c", code, collections, str(path), str(tmp_path / "site")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 16 * 1024, "KiB, for a file of 64 MiB"


def test_a_lock_is_a_value(tmp_path: Path) -> None:
    package = describe_wheel(str(make_wheel(tmp_path)))
    assert Lock("a", "1", "3.11", (package,)) == Lock("a", "1", "3.11", (package,))

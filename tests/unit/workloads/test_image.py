"""The recipe of the model server's image: what decides its name, and what it may be made of."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import Environment, Target, Wheelhouse
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_lock import Lock, Package
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.errors import WorkloadError
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.image import (
    PYTHON,
    containerfile,
    labels,
    recipe_for,
    skeleton,
)
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.image_build import find_lock

WHEEL = Package("onnxruntime", "1.32.0", "onnxruntime-1.32.0-cp311-cp311-manylinux_2_28_x86_64.whl", 10, "a" * 64)
LOCK = Lock("onnxruntime", "1.32.0", "3.11", (WHEEL,))
CREATED = "2026-11-23T11:00:00Z"
PINNED = "registry.example/python@sha256:" + "0" * 64


def recipe(**options: Any) -> Any:
    given = {"name": "localhost/edgeai/model-server", **options}
    return recipe_for(LOCK, given.pop("architecture", "x86_64"), given.pop("created", CREATED), **given)


def test_the_same_inputs_give_the_same_name() -> None:
    assert recipe() == recipe() and recipe().reference == recipe().reference
    assert recipe().reference.startswith("localhost/edgeai/model-server:onnxruntime-1.32.0-x86_64-")


@pytest.mark.parametrize(
    "options",
    [
        {"packages": ("ocl-icd-libopencl1",)},
        {"base": PINNED},
        {"architecture": "aarch64"},
        {"created": "2026-11-24T11:00:00Z"},
    ],
    ids=["packages", "base", "architecture", "created"],
)
def test_another_input_gives_another_name(options: dict[str, Any]) -> None:
    assert recipe(**options).inputs != recipe().inputs


def test_another_wheel_gives_another_name() -> None:
    other = LOCK._replace(packages=(WHEEL._replace(sha256="b" * 64),))
    assert recipe_for(other, "x86_64", CREATED, name=recipe().name).inputs != recipe().inputs


def test_the_containerfile_runs_nothing_and_ends_without_rights() -> None:
    lines = [line.split(" ", 1) for line in containerfile(recipe()).splitlines()]
    assert "RUN" not in {word for word, _rest in lines} and lines[0] == ["FROM", "scratch"]
    words = dict(lines)
    uid, _colon, gid = words["USER"].partition(":")
    assert int(uid) > 0 and int(gid) > 0
    assert PYTHON in words["ENTRYPOINT"]
    assert containerfile(recipe(base=PINNED)).startswith(f"FROM {PINNED}\nCOPY ")


def test_labels_are_those_of_oci_and_have_no_time_of_their_own() -> None:
    found = labels(recipe())
    assert found["org.opencontainers.image.created"] == CREATED
    assert found["org.opencontainers.image.version"] == "onnxruntime-1.32.0"
    quoted = [line for line in containerfile(recipe()).splitlines() if line.startswith("LABEL ")]
    assert dict(shlex.split(line)[1].split("=", 1) for line in quoted) == found


def test_the_environment_finds_the_bases_python() -> None:
    assert (
        "home = /usr/local/bin\n" in skeleton(recipe(base=PINNED, interpreter="/usr/local/bin/python3"))["pyvenv.cfg"]
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"architecture": "riscv64"}, "architecture: 'riscv64'"),
        ({"base": "debian:bookworm-slim"}, "pin it by its digest"),
        ({"suite": "trixie"}, "trixie has Python 3.13"),
        ({"name": "Model Server"}, "name: 'Model Server'"),
        ({"packages": ("a;b",)}, "packages: 'a;b'"),
        ({"base": PINNED, "interpreter": "python3"}, "interpreter: 'python3'"),
    ],
    ids=["architecture", "base", "suite", "name", "packages", "interpreter"],
)
def test_what_cannot_be_built_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        recipe(**options)


def test_the_environment_of_the_wheelhouse_is_found_or_what_there_is_is_said() -> None:
    target = Target("3.11", "x86_64")
    one = Environment("onnxruntime", "onnxruntime", "1.32.0", target, (), (WHEEL.file,))
    house = Wheelhouse("wheelhouse", CREATED, (one,), {WHEEL.file: WHEEL}, b"")
    assert find_lock(house, "onnxruntime", None, target) == LOCK
    with pytest.raises(WorkloadError, match=r"has 0 environments of openvino for Python 3\.11 on x86_64; it has onnx"):
        find_lock(house, "openvino", None, target)
    two = replace_environments(house, one, one._replace(version="1.31.0"))
    with pytest.raises(WorkloadError, match=r"has 2 environments.*name the version"):
        find_lock(two, "onnxruntime", None, target)


def replace_environments(house: Wheelhouse, *environments: Environment) -> Wheelhouse:
    return house._replace(environments=environments)

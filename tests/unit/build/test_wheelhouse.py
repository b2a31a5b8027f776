"""Wheelhouses: built for other machines, signed, kept, replaced as a whole; and every way to tamper with one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.certificates import DAY, NOW, authority, issue
from support.wheels import make_wheel

from ansible_collections.edgeai.fleet.plugins.module_utils.build import wheelhouse, wheelhouse_build
from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import Target, open_wheelhouse, parse
from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse_build import build, read_wishes
from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse_resolve import needed, platforms
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_table import SERVER, pinned
from ansible_collections.edgeai.fleet.plugins.module_utils.release import keys, signing
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError

X86 = {"runtime": "onnxruntime", "python": "3.11", "architecture": "x86_64"}
ARM = {"runtime": "onnxruntime", "python": "3.10", "architecture": "aarch64"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for a package index: tiny wheels with the names and versions of the table."""
    place = tmp_path_factory.mktemp("index")
    for python, short in (((3, 11), "311"), ((3, 10), "310")):
        version = pinned("onnxruntime", python)
        for architecture in ("x86_64", "aarch64"):
            tags = f"cp{short}-cp{short}-manylinux_2_27_{architecture}.manylinux_2_28_{architecture}"
            make_wheel(place, "onnxruntime", str(version), tags=tags, requires=("tiny>=1", "numpy"))
        for name in SERVER:
            # As anyio does it: pip, on a newer Python, does not see that this one needs it.
            requires = ('exceptiongroup>=1; python_version < "3.11"', 'tomli; python_version < "3"')
            make_wheel(place, name, str(pinned(name, python)), requires=requires if name == "starlette" else ())
    make_wheel(place, "tiny", "1.0", requires=("openvino-telemetry",))
    make_wheel(place, "exceptiongroup", "1.3")
    make_wheel(place, "openvino_telemetry", "2025.2")
    return place


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> signing.Signer:
    place = tmp_path_factory.mktemp("key")
    keys.generate_key(place / "key.pem", place / "key.pub.pem")
    return signing.load_signer(place / "key.pem")


def trusted(signer: signing.Signer) -> keys.Trust:
    return keys.Trust(keys=(signer.key.public_key(),))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, index: Path, signer: signing.Signer) -> Path:
    """A wheelhouse for two kinds of devices."""
    path = tmp_path_factory.mktemp("house") / "wheelhouse"
    built = build(str(path), read_wishes([X86, ARM]), signer, indexes=offline(index))
    assert built.changed and built.reasons == ("it is not there",)
    return path


def offline(index: Path) -> list[str]:
    return ["--no-index", "--find-links", str(index)]


@pytest.fixture
def house(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "wheelhouse")
    return tmp_path / "wheelhouse"


def test_each_machine_gets_just_its_own(made: Path, signer: signing.Signer) -> None:
    opened = open_wheelhouse(made, trusted(signer), NOW, whole=True)
    x86 = opened.house.lock("onnxruntime", "1.32.0", Target("3.11", "x86_64"))
    arm = opened.house.lock("onnxruntime", "1.23.2", Target("3.10", "aarch64"))
    assert {item.name for item in arm.packages} - {item.name for item in x86.packages} == {"exceptiongroup"}
    assert all("aarch64" not in item.file for item in x86.packages)
    assert all("x86_64" not in item.file for item in arm.packages)
    names = {item.name for item in x86.packages}
    assert {"onnxruntime", "tiny", "numpy", "prometheus-client"} <= names and "openvino-telemetry" not in names
    assert all(item.size and item.record and item.unpacked for item in x86.packages)
    assert opened.key_id == signer.key_id
    assert opened.house.stocked(Target("3.11", "x86_64")) == {"onnxruntime==1.32.0"}
    with pytest.raises(ReleaseError, match=r"no openvino==1 for Python 3\.11 on x86_64; it has onnxruntime"):
        opened.house.lock("openvino", "1", Target("3.11", "x86_64"))


def test_a_second_build_asks_nobody(house: Path, signer: signing.Signer) -> None:
    before = {path: path.stat().st_mtime_ns for path in house.rglob("*")}
    nowhere = ["--no-index"]
    again = build(str(house), read_wishes([ARM, X86, X86]), signer, indexes=nowhere)
    assert not again.changed and again.size > 0
    assert {path: path.stat().st_mtime_ns for path in house.rglob("*")} == before


def test_less_and_more(house: Path, signer: signing.Signer, index: Path) -> None:
    predicted = build(str(house), read_wishes([X86]), signer, indexes=["--no-index"], check=True)
    assert predicted.reasons == ("remove onnxruntime==1.23.2 for Python 3.10 on aarch64",)
    assert len(list((house / "wheels").iterdir())) > 10
    less = build(str(house), read_wishes([X86]), signer, indexes=["--no-index"])
    assert less.reasons == predicted.reasons and not list((house / "wheels").glob("*aarch64*"))
    more = build(str(house), read_wishes([X86, ARM]), signer, indexes=offline(index))
    assert more.reasons == ("add onnxruntime==1.23.2 for Python 3.10 on aarch64",)
    open_wheelhouse(house, trusted(signer), NOW, whole=True)


def test_a_failed_build_leaves_the_old_one(house: Path, signer: signing.Signer, tmp_path: Path) -> None:
    raw = (house / "wheelhouse.json").read_bytes()
    with pytest.raises(ReleaseError, match=r"no wheels for Python 3\.11 on aarch64"):
        build(str(house), read_wishes([{**X86, "architecture": "aarch64"}]), signer, indexes=["--no-index"])
    assert (house / "wheelhouse.json").read_bytes() == raw
    assert [path.name for path in tmp_path.iterdir()] == ["wheelhouse"], "nothing is left beside it"
    open_wheelhouse(house, trusted(signer), NOW, whole=True)


def test_a_damaged_one_is_built_again(house: Path, signer: signing.Signer, index: Path) -> None:
    wheel = next((house / "wheels").iterdir())
    wheel.write_bytes(b"rot")
    built = build(str(house), read_wishes([X86]), signer, indexes=offline(index))
    assert built.changed and wheel.name in built.reasons[0]
    open_wheelhouse(house, trusted(signer), NOW, whole=True)


def test_another_directory_is_not_replaced(tmp_path: Path, signer: signing.Signer, index: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("years")
    with pytest.raises(ReleaseError, match=r"thesis\.tex"):
        build(str(tmp_path / "home"), read_wishes([X86]), signer, indexes=offline(index))
    assert (tmp_path / "home/thesis.tex").read_text() == "years"


def test_locks_fix_what_is_fetched(tmp_path: Path, made: Path, signer: signing.Signer, index: Path) -> None:
    document = json.loads((made / "wheelhouse.json").read_text())
    for value in document["wheels"].values():
        value.update(size=0, record="", unpacked=0)  # what an index tells of them
    (tmp_path / "locks.json").write_text(json.dumps(document))
    locks = wheelhouse.read_locks(tmp_path / "locks.json")
    built = build(str(tmp_path / "h"), read_wishes([X86]), signer, locks=locks, indexes=offline(index))
    assert built.house is not None and built.house.environments == (locks.environments[-1],)
    victim = next(name for name in document["wheels"] if name.startswith("tiny"))
    document["wheels"][victim]["sha256"] = "0" * 64
    (tmp_path / "locks.json").write_text(json.dumps(document))
    with pytest.raises(ReleaseError, match=r"cannot be fetched.*Expected sha256"):
        build(
            str(tmp_path / "i"), read_wishes([X86]), signer,
            locks=wheelhouse.read_locks(tmp_path / "locks.json"), indexes=offline(index),
        )  # fmt: skip


def test_a_vendors_wheel(tmp_path: Path, signer: signing.Signer, index: Path) -> None:
    make_wheel(tmp_path / "vendor", "onnxruntime_gpu", "1.20.0", tags="cp310-cp310-linux_aarch64", requires=("numpy",))
    wish = {"package": "onnxruntime-gpu", "version": "1.20.0", "python": "3.10", "architecture": "aarch64"}
    with pytest.raises(ReleaseError, match="no wheels for"):
        build(str(tmp_path / "h"), read_wishes([wish]), signer, indexes=offline(index))
    vendor = str(tmp_path / "vendor")
    built = build(str(tmp_path / "h"), read_wishes([wish]), signer, vendor=vendor, indexes=offline(index))
    assert built.house is not None
    assert built.house.stocked(Target("3.10", "aarch64")) == {"onnxruntime-gpu==1.20.0"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "sparc"}, "architecture"),
        ({"python": "3.8"}, r"3\.9, 3\.10"),
        ({"python": "three"}, "python"),
        ({"runtime": "torch"}, "'torch' has no wheels"),
        ({"architecture": "armv7l"}, "no wheels for armv7l"),
        ({"package": "onnxruntime-migraphx", "runtime": None}, "name a version"),
    ],
)
def test_wishes_that_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        read_wishes([{**X86, **change}])


def _rename(house: Path) -> None:
    wheel = next((house / "wheels").glob("tiny*"))
    wheel.rename(wheel.with_name("tinier-1.0-py3-none-any.whl"))


def _alter(house: Path) -> None:
    wheel = next((house / "wheels").glob("tiny*"))
    data = bytearray(wheel.read_bytes())
    data[100] ^= 1
    wheel.write_bytes(data)


def _link(house: Path) -> None:
    wheel = next((house / "wheels").glob("tiny*"))
    wheel.rename(house.parent / "elsewhere.whl")
    wheel.symlink_to(house.parent / "elsewhere.whl")


def _edit(house: Path) -> None:
    path = house / "wheelhouse.json"
    path.write_text(path.read_text().replace('"created": "2', '"created": "1', 1))


TAMPERING: dict[str, tuple[Any, str, bool]] = {
    # name: (what is done, what is said, whether the signature and sizes alone show it)
    "renamed": (_rename, "not listed|is missing", True),
    "altered": (_alter, "was altered", False),
    "linked": (_link, "symbolic link", True),
    "truncated": (lambda h: next((h / "wheels").glob("tiny*")).write_bytes(b"short"), "has 5 bytes", True),
    "removed": (lambda h: next((h / "wheels").glob("tiny*")).unlink(), "not complete", True),
    "added": (lambda h: (h / "wheels/evil-1-py3-none-any.whl").write_bytes(b""), "not listed", True),
    "added beside": (lambda h: (h / "sitecustomize.py").write_bytes(b""), "not listed", True),
    "listing edited": (_edit, "was altered", True),
    "listing gone": (lambda h: (h / "wheelhouse.json").unlink(), "is missing", True),
    "unsigned": (lambda h: (h / "model.sig").unlink(), "is not signed", True),
    "signature cut": (
        lambda h: (h / "model.sig").write_bytes((h / "model.sig").read_bytes()[:99]),
        "is not JSON",
        True,
    ),
    "nothing there": (shutil.rmtree, "is not there", True),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering(how: str, house: Path, signer: signing.Signer) -> None:
    act, said, cheap = TAMPERING[how]
    victim = next(item for item in parse((house / "wheelhouse.json").read_bytes(), "x").wheels.values()
                  if item.name == "tiny")  # fmt: skip
    act(house)
    with pytest.raises(ReleaseError, match=said):
        open_wheelhouse(house, trusted(signer), NOW, whole=True)
    if cheap:
        with pytest.raises(ReleaseError, match=said):
            open_wheelhouse(house, trusted(signer), NOW)
    else:
        # Found when the wheel is hashed, which it is before it is sent.
        open_wheelhouse(house, trusted(signer), NOW)
        with pytest.raises(ReleaseError, match=said):
            wheelhouse.check_wheel(house, victim)


def test_another_key(house: Path, signer: signing.Signer, tmp_path: Path) -> None:
    keys.generate_key(tmp_path / "k.pem", tmp_path / "k.pub.pem")
    other = signing.load_signer(tmp_path / "k.pem")
    with pytest.raises(ReleaseError, match="not trusted here"):
        open_wheelhouse(house, trusted(other), NOW)
    both = keys.Trust(keys=(other.key.public_key(), signer.key.public_key()))
    assert open_wheelhouse(house, both, NOW).key_id == signer.key_id


def test_an_expired_certificate(house: Path) -> None:
    root = authority()
    leaf = issue("signer", root, end=NOW + DAY)
    wheelhouse.sign(house, signing.Signer(leaf.key, (leaf.certificate,)))
    trust = keys.Trust(roots=(root.certificate,))
    assert open_wheelhouse(house, trust, NOW, whole=True).house.environments
    with pytest.raises(ReleaseError, match=r"expired|valid"):
        open_wheelhouse(house, trust, NOW + 2 * DAY)
    with pytest.raises(ReleaseError):
        open_wheelhouse(house, keys.Trust(roots=(authority("other").certificate,)), NOW)


def test_other_tools_verify_it(made: Path, signer: signing.Signer, tmp_path: Path) -> None:
    """The signature is OpenSSF Model Signing v1."""
    from model_signing import verifying

    public = tmp_path / "pub.pem"
    public.write_bytes(keys.public_pem(signer.key.public_key()))
    config = verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.verify(made, made / "model.sig")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "this version reads format 1"),
        ({"surprise": 1}, "unknown field"),
        ({"environments": [{}]}, "is missing"),
        ({"wheels": {"../x.whl": {"size": 1, "sha256": "0" * 64, "record": "", "unpacked": 0}}}, "name of a wheel"),
        (
            {"wheels": {"a-1-py3-none-any.whl": {"size": -1, "sha256": "0" * 64, "record": "", "unpacked": 0}}},
            "integer",
        ),
        ({"created": "yesterday"}, "created"),
    ],
)
def test_listings_that_are_refused(change: dict[str, Any], said: str, made: Path) -> None:
    document = json.loads((made / "wheelhouse.json").read_text())
    with pytest.raises(ReleaseError, match=said):
        parse(json.dumps({**document, **change}).encode(), "wheelhouse.json")


def test_an_environment_with_a_wheel_of_another_machine(made: Path) -> None:
    document = json.loads((made / "wheelhouse.json").read_text())
    arm = next(name for name in document["wheels"] if "aarch64" in name)
    x86 = next(item for item in document["environments"] if item["architecture"] == "x86_64")
    x86["wheels"] = [arm]
    with pytest.raises(ReleaseError, match="is for"):
        parse(json.dumps(document).encode(), "wheelhouse.json")


def test_platforms_are_those_of_the_oldest_distribution() -> None:
    tags = platforms(Target("3.9", "aarch64"))
    assert "manylinux_2_31_aarch64" in tags and "manylinux_2_32_aarch64" not in tags and "manylinux2014_aarch64" in tags
    assert "manylinux_2_39_x86_64" in platforms(Target("3.12", "x86_64"))


def test_what_is_needed_is_a_matter_of_the_target() -> None:
    assert needed([], ["nothing==1"], Target("3.11", "x86_64")) == (set(), ["nothing==1"])


def test_the_collections_own_locks() -> None:
    """Every environment of the table is locked, with what the table asks for today."""
    path = Path(__file__).resolve().parents[3] / "requirements" / "locks.json"
    locks = wheelhouse.read_locks(path)
    wishes = wheelhouse_build.all_wishes()
    have = {(item.package, item.version, item.target, item.requirements) for item in locks.environments}
    assert have == {(item.package, item.version, item.target, item.requirements) for item in wishes}, (
        "tools/runtime_locks.py"
    )
    for item in locks.environments:
        packages = {locks.wheels[file].name: locks.wheels[file].version for file in item.wheels}
        for asked in item.requirements:
            name, _equals, version = asked.partition("==")
            assert packages[name.partition("[")[0].replace("_", "-")] == version

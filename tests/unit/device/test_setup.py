"""What provisioning leaves on a device, whose it is, and what may be removed."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import removal, setup
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.removal import Look, removal_refusal, setup_refusal

OLD = "-----BEGIN PUBLIC KEY-----\nb2xk\n-----END PUBLIC KEY-----\n"
NEW = "-----BEGIN PUBLIC KEY-----\nbmV3\n-----END PUBLIC KEY-----\n"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


def apply(root: Path, keys: list[str], **settings: Any) -> setup.Setup:
    plan = setup.plan_setup(str(root), {"device_id": "a", **settings}, keys, [])
    setup.apply_setup(str(root), plan)
    assert not setup.plan_setup(str(root), {"device_id": "a", **settings}, keys, []).changed
    return plan


def mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o7777:04o}"


def trusted(root: Path) -> set[str]:
    return {path.read_text() for path in (root / "trust" / "keys").iterdir()}


def test_a_device_from_nothing(tmp_path: Path) -> None:
    root = tmp_path / "edge"
    apply(root, [OLD], site="north")
    assert json.loads((root / "device.json").read_text())["site"] == "north"
    assert {name: mode(root / name) for name in ("trust/keys", "lib", "run", "log", "device.json")} == {
        "trust/keys": "0755",
        "lib": "0755",
        "run": "0700",
        "log": "0750",
        "device.json": "0644",
    }


def test_keys_are_an_exact_set_and_there_is_always_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "edge"
    apply(root, [OLD])
    apply(root, [OLD, NEW])
    assert trusted(root) == {OLD, NEW}
    seen = []
    remove = setup.fsutil.remove
    monkeypatch.setattr(setup.fsutil, "remove", lambda path: (seen.append(trusted(root)), remove(path)))
    apply(root, [NEW])
    assert trusted(root) == {NEW} and seen == [{OLD, NEW}]


def test_a_planted_key_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "edge"
    apply(root, [OLD])
    (root / "trust" / "keys" / "intruder.pem").write_text(NEW)
    apply(root, [OLD])
    assert trusted(root) == {OLD}


@pytest.mark.parametrize("name", ["run", "log", "trust/keys"])
def test_a_directory_that_is_too_open_is_mended(tmp_path: Path, name: str) -> None:
    root = tmp_path / "edge"
    apply(root, [OLD])
    before = mode(root / name)
    (root / name).chmod(0o777)
    plan = apply(root, [OLD])
    assert mode(root / name) == before and [item.name for item, _has, _wants in plan.directories] == [name]


def test_a_file_that_others_may_write_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "edge"
    apply(root, [OLD])
    (root / "device.json").chmod(0o666)
    with (root / "device.json").open() as still_open:
        assert apply(root, [OLD]).loose == ["device.json"]
        # a new file: whoever has the old one open writes into nothing
        assert os.fstat(still_open.fileno()).st_ino != (root / "device.json").stat().st_ino
    assert mode(root / "device.json") == "0644"


def test_a_link_in_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "edge", tmp_path / "elsewhere"
    apply(root, [OLD])
    elsewhere.mkdir(mode=0o755)
    (root / "run").rmdir()
    (root / "run").symlink_to(elsewhere)
    plan = setup.plan_setup(str(root), {"device_id": "a"}, [OLD], [])
    assert plan.changed
    with pytest.raises(DeviceError, match="run"):
        setup.apply_setup(str(root), plan)
    assert mode(elsewhere) == "0755"


@AS_ROOT
def test_the_service_owns_only_what_it_writes(tmp_path: Path) -> None:
    root = tmp_path / "edge"
    plan = apply(root, [OLD], service_user="nobody", service_group="nogroup")
    assert plan.owner == ("nobody", "nogroup")
    owners = {name: (root / name).stat().st_uid for name in (".", "trust", "lib", "run", "log", "device.json")}
    assert {name for name, uid in owners.items() if uid != 0} == {"run", "log"}
    assert mode(root) == mode(root / "trust") == "0755"
    os.chown(root / "lib", 65534, 65534)
    assert [
        item.name
        for item, _has, _wants in apply(root, [OLD], service_user="nobody", service_group="nogroup").directories
    ] == ["lib"]


def test_a_service_user_that_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / "edge"
    plan = setup.plan_setup(str(root), {"device_id": "a", "service_user": "nobody-of-the-name"}, [OLD], [])
    assert plan.changed  # check mode on a fresh device: the role makes the user first
    with pytest.raises(DeviceError, match="nobody-of-the-name"):
        setup.apply_setup(str(root), plan)


@pytest.mark.parametrize(
    ("path", "look", "words"),
    [
        ("/", Look(("bin", "etc")), "of its own"),
        ("/var/", Look(("lib",)), "of its own"),
        ("/usr", Look(()), "of its own"),
        ("edge", Look(None), "of its own"),
        ("/srv/x", Look((), False, False, False), "not a directory"),
        ("/var/lib", Look(("apt", "dpkg")), "apt, dpkg"),
        ("/srv/x", Look(("a", "b", "c", "d", "e", "f", "g")), "and 2 more"),
        ("/srv/x", Look(None), ""),
        ("/srv/x", Look(("lost+found",)), ""),
        ("/srv/x", Look(("releases", "trust", "device.json", "mine")), ""),
        ("/srv/x", Look(("lib", "venv", ".tmp-device.json-1-2")), ""),
    ],
)
def test_what_may_become_a_device(path: str, look: Look, words: str) -> None:
    refused = setup_refusal(path, look)
    assert words in refused and bool(refused) is bool(words)


@pytest.mark.parametrize(
    ("path", "look", "words"),
    [
        ("/", Look(("device.json", "trust")), "stays"),
        ("/var", Look(("device.json", "trust")), "stays"),
        ("/var/lib", Look(("device.json", "trust", "dpkg")), "dpkg"),
        ("/srv/x", Look(("device.json",), link=True), "by hand"),
        ("/srv/x", Look(("run", "log")), "does not look like"),
        ("/srv/x", Look(("device.json", "photos")), "photos"),
        ("/srv/x", Look(("device.json", "trust", "blobs", "journal.jsonl", "engine", ".tmp-x", "lost+found")), ""),
        ("/srv/x", Look(("trust",)), ""),
        ("/srv/x", Look(()), ""),
    ],
)
def test_what_may_be_removed(path: str, look: Look, words: str) -> None:
    refused = removal_refusal(path, look)
    assert words in refused and bool(refused) is bool(words)


def test_removal_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "edge"
    apply(root, [OLD])
    (root / "blobs" / "sha256").mkdir(parents=True)
    (root / "blobs" / "sha256" / "00").write_bytes(b"x")
    removal.remove(str(root), removal.plan_removal(str(root)))
    assert not root.exists() and removal.plan_removal(str(root)) == []


def test_an_interrupted_removal_can_be_finished(tmp_path: Path) -> None:
    root = tmp_path / "edge"
    apply(root, [OLD])
    names = removal.plan_removal(str(root))
    removal.remove(str(root), [name for name in names if name not in (".", "device.json", "trust")])
    removal.remove(str(root), removal.plan_removal(str(root)))
    assert not root.exists()


@pytest.mark.parametrize("lock", removal.LOCKS)
def test_nothing_is_removed_below_a_running_server(tmp_path: Path, lock: str) -> None:
    root = tmp_path / "edge"
    apply(root, [OLD])
    with (root / lock).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeviceError, match="stop it first"):
            removal.plan_removal(str(root))
    assert removal.plan_removal(str(root))

"""The role over real playbooks and real runtimes, from one wheelhouse, into directories of the test."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fleet import ROOT, Run, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.build import wheelhouse
from ansible_collections.edgeai.fleet.plugins.module_utils.build.wheelhouse import Target
from ansible_collections.edgeai.fleet.plugins.module_utils.device import runtime_env, runtime_facts
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_install import Request, ensure
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_lock import Lock, dump_lock, read_lock
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_table import ROWS, version_of
from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_tree import DESCRIPTION, verify

PYTHON = "{}.{}".format(*sys.version_info[:2])
PLAY = """
- hosts: edge
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: edgeai.fleet.inference_runtime
    - ansible.builtin.copy:
        content: "{{ inference_runtime_result | to_json }}"
        dest: "{{ result_file }}"
        mode: "0644"
      check_mode: false
      changed_when: false
      when: inference_runtime_state | default('present') == 'present'
"""


class Site:
    """A controller with keys and a wheelhouse, and devices that are directories."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.house = home / "wheelhouse"
        hosts: dict[str, Any] = {"one": {}, "two": {"edge_runtime": "litert"}}
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "edge_system_python": sys.executable,
            "edge_wheelhouse": str(self.house),
            "edge_trust_keys": [str(home / "keys/release.pub.pem")],
            "edge_runtime_home": f"{home}/{{{{ inventory_hostname }}}}/edgeai/runtimes",
            "result_file": f"{home}/{{{{ inventory_hostname }}}}.json",
        }
        self.inventory = home / "hosts.yml"
        self.inventory.write_text(yaml.safe_dump({"edge": {"vars": self.variables, "hosts": hosts}}))
        (home / "role.yml").write_text(PLAY)

    def ansible(self, playbook: str, *arguments: str) -> Run:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "NO_COLOR": "1",
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            playbook,
            "-i",
            str(self.inventory),
            *arguments,
        ]
        done = subprocess.run(
            command, cwd=self.home, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=280, check=False,
        )  # fmt: skip
        return Run(done.returncode, done.stdout)

    def role(self, *arguments: str, host: str = "one") -> tuple[Run, dict[str, Any]]:
        file = self.home / f"{host}.json"
        file.unlink(missing_ok=True)
        run = self.ansible("role.yml", "--limit", host, *arguments)
        return run, json.loads(file.read_text()) if file.exists() else {}

    def runtimes(self, host: str = "one") -> Path:
        return self.home / host / "edgeai/runtimes"

    def lock(self, runtime: str) -> Lock:
        target = Target(PYTHON, os.uname().machine)
        row = next(row for row in ROWS if (row.accelerator, row.runtime) == ("cpu", runtime))
        version = str(version_of(row, target.version, target.architecture))
        house = wheelhouse.parse((self.house / "wheelhouse.json").read_bytes(), "wheelhouse.json")
        return house.lock(row.package, version, target)


def changes(run: Run) -> int:
    return int(re.findall(r"changed=(\d+)", run.output)[-1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The one wheelhouse of this file: onnxruntime and litert for this machine, made by the playbook."""
    site = Site(tmp_path_factory.mktemp("site"))
    keys = site.ansible("edgeai.fleet.keys", "-e", f"directory={site.home}/keys")
    assert keys.rc == 0, keys
    predicted = site.ansible("edgeai.fleet.wheelhouse", "-e", "key=keys/release.pem", "--check", "--diff")
    assert predicted.rc == 0 and "it is not there" in predicted.output and not site.house.exists(), predicted
    built = site.ansible("edgeai.fleet.wheelhouse", "-e", "key=keys/release.pem")
    assert built.rc == 0 and changes(built) == 1, built
    return site


@pytest.fixture(scope="module")
def installed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device with onnxruntime, to copy from."""
    home = tmp_path_factory.mktemp("installed") / "runtimes"
    assert ensure(request(site, home, "onnxruntime")).changed
    return home


PROVIDERS = {"onnxruntime": "CPUExecutionProvider", "litert": "CPU"}


def request(site: Site, home: Path, runtime: str, **change: Any) -> Request:
    values: dict[str, Any] = {
        "home": str(home),
        "lock": dump_lock(site.lock(runtime)),
        "provider": PROVIDERS[runtime],
        "python": sys.executable,
        "wheels": str(site.house / "wheels"),
    }
    return Request(**{**values, **change})


@pytest.fixture
def home(installed: Path, tmp_path: Path) -> Path:
    """A device with onnxruntime whose files are its own as soon as they are replaced (not written into)."""
    shutil.copytree(installed, tmp_path / "runtimes", symlinks=True, copy_function=os.link)
    return tmp_path / "runtimes"


def replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def current(home: Path) -> str:
    return os.readlink(home / "current")


def leftovers(home: Path) -> list[str]:
    return [path.name for path in home.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_the_wheelhouse_playbook_again(site: Site) -> None:
    again = site.ansible("edgeai.fleet.wheelhouse", "-e", "key=keys/release.pem", "-e", "index_url=http://127.0.0.1:9/")
    assert again.rc == 0 and changes(again) == 0, again
    assert "litert" in again.output and "onnxruntime==" in again.output


def test_a_fresh_device_then_again_then_another_runtime_and_back(site: Site) -> None:
    home = site.runtimes()
    predicted, said = site.role("--check", "--diff")
    assert predicted.rc == 0 and changes(predicted) == 1 and "install onnxruntime-" in predicted.output, predicted
    assert said["changed"] and said["runtime"] == "onnxruntime" and not home.exists()
    done, said = site.role("--diff")
    assert done.rc == 0 and changes(done) == 1, done
    assert said["changed"] and said["provider"] == "CPUExecutionProvider" and said["source"] == "wheelhouse"
    assert said["environment"] == os.path.realpath(home / "current") and said["why"] and said["version"]
    for arguments in (["--check"], []):
        again, said = site.role(*arguments)
        assert again.rc == 0 and changes(again) == 0 and not said["changed"], again
        assert said["verified"]["files"] > 1000 and said["verified"]["damaged"] == {}
    other, said = site.role("-e", "edge_runtime=litert")
    assert other.rc == 0 and said["changed"] and said["runtime"] == "litert" and said["overridden"], other
    assert "set in the inventory: runtime litert" in said["why"]
    assert current(home).startswith("litert-") and os.readlink(home / "previous").startswith("onnxruntime-")
    before = {path: path.stat().st_ctime_ns for path in home.glob("onnxruntime-*/**/*.so*")}
    back, said = site.role()
    assert back.rc == 0 and changes(back) == 1 and current(home).startswith("onnxruntime-"), back
    assert {path: path.stat().st_ctime_ns for path in before} == before, "switched, not installed again"
    assert leftovers(home) == []


def test_absent_leaves_nothing(site: Site, installed: Path) -> None:
    home = site.runtimes("two")
    shutil.copytree(installed, home, symlinks=True, copy_function=os.link)
    absent = ["-e", "inference_runtime_state=absent"]
    predicted, _said = site.role("--check", "--diff", *absent, host="two")
    assert predicted.rc == 0 and changes(predicted) == 1 and home.exists(), predicted
    gone, _said = site.role(*absent, host="two")
    assert gone.rc == 0 and changes(gone) == 1 and list((site.home / "two").iterdir()) == [], gone
    again, _said = site.role(*absent, host="two")
    assert again.rc == 0 and changes(again) == 0, again


def test_absent_leaves_what_is_not_its_own(home: Path) -> None:
    (home / "onnxruntime/bin").mkdir(parents=True)  # a virtual environment of a local device
    removed = runtime_env.remove_all(str(home))
    assert len(removed) == 2 and [path.name for path in home.iterdir()] == ["onnxruntime"]


def test_a_tampered_wheelhouse_stops_the_role(site: Site, tmp_path: Path) -> None:
    """On the controller, before anything reaches a device; and a wheel that rots later, when it is unpacked."""
    shutil.copytree(site.house, tmp_path / "house", copy_function=os.link)
    (tmp_path / "house/wheels/evil-1-py3-none-any.whl").write_bytes(b"")
    fresh = ["-e", f"edge_runtime_home={tmp_path}/runtimes", "-e", f"edge_wheelhouse={tmp_path}/house"]
    refused, said = site.role(*fresh)
    assert refused.rc != 0 and "evil-1-py3-none-any.whl: is not listed in the signature" in refused.output, refused
    assert not said and not (tmp_path / "runtimes").exists()
    unknown, _said = site.role(*fresh, "-e", json.dumps({"edge_trust_keys": []}))
    assert unknown.rc != 0 and "edge_trust_keys" in unknown.output


DAMAGE: dict[str, Any] = {
    "a byte of native code": lambda env, site: replace(next(site.glob("onnxruntime/capi/*.so*")), b"\x7fELF rot"),
    "a source that is gone": lambda env, site: (site / "starlette/routing.py").unlink(),
    "a file that was added": lambda env, site: (site / "sitecustomize.py").write_text("import os\n"),
    "a module hidden by bytecode": lambda env, site: (site / "numpy/evil.pyc").write_bytes(b"x"),
    "bytecode that was altered": lambda env, site: replace(next(site.glob("starlette/__pycache__/*.pyc")), b"x"),
    "a RECORD that was altered": lambda env, site: replace(next(site.glob("uvicorn-*/RECORD")), b"x"),
    "a link in place of a file": lambda env, site: relink(site / "h11/__init__.py", "/etc/hostname"),
    "another interpreter": lambda env, site: relink(env / "bin/python", "/bin/sh"),
    "other settings": lambda env, site: replace(env / "pyvenv.cfg", b"home = /tmp\n"),
    "a description that is gone": lambda env, site: (env / DESCRIPTION).unlink(),
    "a description that is torn": lambda env, site: replace(env / DESCRIPTION, b'{"format": 1'),
}


def environment_of(home: Path) -> tuple[Path, Path]:
    env = home / current(home)
    return env, next(env.glob("lib/python3.*/site-packages"))


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found(what: str, site: Site, home: Path) -> None:
    lock = site.lock("onnxruntime")
    env, packages = environment_of(home)
    DAMAGE[what](env, packages)
    report = verify(str(env), lock)
    assert not report.good and len(report.damaged) >= 1


def test_a_file_that_others_can_write_is_damage(site: Site, home: Path) -> None:
    env, packages = environment_of(home)
    victim = packages / "h11/__init__.py"
    text = victim.read_bytes()
    replace(victim, text)
    victim.chmod(0o666)
    assert list(verify(str(env), site.lock("onnxruntime")).damaged.values()) == ["can be written by others"]


def test_damage_is_repaired_with_the_wheels_concerned_alone(site: Site, home: Path, tmp_path: Path) -> None:
    env, packages = environment_of(home)
    for what in ("a byte of native code", "a file that was added", "bytecode that was altered"):
        DAMAGE[what](env, packages)
    lock = site.lock("onnxruntime")
    needed = runtime_env.inspect(str(home), lock).needed
    assert [item.name for item in needed] == ["onnxruntime"]
    (tmp_path / "wheels").mkdir()
    os.link(site.house / "wheels" / needed[0].file, tmp_path / "wheels" / needed[0].file)
    predicted = ensure(request(site, home, "onnxruntime", check=True))
    assert predicted.changed and "repair" in predicted.did[0] and (packages / "sitecustomize.py").exists()
    done = ensure(request(site, home, "onnxruntime", wheels=str(tmp_path / "wheels")))
    assert done.changed and done.did == predicted.did and done.proof is not None
    assert not (packages / "sitecustomize.py").exists() and leftovers(home) == []
    again = ensure(request(site, home, "onnxruntime", wheels=None))
    assert not again.changed and again.report.good


def test_a_truncated_wheel_changes_nothing(site: Site, home: Path, tmp_path: Path) -> None:
    shutil.copytree(site.house / "wheels", tmp_path / "wheels", copy_function=os.link)
    victim = next((tmp_path / "wheels").glob("ai_edge_litert*"))
    data = victim.read_bytes()
    replace(victim, data[: len(data) // 2])
    before = current(home)
    with pytest.raises(DeviceError, match=r"1 wheels are missing"):  # of another size it is not taken at all
        ensure(request(site, home, "litert", wheels=str(tmp_path / "wheels")))
    replace(victim, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DeviceError, match="the lock says") as caught:
        ensure(request(site, home, "litert", wheels=str(tmp_path / "wheels")))
    assert caught.value.code == "digest_mismatch" and current(home) == before and leftovers(home) == []
    assert not list(home.glob("litert-*"))
    assert not ensure(request(site, home, "onnxruntime")).changed


def test_a_provider_that_does_not_compute_changes_nothing(site: Site, home: Path) -> None:
    """The real CPU build of onnxruntime, promised to compute with CUDA; installed already, and as a new environment."""
    before = sorted(path.name for path in home.iterdir())
    with pytest.raises(DeviceError, match="onnxruntime does not compute on CUDAExecutionProvider here") as caught:
        ensure(request(site, home, "onnxruntime", provider="CUDAExecutionProvider"))
    assert caught.value.code == "server"
    with pytest.raises(DeviceError, match="litert does not compute on edgetpu"):
        ensure(request(site, home, "litert", provider="edgetpu"))
    assert sorted(path.name for path in home.iterdir()) == before


def test_no_room_is_said_before_anything_is_written(site: Site, home: Path) -> None:
    lock = dump_lock(site.lock("litert"))
    lock["packages"][0]["unpacked"] = 1 << 60
    with pytest.raises(DeviceError, match="MiB are free") as caught:
        ensure(request(site, home, "litert", lock=lock))
    assert caught.value.code == "no_space" and leftovers(home) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": "3.9"}, r"the lock is for Python 3\.9"),
        ({"packages": [{"file": "a-1-cp311-cp311-manylinux_2_17_s390x.whl", "sha256": "0" * 64}]}, "the device is"),
    ],
)
def test_a_lock_of_another_machine(change: dict[str, Any], said: str, site: Site, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=said):
        ensure(request(site, tmp_path / "r", "onnxruntime", lock={**dump_lock(site.lock("onnxruntime")), **change}))
    assert not (tmp_path / "r").exists()


def moments(home: Path) -> dict[str, Any]:
    """When to kill an installation: as soon as this is true."""
    return {
        "unpacking": lambda: len(list(home.glob(".tmp-litert*/lib/python3*/site-packages/*"))) > 5,
        "described": lambda: list(home.glob(f".tmp-litert*/{DESCRIPTION}")),
        "in place": lambda: list(home.glob("litert-*")),
    }


@pytest.mark.parametrize("moment", moments(Path()))
def test_power_lost_during_an_installation(moment: str, site: Site, home: Path, tmp_path: Path) -> None:
    before = current(home)
    wanted = request(site, home, "litert")
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.edgeai.fleet.plugins.module_utils.device.runtime_install import *\n"
        "ensure(Request(**json.loads(sys.argv[2])))"
    )
    arguments = [os.environ["ANSIBLE_COLLECTIONS_PATH"], json.dumps(wanted._asdict())]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=log, start_new_session=True)
    try:
        wait_for(moments(home)[moment], 60, f"{moment}: {(tmp_path / 'log').read_text()}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    name = current(home)
    assert name in (before, site.lock("litert").name) and (moment == "in place" or name == before)
    assert verify(str(home / name), site.lock("onnxruntime" if name == before else "litert")).good
    done = ensure(wanted)
    assert done.report.good and current(home) == site.lock("litert").name and leftovers(home) == []


def test_nobody_writes_into_an_environment(site: Site, home: Path) -> None:
    """Root neither: Ansible's own modules run with this interpreter, and Python would leave bytecode behind."""
    python = home / current(home) / "bin/python"
    subprocess.run([python, "-c", "import numpy.testing, numpy.f2py, click"], check=True, cwd="/")
    assert verify(str(home / current(home)), site.lock("onnxruntime")).good


def test_only_the_environment_before_is_kept(site: Site, home: Path) -> None:
    first = current(home)
    # The same wheels under another version are another environment: what an upgrade looks like.
    lock = {**dump_lock(site.lock("onnxruntime")), "version": "9.9"}
    for name in ("onnxruntime-9.8-000000000000", "onnxruntime-9.7-000000000000"):
        (home / name).mkdir()
        shutil.copy(home / first / DESCRIPTION, home / name)
    done = ensure(request(site, home, "onnxruntime", lock=lock))
    assert done.removed == ("onnxruntime-9.7-000000000000", "onnxruntime-9.8-000000000000")
    assert os.readlink(home / "previous") == first and current(home).startswith("onnxruntime-9.9-")
    assert not (home / done.removed[0]).exists() and (home / first).exists()


def test_pip_installs_the_same_bytes(site: Site, home: Path, tmp_path: Path) -> None:
    """An oracle: what pip makes of the same wheels, less the notes it leaves and the scripts."""
    lock = site.lock("onnxruntime")
    wheels = [str(site.house / "wheels" / item.file) for item in lock.packages]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile",
         "--disable-pip-version-check", "--target", str(tmp_path / "pip"), *wheels],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _env, packages = environment_of(home)

    def tree(base: Path) -> dict[str, bytes]:
        skipped = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "edgeai-immutable.pth")
        return {
            str(path.relative_to(base)): path.read_bytes()
            for path in base.rglob("*")
            if path.is_file() and path.name not in skipped and path.suffix != ".pyc"
            and path.relative_to(base).parts[0] not in ("bin", "share")
        }  # fmt: skip

    mine, theirs = tree(packages), tree(tmp_path / "pip")
    assert mine.keys() == theirs.keys() and len(mine) > 1000
    assert [name for name in mine if mine[name] != theirs[name]] == []


@pytest.fixture
def index(site: Site, tmp_path: Path) -> Iterator[str]:
    """The wheels as a package index, in files."""
    simple = tmp_path / "simple"
    for wheel in (site.house / "wheels").iterdir():
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        (simple / name).mkdir(parents=True, exist_ok=True)
        with open(simple / name / "index.html", "a", encoding="utf-8") as page:
            page.write(f'<a href="{wheel.as_uri()}">{wheel.name}</a>\n')
    yield (simple.as_uri() + "/")


def test_from_a_package_index_by_hash(site: Site, tmp_path: Path, index: str) -> None:
    """The locks an index is used with know no sizes and no RECORDs; a wheel with another hash is not taken."""
    locks = json.loads((site.house / "wheelhouse.json").read_text())
    for value in locks["wheels"].values():
        value.update(size=0, record="", unpacked=0)
    (tmp_path / "locks.json").write_text(json.dumps(locks))
    more = {
        "edge_wheelhouse": "", "edge_runtime_home": f"{tmp_path}/runtimes", "edge_runtime": "litert",
        "inference_runtime_locks": f"{tmp_path}/locks.json", "inference_runtime_index_url": index,
    }  # fmt: skip
    done, said = site.role("-e", json.dumps(more), "--check")
    assert done.rc == 0 and said["source"] == "index" and said["runtime"] == "litert", done
    house = wheelhouse.read_locks(tmp_path / "locks.json")
    litert = site.lock("litert")
    lock = dump_lock(house.lock("ai-edge-litert", litert.version, Target(PYTHON, os.uname().machine)))
    wanted = request(site, tmp_path / "r", "litert", lock=lock, wheels=None, indexes={"url": index})
    bad = {**lock, "packages": [{**lock["packages"][0], "sha256": "0" * 64}, *lock["packages"][1:]]}
    with pytest.raises(DeviceError, match="cannot be fetched from the package index"):
        ensure(wanted._replace(lock=bad))
    assert not (tmp_path / "r/current").exists()
    assert ensure(wanted).changed
    assert current(tmp_path / "r") == litert.name, "the same environment as from a wheelhouse"
    assert verify(str(tmp_path / "r/current"), litert).good and leftovers(tmp_path / "r") == []


def test_batches_arrive_and_stay(site: Site, tmp_path: Path) -> None:
    """What the controller's half does over a connection: plan, a batch, plan, and so on; a cut costs one batch."""
    home, lock = tmp_path / "runtimes", site.lock("litert")
    planned = ensure(request(site, home, "litert", wheels=None, plan=True))
    assert not planned.changed and len(planned.missing) == len(lock.packages)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for package in lock.packages[:-1]:
        shutil.copy(site.house / "wheels" / package.file, inbox / package.sha256)
    (inbox / lock.packages[-1].sha256).write_bytes(b"torn")
    with pytest.raises(DeviceError, match="what arrived has SHA-256") as caught:
        ensure(request(site, home, "litert", wheels=None, plan=True, inbox=str(inbox)))
    assert caught.value.code == "digest_mismatch"
    left = ensure(request(site, home, "litert", wheels=None, plan=True))
    assert [item.file for item in left.missing] == [lock.packages[-1].file], "the others arrived, and stayed"
    with pytest.raises(DeviceError, match="1 wheels are missing"):
        ensure(request(site, home, "litert", wheels=None))
    shutil.copy(site.house / "wheels" / lock.packages[-1].file, inbox / lock.packages[-1].sha256)
    done = ensure(request(site, home, "litert", wheels=None, plan=True, inbox=str(inbox)))
    assert done.changed and done.report.good and leftovers(home) == [] and not list(inbox.iterdir())


def test_packages_of_the_distribution(site: Site, tmp_path: Path) -> None:
    """Without wheels, as on armv7: an environment that sees the distribution's packages, named by their versions."""
    lock = Lock("onnxruntime", "0", PYTHON, (), (("python3-no-such-onnxruntime", ""),))
    with pytest.raises(DeviceError, match="apt-get install python3-no-such-onnxruntime"):
        ensure(request(site, tmp_path / "r", "onnxruntime", lock=dump_lock(lock)))
    assert not (tmp_path / "r").exists()
    predicted = ensure(request(site, tmp_path / "r", "onnxruntime", lock=dump_lock(lock), check=True))
    assert predicted.changed and not (tmp_path / "r").exists()
    tree = tmp_path / "tree"
    tree.mkdir()
    python = runtime_facts.ask_python(sys.executable)
    runtime_env._skeleton(str(tree), read_lock(dump_lock(lock)), python)
    assert "include-system-site-packages = true" in (tree / "pyvenv.cfg").read_text()


def test_how_long_a_check_takes(site: Site, home: Path) -> None:
    """Every byte on every run: the figure that docs/runtimes.md gives, within reason on a busy machine."""
    env, _packages = environment_of(home)
    began = time.monotonic()
    report = verify(str(env), site.lock("onnxruntime"))
    rate = report.size / (time.monotonic() - began) / 2**20
    assert report.good and rate > 50, f"{report.files} files, {report.size >> 20} MiB at {rate:.0f} MiB/s"

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The model server in a container that has what its DaemonSet's pod has, and the device's own half beside it."""

from __future__ import annotations

import json
import os
import platform
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.modules import run_module
from support.releases import make_release
from support.servers import MODEL, VARIANT, Device, free_port, onnx_model, tensors, wait_for

from ansible_collections.edgeai.fleet.plugins.module_utils.device import control
from ansible_collections.edgeai.fleet.plugins.module_utils.release.manifest import load_manifest
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.manifests import manifests
from lab import host
from lab.api import Lab
from lab.images import cache_directory
from lab.state import held

UID, GID = 12345, 12346
GATE = {"samples": 32, "requests": 40, "warmup": 5}
POD = "edgeai-server-test"


def done(name: str, arguments: dict[str, Any], timeout: float = 60) -> dict[str, Any]:
    """Run a module that has to succeed."""
    result = run_module(name, arguments, timeout=timeout)
    assert not result.get("failed"), result
    return result


@pytest.fixture(scope="module")
def image() -> dict[str, Any]:
    """The archive of the image, and its name: built once, kept beside the lab's images."""
    host.require_rights()
    native = host.native_architecture()
    host.install_packages(host.missing_packages({native}, native))
    home = cache_directory() / "server"
    key = home / "keys" / "release.pem"
    machine = {"architecture": platform.machine()}
    with held(home.with_name("server.lock"), 1800):
        key.parent.mkdir(parents=True, exist_ok=True)
        done("signing_key", {"path": key, "public_path": key.with_suffix(".pub.pem")})
        wanted = {"runtime": "onnxruntime", "python": "3.11", **machine}
        house = {"path": home / "wheelhouse", "private_key": key, "environments": [wanted]}
        locks = Path(__file__).resolve().parents[2] / "requirements" / "locks.json"
        done("wheelhouse_build", {**house, "locks": locks}, timeout=900)
        arguments = {"wheelhouse": home / "wheelhouse", "public_keys": [key.with_suffix(".pub.pem")], **machine}
        arguments |= {"dest": home, "cache": home / "cache", "mirror": os.environ.get("EDGEAI_LAB_MIRROR", "")}
        built = done("server_image", arguments, timeout=3000)
        assert done("server_image", arguments)["changed"] is False
    return built


class Pod:
    """A device whose server runs as podman runs what the DaemonSet says."""

    def __init__(self, base: Path, lab: Lab, image: dict[str, Any]) -> None:
        self.lab = lab
        self.device = Device(base, port=free_port())
        self.port = json.loads((self.device.root / "device.json").read_text())["server"]["url"].rpartition(":")[2]
        for name, mode in (("run", 0o700), ("log", 0o750)):
            (self.device.root / name).mkdir(mode=mode)
            os.chown(self.device.root / name, UID, GID)
        self.spec = self.pod_spec(image["image"])
        self.container = self.spec["containers"][0]
        self.name = f"edgeai-pod-{lab.id}"

    def pod_spec(self, image: str) -> dict[str, Any]:
        facts = {"name": "gate-1", "node": "gate-1", "platform": "k3s", "host": "127.0.0.1", "port": int(self.port)}
        facts |= {"stratum": f"cpu/onnxruntime/{platform.machine()}", "root": str(self.device.root)}
        facts |= {"uid": UID, "gid": GID, "memory_mib": 1024, "models": [MODEL]}
        return dict(manifests([facts], {"onnxruntime": image})[-1]["spec"]["template"]["spec"])

    def arguments(self) -> list[str]:
        """The pod's spec in podman's words; what has none here is refused."""
        pod, mine = self.spec["securityContext"], self.container["securityContext"]
        assert mine["readOnlyRootFilesystem"] and not mine["allowPrivilegeEscalation"] and pod["runAsNonRoot"]
        argv = [f"--user={pod['runAsUser']}:{pod['runAsGroup']}", "--read-only", "--security-opt=no-new-privileges"]
        argv += [f"--cap-drop={name}" for name in mine["capabilities"]["drop"]]
        argv += ["--network=host", f"--env={self.container['env'][0]['name']}={POD}", "--read-only-tmpfs=false"]
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            place = volumes[mount["name"]].get("hostPath")
            if place is None:
                argv.append(f"--tmpfs={mount['mountPath']}:rw,mode=1777")
                continue
            assert Path(place["path"]).is_dir()
            options = "ro" if mount.get("readOnly") else "rw"
            argv.append(f"--volume={place['path']}:{mount['mountPath']}:{options}")
        return argv

    def start(self) -> None:
        command, *rest = [*self.container["command"], *self.container["args"]]
        # No cgroup: to filter devices in one, crun wants rights over limits that not every host gives it.
        limits = ["--cgroups=disabled", "--ulimit=host", "--log-driver=k8s-file"]
        argv = ["run", "--detach", f"--name={self.name}", *limits, f"--entrypoint={json.dumps([command])}"]
        self.lab.podman.run(*argv, *self.arguments(), self.container["image"], *rest, timeout=120)
        self.wait()

    def wait(self) -> None:
        wait_for(lambda: self.probe("startupProbe") == 200, 120, f"the server is live:\n{self.log()}")

    def log(self) -> str:
        done = self.lab.podman.run("logs", self.name, check=False)
        return str(done.stdout + done.stderr)

    def probe(self, name: str) -> int:
        """What a kubelet would see."""
        get = self.container[name]["httpGet"]
        try:
            with urllib.request.urlopen(f"http://{get['host']}:{get['port']}{get['path']}", timeout=10) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def python(self, code: str) -> str:
        """Run Python as the server, in its container."""
        command = [self.container["command"][0], "-I", "-c", code]
        return str(self.lab.podman.run("exec", self.name, *command).stdout)

    def kill(self) -> None:
        """A crash, and the restart that a kubelet would make."""
        self.lab.podman.run("kill", "--signal=KILL", self.name)
        wait_for(lambda: not control.server_running(str(self.device.root)), 60, "the server is dead")
        self.lab.podman.run("start", self.name, timeout=120)
        self.wait()

    def remove(self) -> None:
        self.lab.podman.run("rm", "--force", "--time=0", "--ignore", self.name)


class Releases:
    """Releases of y = x * weight, and the module that brings them."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.digests: dict[str, str] = {}

    def make(self, version: str, weight: float, promised: float | None = None) -> None:
        x = np.random.default_rng(1).standard_normal((64, 4)).astype(np.float32)
        y = x * np.float32(weight if promised is None else promised)
        path = make_release(
            self.device.releases,
            model=MODEL,
            version=version,
            variants=(VARIANT,),
            payload=onnx_model(weight),
            golden={"input.x": x, "output.y": y, "label": y.argmax(axis=1).astype(np.int64)},
            edit=tensors(),
        )
        self.digests[version] = load_manifest(path).digest

    def ask(self, version: str, state: str = "active") -> dict[str, Any]:
        arguments = {"edge_root": self.device.root, "model": MODEL, "version": version, "state": state, "gate": GATE}
        if state != "confirmed":
            arguments["source"] = {"type": "file", "path": str(self.device.releases)}
        return run_module("model_release", {**arguments, "digest": self.digests[version]}, timeout=180)


@pytest.fixture(scope="module")
def pod(image: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    base = tmp_path_factory.mktemp("pod")
    lab = Lab(base / "lab")
    lab.home.mkdir()
    (lab.home / "podman").mkdir()
    lab.namespace.ensure()
    lab.podman.configure()
    made = Pod(base, lab, image)
    try:
        lab.podman.run("load", "--quiet", f"--input={image['path']}", timeout=600)
        made.start()
        yield made
    finally:
        made.remove()
        lab.podman.kill_everything()
        lab.namespace.release()


def test_it_is_confined_as_its_manifest_says(pod: Pod) -> None:
    lines = pod.python("print(open('/proc/1/status').read())").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if line)
    assert status["Uid"].split() == [str(UID)] * 4 and status["Gid"].split() == [str(GID)] * 4
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    root = str(pod.device.root)
    places = ["/", "/usr", "/opt/edgeai", root, f"{root}/lib", f"{root}/run", f"{root}/log", "/tmp"]
    code = (
        "import json\nfound = {}\n"
        f"for path in {places!r}:\n"
        "    try:\n        open(path + '/written', 'w').close(); found[path] = True\n"
        "    except OSError:\n        found[path] = False\n"
        "print(json.dumps(found))"
    )
    written = {path for path, could in json.loads(pod.python(code)).items() if could}
    assert written == {f"{root}/run", f"{root}/log", "/tmp"}


def test_releases_are_proved_served_and_taken_back_as_on_every_device(pod: Pod) -> None:
    releases = Releases(pod.device)
    releases.make("1.0.0", 2.0)
    releases.make("1.1.0", 3.0)
    releases.make("1.2.0", -3.0, promised=3.0)
    assert pod.probe("readinessProbe") in (404, 503)
    first = releases.ask("1.0.0", "staged")
    assert first["changed"] and not first.get("failed"), first
    for version in ("1.0.0", "1.1.0"):
        answer = releases.ask(version)
        assert answer.get("result") == "activated", answer
        assert releases.ask(version, "confirmed")["result"] == "confirmed"
    memory = [gate for gate in answer["gates"] if gate["gate"] == "memory"]
    assert memory and memory[0]["verdict"] == "pass" and memory[0]["value"] > 10, answer["gates"]
    assert pod.probe("readinessProbe") == 200

    bad = releases.ask("1.2.0")
    assert bad["failed"] and bad["changed"] is True, bad
    served = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{pod.port}/v2/models/{MODEL}/ready").read())
    assert served["digest"] == releases.digests["1.1.0"]
    assert pod.device.infer([[1.0, 0.0, 0.0, 0.0]]).json()["outputs"][0]["data"][0] == 3.0


def test_after_a_crash_it_serves_again_and_the_device_knows(pod: Pod) -> None:
    before = control.read_run_file(str(pod.device.root), "server.lock")
    pod.kill()
    after = control.read_run_file(str(pod.device.root), "server.lock")
    assert (after["starts"], after["crashes"]) == (before["starts"] + 1, before["crashes"] + 1)
    wait_for(lambda: pod.probe("readinessProbe") == 200, 60, "the model is served again")
    info = control.read_run_file(str(pod.device.root), "server.json")
    assert info["pod"] == POD and info["pid"] is None and "environment" not in info
    told = pod.device.cli("status")
    assert told.returncode == 0 and f"running in pod {POD} at http://127.0.0.1:{pod.port}" in told.stdout, told
    refused = pod.device.cli("stop")
    assert refused.returncode == 4 and f"runs in pod {POD}" in refused.stderr, refused

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""The lab's own podman: storage and configuration below the lab's directory, runtime state in /run, nothing in /etc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from . import plan
from .host import CAP_SYS_RESOURCE, Namespace, has_capability, run, wait_until
from .state import write_atomic

CONFIGURATION = """# Written by tests/lab/lab.py.
[containers]
{limits}
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
[network]
network_backend = "netavark"
"""
# Without CAP_SYS_RESOURCE a limit cannot be raised above the caller's own, so none is asked for above this.
LOW_LIMITS = 'default_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]'
STOP_SECONDS = 30


class Podman:
    """podman, run in the lab's mount namespace."""

    def __init__(self, home: Path, lab: str, namespace: Namespace) -> None:
        self.home = home
        self.lab = lab
        self.namespace = namespace
        self.base = home / "podman"
        # podman takes no runroot of more than 50 characters, and a lab's directory may be deeper than that
        self.running = Path(f"/run/edgeai-lab-{lab}")

    def configure(self) -> None:
        limits = "" if has_capability(CAP_SYS_RESOURCE) else LOW_LIMITS
        write_atomic(self.base / "containers.conf", CONFIGURATION.format(limits=limits))

    def _driver(self) -> str:
        """overlay, but where the lab itself lies on an overlay: the kernel stacks them badly."""
        kind = run(["stat", "-f", "-c", "%T", str(self.base)]).stdout.strip()
        return "vfs" if kind in ("overlayfs", "overlay") else "overlay"

    def argv(self, *arguments: str) -> list[str]:
        return [
            "podman",
            f"--root={self.base}/storage",
            f"--runroot={self.running}/run",
            f"--tmpdir={self.running}/tmp",
            f"--storage-driver={self._driver()}",
            *arguments,
        ]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERS_CONF": str(self.base / "containers.conf")}

    def run(self, *arguments: str, timeout: float = 60, check: bool = True, **options) -> subprocess.CompletedProcess:
        return self.namespace.run(self.argv(*arguments), timeout, check, env=self.environment(), **options)

    # -- what is left when something went wrong

    def cgroup(self) -> str:
        """The directory of the lab's cgroup, as the mount namespace sees it."""
        return f"/sys/fs/cgroup/edgeai-lab-{self.lab}"

    def kill_everything(self) -> None:
        """Kill every process of every container, and forget what podman believed to run."""
        kill = f"[ ! -e {self.cgroup()} ] || echo 1 >{self.cgroup()}/cgroup.kill"
        self.namespace.run(["sh", "-c", kill])
        monitor = ["pgrep", "-f", f"^[^ ]*conmon .*{self.base}/storage"]
        wait_until(lambda: run(monitor, check=False).returncode != 0, 30, "the devices' monitors end")
        for directory in (self.base / "storage" / "overlay-containers").glob("?" * 64):
            self.namespace.run(["crun", "delete", "--force", directory.name], check=False)
        self.forget()

    def forget(self) -> None:
        """Remove the runtime state; podman takes its absence for a reboot of the host."""
        for name in ("run", "tmp"):
            self.namespace.run(["umount", "--recursive", "--quiet", str(self.running / name)], check=False)
        shutil.rmtree(self.running, ignore_errors=True)

    def remove_cgroup(self) -> None:
        """The lab's cgroup, whose processes are gone."""
        self.namespace.run(["find", self.cgroup(), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=False)

    # -- images

    def import_image(self, tar: Path, arch: str) -> str:
        """The image of a tar file, imported once. Its tag is the tar's name, which has the content's key."""
        tag = f"localhost/edgeai-lab:{tar.stem}"
        if self.run("image", "exists", tag, check=False).returncode != 0:
            self.run("import", "--quiet", "--arch", arch, str(tar), tag, timeout=300)
        return tag

    # -- containers

    def inspect(self, name: str) -> dict | None:
        """podman's record of a container; None when there is none."""
        done = self.run("container", "inspect", name, check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else None

    def pid(self, name: str) -> int | None:
        """The process id of the container's init on the host; None when it does not run."""
        record = self.inspect(name)
        if record is None or record["State"]["Status"] != "running":
            return None
        return record["State"]["Pid"] or None

    def create(self, name: str, hostname: str, arch: str, image: str, volumes: dict[Path, str], log: Path) -> None:
        arguments = ["create", "--name", name, "--hostname", hostname, "--arch", arch]
        arguments += ["--privileged", "--systemd=always", "--pids-limit=0", "--restart=no"]
        arguments += ["--network=none", "--no-hosts", f"--cgroup-parent=/edgeai-lab-{self.lab}"]
        arguments += [f"--log-opt=path={log}", "--log-driver=k8s-file"]
        for source, target in volumes.items():
            arguments += ["--volume", f"{source}:{target}"]
        self.run(*arguments, image, "/sbin/init", timeout=120)

    def copy_in(self, name: str, archive: bytes) -> None:
        """Unpack a tar archive over the container's root."""
        argv = [*self.namespace.prefix(), *self.argv("cp", "--archive=false", "-", f"{name}:/")]
        run(argv, 60, env=self.environment(), input=archive, text=False)

    def start(self, name: str) -> int:
        """Start the container; its init's process id."""
        self.run("start", name, timeout=120)
        return wait_until(lambda: self.pid(name), 10, f"{name} runs")

    def kill(self, name: str) -> None:
        """SIGKILL to every process of the container at once; returns when none is left."""
        self.run("kill", "--signal", "KILL", name, check=False)
        wait_until(lambda: self.pid(name) is None, 20, f"{name} is dead")

    def stop(self, name: str) -> None:
        """An orderly shutdown, as by the power button; killed after STOP_SECONDS."""
        self.run("stop", "--time", str(STOP_SECONDS), name, timeout=STOP_SECONDS + 30, check=False)
        wait_until(lambda: self.pid(name) is None, 20, f"{name} is down")

    def remove(self, name: str) -> None:
        self.run("rm", "--force", "--time", "0", "--ignore", name, timeout=60)

    def names(self) -> list[str]:
        """The containers that belong to this lab."""
        if not (self.base / "storage").exists():
            return []
        done = self.run("ps", "--all", "--format", "{{.Names}}")
        prefix = plan.container(self.lab, "")
        return [name for name in done.stdout.split() if name.startswith(prefix)]

    def exec_argv(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> list[str]:
        """The command line that runs ``command`` in the container."""
        variables = [f"--env={key}={value}" for key, value in (environment or {}).items()]
        return [*self.namespace.prefix(), *self.argv("exec", "--interactive", *variables, name, *command)]

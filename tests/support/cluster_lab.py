# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""Machines of the lab on which a kubelet runs: containerd, runc and CNI plugins from Debian, and cgroups to give out.

What a machine has here and a user's has not, or has from elsewhere, is all in this file: see `Machine`.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from lab import images, plan
from lab.api import Lab
from lab.container import Podman
from lab.device import Device
from lab.host import CAP_SYS_RESOURCE, Namespace, has_capability, native_architecture
from lab.plan import Spec

PACKAGES = (
    *plan.PACKAGES,
    *("containerd", "runc", "containernetworking-plugins", "iptables", "conntrack", "ipset", "kmod", "mount", "socat"),
)
# K3s brings a containerd of its own; the role kubeedge_edge starts Debian's where it needs it.
HOOKS = ('rm -f "$1"/etc/systemd/system/multi-user.target.wants/containerd.service',)
#: On disks of their own, because an overlay cannot lie on an overlay; kubelets' mounts have to be seen by containerd.
VOLUMES = {
    "rancher": "/var/lib/rancher",
    "containerd": "/var/lib/containerd",
    "kubelet": "/var/lib/kubelet:rshared",
    "edged": "/var/lib/edged:rshared",
}
PATH = "/opt/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/cni"
SHARED = """[Unit]
Description=A kubelet's mounts are seen by containerd, as where systemd was not booted in a container
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/mount --make-rshared /
[Install]
WantedBy=sysinit.target
"""
# Without CAP_SYS_RESOURCE nothing may make itself harder to kill than this session is; runc fails when asked to.
RUNC = """#!/usr/bin/python3
import json, os, sys
if "--bundle" in sys.argv and "create" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    with open(path) as handle:
        config = json.load(handle)
    config["process"]["oomScoreAdj"] = max(0, config["process"].get("oomScoreAdj") or 0)
    with open(path + ".lab", "w") as handle:
        json.dump(config, handle)
    os.replace(path + ".lab", path)
os.execv("/usr/sbin/runc", ["/usr/sbin/runc", *sys.argv[1:]])
"""


class KubeletNamespace(Namespace):
    """A mount namespace in which cgroup v1 is all there is, where the host mounts both: v2 has no controllers then."""

    HOLD = "umount /sys/fs/cgroup/unified; echo ready && exec sleep infinity"


class KubeletPodman(Podman):
    """podman whose machines have cgroups of their own to give out."""

    def create(self, name: str, hostname: str, arch: str, image: str, volumes: dict[Path, str], log: Path) -> None:
        arguments = ["create", "--name", name, "--hostname", hostname, "--arch", arch, "--cgroupns=private"]
        arguments += ["--privileged", "--systemd=always", "--pids-limit=0", "--restart=no", "--network=none"]
        arguments += ["--no-hosts", f"--cgroup-parent=/edgeai-lab-{self.lab}"]
        arguments += [f"--log-opt=path={log}", "--log-driver=k8s-file"]
        for source, target in volumes.items():
            arguments += ["--volume", f"{source}:{target}"]
        for directory, target in VOLUMES.items():
            source = self.home / "devices" / hostname / directory
            source.mkdir(parents=True, exist_ok=True)
            arguments += ["--volume", f"{source}:{target}"]
        self.run(*arguments, image, "/sbin/init", timeout=120)

    def remove_cgroup(self) -> None:
        find = f"find /sys/fs/cgroup -maxdepth 2 -name edgeai-lab-{self.lab} -prune -print"
        for path in self.namespace.run(["sh", "-c", find], check=False).stdout.split():
            self.namespace.run(["find", path, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=False)


class Machine(Device):
    """A device that can be a node."""

    #: The CNI plugin that K3s brings in its own archive and a K3s built from source lacks; None: it brings it.
    flannel: Path | None = None

    def create(self, image: str) -> None:
        """The container, with what makes it a machine that can be a node."""
        super().create(image)
        self.podman.copy_in(self.container, self._node_files())

    def power_on(self, wait: bool = True) -> None:
        """As every device; with a default route, by which K3s, CloudCore and EdgeCore find their own address."""
        running = self.pid() is not None
        super().power_on(wait=False)
        if not running:
            gateway = plan.address(self.state.get("subnet"), 0)
            self.exec(["ip", "route", "replace", "default", "via", gateway, "dev", "eth0"])
        if wait:
            self.wait_booted()

    def _node_files(self) -> bytes:
        """What a kubelet finds here, as a tar archive over the machine's root."""
        path = f"[Service]\nEnvironment=PATH={PATH}\n".encode()
        files = {
            # With cgroup v1, systemd may remove a cgroup that it is about to use: once is not for ever.
            "etc/systemd/system/systemd-user-sessions.service.d/50-lab.conf": (
                b"[Service]\nRestart=on-failure\n",
                0o644,
            ),
            "etc/systemd/system/edgeai-lab-shared.service": (SHARED.encode(), 0o644),
            "etc/systemd/system/k3s.service.d/50-lab.conf": (path, 0o644),
            "etc/systemd/system/k3s-agent.service.d/50-lab.conf": (path, 0o644),
            # The lab's boot id would give EdgeCore a view of the mounts of its own, and its pods lack what it mounts.
            "etc/systemd/system/edgeai-edgecore.service.d/60-lab.conf": (b"[Service]\nBindReadOnlyPaths=\n", 0o644),
        }
        if not has_capability(CAP_SYS_RESOURCE):
            files["usr/local/bin/runc"] = (RUNC.encode(), 0o755)
        if self.flannel is not None:
            files["usr/lib/cni/flannel"] = (self.flannel.read_bytes(), 0o755)
        links = {
            "etc/systemd/system/sysinit.target.wants/edgeai-lab-shared.service": "../edgeai-lab-shared.service",
            "opt/lab/bin/containerd": "/opt/edgeai/k3s/current/k3s",  # K3s calls itself by this name
        }
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, target in links.items():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
            for name, (content, mode) in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), mode
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


class ClusterLab(Lab):
    """A lab of such machines."""

    def __init__(self, home: Path, flannel: Path | None = None) -> None:
        super().__init__(home)
        self.namespace = KubeletNamespace(self.state)
        self.podman = KubeletPodman(self.home, self.id, self.namespace)
        self.network.namespace = self.namespace
        self.flannel = flannel

    def _device(self, spec: Spec) -> Device:
        native = spec.arch == native_architecture()
        machine = Machine(spec, self.home, self.state, self.podman, self.network, native)
        machine.flannel = self.flannel
        return machine

    def _images(self, kinds: set[tuple[str, str]], native: str) -> dict[tuple[str, str], str]:
        tags = {}
        for suite, arch in sorted(kinds):
            tar = images.image_tar(suite, arch, native, PACKAGES, HOOKS)
            tags[suite, arch] = self.podman.import_image(tar, arch)
        return tags

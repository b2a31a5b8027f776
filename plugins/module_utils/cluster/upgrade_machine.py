# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The machine under `upgrade_switch`: links, unit, node and model server as they are."""

from __future__ import annotations

import json
import os
import re
import time

from ..device import fsutil, unit_run, units
from ..device.env import Staged
from ..device.errors import DeviceError
from ..device.serving import OipServer
from ..device.settings import read_settings
from ..device.store import Store
from ..release.errors import ReleaseError
from ..release.manifest import load_manifest
from . import causes, readiness
from .preflight import AGENT
from .upgrade_switch import Broken, Served

#: A directory of a version: what a tag of K3s looks like.
VERSION = re.compile(r"v\d+\.\d+\.\d+(-[a-z0-9.]+)?\+k3s\d+")

#: Where an agent keeps the servers that it balances between.
BALANCER = "k3s-agent-load-balancer.json"


class Host:
    """`upgrade_switch.Machine` for a machine that the roles k3s_server or k3s_agent set up below ``home``."""

    def __init__(self, node: readiness.Wanted, home: str, edge_root: str, start: float) -> None:
        """``node.binary`` is what `current` names; ``node.timeout`` bounds every wait for it; ``start`` the restart."""
        self._node, self._home, self._edge_root, self._start = node, home, edge_root, start

    def link(self) -> str:
        try:
            return os.path.basename(os.readlink(os.path.join(self._home, "current")))
        except OSError:
            return ""

    def versions(self) -> list[str]:
        """The versions whose program is here."""
        try:
            names = sorted(os.listdir(self._home))
        except OSError:
            return []
        return [name for name in names if VERSION.fullmatch(name) and os.access(self._program(name), os.X_OK)]

    def lacks(self, version: str) -> str:
        program = self._program(version)
        if not os.access(program, os.X_OK):
            return f"{program} is not there, or cannot be run"
        status, output = readiness.run(program, self._node.data_dir, "--version")
        if status:
            last = [line for line in output.splitlines() if line.strip()][-1:] or ["no output"]
            return f"{program} --version: {last[0][:200]} (exit status {status})"
        return "" if version in output.split() else f"{program} says that it is {output.strip()[:80]!r}"

    def relink(self, version: str) -> None:
        fsutil.link_atomic(version, os.path.join(self._home, "current"))

    def restart(self) -> str:
        return unit_run.restart_unit(self._node.unit, self._start)

    def api(self, version: str) -> str:
        node = self._node._replace(binary=self._program(version)) if version else self._node
        config = readiness.kubeconfig(node)
        if not os.path.exists(config):
            return f"{config} is not there"
        said = ""
        for past in _servers(node) or [[]]:
            status, output = readiness.kubectl(node, *past, "get", "--raw", "/readyz")
            if not status and output.strip() == "ok":
                return ""
            said = causes.excerpt(([line for line in output.splitlines() if line.strip()] or ["no output"])[-1])
        return f"the API server does not answer ({said})"

    def api_version(self) -> str:
        """The version that the API server reports, empty when it does not answer."""
        status, output = readiness.kubectl(self._node, "get", "--raw", "/version")
        try:
            return str(json.loads(output).get("gitVersion", "")) if not status else ""
        except ValueError:
            return ""

    def look(self, version: str) -> str:
        return readiness.look(self._node._replace(version=version))[0]

    def prove(self, version: str, since: str) -> None:
        try:
            readiness.wait(self._node._replace(version=version, since=since))
        except readiness.Failed as error:
            raise Broken(str(error), error.cause, error.journal) from error
        why = self.runs()
        if why:  # another process may have answered in its place
            said = readiness.journal(self._node.unit)
            lines = [causes.excerpt(line) for line in said[-readiness.SHOWN_LINES :]]
            raise Broken(why, causes.classify(said).name, lines)

    def runs(self) -> str:
        try:
            show, _journal = unit_run.observe(self._node.unit)
        except DeviceError as error:
            return error.message
        return "" if units.is_fine(show) else f"{self._node.unit} is {show['ActiveState']}"

    def now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def served(self) -> Served:
        return served(self._edge_root)

    def snapshot(self, name: str) -> None:
        status, output = readiness.run(
            self._node.binary, self._node.data_dir, "etcd-snapshot", "save", f"--name={name}"
        )
        if status:
            lines = [line for line in output.splitlines() if line.strip()]
            raise Broken(f"k3s etcd-snapshot save: exit status {status}", "snapshot", lines[-5:])

    def _program(self, version: str) -> str:
        return os.path.join(self._home, version, "k3s")


def _servers(node: readiness.Wanted) -> list[list[str]]:
    """kubectl's options for each server that an agent knows; none where its kubeconfig names the server itself.

    An agent's kubeconfig names K3s's own load balancer on this machine, which says nothing of the API server when
    that K3s does not run. Every server's certificate is for 127.0.0.1 as well, whatever else it is for.
    """
    if node.config or node.role != AGENT:
        return []
    try:
        with open(os.path.join(node.data_dir, "agent", "etc", BALANCER), encoding="utf-8") as handle:
            addresses = json.load(handle)["ServerAddresses"]
        return [[f"--server=https://{address}", "--tls-server-name=127.0.0.1"] for address in addresses]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def served(edge_root: str) -> Served:
    """What the device's model server serves of what its store has active. Nothing where there is no server.

    Raises DeviceError when it does not answer.
    """
    settings = read_settings(edge_root)
    if settings is None or settings.server is None:
        return {}
    store, server, found = Store(edge_root), OipServer(edge_root, settings.server, 30.0), {}
    for model in store.models():
        active = store.examine(model)[0].active
        told = server.ready(model) if active else None
        if active is None or told is None:
            continue
        directory = store.tree.release_dir(model, active.version)
        try:
            manifest = load_manifest(directory)
        except ReleaseError as error:
            raise DeviceError("damaged", f"{directory}: {error}") from error
        golden = server.golden_digest(Staged(manifest, active.variant, directory))
        found[model] = {"digest": str(told.get("digest")), "golden": golden}
    return found

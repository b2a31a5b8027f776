# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Cordon, drain and uncordon a node, with a mark that says whose cordon it is; and ask a server for etcd's members.

A cordon that somebody else set stays: it has no mark. Cordon and mark are one patch, so that no crash parts them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import causes, members, readiness
from .errors import ClusterError

MARK = "edgeai.fleet/cordoned-for"
_MARGIN = 30.0


class Away(ClusterError):
    """The API server does not answer."""


class Cordoned(NamedTuple):
    """``changed``: it was cordoned here; ``cordoned_before``: by somebody else, who keeps it so."""

    changed: bool
    cordoned_before: bool


def mark_of(node: Mapping[str, Any]) -> str:
    """For which upgrade a node is cordoned, empty for none. Pure."""
    return str(((node.get("metadata") or {}).get("annotations") or {}).get(MARK) or "")


def cordoned(node: Mapping[str, Any]) -> bool:
    """Whether anybody has cordoned it. Pure."""
    return bool((node.get("spec") or {}).get("unschedulable"))


class Cluster:
    """The cluster as the administrator of a server sees it."""

    def __init__(self, binary: str, data_dir: str, config: str = "") -> None:
        self._on = readiness.Wanted("server", "", "", "", binary, data_dir, False, 0.0, config=config)

    def node(self, name: str) -> dict[str, Any]:
        """A node, empty when there is none. Raises Away."""
        return self._json("get", "node", name, "--ignore-not-found", "--output=json")

    def marked(self) -> dict[str, str]:
        """Every node that is cordoned for an upgrade: name to its mark. Raises Away."""
        items = self._json("get", "nodes", "--output=json").get("items") or []
        return {str(item["metadata"]["name"]): mark_of(item) for item in items if mark_of(item)}

    def cordon(self, name: str, mark: str, check: bool) -> Cordoned:
        """Cordon a node for an upgrade; one that is cordoned already keeps its mark, or has none. Raises Away."""
        node = self.node(name)
        if not node:
            raise ClusterError(f"node {name}: the cluster does not know it; see k3s_node_name")
        before = cordoned(node) and not mark_of(node)
        if cordoned(node):
            return Cordoned(False, before)
        if not check:
            self._patch(name, {"metadata": {"annotations": {MARK: mark}}, "spec": {"unschedulable": True}})
        return Cordoned(True, False)

    def uncordon(self, name: str, check: bool) -> bool:
        """Take back a cordon that has a mark; return whether there was one. Raises Away."""
        if not mark_of(self.node(name)):
            return False
        if not check:
            self._patch(name, {"metadata": {"annotations": {MARK: None}}, "spec": {"unschedulable": None}})
        return True

    def drain(self, name: str, timeout: int, delete_emptydir: bool) -> str:
        """Evict what runs on a node, as disruption budgets allow it; DaemonSets stay. Raises ClusterError, Away."""
        given = ["drain", name, "--ignore-daemonsets", f"--timeout={timeout}s"]
        given += ["--delete-emptydir-data"] if delete_emptydir else []
        status, output = self._kubectl(given, timeout + _MARGIN)
        if status:
            self._answers()
            lines = [causes.excerpt(line) for line in output.splitlines() if line.strip()]
            last = "; ".join(lines[-3:]) or "no output"
            raise ClusterError(
                f"node {name} could not be drained within {timeout} s: {last}. A disruption budget that allows no "
                "eviction, or a pod without a controller, is for its owner to settle"
            )
        return output

    def _answers(self) -> None:
        status, output = self._kubectl(["get", "--raw", "/readyz"], 3.0 * readiness.REQUEST)
        if status:
            raise Away(f"the API server does not answer: {causes.excerpt(output)}")

    def _json(self, *arguments: str) -> dict[str, Any]:
        status, output = self._kubectl([f"--request-timeout={readiness.REQUEST}s", *arguments], 3.0 * readiness.REQUEST)
        if status:
            raise Away(f"the API server does not answer: {causes.excerpt(output)}")
        try:
            found = json.loads(output) if output.strip() else {}
        except ValueError as error:
            raise Away(f"the API server's answer cannot be read: {error}") from error
        return found if isinstance(found, dict) else {}

    def _patch(self, name: str, body: Mapping[str, Any]) -> None:
        given = [f"--request-timeout={readiness.REQUEST}s", "patch", "node", name, "--type=merge"]
        status, output = self._kubectl([*given, f"--patch={json.dumps(body)}"], 3.0 * readiness.REQUEST)
        if status:
            self._answers()
            raise ClusterError(f"node {name}: {causes.excerpt(output)}")

    def _kubectl(self, arguments: list[str], timeout: float) -> tuple[int, str]:
        """Like `readiness.kubectl`, with a time limit of its own: a drain takes longer than a question."""
        environment = {**os.environ, "K3S_DATA_DIR": self._on.data_dir, "HOME": "/root", "LC_ALL": "C"}
        command = ["kubectl", f"--kubeconfig={readiness.kubeconfig(self._on)}", *arguments]
        try:
            done = subprocess.run(
                command,
                executable=self._on.binary,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 124, f"no answer after {timeout:.0f} s"
        except OSError as error:
            return 127, f"{self._on.binary}: {error.strerror}"
        said = done.stdout.decode("utf-8", "replace")
        return done.returncode, said if not done.returncode else said + done.stderr.decode("utf-8", "replace")


def etcd_members(data_dir: str, timeout: float = 10.0) -> list[str] | None:
    """The names of embedded etcd's members, as this server's own member tells; None without embedded etcd.

    Raises ClusterError when it does not answer.
    """
    # K3s makes the directory above with every datastore, also for SQLite, and keeps the node's name in it.
    if not os.path.isdir(os.path.join(data_dir, "server", "db", "etcd", "member")):
        return None
    return [member.name or member.id for member in members.Etcd(data_dir, timeout).members().all]

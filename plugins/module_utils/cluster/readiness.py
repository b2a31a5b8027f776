# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Wait, for a bounded time, until a node is ready, and say why when it is not. Decisions are in "
"`nodes` and `causes`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any, NamedTuple

from ..device import unit_run
from ..device.errors import DeviceError
from . import causes, nodes
from .errors import ClusterError
from .preflight import AGENT

POLL = 2.0
REQUEST = 10
JOURNAL_LINES = 300
SHOWN_LINES = 20
#: A unit that systemd started again so often while we looked will not come up by waiting.
RESTARTS = 5


class Wanted(NamedTuple):
    """The node to wait for. ``kubelet`` says whether it runs one; without it only the API server is asked.

    ``since``: what its kubelet said before that moment of its own clock does not count (see `nodes.lacks`).
    ``config``: a kubeconfig other than K3s's own.
    """

    role: str
    unit: str
    node: str
    version: str
    binary: str
    data_dir: str
    kubelet: bool
    timeout: float
    since: str = ""
    config: str = ""


class Failed(ClusterError):
    """The node is not ready: ``cause`` is a short name, ``journal`` its last lines, without secrets."""

    def __init__(self, message: str, cause: str, journal: list[str]) -> None:
        super().__init__(message)
        self.cause = cause
        self.journal = journal


def wait(wanted: Wanted) -> dict[str, Any]:
    """Return the node as the API server shows it (empty without a kubelet). Raises Failed when time is up."""
    began = time.monotonic()
    first = _restarts(wanted.unit)
    while True:
        why, node = look(wanted)
        if not why:
            return node
        show = _show(wanted.unit)
        dead = show["ActiveState"] in ("failed", "inactive") or _number(show["NRestarts"]) - first >= RESTARTS
        passed = time.monotonic() - began
        if dead or passed >= wanted.timeout:
            raise _failure(wanted, why, show, passed)
        time.sleep(POLL)


def look(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """(what is missing, the node): one look, which takes at most a few times `REQUEST` seconds."""
    config = kubeconfig(wanted)
    if not os.path.exists(config):
        return f"{config} is not there yet", {}
    if wanted.role != AGENT:
        status, output = kubectl(wanted, "get", "--raw", "/readyz")
        if status or output.strip() != "ok":
            return f"the API server is not ready ({causes.excerpt(_last(output))})", {}
        status, output = kubectl(wanted, "get", "--raw", "/version")
        found = _json(output).get("gitVersion", "") if not status else ""
        if wanted.version and found != wanted.version:
            return f"the API server reports version {found or 'none'}, not {wanted.version}", {}
    if not wanted.kubelet:
        return "", {}
    status, output = kubectl(wanted, "get", "node", wanted.node, "--output=json")
    if status:
        return f"node {wanted.node} is not there ({causes.excerpt(_last(output))})", {}
    node = _json(output)
    lacks = nodes.lacks(node, wanted.version, wanted.since)
    return (f"node {wanted.node} {lacks}" if lacks else ""), node


def set_labels(wanted: Wanted, changes: dict[str, str]) -> None:
    """Set labels with the node's own right to label itself. Raises ClusterError."""
    given = [f"{key}={value}" for key, value in changes.items()]
    status, output = kubectl(wanted, "label", "--overwrite", "node", wanted.node, *given)
    if status:
        raise ClusterError(
            f"labels of {wanted.node}: {causes.excerpt(_last(output))}; see whether the node may be changed"
        )


def kubeconfig(wanted: Wanted) -> str:
    """Servers have the administrator's; an agent has its kubelet's, which may read and label its own node."""
    if wanted.config:
        return wanted.config
    return f"{wanted.data_dir}/agent/kubelet.kubeconfig" if wanted.role == AGENT else "/etc/rancher/k3s/k3s.yaml"


def kubectl(wanted: Wanted, *arguments: str) -> tuple[int, str]:
    """Run kubectl against this node's own entry to the cluster; (exit status, output). At most 3 x REQUEST seconds."""
    given = [f"--kubeconfig={kubeconfig(wanted)}", f"--request-timeout={REQUEST}s", *arguments]
    return run(wanted.binary, wanted.data_dir, *given, name="kubectl")


def run(binary: str, data_dir: str, *arguments: str, name: str = "k3s") -> tuple[int, str]:
    """Run the program as ``name`` (it looks how it was called); (exit status, output, of a failure both outputs)."""
    timeout = 3.0 * REQUEST
    environment = {**os.environ, "K3S_DATA_DIR": data_dir, "HOME": "/root", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [name, *arguments],
            executable=binary,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, f"no answer after {timeout:.0f} s"
    except OSError as error:
        return 127, f"{binary}: {error.strerror}"
    said = done.stdout.decode("utf-8", "replace")
    return done.returncode, said if not done.returncode else said + done.stderr.decode("utf-8", "replace")


def journal(unit: str, lines: int = JOURNAL_LINES, since: float = 0) -> list[str]:
    """The unit's last lines, not older than ``since`` (Unix seconds); empty when there is no journal."""
    command = ["journalctl", "--no-pager", "--quiet", f"--unit={unit}", f"--lines={lines}", "--output=cat"]
    command.append(f"--since=@{int(since)}")
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]


def _failure(wanted: Wanted, why: str, show: dict[str, str], passed: float) -> Failed:
    said = journal(wanted.unit)
    cause = causes.classify(said)
    what = f"not ready after {passed:.0f} s: {why}"
    if show["ActiveState"] != "active":
        what += f" (the unit is {show['ActiveState']}, {show['SubState']})"
    tail = [causes.excerpt(line) for line in said[-SHOWN_LINES:]]
    return Failed(causes.explain(wanted.unit, what, cause, tail), cause.name, tail)


def _show(unit: str) -> dict[str, str]:
    try:
        return unit_run.observe(unit)[0]
    except DeviceError as error:
        raise ClusterError(error.message) from error


def _restarts(unit: str) -> int:
    return _number(_show(unit)["NRestarts"])


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def _json(output: str) -> dict[str, Any]:
    try:
        found = json.loads(output)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

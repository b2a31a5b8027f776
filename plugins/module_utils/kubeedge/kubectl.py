# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Ask the API server through kubectl: every call is bounded, and what it says when it fails is kept."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import nodes
from .errors import KubeedgeError

#: Where the role k3s_server puts it.
DEFAULT = ("/opt/edgeai/k3s/current/kubectl",)
POLL_SECONDS = 2.0
#: One request; the API server of a small machine can be slow after its start.
REQUEST_SECONDS = 30


def run(kubectl: Sequence[str], kubeconfig: str, arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run kubectl; return its exit status, output and errors. Raises KubeedgeError when it is not there or hangs."""
    command = [*kubectl, f"--request-timeout={REQUEST_SECONDS}s", *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=REQUEST_SECONDS * 2,
            env={**os.environ, "KUBECONFIG": kubeconfig, "KUBECACHEDIR": "/run/edgeai-kubectl"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KubeedgeError(f"{kubectl[0]}: no answer within {REQUEST_SECONDS * 2} s; see the API server") from error
    except OSError as error:
        raise KubeedgeError(f"{kubectl[0]}: {error.strerror}; name the program in kubectl") from error
    return done.returncode, done.stdout, done.stderr.strip()


def get_node(kubectl: Sequence[str], kubeconfig: str, name: str) -> dict[str, Any] | None:
    """Return the node's object, None when there is none. Raises KubeedgeError when the API server does not answer."""
    arguments = ["get", "node", name, "--output=json", "--ignore-not-found"]
    status, output, said = run(kubectl, kubeconfig, arguments)
    if status:
        raise KubeedgeError(f"node {name}: {said[-400:]}")
    found: dict[str, Any] | None = json.loads(output) if output.strip() else None
    return found


def wait_ready(ask: Callable[[], dict[str, Any] | None], seconds: float) -> tuple[dict[str, Any] | None, str]:
    """Ask until the node is Ready or the time is over; return its object, and the API server's last error."""
    end = time.monotonic() + seconds
    node: dict[str, Any] | None = None
    said = ""
    while True:
        try:
            node, said = ask(), ""
        except KubeedgeError as error:
            said = str(error)
        if nodes.is_ready(node) or time.monotonic() >= end:
            return node, said
        time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))


def label_node(kubectl: Sequence[str], kubeconfig: str, name: str, labels: Mapping[str, str]) -> None:
    """Give a node labels. Raises KubeedgeError."""
    pairs = [f"{key}={value}" for key, value in sorted(labels.items())]
    status, _output, said = run(kubectl, kubeconfig, ["label", "node", name, "--overwrite", *pairs])
    if status:
        raise KubeedgeError(f"node {name}: {said[-400:]}")


def delete_node(kubectl: Sequence[str], kubeconfig: str, name: str) -> None:
    """Remove a node's object. Raises KubeedgeError."""
    status, _output, said = run(kubectl, kubeconfig, ["delete", "node", name, "--ignore-not-found", "--wait=false"])
    if status:
        raise KubeedgeError(f"node {name}: {said[-400:]}")

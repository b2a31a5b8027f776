# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Everything the role that runs the model server needs to know of a device, in one round trip. Changes nothing."""

from __future__ import annotations

import os
from typing import Any

from .about import file_digest
from .confinement import confine, find_nodes, memory_controlled, stale_reasons, systemd_version
from .control import read_run_file, server_running
from .facts import device_facts
from .hostfs import Tree
from .settings import Settings, read_settings

PROGRAM = os.path.join("lib", "edgeai-device.pyz")
SOCKET_UNIT = "/etc/systemd/system/edgeai-server.socket"


def server_facts(edge_root: str, memory_percent: int) -> dict[str, Any]:
    """What the unit is rendered from, and why a running server has to be restarted (``stale``: texts).

    Works on a device that has nothing yet: then it says what would be true of its hardware. Raises DeviceError for
    a device.json that is wrong.
    """
    root = os.path.abspath(edge_root)
    settings = read_settings(root) or Settings()
    facts = device_facts(root)
    # Device nodes and limits are this machine's own, also when its facts are those of a recorded one.
    tree = Tree("/")
    decided = confine(facts, find_nodes(tree, facts["accelerator"]), memory_percent, memory_controlled(tree))
    running = read_run_file(root, "server.json") if server_running(root) else {}
    return dict(
        decided.to_dict(),
        provisioned=settings.server is not None,
        systemd=systemd_version(),
        host=settings.server.host if settings.server else None,
        port=settings.server.port if settings.server else None,
        url=settings.server.local_url if settings.server else None,
        tls=vars(settings.server.tls) if settings.server and settings.server.tls else None,
        socket_unit=os.path.exists(SOCKET_UNIT),
        running=running,
        stale=stale_reasons(running, wanted_identity(root, settings)),
    )


def wanted_identity(root: str, settings: Settings) -> dict[str, Any]:
    """What run/server.json would say of a server that started now."""
    server = settings.server
    return {
        "bundle": file_digest(os.path.join(root, PROGRAM)),
        "environment": environment_of(settings.python),
        "url": server.url if server else None,
        "tls": vars(server.tls) if server and server.tls else None,
    }


def environment_of(python: str) -> str:
    """The real directory of the environment that an interpreter belongs to, whatever links lead to it."""
    return os.path.realpath(os.path.dirname(os.path.dirname(python)))

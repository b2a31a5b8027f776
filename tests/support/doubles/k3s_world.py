"""A stand-in for K3s, systemctl and journalctl on machines that are directories: it records what is asked of it.

Not K3s: it says what a cluster would say, from a file. WORLD names the directory, WORLD_HOST the machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

WORLD = Path(os.environ["WORLD"])
HOST = os.environ["WORLD_HOST"]


class State:
    """The world's state under a lock."""

    def __enter__(self) -> dict[str, Any]:
        self.handle = (WORLD / "state.json").open("r+", encoding="utf-8")
        fcntl.flock(self.handle, fcntl.LOCK_EX)
        self.body: dict[str, Any] = json.load(self.handle)
        return self.body

    def __exit__(self, *_error: object) -> None:
        self.handle.seek(0)
        self.handle.truncate()
        json.dump(self.body, self.handle)
        self.handle.close()


def note(what: str) -> None:
    with (WORLD / "log").open("a", encoding="utf-8") as log:
        log.write(f"{HOST} {what}\n")


def answer_node(node: dict[str, Any]) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True" if node["ready"] else "False", "lastHeartbeatTime": node["heartbeat"]}
    spec = {"unschedulable": True} if node["unschedulable"] else {}
    return {
        "metadata": {"name": node["name"], "annotations": node["annotations"]},
        "spec": spec,
        "status": {"conditions": [ready], "nodeInfo": {"kubeletVersion": node["version"]}},
    }


def kubectl(arguments: list[str]) -> int:
    words = [word for word in arguments if not word.startswith("--")]
    with State() as state:
        if not state["api"]:
            print("dial tcp 10.0.0.1:6443: connect: connection refused", file=sys.stderr)
            return 1
        if "/readyz" in words:
            print("ok", end="")
        elif "/version" in words:
            print(json.dumps({"gitVersion": state["running"][HOST]}))
        elif words[:2] == ["get", "nodes"]:
            print(json.dumps({"items": [answer_node(node) for node in state["nodes"].values()]}))
        elif words[:2] == ["get", "node"]:
            print(json.dumps(answer_node(state["nodes"][words[2]])))
        elif words[0] == "drain":
            note(f"drain {words[1]}")
            if words[1] in state["undrainable"]:
                print("error when evicting pods: Cannot evict pod as it would violate the budget.", file=sys.stderr)
                return 1
        elif words[0] == "patch":
            body = json.loads(next(word for word in arguments if word.startswith("--patch="))[8:])
            node = state["nodes"][words[2]]
            node["unschedulable"] = bool(body["spec"]["unschedulable"])
            for name, value in body["metadata"]["annotations"].items():
                node["annotations"].pop(name, None)
                if value is not None:
                    node["annotations"][name] = value
            note(f"{'cordon' if node['unschedulable'] else 'uncordon'} {words[2]}")
    return 0


def restart() -> int:
    home = WORLD / HOST / "k3s"
    version = os.readlink(home / "current")
    with State() as state:
        how = state["behaviour"].get(f"{HOST} {version}") or state["behaviour"].get(version, "good")
        note(f"restart {version} {how}")
        if how == "api_away":
            state["api"] = False
        state["active"][HOST] = "failed" if how == "broken" else "active"
        state["running"][HOST] = version
        node = state["nodes"].get(HOST)
        if node and state["api"]:
            if how == "good":
                node.update(ready=True, version=version, heartbeat=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            elif how == "never_ready":
                node.update(ready=False, version=version)
    return 1 if how == "broken" else 0


def systemctl(arguments: list[str]) -> int:
    if "restart" in arguments:
        return restart()
    if "show" in arguments:
        with State() as state:
            active = state["active"].get(HOST, "active")
        shown = {"ActiveState": active, "SubState": "running", "Type": "exec", "Result": "success", "NRestarts": "0"}
        for word in arguments:
            if word.startswith("--property="):
                for name in word.partition("=")[2].split(","):
                    print(f"{name}={shown.get(name, '')}")
    return 0


def main() -> int:
    """Do what the program that is named would do."""
    kind, arguments = sys.argv[1], sys.argv[2:]
    if kind == "systemctl":
        return systemctl(arguments)
    if kind == "journalctl":
        print('level=fatal msg="flag provided but not defined: -broken"')
        return 0
    version, arguments = arguments[0], arguments[1:]
    if arguments == ["--version"]:
        print(f"k3s version {version} (double)")
        return 0
    return kubectl(arguments)


if __name__ == "__main__":
    raise SystemExit(main())

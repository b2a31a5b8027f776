# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""The lab's network: one bridge with the host on it, one cable (veth) a device, and no route to anywhere else."""

from __future__ import annotations

import ipaddress
import json

from . import plan
from .host import Namespace


class Network:
    """The bridge of one lab and its cables."""

    def __init__(self, lab: str, namespace: Namespace) -> None:
        self.lab = lab
        self.namespace = namespace
        self.bridge = plan.bridge(lab)

    def _ip(self, *arguments: str, check: bool = True):
        return self.namespace.run(["ip", *arguments], check=check)

    def exists(self, link: str) -> bool:
        return self._ip("link", "show", "dev", link, check=False).returncode == 0

    def taken(self) -> list[str]:
        """Networks that addresses and routes of this host are in, less the lab's own."""
        routes = json.loads(self._ip("-json", "-4", "route", "show", "table", "all").stdout or "[]")
        others = [route["dst"] for route in routes if route.get("dev") != self.bridge]
        return [text for text in others if text not in ("default", "0.0.0.0/0")]

    def ensure_bridge(self, subnet: str) -> None:
        if not self.exists(self.bridge):
            self._ip("link", "add", self.bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        length = ipaddress.ip_network(subnet).prefixlen
        self._ip("addr", "replace", f"{plan.address(subnet, 0)}/{length}", "dev", self.bridge)
        self._ip("link", "set", self.bridge, "up")

    def remove_bridge(self) -> None:
        if self.exists(self.bridge):
            self._ip("link", "del", self.bridge)

    def links(self) -> list[str]:
        """The host's ends of cables of this lab, also of devices that are gone."""
        every = json.loads(self._ip("-json", "link", "show").stdout or "[]")
        return [entry["ifname"] for entry in every if entry["ifname"].startswith(self.bridge + "-")]

    def plug(self, number: int, pid: int, subnet: str, up: bool = True) -> None:
        """Lay the cable of a device that has just started: eth0 inside, on the bridge outside."""
        link = plan.link(self.lab, number)
        self.unplug(number)
        self._ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._ip("link", "set", link, "master", self.bridge)
        length = ipaddress.ip_network(subnet).prefixlen
        commands = f"link set lo up\naddr add {plan.address(subnet, number)}/{length} dev eth0\nlink set eth0 up\n"
        self.namespace.run(["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], input=commands)
        self.set_link(number, up)

    def unplug(self, number: int) -> None:
        """Take the cable away, when there is one."""
        if self.exists(plan.link(self.lab, number)):
            self._ip("link", "del", plan.link(self.lab, number), check=False)

    def set_link(self, number: int, up: bool) -> None:
        """Cable in or out: the device sees its carrier come or go and nothing else is told."""
        self._ip("link", "set", plan.link(self.lab, number), "up" if up else "down")

# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""The lab's network: one bridge with the host on it, one cable (veth) a device, and no route to anywhere else."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from pathlib import Path

from . import plan
from .errors import LabError
from .host import Namespace
from .plan import Slowness

RELAY = Path(__file__).resolve().with_name("relay.py")


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
        # An address of its own: else a bridge takes that of one of its cables, and another when that one goes.
        self._ip("link", "set", self.bridge, "address", plan.mac(self.lab, 0))
        length = ipaddress.ip_network(subnet).prefixlen
        self._ip("addr", "replace", f"{plan.address(subnet, 0)}/{length}", "dev", self.bridge)
        self._ip("link", "set", self.bridge, "up")

    def remove_bridge(self) -> None:
        if self.exists(self.bridge):
            self._ip("link", "del", self.bridge)

    def links(self) -> list[str]:
        """The host's ends of cables of this lab, also of devices that are gone."""
        every = json.loads(self._ip("-json", "link", "show").stdout or "[]")
        names = {entry["ifname"] for entry in every}
        return sorted(name for name in names if name[:2] == "ed" and name[3:].startswith(self.lab + "-"))

    def plug(self, number: int, pid: int, subnet: str) -> None:
        """Lay the cable of a device that has just started: eth0 inside, outside on the bridge, down."""
        link = plan.link(self.lab, number)
        self.unplug(number)
        self._ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._mute(link)
        self._ip("link", "set", link, "master", self.bridge)
        length = ipaddress.ip_network(subnet).prefixlen
        commands = (
            f"link set lo up\nlink set eth0 address {plan.mac(self.lab, number)}\n"
            f"addr add {plan.address(subnet, number)}/{length} dev eth0\nlink set eth0 up\n"
        )
        self.namespace.run(["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], input=commands)

    def _mute(self, link: str) -> None:
        """Keep the host from speaking on a cable: off the bridge, it would answer ARP there, past the relay."""
        self._ip("link", "set", link, "arp", "off", "addrgenmode", "none")

    def unplug(self, number: int) -> None:
        """Take the cable away, when there is one."""
        for link in (plan.link(self.lab, number), plan.relay_links(self.lab, number)[0]):
            if self.exists(link):
                self._ip("link", "del", link, check=False)  # a relay on it ends by itself

    def set_link(self, number: int, up: bool) -> None:
        """Cable in or out: the device sees its carrier come or go and nothing else is told."""
        self._ip("link", "set", plan.link(self.lab, number), "up" if up else "down")

    def slow(self, number: int, pid: int, slowness: Slowness) -> None:
        """Put a relay between the device's cable and the bridge; one that is there is replaced."""
        self.fast(number)
        link, (outer, inner) = plan.link(self.lab, number), plan.relay_links(self.lab, number)
        self._ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        for name in (outer, inner):
            self._mute(name)
            self._ip("link", "set", name, "up")
        relay = ["python3", str(RELAY)]
        self.namespace.run([*relay, "whole-checksums", outer])
        self.namespace.run(["nsenter", "-t", str(pid), "-n", *relay, "whole-checksums", "eth0"])
        self._ip("link", "set", link, "nomaster")
        figures = [str(value) for value in (slowness.delay, slowness.loss, slowness.rate)]
        self._start([*relay, link, inner, *figures])
        self._ip("link", "set", outer, "master", self.bridge)

    @staticmethod
    def _start(argv: list[str]) -> None:
        """Start a relay that outlives us. It ends when one of its links does."""
        relay = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if relay.stdout is None or relay.stdout.readline().strip() != "ready":
            raise LabError(f"the relay of a slow link does not start: {relay.stderr.read() if relay.stderr else ''}")

    def fast(self, number: int) -> None:
        """The cable goes straight to the bridge again."""
        outer = plan.relay_links(self.lab, number)[0]
        if self.exists(outer):
            self._ip("link", "del", outer)
        self._ip("link", "set", plan.link(self.lab, number), "master", self.bridge)

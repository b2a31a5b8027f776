# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checks of where devices stand and how bytes get there: encryption at rest, in transit, regions. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from .checks_data import region_within
from .facts import FAIL, INCONCLUSIVE, NO_DATA, PASS, DeviceFacts, Fleet, Result

Parameters = Mapping[str, Any]
LISTEN = ("device_listen", "edge_listen")
LISTEN_DEFAULT = "127.0.0.1"
CONNECTIONS = (
    "ssh",
    "ansible.builtin.ssh",
    "paramiko_ssh",
    "ansible.builtin.paramiko_ssh",
    "ansible.netcommon.libssh",
    "local",
    "ansible.builtin.local",
)
"""Connections that encrypt, or never leave the machine."""
SSH_OPTIONS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
HOST_KEY_CHECKING = ("ansible_host_key_checking", "ansible_ssh_host_key_checking")
TRANSIT_VARIABLES = (
    "ansible_connection",
    *SSH_OPTIONS,
    *HOST_KEY_CHECKING,
    "edge_source",
    *LISTEN,
    "edge_region",
)
_LOCAL_CONNECTIONS = ("local", "ansible.builtin.local")


def _result(verdict: str, device: DeviceFacts, text: str, fleet: Fleet, line: int | None = None) -> Result:
    place = fleet.declared_at(line) if line is not None else device.place
    return Result(verdict, device.subject, text, place, device.group)


def encryption_at_rest(parameters: Parameters, fleet: Fleet, device: DeviceFacts) -> Iterator[Result]:
    """The site declares that its devices' disks are encrypted; what was seen on a device outweighs that."""
    site = fleet.site(device.site)
    if device.at_rest is False:
        yield _result(FAIL, device, "its store was seen on a volume that is not encrypted", fleet)
        return
    if site is None or site.at_rest is None:
        yield _result(
            NO_DATA, device, f"sites.{device.site}.encryption_at_rest is not declared", fleet, site.line if site else 1
        )
    elif not site.at_rest.enabled:
        yield _result(FAIL, device, "declared: not encrypted at rest", fleet, site.at_rest.line)
    elif device.at_rest:
        yield _result(
            PASS, device, f"seen on an encrypted volume; declared: {site.at_rest.method}", fleet, site.at_rest.line
        )
    elif parameters["observed"]:
        text = "declared, but nobody looked: run with -e edge_policy_observe=true"
        yield _result(INCONCLUSIVE, device, text, fleet, site.at_rest.line)
    else:
        yield _result(PASS, device, f"declared, not looked at: {site.at_rest.method}", fleet, site.at_rest.line)


def encryption_in_transit(parameters: Parameters, fleet: Fleet, device: DeviceFacts) -> Iterator[Result]:
    """Ansible's connection, the source of releases and the model server's clients are all on encrypted ways."""
    site = fleet.site(device.site)
    if site is not None and site.in_transit is not None and not site.in_transit.enabled:
        yield _result(FAIL, device, "declared: not encrypted in transit", fleet, site.in_transit.line)
        return
    faults = [*_connection_faults(parameters, fleet, device), *_source_faults(parameters, device)]
    doubts: list[str] = []
    served, fault = _serving(parameters, device)
    if fault and site is not None and site.in_transit is not None:
        served, fault = f"port open without TLS, declared: {site.in_transit.method}", ""
    faults += [fault] if fault else []
    for name in ("ansible_connection", "edge_source", *LISTEN):
        if name in device.values and device.values[name] is None:
            doubts.append(f"{name} is empty")
    if faults:
        yield _result(FAIL, device, "; ".join(faults), fleet)
    elif doubts:
        yield _result(INCONCLUSIVE, device, "; ".join(doubts), fleet)
    else:
        way = str(device.values.get("ansible_connection", "ssh"))
        yield _result(PASS, device, f"managed over {way}; source {_source_type(device)}; {served}", fleet)


def _connection_faults(parameters: Parameters, fleet: Fleet, device: DeviceFacts) -> Iterator[str]:
    connection = str(device.values.get("ansible_connection", "ssh"))
    if connection not in (*parameters["connections"], "smart"):
        yield "ansible_connection is not known to encrypt: name it in the parameter connections if it does"
        return
    if connection in _LOCAL_CONNECTIONS:
        return
    checked = fleet.host_key_checking
    for name in HOST_KEY_CHECKING:
        if name in device.values:
            checked = str(device.values[name]).lower() not in ("false", "no", "0", "off")
    options = (
        " ".join(str(device.values.get(name) or "") for name in SSH_OPTIONS).replace(" ", "").replace("=", "").lower()
    )
    if not checked or "stricthostkeycheckingno" in options or "stricthostkeycheckingoff" in options:
        yield "ssh does not check host keys: anybody in between can read along"


def _source_type(device: DeviceFacts) -> str:
    source = device.values.get("edge_source")
    return str(source.get("type", "push")) if isinstance(source, Mapping) else "push"


def _source_faults(parameters: Parameters, device: DeviceFacts) -> Iterator[str]:
    source = device.values.get("edge_source")
    if source is None or not isinstance(source, Mapping):
        return
    url = str(source.get("url") or "")
    if source.get("allow_http") or (url and urlsplit(url).scheme != "https"):
        yield "edge_source fetches releases over plain HTTP"


def _serving(parameters: Parameters, device: DeviceFacts) -> tuple[str, str]:
    """Return (how clients reach the server, what is wrong with it)."""
    set_to = [str(device.values[name]) for name in LISTEN if device.values.get(name)]
    listen = (set_to or [LISTEN_DEFAULT])[0].strip("[]")
    try:
        loopback = ipaddress.ip_address(listen).is_loopback
    except ValueError:
        loopback = listen == "localhost"
    if loopback:
        return "the server listens on loopback only", ""
    for name in parameters["tls_variables"]:
        value = device.values.get(name)
        if value not in (None, "", False, [], {}):
            return f"the server has TLS ({name})", ""
    names = " or ".join(parameters["tls_variables"])
    return "", f"the server listens beyond loopback (edge_listen) without TLS: set {names}"


def device_region(parameters: Parameters, fleet: Fleet, device: DeviceFacts) -> Iterator[Result]:
    """The device's site is in a region that every model it is to serve is pinned to."""
    site = fleet.site(device.site)
    if site is None or site.region is None:
        text = "it has no edge_site" if device.site is None else f"sites.{device.site}.region is not declared"
        yield _result(NO_DATA, device, text, fleet, site.line if site else 1)
        return
    own = device.values.get("edge_region")
    if own is not None and own != site.region:
        yield _result(FAIL, device, f"its edge_region is not that of its site, {site.region}", fleet)
        return
    for name in device.models:
        model = fleet.model(name)
        if model is None or not model.regions:
            yield _result(NO_DATA, device, f"models.{name}.regions is not declared", fleet, model.line if model else 1)
        elif not region_within(site.region, model.regions):
            allowed = ", ".join(model.regions)
            yield _result(
                FAIL, device, f"{name} is pinned to {allowed}; the site is in {site.region}", fleet, site.line
            )
        else:
            yield _result(PASS, device, f"{name}: the site is in {site.region}", fleet, site.line)
    if not device.models:
        yield _result(PASS, device, f"serves no model; the site is in {site.region}", fleet, site.line)

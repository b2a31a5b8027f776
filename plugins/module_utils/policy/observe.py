# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Was a device's store seen on an encrypted volume? From facts of ``ansible.builtin.setup``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CRYPT = "dm-uuid-CRYPT-"


def encrypted_at_rest(facts: Any, root: Any) -> bool | None:
    """Tell whether the directory ``root`` lies on a dm-crypt volume, or on a logical volume on top of one.

    facts: ``ansible_facts`` of the device, with mounts and devices. Returns None when they do not say: not gathered,
    or a file system that is no block device (overlay, ZFS, network).
    """
    if not isinstance(facts, Mapping) or not isinstance(root, str):
        return None
    mounts, devices = facts.get("mounts"), facts.get("devices")
    if not isinstance(mounts, list) or not isinstance(devices, Mapping):
        return None
    below = [
        mount
        for mount in mounts
        if isinstance(mount, Mapping) and (root.rstrip("/") + "/").startswith(str(mount.get("mount")).rstrip("/") + "/")
    ]
    if not below:
        return None
    device = str(max(below, key=lambda mount: len(str(mount.get("mount")))).get("device"))
    name = device.rpartition("/")[2]
    entry = _mapped(devices, name)
    if entry is None:
        plain = name in devices or any(name in (_of(item, "partitions") or {}) for item in devices.values())
        return False if plain and device.startswith("/dev/") else None
    if _is_crypt(entry):
        return True
    return any(_is_crypt(item) and name in (_of(item, "holders") or []) for item in devices.values())


def _mapped(devices: Mapping[str, Any], name: str) -> Any:
    """Return the device-mapper entry of a name: ``/dev/mapper/NAME`` or ``/dev/dm-N``."""
    for key, item in devices.items():
        if str(key).startswith("dm-") and (key == name or f"dm-name-{name}" in _ids(item)):
            return item
    return None


def _of(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else None


def _ids(item: Any) -> list[str]:
    links = _of(_of(item, "links"), "ids")
    return [str(link) for link in links] if isinstance(links, list) else []


def _is_crypt(item: Any) -> bool:
    return any(link.startswith(_CRYPT) for link in _ids(item))

"""What the roles' templates write, and the settings that the programs know, as key paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "unit" / "kubeedge"

#: Settings that the programs know but do not print, because they are empty by default.
NOT_PRINTED = {
    "edgecore": {
        "modules.edged.nodeIP",
        "modules.edged.nodeLabels",
        "modules.edged.tailoredKubeletConfig.registerWithTaints",
    },
    "cloudcore": set(),
}
VALUES: dict[str, dict[str, Any]] = {
    "edgecore": {
        "kubeedge_edge_version": "v1.23.1",
        "kubeedge_edge_cloud": "cloud.example.com",
        "kubeedge_edge_node_name": "camera-01",
        "kubeedge_edge_node_ip": "192.0.2.4",
        "_kubeedge_edge_labels": {"edgeai.fleet/runtime": "onnxruntime"},
        "kubeedge_edge_taints": [{"key": "a", "effect": "NoSchedule"}],
        "kubeedge_edge_sandbox_image": "registry.k8s.io/pause:3.10",
        "kubeedge_edge_cgroup_driver": "systemd",
        "kubeedge_edge_event_bus": False,
        "kubeedge_edge_mqtt_server": "tcp://127.0.0.1:1883",
        "kubeedge_edge_meta_server": False,
        "kubeedge_edge_stream": True,
    },
    "cloudcore": {
        "kubeedge_cloud_kubeconfig": "/etc/rancher/k3s/k3s.yaml",
        "kubeedge_cloud_addresses": ["192.0.2.10"],
        "kubeedge_cloud_names": ["cloud.example.com"],
        "kubeedge_cloud_node_limit": 500,
        "kubeedge_cloud_authorization": True,
        "kubeedge_cloud_listen": "0.0.0.0",
        "kubeedge_cloud_stream": True,
    },
}
TEMPLATES = {
    "edgecore": "roles/kubeedge_edge/templates/edgecore.yaml.j2",
    "cloudcore": "roles/kubeedge_cloud/templates/cloudcore.yaml.j2",
}


def rendered(program: str, **more: Any) -> Any:
    """Return the settings that the role writes for a program."""
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    engine.filters.update(to_json=json.dumps, bool=bool)
    text = ROOT.joinpath(TEMPLATES[program]).read_text(encoding="utf-8")
    return yaml.safe_load(engine.from_string(text).render(ansible_managed="x", **{**VALUES[program], **more}))


def key_paths(value: Any, at: str = "", leaves: frozenset[str] = frozenset()) -> set[str]:
    """Return the paths of all keys; what is below a leaf or in a list counts as its value."""
    if not isinstance(value, dict) or not value or at in leaves:
        return {at}
    return {path for key, inner in value.items() for path in key_paths(inner, f"{at}.{key}" if at else key, leaves)}


def unknown(program: str, known: set[str]) -> set[str]:
    """Return the settings of the template that the program does not know."""
    free = frozenset(NOT_PRINTED[program] | {"modules.cloudHub.authorization.modes"})
    return key_paths(rendered(program), "", free) - known - NOT_PRINTED[program]


def recorded(program: str) -> set[str]:
    """Return the key paths that the program of version 1.23.1 printed."""
    return set((RECORDED / f"{program}-1.23.1-keys.txt").read_text(encoding="utf-8").split())

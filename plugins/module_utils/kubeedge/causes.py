# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Why CloudCore does not run, or an edge node does not become Ready: from what they and containerd say. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Cause(NamedTuple):
    """A short name for machines, the line that says it, and how to mend it."""

    name: str
    what: str
    fix: str


#: In this order; the first whose pattern is in any line is the cause. What explains more comes first.
WORDS = (
    (
        "another_kubelet",
        r"kubelet should not be running on edge node",
        "a kubelet runs on this device; stop it, a device belongs to one cluster",
    ),
    (
        "certificate_authority",
        r"certificate signed by unknown authority|bad certificate|certificate authority|tls: unknown certificate",
        "edge and cloud have certificates of different authorities; run the playbook for both with one kubeedge_pki",
    ),
    (
        "clock",
        r"certificate has expired or is not yet valid|certificate is not valid before|x509: certificate has expired",
        "compare the clocks of device and cloud, then run the playbook again: it renews what expired",
    ),
    (
        "certificate_name",
        r"certificate is valid for .* not |doesn't contain any IP SANs|is not valid for any names|cannot validate cert",
        "the address that edges dial is not in CloudCore's certificate; add it to kubeedge_cloud_names and run again",
    ),
    (
        "node_name",
        r"certificate CN .* does not match node name|common name of peer certificate didn't match",
        "the node has another name than its certificate; remove kubeedge_edge's certificates and run again",
    ),
    (
        "join_token",
        r"failed to apply the edge certs|token .* credentials are in the wrong format|token validation failure",
        "EdgeCore did not find its certificate and asked for one; run the playbook again: it brings one",
    ),
    (
        "cgroup_driver",
        r"kubelet cgroup driver: .* is different from|misconfiguration: .*cgroup driver|expected cgroupsPath",
        "containerd and EdgeCore use different cgroup drivers; let the role write both",
    ),
    (
        "cgroups",
        r"Failed to (?:start|initialize) ContainerManager|failed to get root cgroup stats"
        r"|cgroup .* not (?:found|enabled)",
        "the kernel's cgroups lack what a kubelet needs; see the preflight",
    ),
    (
        "containerd",
        r"(?:containerd\.sock|container runtime).*(?:no such file|connection refused|not running|is down)"
        r"|unknown service runtime\.v1",
        "containerd does not answer, or its CRI is off; see its unit and /etc/containerd/config.toml",
    ),
    (
        "sandbox_image",
        r"failed to get sandbox image|failed to pull .*pause|sandbox image .*not found",
        "the pause image is not on the device; name its archive in kubeedge_edge_images",
    ),
    (
        "network_plugin",
        r"cni plugin not initialized|NetworkPluginNotReady|failed to find plugin",
        "the CNI configuration or a plugin is missing; see /etc/cni/net.d and kubeedge_edge_cni_directory",
    ),
    (
        "swap",
        r"running with swap on is not supported",
        "turn swap off on the device",
    ),
    (
        "port_in_use",
        r"address already in use",
        "another program has the port named in the line; stop that",
    ),
    (
        "api_server",
        r"(?:127\.0\.0\.1|localhost|\d):6443.*(?:connection refused|i/o timeout|no route)"
        r"|Unable to connect to the server",
        "the cluster's API server does not answer; see K3s on the cloud's machine",
    ),
    (
        "cloud_unreachable",
        r"(?:connection failed|websocket).*(?:connection refused|i/o timeout|no route to host|network is unreachable"
        r"|no such host|EOF|reset by peer)|dial tcp .*:1000[0-9].*",
        "the cloud does not answer at its address; see the network, its firewall (10000, 10002) and CloudCore",
    ),
    (
        "disk_full",
        r"no space left on device",
        "free space on the device",
    ),
)


def classify(lines: Sequence[str]) -> Cause:
    """Return the cause; of the lines of one kind, the last."""
    for name, pattern, fix in WORDS:
        for line in reversed(lines):
            if re.search(pattern, line, re.IGNORECASE):
                return Cause(name, line.strip()[:400], fix)
    return Cause("unknown", "nothing known in its journal", "see the lines below and `journalctl -u` on the machine")


def explain(what: str, cause: Cause, lines: Sequence[str]) -> str:
    """One message for a person."""
    said = [line for line in lines if line.strip()][-12:]
    return "\n".join([f"{what}: {cause.name} ({cause.what}); {cause.fix}", *(["Last lines:", *said] if said else [])])

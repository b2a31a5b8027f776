# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Why a node of K3s does not start or join, read from what it wrote into the journal. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Cause(NamedTuple):
    """A short name for machines, the line that says it, and a fix for people."""

    name: str
    line: str
    fix: str


#: (name, pattern, fix), the most particular first: one line of a node that failed often holds several of these words.
WORDS = (
    (
        "node_password",
        r"node password rejected|unable to verify (?:hash|password) for node",
        "another machine, or this one before it was re-imaged, has joined under this name. If it is the same "
        "device, run "
        "with k3s_agent_replace: true (or k3s_server_replace), which deletes the secret <node>.node-password.k3s; "
        "else give it another node name",
    ),
    (
        "ca_mismatch",
        r"token ca hash does not match|ca hash does not match|certificate signed by unknown authority"
        r"|failed to validate.*CA (?:hash|cert)",
        "the server's authority is not the one that the token names: the cluster was made anew, or the address leads "
        "elsewhere. Remove the node (state absent) and let it join again",
    ),
    (
        "wrong_token",
        r"not authorized|invalid token|token is (?:not valid|invalid|expired)"
        r"|bootstrap data already found and encrypted "
        r"with different token|401 Unauthorized|failed to normalize (?:server )?token|invalid username/password",
        "the server does not accept the token: it has expired, or belongs to another cluster. Set "
        "k3s_agent_rejoin: true "
        "for a new one; on a server remove k3s_server_token or give the one the cluster was made with",
    ),
    (
        "port_in_use",
        r"address already in use|port .* already in use",
        "another program has its port; stop that program (the preflight names it)",
    ),
    (
        "clock",
        r"certificate has expired or is not yet valid|x509: .*not yet valid|current time .* is (?:before|after)",
        "the clocks of this node and the server differ, or a certificate has expired; see date -u on both",
    ),
    (
        "no_default_route",
        r"no default routes found|unable to select an IP from default routes|failed to get (?:the )?default interface"
        r"|unable to find default route|failed to find (?:the )?(?:default )?interface|could not find valid interface",
        "the node has no default route: give it one (a dummy interface will do), or set k3s_server_node_ip or "
        "k3s_agent_node_ip",
    ),
    (
        "cgroup",
        r"failed to find (?:memory|cpu|pids|cpuset) cgroup|cgroup.*(?:not mounted|not (?:been )?enabled|is missing)"
        r"|cgroups? v\d.*not supported|failed to (?:initialize|create).*cgroup|systemd cgroup flag passed",
        "the kernel's memory, cpu or pids controller is off; on a Raspberry Pi set its boot arguments "
        "(k3s_server_boot_arguments or k3s_agent_boot_arguments) and reboot",
    ),
    (
        "snapshotter",
        r"snapshotter.*(?:not supported|overlay)|overlayfs.*not supported",
        "the data directory's file system cannot hold overlays; put it on ext4 or xfs, or set snapshotter: native",
    ),
    (
        "disk_full",
        r"no space left on device|disk quota exceeded",
        "free space below the data directory",
    ),
    (
        "etcd",
        r"etcdserver: (?:no leader|request timed out|too many learner|unhealthy cluster|mvcc)"
        r"|failed to (?:defragment|reach) "
        r"etcd|etcd.*(?:is not healthy|connection refused)|learner.*not in sync|duplicate node name found",
        "the servers' etcd has no quorum: start the other servers; or it still knows this server from before it was "
        "re-imaged: k3s_server_replace: true deletes the old node, and etcd's member with it",
    ),
    (
        "datastore",
        r"(?:preparing|creating|building) (?:storage|kine)|kine.*(?:dial|refused|denied)|storage backend"
        r"|dial tcp.*:(?:3306|5432)\b"
        r"|access denied for user|password authentication failed",
        "the external datastore does not answer or refuses the credentials; see k3s_server_datastore_endpoint",
    ),
    (
        "protect_kernel_defaults",
        r"invalid kernel flag|protect-kernel-defaults",
        "a kernel setting is not what the kubelet asks for; run the role with its CIS switch on, which sets them",
    ),
    (
        "server_unreachable",
        r"connection refused|no route to host|network is unreachable|i/o timeout|no such host|context deadline exceeded"
        r"|client\.timeout exceeded",
        "it cannot reach the server; see the address in its configuration, and that 6443/tcp is open between them",
    ),
    (
        "configuration",
        r"flag provided but not defined|unknown flag|invalid configuration|failed to (?:parse|load) config"
        r"|Incorrect Usage"
        r"|error unmarshaling|yaml:",
        "K3s does not know a setting; see the extra settings in the inventory",
    ),
)
SECRETS = re.compile(r"K10[0-9a-f]{16,}::\S+|\b[a-z0-9]{6}\.[a-z0-9]{16}\b|://[^/\s:@]+:[^/\s@]+@")
# An agent says only in passing why its server does not let it in.
ROUTINE = re.compile(r"level=(?:info|debug)(?!.*Waiting to retrieve)|^[IW]\d{4} ")
UNKNOWN = Cause("unknown", "", "see its journal: journalctl -u k3s -u k3s-agent")


def classify(journal: Sequence[str]) -> Cause:
    """Name the reason. What was said last counts; routine lines count only when no other line says anything."""
    for lines in ([line for line in journal if not ROUTINE.search(line)], list(journal)):
        for line in reversed(lines):
            for name, pattern, fix in WORDS:
                if re.search(pattern, line, re.IGNORECASE):
                    return Cause(name, excerpt(line), fix)
    return UNKNOWN


def excerpt(line: str) -> str:
    """A line for a person: at most 300 characters, without tokens and passwords."""
    return SECRETS.sub(_hide, line.strip())[:300]


def _hide(found: re.Match[str]) -> str:
    return "://***@" if found.group().startswith("://") else "***"


def explain(unit: str, what: str, cause: Cause, journal: Iterable[str]) -> str:
    """One message: which unit, what was waited for, the cause, the fix, and its last lines, without secrets."""
    said = f" ({cause.line})" if cause.line else ""
    lines = [f"{unit}: {what}: {cause.name}{said}; {cause.fix}"]
    tail = [excerpt(line) for line in journal if line.strip()]
    return "\n".join([*lines, "Its last lines in the journal:", *tail] if tail else lines)

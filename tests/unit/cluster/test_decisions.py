"""Causes, boot arguments, membership, nodes, tokens: what is decided without touching a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.filter.k3s_first_server import k3s_first_server
from ansible_collections.edgeai.fleet.plugins.filter.node_labels import node_labels
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import boot, causes, nodes, removal, tokens
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.membership import Seen, first_server

HASH = "a1" * 32
TOKEN = f"K10{HASH}::server:0123456789abcdef"

# Why it does not run

SAID = {
    "wrong_token": 'level=error msg="failed to get CA certs: https://10.0.0.1:6443/v1-k3s/apiserver: not authorized"',
    "ca_mismatch": 'level=fatal msg="Error: token CA hash does not match the Cluster CA certificate hash: a1 != b2"',
    "node_password": 'level=info msg="Waiting to retrieve agent configuration; Node password rejected, '
    "duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry\"",
    "port_in_use": 'level=fatal msg="starting kubernetes: listen tcp :6443: bind: address already in use"',
    "clock": "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time",
    "no_default_route": 'level=fatal msg="unable to select an IP from default routes."',
    "cgroup": 'level=fatal msg="failed to find memory cgroup (v2)"',
    "datastore": 'level=fatal msg="starting kubernetes: preparing server: creating storage endpoint: building kine: '
    'dial tcp 10.0.0.9:5432: connect: connection refused"',
    "etcd": '{"level":"warn","msg":"etcdserver: too many learner members in cluster"}',
    "server_unreachable": 'level=error msg="Failed to validate connection to https://10.0.0.1:6443: dial tcp '
    '10.0.0.1:6443: connect: no route to host"',
    "configuration": 'level=fatal msg="flag provided but not defined: -tokn"',
    "disk_full": "write /var/lib/rancher/k3s/x: no space left on device",
}


@pytest.mark.parametrize("name", SAID)
def test_a_cause_is_found_behind_routine_lines(name: str) -> None:
    routine = ['time="x" level=info msg="Starting k3s v1.32.5+k3s1"', "I1123 11:00:00.1 1 apf.go: nothing"]
    found = causes.classify([*routine, SAID[name], *routine])
    assert found.name == name and found.fix and found.line in SAID[name]


def test_what_was_said_last_counts_and_nothing_said_is_said() -> None:
    assert causes.classify([SAID["port_in_use"], SAID["wrong_token"]]).name == "wrong_token"
    assert causes.classify([SAID["port_in_use"], SAID["node_password"]]).name == "node_password"
    assert causes.classify([]).name == causes.classify(["all is well"]).name == "unknown"


def test_no_token_or_password_is_shown() -> None:
    lines = [
        f"joining with {TOKEN}",
        "token abcdef.0123456789abcdef expired",
        "dial postgres://k3s:hunter2@10.0.0.9/k3s",
    ]
    text = causes.explain("k3s.service", "not ready", causes.classify(lines), lines)
    assert HASH not in text and "0123456789abcdef" not in text and "hunter2" not in text
    assert "postgres://***@10.0.0.9" in text and text.startswith("k3s.service: not ready: ")


# Boot arguments

LINE = "console=serial0,115200 root=PARTUUID=9-02 rootwait"


def test_arguments_go_onto_the_one_line() -> None:
    after = boot.with_arguments(LINE + "\n", boot.CGROUP, "cmdline.txt")
    assert after == LINE + " cgroup_memory=1 cgroup_enable=memory\n"
    assert boot.with_arguments(after, boot.CGROUP, "cmdline.txt") == after
    assert boot.with_arguments(after.strip(), boot.CGROUP, "cmdline.txt") == after.strip()


def test_one_of_them_there_and_one_that_takes_it_back() -> None:
    after = boot.with_arguments("a cgroup_disable=memory cgroup_memory=1 b", boot.CGROUP, "cmdline.txt")
    assert after == "a cgroup_memory=1 b cgroup_enable=memory\n"
    assert boot.missing("cgroup_enable=cpuset cgroup_memory=1", boot.CGROUP) == ["cgroup_enable=memory"]


@pytest.mark.parametrize("text", ["", "\n\n", "a\nb\n"], ids=["empty", "blank", "two-lines"])
def test_a_file_that_the_firmware_would_misread(text: str) -> None:
    with pytest.raises(ClusterError, match=r"cmdline.txt: has \d lines"):
        boot.with_arguments(text, boot.CGROUP, "cmdline.txt")


def test_the_module_writes_the_file_that_counts_and_asks_for_a_reboot(tmp_path: Path) -> None:
    for path in ("boot/firmware/cmdline.txt", "boot/cmdline.txt", "proc/cmdline"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(LINE + "\n")
    given = {"root": tmp_path}
    predicted = run_module("boot_arguments", given, check=True)
    assert predicted["changed"] and (tmp_path / "boot/firmware/cmdline.txt").read_text() == LINE + "\n"
    done = run_module("boot_arguments", given)
    assert done["diff"] == predicted["diff"] and done["reboot_needed"] and done["path"] == "/boot/firmware/cmdline.txt"
    assert (tmp_path / "boot/cmdline.txt").read_text() == LINE + "\n"
    # The file is right, the kernel that runs is not.
    again = run_module("boot_arguments", given)
    assert not again["changed"] and again["missing"] == list(boot.CGROUP)
    (tmp_path / "proc/cmdline").write_text((tmp_path / "boot/firmware/cmdline.txt").read_text())
    assert not run_module("boot_arguments", given)["reboot_needed"]


def test_a_machine_without_such_a_file(tmp_path: Path) -> None:
    assert (
        "no /boot/firmware/cmdline.txt and no /boot/cmdline.txt"
        in run_module("boot_arguments", {"root": tmp_path})["msg"]
    )


# Which server the others join

YES, NO, AWAY = Seen(True, True), Seen(True, False), Seen(False, False)


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        ({"a": NO, "b": NO, "c": NO}, "a"),
        ({"a": YES, "b": NO, "c": NO}, "a"),
        ({"a": NO, "b": YES, "c": YES}, "b"),
        ({"b": YES}, "b"),
    ],
    ids=["new", "known", "first-one-re-imaged", "others-away"],
)
def test_the_one_that_holds_the_cluster(seen: dict[str, Seen], wanted: str) -> None:
    assert first_server(["a", "b", "c"], seen) == wanted


def test_no_second_cluster_while_a_server_is_away() -> None:
    with pytest.raises(ClusterError, match=r"b, c could not be looked at.*k3s_new_cluster"):
        first_server(["a", "b", "c"], {"a": NO, "b": AWAY})
    assert first_server(["a", "b", "c"], {"a": NO}, allow_new=True) == "a"
    with pytest.raises(ClusterError, match="k3s_servers"):
        first_server([], {})


def test_the_filter_reads_what_the_preflight_found() -> None:
    hostvars = {
        "a": {"_k3s_preflight": {"facts": {"initialized": False}}},
        "b": {"_k3s_preflight": {"facts": {"initialized": True}}},
    }
    assert k3s_first_server(["a", "b"], hostvars) == "b"


# Nodes and labels


def node(status: str = "True", version: str = "v1.32.5+k3s1") -> dict[str, object]:
    conditions = [
        {"type": "MemoryPressure", "status": "False"},
        {"type": "Ready", "status": status, "message": "no CNI"},
    ]
    labels = {"edgeai.fleet/runtime": "openvino", "other": "x"}
    return {
        "metadata": {"labels": labels},
        "status": {"conditions": conditions, "nodeInfo": {"kubeletVersion": version}},
    }


def test_a_node_that_is_ready_in_the_right_version() -> None:
    assert nodes.lacks(node(), "v1.32.5+k3s1") == nodes.lacks(node(), "") == ""
    assert nodes.lacks(node("Unknown"), "") == "is not Ready (no CNI)"
    assert nodes.lacks(node(version="v1.31.0+k3s1"), "v1.32.5+k3s1") == "reports version v1.31.0+k3s1, not v1.32.5+k3s1"
    assert nodes.lacks({}, "") == "has not said yet whether it is ready"


def test_only_labels_that_differ_are_set() -> None:
    wanted = {"edgeai.fleet/runtime": "onnxruntime", "other": "x", "new": "y"}
    assert nodes.label_changes(node(), wanted) == {"edgeai.fleet/runtime": "onnxruntime", "new": "y"}


def test_values_that_kubernetes_takes() -> None:
    given = {"s": "cpu-int8/onnxruntime/x86_64", "empty": "", "none": None, "odd": "//", "long": "x" * 99}
    assert node_labels(given) == {"s": "cpu-int8.onnxruntime.x86_64", "long": "x" * 63}


@pytest.mark.parametrize("name", ["Gate", "gate_1", "-gate", "gate-", "", "a..b", "a" * 254])
def test_names_that_kubernetes_refuses(name: str) -> None:
    with pytest.raises(ClusterError):
        nodes.check_node_name(name)


# Tokens


def test_a_token_names_the_authority_and_expires() -> None:
    assert tokens.pinned(f"\n{TOKEN}\n") == TOKEN
    with pytest.raises(ClusterError) as refused:
        tokens.pinned("abcdef.0123456789abcdef")
    assert "0123456789abcdef" not in str(refused.value)
    assert [tokens.check_ttl(ttl) for ttl in ("1h", "1h30m", "90s")] == ["1h", "1h30m", "90s"]
    for ttl in ("0", "0s", "", "1d", "-1h"):
        with pytest.raises(ClusterError, match="ttl"):
            tokens.check_ttl(ttl)


# Removal

MOUNTS = """/dev/sda1 / ext4 rw 0 0
/dev/sdb1 /var/lib/rancher/k3s ext4 rw 0 0
/dev/sdc1 /var/lib/kubelet ext4 rw 0 0
tmpfs /var/lib/kubelet/pods/1/volumes/a\\040b tmpfs rw 0 0
overlay /run/k3s/containerd/io/1/rootfs overlay rw 0 0
shm /run/k3s/containerd/io/1/rootfs/dev/shm tmpfs rw 0 0
nsfs /run/netns/cni-1234 nsfs rw 0 0
nsfs /run/netns/mine nsfs rw 0 0
tmpfs /run/k3s-of-mine tmpfs rw 0 0
"""
RULES = """*filter
:INPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -p tcp --dport 22 -j ACCEPT
-A INPUT -j KUBE-FIREWALL
-A FORWARD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""


def test_mounts_of_k3s_deepest_first_and_nobody_elses() -> None:
    assert removal.k3s_mounts(MOUNTS, "/var/lib/rancher/k3s") == [
        "/run/k3s/containerd/io/1/rootfs/dev/shm",
        "/var/lib/kubelet/pods/1/volumes/a b",
        "/run/k3s/containerd/io/1/rootfs",
        "/run/netns/cni-1234",
    ]


def test_rules_of_others_stay() -> None:
    kept = removal.without_k3s(RULES)
    assert kept == "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"

"""What keeps a machine from becoming a node: everything at once, from trees as machines have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.module_utils.cluster import preflight, preflight_facts
from ansible_collections.edgeai.fleet.plugins.module_utils.cluster.errors import ClusterError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.preflight import ERROR, describe

NOW = "2026-11-23T11:00:00Z"
SECONDS = 1795431600.0
KERNEL = "6.1.0-18-arm64"
DATA = "/var/lib/rancher/k3s"
ROUTES = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
DEFAULT_ROUTE = "eth0 00000000 0100000A 0003 0 0 100 00000000 0 0 0\n"
MODULES = "\n".join(
    f"kernel/net/{name}.ko.xz:" for name in ("br_netfilter", "overlay", "vxlan", "nf_conntrack", "nf_tables")
)
TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
#: A machine that is fit, with cgroup v2.
FIT = {
    "/proc/sys/kernel/osrelease": KERNEL,
    "/proc/sys/kernel/arch": "aarch64",
    "/proc/cmdline": "console=tty1 root=/dev/sda1",
    "/proc/net/route": ROUTES + DEFAULT_ROUTE,
    "/proc/meminfo": "MemTotal:        3884000 kB\n",
    "/proc/self/mounts": "/dev/sda1 / ext4 rw,relatime 0 0\n",
    "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
    f"/lib/modules/{KERNEL}/modules.dep": MODULES,
}


def tree(base: Path, **changes: str | None) -> str:
    """A machine's tree: FIT with other files (None: without), given by path."""
    files: dict[str, str | None] = {**FIT, **changes}
    for path, text in files.items():
        if text is not None:
            place = base / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    return str(base)


def facts(base: Path, changes: dict[str, str | None] | None = None) -> dict[str, Any]:
    found = preflight_facts.gather(DATA, tree(base, **(changes or {})))
    found["time"] = SECONDS
    found["disk"].update(free_mib=20000, inodes=1000000, free_inodes=900000)
    return found


def limits(**given: Any) -> preflight.Limits:
    return preflight.Limits(**{"controller_time": NOW, "node_name": "gate-01", **given})


def names(found: dict[str, Any], **given: Any) -> list[str]:
    return [problem.name for problem in preflight.judge(found, limits(**given)) if problem.severity == ERROR]


def listening(port: int, inode: int = 900) -> str:
    return (
        TCP + f"   0: 00000000:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0 0 {inode} 1\n"
    )


def process(pid: int, name: str, unit: str) -> dict[str, str]:
    return {f"/proc/{pid}/comm": name + "\n", f"/proc/{pid}/cgroup": f"0::/system.slice/{unit}\n"}


def test_a_machine_that_is_fit(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert preflight.judge(found, limits(etcd=True)) == []
    assert found["routes"] == ["eth0"] and found["cgroup"]["version"] == 2 and not found["initialized"]


def test_everything_is_named_at_once(tmp_path: Path) -> None:
    changes = {
        "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io\n",
        "/proc/net/route": ROUTES,
        "/proc/net/tcp": listening(6443),
        f"/lib/modules/{KERNEL}/modules.dep": MODULES.replace("vxlan", "bridge").replace("br_netfilter", "llc"),
        "/etc/kubeedge/config/edgecore.yaml": "kind: EdgeCore",
    }
    found = facts(tmp_path, changes)
    found["time"] -= 3600
    found["disk"]["free_mib"] = 10
    problems = preflight.judge(found, limits(node_name="Gate_01"))
    assert [problem.name for problem in problems] == [
        *("node_name", "cgroup", "br_netfilter", "vxlan", "default_route", "edgecore", "port", "clock", "disk")
    ]
    text = describe(problems)
    assert text.count("found ") == text.count("wanted ") == text.count("Fix: ") == len(problems)
    assert "no memory and no pids controller (cgroup v2)" in text and "3600 s behind" in text
    accepted = preflight.judge(found, limits(accept=tuple(problem.name for problem in problems)))
    assert all(problem.severity != ERROR for problem in accepted)


@pytest.mark.parametrize(
    ("groups", "directories", "wanted"),
    [
        ("memory 0 10 1\ncpu 0 9 1\npids 0 9 1\n", ("memory", "cpu", "pids"), []),
        ("memory 0 10 0\ncpu 0 9 1\npids 0 9 1\n", ("memory", "cpu", "pids"), ["cgroup"]),
        ("memory 0 10 1\ncpu 0 9 1\npids 0 9 1\n", ("cpu", "pids"), ["cgroup"]),
    ],
    ids=["on", "memory-off", "not-mounted"],
)
def test_controllers_of_cgroup_v1(tmp_path: Path, groups: str, directories: tuple[str, ...], wanted: list[str]) -> None:
    changes: dict[str, str | None] = {
        "/sys/fs/cgroup/cgroup.controllers": None,
        "/proc/cgroups": "#subsys_name hierarchy num_cgroups enabled\n" + groups.replace(" ", "\t"),
    }
    for name in directories:
        changes[f"/sys/fs/cgroup/{name}/tasks"] = ""
    assert names(facts(tmp_path, changes)) == wanted
    assert names(facts(tmp_path, changes), kubelet=False) == []  # the API server alone needs none


def test_a_raspberry_pi_is_told_of_its_boot_arguments(tmp_path: Path) -> None:
    changes = {
        "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids",
        "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "/proc/self/mounts": "/dev/mmcblk0p2 / ext4 rw 0 0\n",
    }
    problems = preflight.judge(facts(tmp_path, changes), limits(role="agent"))
    assert [problem.name for problem in problems] == ["cgroup"] and "k3s_agent_boot_arguments" in problems[0].fix
    etcd = preflight.judge(facts(tmp_path, changes), limits(etcd=True))
    assert [problem.name for problem in etcd] == ["cgroup", "sd_card"] and etcd[1].severity != ERROR


def test_a_kernel_without_any_evidence_only_warns(tmp_path: Path) -> None:
    found = facts(tmp_path, {f"/lib/modules/{KERNEL}/modules.dep": None})
    problems = preflight.judge(found, limits())
    assert [problem.name for problem in problems] == list(preflight.FEATURES)
    assert {problem.severity for problem in problems} == {"warning"}
    config = "\n".join(f"CONFIG_{name}=y" for name in ("BRIDGE_NETFILTER", "OVERLAY_FS", "NF_CONNTRACK", "NF_TABLES"))
    found = facts(tmp_path, {f"/lib/modules/{KERNEL}/modules.dep": None, f"/boot/config-{KERNEL}": config})
    assert names(found) == ["vxlan"] and names(found, flannel="host-gw") == []


def test_no_route_but_an_address(tmp_path: Path) -> None:
    found = facts(tmp_path, {"/proc/net/route": ROUTES})
    assert names(found) == ["default_route"] and names(found, node_ip="10.0.0.11") == []
    six = "0" * 32 + " 00 " + "0" * 32 + " 00 " + "fe80" + "0" * 28 + " 00000400 00000001 00000000 00000003 wlan0\n"
    assert facts(tmp_path, {"/proc/net/route": ROUTES, "/proc/net/ipv6_route": six})["routes"] == ["wlan0"]


def test_its_own_ports_are_no_problem(tmp_path: Path) -> None:
    base = tmp_path
    found = facts(base, {"/proc/net/tcp": listening(6443), **process(77, "k3s-server", "k3s.service")})
    assert names(found) == ["port"]  # nothing says yet who has it
    (base / "proc/77/fd").mkdir()
    (base / "proc/77/fd/9").symlink_to("socket:[900]")
    assert names(facts(base)) == []
    assert names(facts(base, process(77, "nginx", "nginx.service"))) == ["port"]
    assert "nginx (pid 77)" in describe(preflight.judge(facts(base), limits()))


def test_vxlan_in_use_by_another(tmp_path: Path) -> None:
    line = "  10: 00000000:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000     0 0 {} 2\n"
    assert names(facts(tmp_path, {"/proc/net/udp": TCP + line.format(900)})) == ["port"]
    # The kernel's own socket, which no process holds, beside flannel's device.
    (tmp_path / "sys/class/net/flannel.1").mkdir(parents=True)
    assert names(facts(tmp_path, {"/proc/net/udp": TCP + line.format(900)})) == []


@pytest.mark.parametrize(
    ("name", "unit", "wanted"),
    [
        ("kubelet", "kubelet.service", ["kubelet"]),
        ("kubelite", "snap.microk8s.service", ["kubelet"]),
        ("k3s-agent", "k3s-agent.service", []),
        ("k3s-server", "docker.service", ["kubelet"]),
        ("edgecore", "edgecore.service", ["edgecore"]),
    ],
)
def test_other_kubelets(tmp_path: Path, name: str, unit: str, wanted: list[str]) -> None:
    assert names(facts(tmp_path, process(50, name, unit)), role="agent") == wanted


def test_a_server_does_not_become_an_agent(tmp_path: Path) -> None:
    found = facts(tmp_path, {"/etc/systemd/system/k3s.service": "[Service]\n"})
    assert names(found, role="agent") == ["other_role"] and names(found, role="server") == []


def test_what_a_node_holds_already(tmp_path: Path) -> None:
    found = facts(tmp_path, {f"{DATA}/server/tls/server-ca.crt": "x"})
    assert found["initialized"] and not found["joined"]
    found["disk"]["free_mib"] = 10
    assert names(found) == []  # what is there already may have taken the space
    joined = facts(tmp_path, {f"{DATA}/agent/client-kubelet.crt": "x", "/etc/rancher/node/password": "x"})
    assert joined["joined"]


def test_architectures(tmp_path: Path) -> None:
    assert names(facts(tmp_path, {"/proc/sys/kernel/arch": "riscv64"})) == ["architecture"]
    found = facts(tmp_path, {"/proc/sys/kernel/arch": "armv7l"})
    assert names(found) == [] and names(found, etcd=True) == ["architecture"]


def test_a_time_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="controller_time"):
        preflight.judge(facts(tmp_path), limits(controller_time="now"))


def test_the_module_fails_with_all_of_it(tmp_path: Path) -> None:
    root = tree(tmp_path, **{"/sys/fs/cgroup/cgroup.controllers": "cpu", "/proc/net/route": ROUTES})
    given = {"role": "agent", "node_name": "gate-01", "controller_time": NOW, "root": root, "accept": ["clock", "disk"]}
    result = run_module("k3s_preflight", given)
    assert result["failed"] and result["msg"].startswith("gate-01 cannot become a K3s agent: 2 problems\n- cgroup")
    assert "listeners" not in result["facts"] and result["facts"]["architecture"] == "aarch64"

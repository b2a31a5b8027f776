"""The Kubernetes objects that run the model server: what a pod may do, where it runs, and who shares a DaemonSet."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.filter.workload_manifests import workload_manifests
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.errors import WorkloadError
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.manifests import manifests

IMAGES = {
    "onnxruntime": "localhost/edgeai/model-server:onnxruntime-1",
    "openvino": "localhost/edgeai/model-server:ov-1",
}


def device(name: str = "gate-1", **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": name,
        "node": name,
        "platform": "k3s",
        "stratum": "cpu-int8/onnxruntime/x86_64",
        "root": "/var/lib/edgeai",
        "uid": 998,
        "gid": 997,
        "groups": [],
        "host": "127.0.0.1",
        "port": 9001,
        "tls": "none",
        "memory_mib": 2800,
        "models": ["camera"],
    }
    return {**facts, **changes}


def sets(*devices: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    return [item for item in manifests(devices, IMAGES, **options) if item["kind"] == "DaemonSet"]


def pod(*devices: dict[str, Any], **options: Any) -> dict[str, Any]:
    (found,) = sets(*devices, **options)
    return dict(found["spec"]["template"]["spec"])


def server(*devices: dict[str, Any], **options: Any) -> dict[str, Any]:
    (found,) = pod(*devices, **options)["containers"]
    return dict(found)


def test_a_pod_has_no_rights_and_writes_only_run_log_and_tmp() -> None:
    spec, container = pod(device()), server(device())
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 998,
        "runAsGroup": 997,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["automountServiceAccountToken"] is False and not {"hostPID", "hostIPC"} & set(spec)
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/var/lib/edgeai/run", "/var/lib/edgeai/log", "/tmp"}
    assert {volume["name"] for volume in spec["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}


def test_it_runs_the_program_of_the_store_in_the_images_python() -> None:
    container = server(device(root="/data/edge"), options={"workers": 3})
    assert container["command"][1:] == ["-I", "/data/edge/lib/edgeai-device.pyz", "serve", "--root", "/data/edge"]
    assert container["command"][0].startswith("/opt/edgeai/runtime/")
    assert "--workers=3" in container["args"] and "--max-body-mib=64" in container["args"]
    assert container["image"] == IMAGES["onnxruntime"] and container["imagePullPolicy"] == "Never"


def test_a_change_waits_for_its_wave() -> None:
    assert sets(device())[0]["spec"]["updateStrategy"] == {"type": "OnDelete"}


@pytest.mark.parametrize(
    ("changes", "ready"),
    [
        ({}, {"path": "/v2/models/camera/ready", "port": 9001, "host": "127.0.0.1", "scheme": "HTTP"}),
        (
            {"models": [], "host": "0.0.0.0", "tls": "server"},
            {"path": "/v2/health/ready", "port": 9001, "host": "127.0.0.1", "scheme": "HTTPS"},
        ),
        (
            {"models": ["a", "b"], "host": "10.0.0.7"},
            {"path": "/v2/health/ready", "port": 9001, "host": "10.0.0.7", "scheme": "HTTP"},
        ),
    ],
    ids=["one-model", "no-model-tls", "two-models"],
)
def test_readiness_is_the_protocols(changes: dict[str, Any], ready: dict[str, Any]) -> None:
    assert server(device(**changes))["readinessProbe"]["httpGet"] == ready


def test_a_kubelet_without_a_client_certificate_asks_over_the_devices_socket() -> None:
    container = server(device(tls="mutual"))
    assert "status" in container["readinessProbe"]["exec"]["command"]
    assert "tcpSocket" in container["livenessProbe"] and "tcpSocket" in container["startupProbe"]


def test_the_start_may_take_as_long_as_it_may_under_systemd() -> None:
    probe = server(device(), options={"start_timeout": 300})["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 300


def test_devices_that_are_alike_share_a_daemon_set_with_the_smallest_limit() -> None:
    devices = [device("gate-1"), device("gate-2", memory_mib=1400), device("gate-3", memory_mib=0)]
    spec = pod(*devices)
    assert spec["nodeSelector"] == {
        "edgeai.fleet/stratum": "cpu-int8.onnxruntime.x86_64",
        "edgeai.fleet/runtime": "onnxruntime",
    }
    assert "affinity" not in spec
    assert spec["containers"][0]["resources"] == {
        "requests": {"memory": "1400Mi", "cpu": "100m"},
        "limits": {"memory": "1400Mi"},
    }


def test_devices_that_differ_have_their_own_each_bound_to_its_nodes() -> None:
    found = sets(device("gate-1"), device("gate-2", uid=990), device("gate-3"))
    names = [
        item["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ][0]["matchExpressions"][0]["values"]
        for item in found
    ]
    assert sorted(names) == [["gate-1", "gate-3"], ["gate-2"]]
    assert len({item["metadata"]["name"] for item in found}) == 2
    selectors = [item["spec"]["selector"]["matchLabels"] for item in found]
    assert selectors[0] != selectors[1]


def test_the_order_of_the_devices_changes_nothing() -> None:
    devices = [device("gate-1"), device("gate-2", uid=990), device("yard", stratum="cpu/openvino/x86_64")]
    assert manifests(devices, IMAGES) == manifests(devices[::-1], IMAGES)


def test_an_accelerator_is_asked_for_by_its_plugins_resource() -> None:
    spec = pod(device(stratum="nvidia-gpu/onnxruntime/x86_64", groups=[44]))
    resources = spec["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert spec["runtimeClassName"] == "nvidia" and spec["securityContext"]["supplementalGroups"] == [44]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert not [volume for volume in spec["volumes"] if volume.get("hostPath", {}).get("path", "").startswith("/dev")]


def test_an_accelerator_without_a_known_resource_needs_one() -> None:
    hailo = device(stratum="hailo/onnxruntime/aarch64")
    with pytest.raises(WorkloadError, match="workloads_resources"):
        manifests([hailo], IMAGES)
    limits = server(hailo, resources={"hailo": "squat.ai/hailo"})["resources"]["limits"]
    assert limits["squat.ai/hailo"] == "1"


def test_kubeedges_nodes_are_tolerated_and_others_are_not() -> None:
    edge = {"key": "node-role.kubernetes.io/edge", "operator": "Exists"}
    assert edge in pod(device(platform="kubeedge"))["tolerations"]
    assert edge not in pod(device())["tolerations"]


def test_the_namespace_says_what_it_cannot_enforce() -> None:
    labels = manifests([], IMAGES)[0]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    assert labels["pod-security.kubernetes.io/warn"] == labels["pod-security.kubernetes.io/audit"] == "restricted"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"uid": 0}, "gate-1.uid: 0"),
        ({"gid": True}, "gate-1.gid: True"),
        ({"stratum": "cpu/none/x86_64"}, "gate-1.stratum"),
        ({"stratum": "cpu/litert/aarch64"}, "litert/aarch64 in workloads_images"),
        ({"root": "var/lib/edgeai"}, "gate-1.root"),
        ({"node": "Gate 1"}, "gate-1.node"),
        ({"host": "localhost"}, "gate-1.host"),
        ({"port": 0}, "gate-1.port"),
        ({"platform": "systemd"}, "gate-1.platform"),
        ({"tls": "yes"}, "gate-1.tls"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_cannot_be_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        manifests([device(**changes)], IMAGES)


def test_two_devices_on_one_node_are_refused() -> None:
    with pytest.raises(WorkloadError, match="both on node 'gate-1'"):
        manifests([device("gate-1"), device("gate-2", node="gate-1")], IMAGES)


def test_options_and_policies_that_are_not_known_are_refused() -> None:
    with pytest.raises(WorkloadError, match="options: 'worker'"):
        manifests([device()], IMAGES, options={"worker": 1})
    with pytest.raises(WorkloadError, match="pull_policy: 'Always'"):
        manifests([device()], IMAGES, pull_policy="Always")


def test_the_filter_names_what_is_wrong() -> None:
    assert workload_manifests([device()], IMAGES) == manifests([device()], IMAGES)
    with pytest.raises(AnsibleFilterError, match=r"gate-1\.uid"):
        workload_manifests([device(uid=0)], IMAGES)
    with pytest.raises(AnsibleFilterError, match="give a list"):
        workload_manifests("gate-1", IMAGES)

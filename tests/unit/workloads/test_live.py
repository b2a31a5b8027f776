"""What is in a cluster against what is wanted there: only what is ours is removed, only what nobody has is taken."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.edgeai.fleet.plugins.filter.workload_changes import workload_changes
from ansible_collections.edgeai.fleet.plugins.filter.workload_unready import workload_unready
from ansible_collections.edgeai.fleet.plugins.module_utils.workloads.manifests import NAMESPACE, PART_OF, manifests

DEVICE = {
    "name": "gate-1",
    "node": "gate-1",
    "platform": "k3s",
    "stratum": "cpu-int8/onnxruntime/x86_64",
    "root": "/var/lib/edgeai",
    "uid": 998,
    "gid": 997,
    "host": "127.0.0.1",
    "port": 9001,
    "memory_mib": 2800,
    "models": [],
}
WANTED = manifests([DEVICE], {"onnxruntime": "localhost/a:1"})


def thing(kind: str, name: str, ours: bool = False, version: str = "v1", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": dict(PART_OF) if ours else {}, **more}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def names(references: list[dict[str, str]]) -> list[str]:
    return ["{kind}/{name}".format(**item) for item in references]


def test_nothing_changes_when_everything_wanted_is_there() -> None:
    assert workload_changes(WANTED, WANTED) == {"remove": [], "foreign": [], "others": []}


def test_what_is_no_longer_wanted_is_removed_when_it_is_ours() -> None:
    old = thing("DaemonSet", "edgeai-server-old", ours=True, version="apps/v1")
    theirs = thing("DaemonSet", "theirs", version="apps/v1")
    found = workload_changes([*WANTED, old, theirs], WANTED)
    want = {"kind": "DaemonSet", "api_version": "apps/v1", "name": "edgeai-server-old", "namespace": NAMESPACE}
    assert found["remove"] == [want] and found["others"] == ["DaemonSet/theirs"]


def test_everything_goes_and_the_namespace_last() -> None:
    given = [thing("ConfigMap", "kube-root-ca.crt"), thing("ServiceAccount", "default")]
    pod = thing("Pod", "edgeai-server-x", ownerReferences=[{"kind": "DaemonSet"}])
    removed = names(workload_changes([*given, pod, *reversed(WANTED)])["remove"])
    assert removed[0].startswith("DaemonSet/") and removed[-1] == "Namespace/edgeai" and len(removed) == len(WANTED)


@pytest.mark.parametrize("kind", ["Pod", "Secret", "ConfigMap", "Deployment"])
def test_the_namespace_stays_with_what_others_have_in_it(kind: str) -> None:
    found = workload_changes([*WANTED, thing(kind, "theirs")])
    assert found["others"] == [f"{kind}/theirs"] and "Namespace/edgeai" not in names(found["remove"])
    assert len(found["remove"]) == len(WANTED) - 1


def test_labels_of_half_a_kind_are_not_ours() -> None:
    near = thing("DaemonSet", "near", version="apps/v1")
    near["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "edgeai.fleet"}
    assert workload_changes([near])["remove"] == []


def test_a_name_that_somebody_else_has_is_told() -> None:
    theirs = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    assert names(workload_changes([theirs], WANTED)["foreign"]) == ["Namespace/edgeai"]


def daemonset(generation: int = 1, observed: int = 1, wanted: int = 2, ready: int = 2) -> dict[str, Any]:
    status = {"observedGeneration": observed, "desiredNumberScheduled": wanted, "numberReady": ready}
    return {"metadata": {"name": "one", "generation": generation}, "status": {**status, "updatedNumberScheduled": 0}}


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (daemonset(), []),
        (daemonset(wanted=0, ready=0), []),
        (daemonset(ready=1), ["one: 1 of 2 pods are ready"]),
        (daemonset(generation=2), ["one: not looked at by the cluster yet"]),
        ({"metadata": {"name": "one"}}, ["one: not looked at by the cluster yet"]),
    ],
    ids=["ready", "no-nodes", "one-of-two", "changed", "new"],
)
def test_ready_is_told_by_the_newest_status_and_not_by_the_template(item: dict[str, Any], says: list[str]) -> None:
    assert workload_unready([item]) == says


@pytest.mark.parametrize("value", ["text", [1], [{"kind": "Pod"}]])
def test_wrong_input_is_an_error_of_the_filter(value: Any) -> None:
    with pytest.raises(AnsibleFilterError):
        workload_changes(value)
    with pytest.raises(AnsibleFilterError):
        workload_unready(value)

"""The manifests that the role leaves on the controller, from outside."""

from __future__ import annotations

import os
from typing import Any

import yaml

PATH = os.path.join(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "edgeai-workloads.yaml")


def test_each_stratum_of_the_cluster_has_its_daemonset(host: Any) -> None:
    objects = list(yaml.safe_load_all(host.file(PATH).content_string))
    strata = {
        item["metadata"]["name"]: item["spec"]["template"]["spec"]["nodeSelector"]["edgeai.fleet/stratum"]
        for item in objects
        if item["kind"] == "DaemonSet"
    }
    assert set(strata.values()) == {"cpu-int8.onnxruntime.x86_64", "cpu.onnxruntime.aarch64"}
    assert objects[0]["kind"] == "Namespace" and "plain-1" not in host.file(PATH).content_string

"""What the role leaves for Prometheus and Grafana, from outside."""

from __future__ import annotations

import json
import os
from typing import Any

BASE = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]
ROOT = os.path.join(BASE, "monitoring")


def test_every_device_is_a_target(host: Any) -> None:
    targets = json.loads(host.file(f"{ROOT}/targets/edge.json").content_string)
    assert [(item["targets"], item["labels"]["device"]) for item in targets] == [
        (["10.0.0.1:9001"], "gate-1"),
        (["[fd00::2]:9002"], "gate-2"),
    ]
    assert targets[0]["labels"]["stratum"] == "cpu/onnxruntime/x86_64"
    assert targets[1]["labels"]["redundancy_group"] == "gate" and "site" not in targets[1]["labels"]


def test_files_are_readable_for_prometheus_and_nobody_else_writes_them(host: Any) -> None:
    for name in ("targets/edge.json", "rules/edge.yml", "scrape/edge.yml", "dashboards/edge.json"):
        assert host.file(f"{ROOT}/{name}").mode == 0o644


def test_prometheus_takes_the_configuration(host: Any) -> None:
    done = host.run("promtool check config %s", f"{BASE}/prometheus.yml")
    assert done.rc == 0 and "16 rules found" in done.stdout, done

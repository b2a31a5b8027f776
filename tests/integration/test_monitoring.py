"""The role monitoring: its files, its alerts against promtool, its every query against a real Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.certificates import SERVER_AUTH, authority, issue, write_chain, write_key
from support.fleet import wait_for as wait_until
from support.prometheus import Prometheus, promtool
from support.servers import Device, free_port, onnx_model

ROOT = Path(__file__).resolve().parents[2]
PLAY = [{"hosts": "localhost", "gather_facts": False, "roles": ["edgeai.fleet.monitoring"]}]
HOSTS: dict[str, dict[str, Any]] = {
    "gate-1": {"ansible_host": "10.0.0.1", "edge_listen": "0.0.0.0", "edge_site": "harbour", "edge_stratum": "s1"},
    "gate-2": {"ansible_host": "10.0.0.2", "edge_redundancy_group": "gate"},
}


class Role:
    """The role, applied to a directory."""

    def __init__(self, base: Path, hosts: dict[str, dict[str, Any]] | None = None, **variables: Any) -> None:
        self.base, self.directory = base, base / "monitoring"
        self.hosts = hosts if hosts is not None else HOSTS
        self.variables = {"edge_monitoring_directory": str(self.directory), **variables}
        (base / "play.yml").write_text(json.dumps(PLAY))

    def run(self, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        inventory = {"edge": {"hosts": self.hosts}}
        (self.base / "hosts.yml").write_text(yaml.safe_dump(inventory))
        program = str(Path(sys.executable).parent / "ansible-playbook")
        extra = json.dumps({**self.variables, **variables})
        return subprocess.run(
            [program, str(self.base / "play.yml"), "-i", str(self.base / "hosts.yml"), "-e", extra, *arguments],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    def apply(self, *arguments: str, **variables: Any) -> int:
        """Run and return the number of changes."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stdout
        self.output = done.stdout
        return int(done.stdout.rsplit("changed=", 1)[1].split()[0])

    def labels(self) -> dict[str, dict[str, str]]:
        """The labels of every target."""
        groups = json.loads((self.directory / "targets" / "edge.json").read_text())
        return {group["labels"]["device"]: group["labels"] for group in groups}

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Every file with its inode and content."""
        found = [path for path in self.directory.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_ino, path.read_bytes()) for path in found}


@pytest.mark.timeout(600)
def test_it_predicts_writes_once_and_leaves_nothing(tmp_path: Path) -> None:
    role = Role(tmp_path, monitoring_config=str(tmp_path / "prometheus.yml"))
    predicted = role.apply("--check", "--diff")
    assert not role.directory.exists() and predicted > 0
    assert '+   "10.0.0.1:9001"' in role.output and "+      - alert: EdgeaiDeviceDown" in role.output
    assert "gate-2: the model server listens on the device's loopback address" in role.output
    assert role.apply() == predicted
    before = role.files()
    assert len(before) == 4
    for arguments in (["--check"], ["--diff"]):
        assert role.apply(*arguments) == 0
        assert role.files() == before, "nothing is even written again"
    assert promtool("check", "config", tmp_path / "prometheus.yml").returncode == 0
    assert role.labels()["gate-1"] == {"device": "gate-1", "fleet": "edge", "site": "harbour", "stratum": "s1"}
    assert role.labels()["gate-2"] == {"device": "gate-2", "fleet": "edge", "redundancy_group": "gate"}

    gone = role.apply("--check", monitoring_state="absent")
    assert role.files() == before and gone == role.apply(monitoring_state="absent") == 1
    assert not role.directory.exists() and not (tmp_path / "prometheus.yml").exists()
    assert role.apply(monitoring_state="absent") == 0


def test_a_device_that_is_away_keeps_its_stratum_and_one_that_left_goes(tmp_path: Path) -> None:
    role = Role(tmp_path, dict(HOSTS))
    role.apply()
    role.hosts = {"gate-1": {**HOSTS["gate-1"], "edge_stratum": ""}, "gate-2": HOSTS["gate-2"]}
    assert role.apply() == 0 and role.labels()["gate-1"]["stratum"] == "s1"
    role.hosts = {"gate-1": {**HOSTS["gate-1"], "edge_stratum": "s2"}}
    assert role.apply() == 1 and role.labels() == {"gate-1": {**role.labels()["gate-1"], "stratum": "s2"}}


def test_fleets_share_a_directory_and_absent_takes_only_ones_own(tmp_path: Path) -> None:
    one, two = Role(tmp_path), Role(tmp_path, edge_fleet="north")
    one.apply()
    kept = one.files()
    two.apply()
    assert len(one.files()) == 8
    assert two.apply(monitoring_state="absent") == 1 and one.files() == kept
    (one.directory / "notes").write_text("a person's")
    one.apply(monitoring_state="absent")
    assert list(one.files()) == [str(one.directory / "notes")]


def test_tls_and_node_exporters_are_scrape_jobs(tmp_path: Path) -> None:
    tls = {
        "ca_file": "/etc/prometheus/ca.pem",
        "cert_file": "/etc/prometheus/c.pem",
        "key_file": "/etc/prometheus/k.pem",
    }
    role = Role(tmp_path, monitoring_tls=tls, monitoring_node_exporter=True, monitoring_config=str(tmp_path / "p.yml"))
    role.variables["monitoring_promtool"] = "/nonexistent"  # promtool looks for the files of tls_config
    role.apply()
    assert role.apply() == 0
    server, node = yaml.safe_load((role.directory / "scrape" / "edge.yml").read_text())["scrape_configs"]
    assert server["scheme"] == "https" and server["tls_config"] == tls
    assert node["job_name"] == "edgeai-node" and "scheme" not in node
    targets = json.loads((role.directory / "targets" / "edge-node.json").read_text())
    assert [group["targets"] for group in targets] == [["10.0.0.1:9100"], ["10.0.0.2:9100"]]
    assert role.apply(monitoring_node_exporter=False) == 3
    assert not (role.directory / "targets" / "edge-node.json").exists()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"edge_fleet": "../north"}, "monitoring_fleet"),
        ({"monitoring_down_for": "long"}, "long"),  # promtool refuses the rules, and the old ones stay
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_put_in_place(
    tmp_path: Path, variables: dict[str, Any], named: str
) -> None:
    done = Role(tmp_path, **variables).run()
    assert done.returncode != 0 and named in done.stdout, done.stdout
    assert not (tmp_path / "monitoring" / "rules" / "edge.yml").exists()


def test_node_exporter_without_its_collection_says_what_to_install(tmp_path: Path) -> None:
    role = Role(tmp_path)
    task = {"ansible.builtin.include_role": {"name": "edgeai.fleet.monitoring", "tasks_from": "node_exporter"}}
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    assert role.apply() == 0, "off by default"
    done = role.run(monitoring_node_exporter=True)
    assert done.returncode == 2 and "ansible-galaxy collection install prometheus.prometheus" in done.stdout


# -- alerts ------------------------------------------------------------------------------------------------------------

UP = {"job": "edgeai", "fleet": "edge", "device": "d", "site": "yard", "stratum": "s"}


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    text = ",".join(f'{key}="{value}"' for key, value in {**UP, **labels}.items() if value)
    return {"series": f"{name}{{{text}}}", "values": values}


MODEL = {"model": "m", "version": "1"}
REFUSED = {"result": "refused", "model": "m"}
#: alert -> (input that fires it, input that does not, minutes until it fires)
ALERTS: dict[str, tuple[list[dict[str, str]], list[dict[str, str]], int]] = {
    "EdgeaiDeviceDown": ([series("up", "1 0x30")], [series("up", "1 0x3 1x30")], 8),
    "EdgeaiNoTargets": ([series("up", "1x30", fleet="other")], [series("up", "0x30")], 20),
    "EdgeaiRedundancyLost": (
        [series("up", "1x30", redundancy_group="g"), series("up", "0x30", redundancy_group="g", device="e")],
        [series("up", "1x30", redundancy_group="g"), series("up", "1x30", redundancy_group="g", device="e")],
        8,
    ),
    "EdgeaiRedundancyGroupDown": (
        [series("up", "0x30", redundancy_group="g"), series("up", "0x30", redundancy_group="g", device="e")],
        [series("up", "0x30", redundancy_group="g"), series("up", "1x30", redundancy_group="g", device="e")],
        3,
    ),
    "EdgeaiNothingServed": (
        [series("up", "1x30"), series("edgeai_model_info", "1x30", device="e")],
        [series("up", "1x30"), series("edgeai_model_info", "1x30")],
        15,
    ),
    "EdgeaiErrors": (
        [series("edgeai_requests_total", "0+60x30", code="200"), series("edgeai_request_errors_total", "0+2x30")],
        [series("edgeai_requests_total", "0+600x30", code="200"), series("edgeai_request_errors_total", "0+2x30")],
        15,
    ),
    "EdgeaiSlow": (
        [
            series("edgeai_request_duration_seconds_bucket", "0+1x60", le="0.5"),
            series("edgeai_request_duration_seconds_bucket", "0+9x60", le="1"),
            series("edgeai_request_duration_seconds_bucket", "0+9x60", le="+Inf"),
        ],
        [
            series("edgeai_request_duration_seconds_bucket", "0+9x60", le="0.5"),
            series("edgeai_request_duration_seconds_bucket", "0+9x60", le="1"),
            series("edgeai_request_duration_seconds_bucket", "0+9x60", le="+Inf"),
        ],
        25,
    ),
    "EdgeaiBusy": ([series("edgeai_requests_in_flight", "40x30")], [series("edgeai_requests_in_flight", "30x30")], 15),
    "EdgeaiMemory": (
        [series("process_resident_memory_bytes", "3000000000x30")],
        [series("process_resident_memory_bytes", "1000000000x30")],
        20,
    ),
    "EdgeaiRestarts": (
        [series("edgeai_server_info", f"{'_ ' * n * 3}1x2", start_id=f"s{n}") for n in range(4)],
        [series("edgeai_server_info", f"{'_ ' * n * 3}1x2", start_id=f"s{n}") for n in range(3)],
        15,
    ),
    "EdgeaiReleaseRefused": (
        [series("edgeai_swaps_total", "0x5 1x30", **REFUSED)],
        [series("edgeai_swaps_total", "1x35", **REFUSED)],
        10,
    ),
    "EdgeaiMixedReleases": (
        [
            series("edgeai_model_info", "1x2000", digest="a", **MODEL),
            series("edgeai_model_info", "1x2000", digest="b", device="e", **MODEL),
        ],
        [
            series("edgeai_model_info", "1x2000", digest="a", **MODEL),
            series("edgeai_model_info", "1x2000", digest="b", device="e", model="n", version="1"),
        ],
        1500,
    ),
    "EdgeaiCertificateExpires": (
        [series("edgeai_server_certificate_expiry_timestamp_seconds", "1000000x90")],
        [series("edgeai_server_certificate_expiry_timestamp_seconds", "3000000x90")],
        70,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory the role wrote with its defaults."""
    role = Role(tmp_path_factory.mktemp("rendered"))
    role.apply()
    return role.directory


def alerts_of(directory: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((directory / "rules" / "edge.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_has_a_case(rendered: Path) -> None:
    assert {rule["alert"] for rule in alerts_of(rendered) if "alert" in rule} == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_fires_and_does_not_fire(rendered: Path, tmp_path: Path, alert: str) -> None:
    """Promtool's own unit test: with the trouble it fires, not before its ``for``; without it, it is silent."""
    fires, silent, minutes = ALERTS[alert]
    (rule,) = [item for item in alerts_of(rendered) if item.get("alert") == alert]
    wanted = promtool_alerts(rendered, tmp_path, alert, fires, minutes)
    assert len(wanted) == 1 and wanted[0]["severity"] == rule["labels"]["severity"], wanted
    assert wanted[0]["fleet"] == "edge"
    assert promtool_alerts(rendered, tmp_path, alert, silent, minutes) == []
    if "for" in rule:
        assert promtool_alerts(rendered, tmp_path, alert, fires, 0) == []


def promtool_alerts(
    directory: Path, base: Path, alert: str, inputs: list[dict[str, str]], minutes: int
) -> list[dict[str, str]]:
    """Return the labels of the alerts of this name that fire after so many minutes."""
    expr = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    test = {
        "rule_files": [str(directory / "rules" / "edge.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": inputs,
                "promql_expr_test": [
                    {"expr": expr, "eval_time": f"{minutes}m", "exp_samples": [{"labels": "asked{}", "value": 1}]}
                ],
            }
        ],
    }
    path = base / "test.yml"
    path.write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", path)
    # the expectation is one that never holds, so promtool says what there is
    said = done.stdout + done.stderr
    assert "got:" in said, said
    got = said.split("got:", 1)[1]
    if "nil" in got:
        return []
    return [dict(re.findall(r'(\w+)="([^"]*)"', part)) for part in got.split("{")[1:]]


# -- every query against a real Prometheus -----------------------------------------------------------------------------

#: Limits so low that any traffic is trouble: then no alert's expression is empty. Requests under way are counted at
#: each scrape, which need not meet one: there even none is too many.
TROUBLE = {
    "monitoring_error_ratio": 0.0000001,
    "monitoring_p95_seconds": 0.0000001,
    "monitoring_in_flight": -1,
    "monitoring_memory_mib": 1,
    "monitoring_restarts": 0,
    "monitoring_certificate_days": 36500,
    "monitoring_scrape_interval": "1s",
    "monitoring_scrape_timeout": "1s",
}
GRAFANA = {"$site": ".*", "$stratum": ".*", "$device": ".*", "$model": ".*", "$__rate_interval": "30s"}


class Traffic:
    """Requests to a device from several threads until told to stop."""

    def __init__(self, device: Device, threads: int) -> None:
        self.device, self.stop = device, threading.Event()
        self.statuses: set[int] = set()
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _number in range(threads)]
        for thread in self.threads:
            thread.start()

    def _ask(self) -> None:
        while not self.stop.is_set():
            # TypeError: there is no server.json while the server restarts
            with contextlib.suppress(OSError, http.client.HTTPException, TypeError):
                self.statuses.add(self.device.infer(ROWS).status)
            self.stop.wait(0.02)

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(30)


ROWS = np.ones((256, 4), dtype=np.float32)
SLOW = 20000
"""Layers of a model that takes tens of milliseconds for ROWS: a quick one never has requests wait."""


def restart(device: Device) -> None:
    """Stop a server and start it again: a new process, on the port its settings name."""
    device.stop()
    device.start("--workers", "1", "--queue", "1", ready=False)


@contextlib.contextmanager
def fleet_in_trouble(base: Path) -> Iterator[tuple[dict[str, dict[str, Any]], list[Device]]]:
    """Two devices that serve different releases, one of them busy, one device without a model, three that are dead."""
    made: list[Device] = []
    try:
        ports = [free_port() for _number in range(6)]
        for number in range(3):
            made.append(Device(base / f"device-{number}", port=ports[number]))
        busy, other, empty = made
        busy.activate(busy.stage("1.0.0", payload=onnx_model(2.0, layers=SLOW)))
        other.activate(other.stage("1.1.0", weight=3.0))
        for device in made:
            device.start("--workers", "1", "--queue", "1", ready=device is not empty)
        common = {"ansible_connection": "local", "edge_site": "yard", "edge_stratum": "cpu/onnxruntime/x86_64"}
        names = ["busy", "other", "empty", "dead-1", "dead-2", "dead-3"]
        hosts = {name: {**common, "edge_port": port} for name, port in zip(names, ports)}
        hosts["other"]["edge_redundancy_group"] = hosts["dead-3"]["edge_redundancy_group"] = "half"
        hosts["dead-1"]["edge_redundancy_group"] = hosts["dead-2"]["edge_redundancy_group"] = "gone"
        yield hosts, made
    finally:
        for device in made:
            device.stop(signal.SIGKILL)


@contextlib.contextmanager
def device_with_mutual_tls(base: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """A device over mTLS; yields its inventory variables and what monitoring_tls has to say for it."""
    device, root = Device(base), authority()
    name = x509.SubjectAlternativeName([x509.DNSName("north-1")])
    server = issue("north-1", root, purposes=SERVER_AUTH, extra=name)
    client = issue("prometheus", root, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    paths = {
        "certificate": str(write_chain(base / "server.pem", server)),
        "key": str(write_key(base / "server.key", server.key)),
        "client_ca": str(write_chain(base / "ca.pem", root)),
    }
    port, file = free_port(), device.root / "device.json"
    told = {"url": f"https://127.0.0.1:{port}", "tls": paths}
    file.write_text(json.dumps({**json.loads(file.read_text()), "server": told}))
    tls = {
        "ca_file": paths["client_ca"],
        "cert_file": str(write_chain(base / "client.pem", client)),
        "key_file": str(write_key(base / "client.key", client.key)),
        "server_name": "north-1",
    }
    try:
        device.start(ready=False)
        yield {"ansible_connection": "local", "edge_port": port}, tls
    finally:
        device.stop(signal.SIGKILL)


@pytest.mark.timeout(600)
def test_no_query_of_the_dashboard_and_no_rule_is_empty(tmp_path: Path) -> None:
    with (
        fleet_in_trouble(tmp_path) as (hosts, (busy, other, _empty)),
        device_with_mutual_tls(tmp_path / "tls") as (variables, tls),
    ):
        north = Role(tmp_path, {"north-1": variables}, **TROUBLE, edge_fleet="north", monitoring_tls=tls)
        north.apply(monitoring_config=str(tmp_path / "north.yml"))
        role = Role(tmp_path, hosts, **TROUBLE)
        role.apply(monitoring_config=str(tmp_path / "edge.yml"))
        config, more = (yaml.safe_load((tmp_path / f"{name}.yml").read_text()) for name in ("edge", "north"))
        config["rule_files"] += more["rule_files"]
        more["scrape_configs"][0]["job_name"] = "edgeai-north"  # a job's name is there once in a configuration
        more["scrape_configs"][0]["relabel_configs"].append({"target_label": "job", "replacement": "edgeai"})
        config["scrape_configs"] += more["scrape_configs"]
        prometheus = Prometheus(tmp_path / "prometheus", config=config)
        with prometheus.running():
            prometheus.wait_query('edgeai_server_info{device="other"}')
            traffic = [Traffic(busy, 6), Traffic(other, 1)]
            try:
                drive(prometheus, busy, other)
                check_everything(prometheus, role, hosts)
            finally:
                for each in traffic:
                    each.end()
            assert 503 in traffic[0].statuses and 200 in traffic[0].statuses


def drive(prometheus: Prometheus, busy: Device, other: Device) -> None:
    """Cause what the metrics tell about: a restart, a refused release, a swap."""
    wait_until(lambda: prometheus.query('edgeai_model_info{device="busy"}'), 60, "busy is scraped")
    restart(other)
    prometheus.wait_query('edgeai_swaps_total{device="other",result="refused"}')
    broken = other.stage("1.2.0", weight=4.0)
    rotten = next((other.root / "releases" / "tiny" / "1.2.0").glob("variants/*/*/*")).resolve()
    rotten.chmod(0o644)
    rotten.write_bytes(b"broken" + rotten.read_bytes()[6:])
    other.activate(broken, confirm=False)
    assert other.manage("load").status >= 400
    prometheus.wait_query('increase(edgeai_swaps_total{device="other",result="refused"}[15m]) > 0')
    good = busy.stage("1.3.0", payload=onnx_model(2.0, layers=SLOW))
    busy.activate(good)
    assert busy.manage("load").status == 200
    prometheus.wait_query('increase(edgeai_swaps_total{device="busy",result="loaded"}[30s]) > 0')


def check_everything(prometheus: Prometheus, role: Role, hosts: dict[str, Any]) -> None:
    """Every expression of the role's files has an answer, and with numbers in it."""
    rules = alerts_of(role.directory)
    expressions = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules}
    # these two are about what this fleet has not: they are asked of one that has it
    nobody = expressions.pop("EdgeaiNoTargets").replace('fleet="edge"', 'fleet="nobody"')
    assert prometheus.query(nobody)
    certificates = [expressions.pop("EdgeaiCertificateExpires")]
    dashboard = json.loads((role.directory / "dashboards" / "edge.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expr = target["expr"]
            for name, value in GRAFANA.items():
                expr = expr.replace(name, value)
            assert "$" not in expr, expr
            if "certificate" in expr:
                certificates.append(expr)
            else:
                expressions[f"{panel['title']}: {target['refId']}"] = expr
    missing: dict[str, str] = {}

    def complete() -> bool:
        missing.clear()
        for name, expr in expressions.items():
            values = [item["value"][1] for item in prometheus.query(expr)]
            if not values or all(value in ("NaN", "+Inf") for value in values):
                missing[name] = expr
        return not missing

    try:
        wait_until(complete, 240, "every query has an answer")
    except AssertionError:
        raise AssertionError(f"no answer to {missing}") from None
    assert len(expressions) > 30 and len(certificates) == 2
    for expr in certificates:
        assert prometheus.query(expr.replace('fleet="edge"', 'fleet="north"')), expr
    for variable in dashboard["templating"]["list"][1:]:
        series_of, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
        series_of = series_of.replace("$site", ".*").replace("$stratum", ".*")
        found = {item["metric"].get(label) for item in prometheus.query(series_of)} - {None}
        assert found, variable["definition"]
        if label == "device":
            assert found == set(hosts)
    groups = prometheus.api("rules")["data"]["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in loaded if rule["type"] == "alerting"} == set(ALERTS)
    assert all(rule["health"] == "ok" and not rule.get("lastError") for rule in loaded), loaded

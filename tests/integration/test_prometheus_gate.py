"""Rollouts whose waves are judged by a real Prometheus: it passes, fails, knows nothing, is stale, is down.

The devices' engine is a double that tells which release it is on; its metrics are served over HTTP by the test and
scraped by Prometheus. The last test uses real model servers.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support import fleet as local
from support.certificates import SERVER_AUTH, authority, issue, write_chain, write_key
from support.fleet import wait_for as wait_until
from support.prometheus import Prometheus
from support.waves_fleet import ROOT, Fleet

HOSTS = {"a1": "onnxruntime", "a2": "onnxruntime", "a3": "onnxruntime", "b1": "openvino"}
A, B = "cpu-int8/onnxruntime/x86_64", "cpu-int8/openvino/x86_64"
ERRORS = 'max(test_errors{device=~"$device",version=~"$version",stratum="$stratum",site=~"$site"})'


class Exporter:
    """The /metrics of every device of a fleet, at /HOST: which release it is on, and a number a test chooses."""

    def __init__(self) -> None:
        self.scrapes: dict[str, int] = {}
        self.reset(None)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = self.path.strip("/")
                outer.scrapes[host] = outer.scrapes.get(host, 0) + 1
                body = outer.text(host).encode()
                self.send_response(503 if host in outer.down else 200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def reset(self, fleet: Fleet | None) -> None:
        """Tell about another fleet, in which all is well."""
        self.fleet = fleet
        self.values: dict[str, float | str] = {}  # host, or "old" and "new" for all on that release
        self.down: set[str] = set()
        self.silent = False
        self.lies: dict[str, str] = {}

    def text(self, host: str) -> str:
        """One device's exposition."""
        active = self.fleet.active(host) if self.fleet else "sha256:old"
        digest = self.lies.get(host, active)
        which = "old" if digest == "sha256:old" else "new"
        version = {"old": "1.0.0", "new": "1.1.0"}[which]
        lines = [f'edgeai_model_info{{model="digits",version="{version}",variant="v",digest="{digest}"}} 1']
        if not self.silent:
            value = self.values.get(host, self.values.get(which, 0.0))
            lines.append(f'test_errors{{model="digits",version="{version}"}} {value}')
        return "\n".join(lines) + "\n"

    def targets(self, *without: str) -> list[dict[str, Any]]:
        """File_sd targets, with the labels that the monitoring role gives."""
        port = self.server.server_address[1]
        strata = {host: f"cpu-int8/{runtime}/x86_64" for host, runtime in HOSTS.items()}
        return [
            {
                "targets": [f"127.0.0.1:{port}"],
                "labels": {
                    "__metrics_path__": f"/{host}", "device": host, "stratum": strata[host], "site": "yard",
                    "instance": host,
                },
            }
            for host in HOSTS if host not in without
        ]  # fmt: skip


class World:
    """A fleet, its metrics, a Prometheus."""

    def __init__(self, base: Path, exporter: Exporter, prometheus: Prometheus) -> None:
        self.fleet = Fleet(base / "fleet", HOSTS)
        self.exporter, self.prometheus = exporter, prometheus
        self.exporter.reset(self.fleet)
        self.fleet.inventory_data["all"]["vars"]["edge_site"] = "yard"

    def ask(self, *queries: dict[str, Any], soak: int = 3, **settings: Any) -> None:
        """Set the policy's queries."""
        known = {"stale_after": 2, "min_scrapes": 3}
        section = {"url": self.prometheus.url, "deadline": 3, "timeout": 2, **settings}
        section["queries"] = [{**known, **query} for query in queries]
        policy = self.fleet.inventory_data["all"]["vars"]["edge_policy"]
        policy.update(soak=soak, prometheus=section)
        self.fleet.write_inventory()

    def roll(self) -> Any:
        """Run the collection's own playbook."""
        return self.fleet.run(playbook="edgeai.fleet.rollout")

    def queries(self, stratum: str = A, wave: int = 1) -> list[dict[str, Any]]:
        """The recorded answers about one stratum of one wave, of the last run."""
        verdicts = [record["data"] for record in self.fleet.records("verdict") if record["data"]["stage"] == "metrics"]
        mine = [found for found in verdicts if found["wave"] == wave and stratum in found["strata"]]
        return list(mine[-1]["strata"][stratum]["queries"])

    def on_new(self) -> set[str]:
        """Who is on the new release."""
        return {host for host in HOSTS if self.fleet.active(host) != "sha256:old"}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Exporter, Prometheus]]:
    """Metrics and the Prometheus that scrapes them, for all tests: it takes seconds to notice its targets."""
    exporter = Exporter()
    with Prometheus(tmp_path_factory.mktemp("prometheus"), exporter.targets()).running() as prometheus:
        yield exporter, prometheus
    exporter.server.shutdown()


@pytest.fixture
def world(tmp_path: Path, scraped: tuple[Exporter, Prometheus]) -> Iterator[World]:
    """A fleet of which every device is scraped."""
    made = World(tmp_path, *scraped)
    if made.prometheus.process is None:
        made.prometheus.start()
    made.prometheus.set_targets(made.exporter.targets())
    wait_until(lambda: len(made.prometheus.query("up == 1")) == len(HOSTS), 60, "every device is scraped")
    yield made
    made.exporter.reset(None)


def held(world: World, done: Any, verdict: str, named: str) -> None:
    """The wave proved nothing: nobody confirmed, all back, nothing quarantined, and the reason is told."""
    assert done.returncode == 2, done.stdout
    assert world.on_new() == set() and not world.fleet.records("quarantine"), done.stdout
    (query,) = world.queries()
    assert query["verdict"] == verdict and named in query["reason"], query
    assert f"query {query['query']} {verdict} on {A}" in done.stdout
    assert f"verdict {verdict} on {A} after metrics" in done.stdout
    assert [r["data"]["action"] for r in world.fleet.records("result") if r["host"] == "a1"] == ["activate", "revert"]
    assert world.fleet.records("rollout_finished")[-1]["data"]["held_strata"] == [A, B]
    assert world.fleet.verified().ok


def test_a_query_that_passes_confirms_and_leaves_its_evidence(world: World, tmp_path: Path) -> None:
    world.exporter.values = {"old": 0.04, "new": 0.05}
    compare = {"floor": 0.001, "ratio": 1.5}
    world.ask(
        {"name": "errors", "expr": ERRORS, "max": 0.5, "compare": compare},
        {"name": "plain", "expr": ERRORS, "max": 0.06},
    )
    done = world.roll()
    # b1 is alone in its stratum, so there is nothing to compare it with
    assert world.on_new() == {"a1"}, done.stdout
    errors, plain = world.queries()
    assert errors["verdict"] == plain["verdict"] == "pass", done.stdout
    assert errors["value"] == 0.05 and errors["limit"] == pytest.approx(0.06) and errors["covered"] == 1
    assert errors["control"] == {"devices": 2, "covered": 2, "value": 0.04, "versions": ["1.0.0"], "samples": None}
    assert errors["answers"]["value"][1] == "0.05" and errors["scrapes"] >= 3 and errors["oldest_s"] < 2
    assert world.queries(B)[0]["verdict"] == "inconclusive", world.queries(B)
    # the last wave has nobody left to compare with either, so only the floor could let it pass
    assert world.queries(A, 2)[0]["verdict"] == "inconclusive", world.queries(A, 2)
    assert "no device of the stratum is left on the old release" in done.stdout

    world.ask({"name": "errors", "expr": ERRORS, "max": 0.5, "compare": {**compare, "floor": 0.05}})
    done = world.roll()
    assert done.returncode == 0 and world.on_new() == set(HOSTS), done.stdout
    assert "good enough (0.05), whatever the old release does" in world.queries(A, 2)[0]["reason"]
    assert "query errors pass" in done.stdout and "metrics: pass" in done.stdout
    templates = world.fleet.base / "collections" / "ansible_collections" / "edgeai" / "fleet" / "templates"
    templates.symlink_to(ROOT / "templates")
    page = tmp_path / "report.html"
    made = world.fleet.run(
        "-e", f"edge_report={page}", "-e", f"edge_ledger_public_key={_public(world)}", playbook="edgeai.fleet.report"
    )
    assert made.returncode == 0, made.stdout
    text = page.read_text()
    assert ">Metrics</th>" in text and "good enough (0.05)" in text and "test_errors{device=~" in text


LATENCY = 'avg by (device) (test_errors{device=~"$device",version=~"$version"})'
LINE = {"name": "latency", "expr": LATENCY, "ratio": 1.1, "min_scrapes": 3, "stale_after": 10}


def ab_test(world: World, **settings: Any) -> None:
    """Half of each stratum is on B for some seconds before the rest follows."""
    about = {"share": 0.5, "measure": 3, "limit": 600, "metrics": [LINE], **settings}
    section = {"url": world.prometheus.url, "deadline": 10, "timeout": 5}
    policy = world.fleet.inventory_data["all"]["vars"]["edge_policy"]
    policy.update(growth=[0.5, 1.0], prometheus=section, ab_test=about)
    world.fleet.write_inventory()


def test_an_ab_test_that_finds_no_harm_lets_the_rest_follow_in_a_later_run(world: World) -> None:
    world.exporter.values = {"old": 0.05, "new": 0.05}
    ab_test(world, measure=12)
    done = world.roll()
    assert done.returncode == 2 and "stops before wave 3: B is measured until" in done.stdout, done.stdout
    on_b = world.on_new()
    assert len(on_b) == 3 and "b1" in on_b and not world.fleet.records("ab_test")
    assert world.fleet.records("rollout_finished")[-1]["data"]["status"] == "stopped"
    wait_until(lambda: world.roll().returncode == 0, 180, "it has been measured for long enough")
    assert world.on_new() == set(HOSTS)
    compared = [record["data"] for record in world.fleet.records("ab_test")]
    # a scrape that came too late leaves its device out, and then another run asks again
    assert compared[-1]["verdict"] == "pass" and compared[-1]["wave"] == 2
    (metric,) = compared[-1]["metrics"]
    assert (metric["n_b"], metric["n_a"]) == (2, 1) and metric["high"] == pytest.approx(0.0, abs=1e-9), metric
    activations = [r["host"] for r in world.fleet.records("intent") if r["data"]["action"] == "activate"]
    assert sorted(activations) == sorted(HOSTS), "nobody was changed twice"
    assert world.fleet.verified().ok


def test_an_ab_test_that_finds_harm_takes_b_back(world: World) -> None:
    world.exporter.values = {"old": 0.05, "new": 0.09}
    ab_test(world, wait=240)
    done = world.roll()
    assert done.returncode == 2 and "Waiting up to 240 s before wave 3: B is measured until" in done.stdout, done.stdout
    assert "is taken back before wave 3: A/B test behind wave 2: fail: latency: B - A = 0.04 [" in done.stdout
    assert world.on_new() == set(), done.stdout
    finished = world.fleet.records("rollout_finished")[-1]["data"]
    assert finished["status"] == "halted" and finished["failed_strata"] == [A, B] and not finished["unsettled"]
    assert {record["data"]["stratum"] for record in world.fleet.records("quarantine")} == {A, B}
    done = world.roll()
    assert done.returncode == 2 and world.on_new() == set() and "A/B test: latency: B - A" in done.stdout, done.stdout
    assert world.fleet.verified().ok


def _public(world: World) -> Path:
    path = world.fleet.base / "ledger.pub.pem"
    path.write_bytes(world.fleet.public)
    return path


def test_a_query_that_fails_takes_the_stratum_back_and_quarantines_it(world: World) -> None:
    world.exporter.values = {"old": 0.0, "new": 0.0, "a1": 0.2}
    world.ask({"name": "errors", "expr": ERRORS, "max": 0.1})
    done = world.roll()
    assert done.returncode == 2 and world.on_new() == {"b1"}, done.stdout
    (query,) = world.queries()
    assert query["verdict"] == "fail" and query["value"] == 0.2 and "0.2 is above 0.1" in query["reason"]
    (pair,) = [record["data"] for record in world.fleet.records("quarantine")]
    assert pair["stratum"] == A and "query errors: 0.2 is above 0.1" in pair["reason"]
    assert f"verdict fail on {A} after metrics: query errors: 0.2 is above 0.1" in done.stdout
    again = world.roll()
    assert "changed=0" in again.stdout and "quarantined for" in again.stdout, again.stdout


def test_a_metric_that_is_not_there_is_never_a_pass(world: World) -> None:
    world.exporter.silent = True
    world.ask({"name": "errors", "expr": ERRORS, "max": 0.1})
    held(world, world.roll(), "no_data", "no series matches")


def test_no_traffic_is_neither_pass_nor_fail(world: World) -> None:
    world.exporter.values = {"new": "NaN"}
    world.ask({"name": "errors", "expr": ERRORS, "max": 0.1})
    held(world, world.roll(), "inconclusive", "NaN")


def test_too_few_samples_are_no_proof(world: World) -> None:
    samples = 'sum(test_errors{device=~"$device"})'
    world.ask({"name": "errors", "expr": ERRORS, "max": 0.1, "samples": samples, "min_samples": 10})
    held(world, world.roll(), "inconclusive", "rests on 0 samples, 10 needed")


def test_a_device_that_cannot_be_scraped_is_no_proof(world: World) -> None:
    world.exporter.down = {"a1", "b1"}
    world.ask({"name": "errors", "expr": ERRORS, "max": 0.1})
    held(world, world.roll(), "no_data", "a1: its last scrape failed (up is 0)")


def test_a_target_that_was_taken_away_is_stale(world: World) -> None:
    # Prometheus goes on answering; what it knows of a1 and b1 gets older while the wave soaks
    done: list[Any] = []
    world.ask({"name": "errors", "expr": ERRORS, "max": 0.1, "stale_after": 2}, soak=8)
    runner = threading.Thread(target=lambda: done.append(world.roll()))
    runner.start()
    wait_until(lambda: world.fleet.records("verdict"), 60, "the soak begins")
    seen = world.exporter.scrapes["a1"]
    wait_until(lambda: world.exporter.scrapes["a1"] > seen + 5, 60, "scrapes in the soak")
    world.prometheus.set_targets(world.exporter.targets("a1", "b1"))
    runner.join(120)
    held(world, done[0], "no_data", "s old, 2 s allowed")


def test_metrics_of_the_old_release_are_no_proof_of_the_new(world: World) -> None:
    world.exporter.lies = {"a1": "sha256:old"}
    world.ask({"name": "errors", "expr": 'max(test_errors{device=~"$device"})', "max": 0.1})
    done = world.roll()
    assert done.returncode == 2, done.stdout
    assert "serves sha256:old, not the planned" in world.queries()[0]["reason"]


def test_prometheus_that_is_down_or_refuses_is_never_a_pass(world: World) -> None:
    world.ask({"name": "errors", "expr": 'sum(((test_errors{device=~"$device"}))', "max": 0.1})
    held(world, world.roll(), "no_data", "bad_data")
    world.prometheus.stop()
    world.ask({"name": "errors", "expr": ERRORS, "max": 0.1})
    done = world.roll()
    assert done.returncode == 2 and world.on_new() == set(), done.stdout
    assert "unreachable" in world.queries()[0]["reason"], world.queries()


PASSWORD, HASH = "hunter2-is-secret", "$2b$04$abcdefghijklmnopqrstuuqjiV3y.yV7wVK3fOfi9juZpj9gDYc8S"


def test_credentials_and_tls(tmp_path: Path) -> None:
    root = authority()
    name = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = issue("prometheus", root, purposes=SERVER_AUTH, extra=name)
    trusted = write_chain(tmp_path / "ca.pem", root)
    certificate, key = write_chain(tmp_path / "server.pem", server), write_key(tmp_path / "server.key", server.key)
    web = {
        "basic_auth_users": {"gate": HASH},
        "tls_server_config": {"cert_file": str(certificate), "key_file": str(key)},
    }
    exporter = Exporter()
    prometheus = Prometheus(tmp_path / "prometheus", exporter.targets(), web=web)
    prometheus.url = prometheus.url.replace("http:", "https:")
    world = World(tmp_path, exporter, prometheus)
    token = base64.b64encode(f"gate:{PASSWORD}".encode()).decode()
    headers = tmp_path / "headers.yml"
    headers.write_text("Authorization: Basic d3Jvbmc6d3Jvbmc=\n")
    query = {"name": "errors", "expr": ERRORS, "max": 0.1}
    with world.prometheus.running():
        wait_until(lambda: world.exporter.scrapes.get("b1", 0) > 3, 60, "scrapes")
        world.ask(query, headers_file=str(tmp_path / "none"), ca_path=str(trusted))
        done = world.roll()
        assert done.returncode == 2 and "prometheus.headers_file" in done.stdout, done.stdout
        assert not world.fleet.records(), "a missing file is noticed before anything begins"

        world.ask(query, headers_file=str(headers))
        done = world.roll()
        assert done.returncode == 2 and world.on_new() == set(), done.stdout
        assert "certificate" in world.queries()[0]["reason"].lower(), world.queries()

        world.ask(query, headers_file=str(headers), ca_path=str(trusted))
        done = world.roll()
        assert done.returncode == 2 and "HTTP 401" in world.queries()[0]["reason"], done.stdout

        headers.write_text(f"Authorization: Basic {token}\n")
        done = world.roll()
        assert done.returncode == 0 and world.on_new() == set(HOSTS), done.stdout
    written = "".join(path.read_text() for path in world.fleet.ledger_dir.iterdir() if path.is_file())
    for secret in (PASSWORD, token, "d3Jvbmc6d3Jvbmc="):
        assert secret not in written and secret not in done.stdout
    plan = world.fleet.records("rollout_started")[0]["data"]["plan"]
    assert plan["policy"]["prometheus"]["headers_file"] == str(headers)
    exporter.server.shutdown()


# -- real model servers ------------------------------------------------------------------------------------------------

SELECT = '{device=~"$device",stratum="$stratum",model="$model",version=~"$version"}'
P95 = f"histogram_quantile(0.95, sum by (le) (rate(edgeai_request_duration_seconds_bucket{SELECT}[$window])))"
FAILED = f"sum(rate(edgeai_request_errors_total{SELECT}[$window])) / sum(rate(edgeai_requests_total{SELECT}[$window]))"
COUNTED = f"sum(increase(edgeai_requests_total{SELECT}[$window]))"


class Load:
    """Requests to every device of a local fleet until told to stop."""

    def __init__(self, fleet: local.Fleet) -> None:
        self.stop, self.ports = threading.Event(), [variables["edge_port"] for variables in fleet.hosts.values()]
        self.threads = [threading.Thread(target=self._ask, args=(port,), daemon=True) for port in self.ports]
        for thread in self.threads:
            thread.start()

    def _ask(self, port: int) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}
        body = json.dumps({"inputs": [tensor]})
        while not self.stop.wait(0.03):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                connection.request("POST", f"/v2/models/{local.MODEL}/infer", body)
                connection.getresponse().read()

    def end(self) -> None:
        """Stop, and wait until no request is under way."""
        self.stop.set()
        for thread in self.threads:
            thread.join(30)


@pytest.mark.timeout(600)
def test_real_devices_under_load_pass_and_fail_by_their_own_metrics(tmp_path: Path) -> None:
    fleet = local.Fleet(tmp_path / "fleet", {"one": {}, "two": {}, "three": {}})
    load = None
    try:
        fleet.release("1.0.0")
        fleet.provision()
        first = fleet.playbook("rollout")
        assert first.rc == 0, first
        watched = fleet.playbook("monitoring", "-e", f"edge_monitoring_directory={tmp_path / 'watch'}")
        assert watched.rc == 0, watched
        targets = json.loads((tmp_path / "watch" / "targets" / "edge.json").read_text())
        assert {group["labels"]["device"] for group in targets} == set(fleet.hosts)
        assert all(group["labels"]["stratum"].endswith("/onnxruntime/x86_64") for group in targets), targets
        with Prometheus(tmp_path / "prometheus", targets).running() as prometheus:
            load = Load(fleet)
            wait_until(lambda: len(prometheus.query("rate(edgeai_requests_total[10s]) > 0")) == 3, 60, "traffic")
            failed = {"name": "failed", "expr": FAILED, "max": 0.5, "samples": COUNTED, "min_samples": 10}
            slow = {"name": "p95", "expr": P95, "max": 5.0, "compare": {"ratio": 100, "floor": 1.0}}
            asked = {"url": prometheus.url, "queries": [failed, slow]}
            fleet.policy.update(soak=8, growth=[1.0], prometheus=asked)
            fleet.release("1.1.0")
            fleet.desire("1.1.0")
            done = fleet.playbook("rollout")
            assert done.rc == 0 and set(fleet.serving().values()) == {"1.1.0"}, done
            found = [
                query
                for record in fleet.records("verdict")
                for judged in record["data"]["strata"].values()
                for query in judged.get("queries") or []
            ]
            assert [query["verdict"] for query in found] == ["pass"] * 4, found
            assert all(query["samples"] >= 10 for query in found if query["query"] == "failed")
            assert all(0 < query["value"] < 5 for query in found if query["query"] == "p95")

            slow["max"], slow["compare"] = 0.0000001, {"ratio": 100, "floor": 0.00000001}
            fleet.release("1.2.0")
            fleet.desire("1.2.0")
            done = fleet.playbook("rollout")
            assert done.rc == 2 and set(fleet.serving().values()) == {"1.1.0"}, done
            (pair,) = [record["data"] for record in fleet.records("quarantine")]
            assert pair["version"] == "1.2.0" and pair["reason"].startswith("query p95: "), pair
            assert "metrics" in {record["data"]["stage"] for record in fleet.records("verdict")}
            back = [record["data"] for record in fleet.records("result") if record["data"]["action"] == "revert"]
            assert back and all(data["golden_restored"] is True for data in back), back
    finally:
        if load:
            load.end()
        fleet.destroy()

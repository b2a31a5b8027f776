"""Model registry: addresses, who may ask, what a server may answer, and the tags that tell of a fleet."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import report_sample

from ansible_collections.edgeai.fleet.plugins.module_utils.build.builder import build_release
from ansible_collections.edgeai.fleet.plugins.module_utils.build.spec import parse_spec
from ansible_collections.edgeai.fleet.plugins.module_utils.registry import http, mlflow, tags
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.errors import RegistryError
from ansible_collections.edgeai.fleet.plugins.module_utils.registry.uris import check_path, parse_uri
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.report import Rollout, fold


@pytest.mark.parametrize(
    "text", ["models:/digits@champion", "models:/digits/3", "models:/a b/12#data/golden.npz"], ids=range(3)
)
def test_addresses_are_read_and_written_alike(text: str) -> None:
    assert str(parse_uri(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("models:/digits", "models:/digits/latest", "models:/digits/Production", "models:/m-0123", "digits@champion"),
        *("models:/digits@a/b", "models:/digits/3#../x", "models:/digits/3#/etc/x", "models:/digits/3#", ""),
    ],
    ids=range(10),
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(RegistryError):
        parse_uri(text)


@pytest.mark.parametrize("path", ["/a", "a/../b", "a//b", "./a", "a\\b", "a\x00b", ""], ids=range(7))
def test_a_servers_paths_stay_below_their_directory(path: str) -> None:
    with pytest.raises(RegistryError, match="artifact path"):
        check_path(path)


def test_secrets_come_from_files_or_variables_and_a_token_goes_first(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n", encoding="utf-8")
    (tmp_path / "password").write_text("pa:ss\n", encoding="utf-8")
    url = {"tracking_uri": "https://mlflow.example.com/"}
    environment = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "word"}
    assert http.server_from(url, {}).authorization is None
    basic = http.server_from(url, environment)
    assert (basic.url, basic.authorization) == ("https://mlflow.example.com", "Basic YWRhOndvcmQ=")
    given = {**url, "username": "eve", "password_file": str(tmp_path / "password")}
    assert http.server_from(given, environment).authorization == "Basic ZXZlOnBhOnNz"
    token = {**given, "token_file": str(tmp_path / "token")}
    assert http.server_from(token, {"MLFLOW_TRACKING_TOKEN": "other"}).authorization == "Bearer from-file"
    assert http.server_from({**url, "token_env": "MINE"}, {"MINE": "t"}).authorization == "Bearer t"
    assert "from-file" not in repr(http.server_from(token, {}))


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        ({}, {}, "tracking_uri, or MLFLOW_TRACKING_URI"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, {}, "begins with https"),
        ({"tracking_uri": "https://ada:word@host"}, {}, "holds a secret"),
        ({"tracking_uri": "http://host"}, {"MLFLOW_TRACKING_TOKEN": "hush"}, "in the clear: use https"),
        ({"tracking_uri": "https://host", "username": "ada"}, {}, "no password for 'ada'"),
        ({"tracking_uri": "https://host", "token_file": "/nowhere/token"}, {}, "/nowhere/token"),
    ],
    ids=range(6),
)
def test_what_cannot_be_asked(options: dict[str, Any], environment: dict[str, str], words: str) -> None:
    with pytest.raises(RegistryError, match=words) as caught:
        http.server_from(options, environment)
    assert "hush" not in str(caught.value) and "word@" not in str(caught.value)


def test_plain_http_is_for_this_machine_or_by_choice() -> None:
    secret = {"MLFLOW_TRACKING_TOKEN": "hush"}
    assert http.server_from({"tracking_uri": "http://127.0.0.1:5000"}, secret).authorization
    assert http.server_from({"tracking_uri": "http://host", "plain_http": True}, secret).authorization


class Recorder(ThreadingHTTPServer):
    """A server that answers from a table and records what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str | None]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_args: Any) -> None:
                pass

            def do_GET(self) -> None:
                recorder.asked.append((self.path, self.headers.get("Authorization")))
                status, body = recorder.answers.get(self.path.split("?")[0], (404, {"message": "nothing here"}))
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def server(self) -> http.Server:
        return http.Server(f"http://127.0.0.1:{self.server_address[1]}", "Bearer hush")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    found = Recorder()
    thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


ALIAS = "/api/2.0/mlflow/registered-models/alias"
VERSION = {"name": "digits", "version": "3", "run_id": "r1", "source": "s", "status": "READY"}


def registered(recorder: Recorder, files: dict[str, int], uri: str = "mlflow-artifacts:/1/x") -> None:
    """Let the server know models:/digits@champion with these files (name -> size it claims)."""
    recorder.answers[ALIAS] = (200, {"model_version": VERSION})
    recorder.answers["/api/2.0/mlflow/model-versions/get-download-uri"] = (200, {"artifact_uri": uri})
    listed = [{"path": path, "is_dir": False, "file_size": size} for path, size in files.items()]
    recorder.answers["/api/2.0/mlflow-artifacts/artifacts"] = (200, {"files": listed})


def test_an_alias_takes_one_request_with_the_secret_in_its_header(recorder: Recorder) -> None:
    recorder.answers[ALIAS] = (200, {"model_version": {**VERSION, "tags": [{"key": "a", "value": "1"}]}})
    version = mlflow.resolve(recorder.server, parse_uri("models:/digits@champion"))
    assert (version.uri, version.run, version.tags) == ("models:/digits/3", "r1", {"a": "1"})
    assert recorder.asked == [(f"{ALIAS}?name=digits&alias=champion", "Bearer hush")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, {"message": "no such alias"}), "404: no such alias"),
        ((401, {}), "401: the server wants other credentials"),
        ((302, {}), "302"),
        ((200, b"<html>"), "not JSON"),
        ((200, {"other": 1}), "names no model version"),
        ((200, {"model_version": 7}), "names no model version"),
    ],
    ids=range(6),
)
def test_answers_that_do_not_help(recorder: Recorder, answer: tuple[int, Any], words: str) -> None:
    recorder.answers[ALIAS] = answer
    with pytest.raises(RegistryError, match=words) as caught:
        mlflow.resolve(recorder.server, parse_uri("models:/digits@champion"))
    assert "hush" not in str(caught.value)


def test_a_server_that_is_away() -> None:
    with pytest.raises(RegistryError, match="does it run"):
        mlflow.resolve(http.Server("http://127.0.0.1:1"), parse_uri("models:/digits/1"))


def test_a_download_is_what_was_listed(recorder: Recorder, tmp_path: Path) -> None:
    registered(recorder, {"model.onnx": 3, "MLmodel": 1})
    recorder.answers["/api/2.0/mlflow-artifacts/artifacts/1/x/model.onnx"] = (200, b"abc")
    found = mlflow.Registry(recorder.server, tmp_path).fetch("models:/digits@champion")
    assert (found.uri, found.size, found.run) == ("models:/digits/3#model.onnx", 3, "r1")
    assert found.path.read_bytes() == b"abc" and found.sha256.startswith("ba7816bf")
    recorder.answers["/api/2.0/mlflow-artifacts/artifacts/1/x/model.onnx"] = (200, b"abcd")
    with pytest.raises(RegistryError, match="4 bytes came, the server lists 3"):
        mlflow.Registry(recorder.server, tmp_path).fetch("models:/digits@champion")


@pytest.mark.parametrize(
    ("files", "uri", "address", "words"),
    [
        ({"a.onnx": 1, "b.onnx": 1}, "mlflow-artifacts:/1/x", "models:/digits@champion", "2 .onnx files.*say which"),
        ({"MLmodel": 1}, "mlflow-artifacts:/1/x", "models:/digits@champion", "0 .onnx files"),
        ({"a.onnx": 1}, "mlflow-artifacts:/1/x", "models:/digits@champion#b.npz", "no file 'b.npz'; it has a.onnx"),
        ({"a.onnx": 1}, "s3://bucket/x", "models:/digits@champion", "does not hand out"),
        ({"../a.onnx": 1}, "mlflow-artifacts:/1/x", "models:/digits@champion", "climbs out"),
        ({"a.onnx": 1}, "mlflow-artifacts:/1/../../x", "models:/digits@champion", "climbs out"),
    ],
    ids=range(6),
)
def test_versions_that_cannot_be_used(
    recorder: Recorder, tmp_path: Path, files: dict[str, int], uri: str, address: str, words: str
) -> None:
    registered(recorder, files, uri)
    with pytest.raises(RegistryError, match=words):
        mlflow.Registry(recorder.server, tmp_path).fetch(address)


# Specs


def document(**changes: Any) -> dict[str, Any]:
    """A spec that names a registry."""
    limits = {"accuracy_drop": 0.02, "p95_ms": 50, "p95_ratio": 3, "memory_mib": 64}
    return {
        **{"model": "m", "version": "1.0.0", "security_counter": 1, "onnx": "models:/m@champion", "golden": "g.npz"},
        **{"variants": [{"id": "onnxruntime/fp32"}], "budgets": {"default": limits}, **changes},
    }


def test_a_spec_may_name_a_registry() -> None:
    spec = parse_spec(document(golden="models:/m/3#golden.npz"), Path("/s.yml"))
    assert spec.remote == {"onnx": "models:/m@champion", "golden": "models:/m/3#golden.npz"}
    with pytest.raises(ReleaseError, match=r"'onnx' is 'models:/m/latest'.*NAME@ALIAS"):
        parse_spec(document(onnx="models:/m/latest"), Path("/s.yml"))
    with pytest.raises(ReleaseError, match=r"'golden'.*#PATH"):
        parse_spec(document(golden="models:/m/3"), Path("/s.yml"))


def test_a_build_without_a_registry_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "s.yml").write_text(json.dumps(document()), encoding="utf-8")
    with pytest.raises(ReleaseError, match="models:/m@champion: no MLflow server is known"):
        build_release(tmp_path / "s.yml", tmp_path / "releases", {})


# Tags


def told(tmp_path: Path, version: str) -> dict[str, str]:
    """Tags of a release of the sample ledger."""
    folder = report_sample.write_ledger(tmp_path / "ledger", report_sample.demo_story())[0]
    history = fold(Ledger(str(folder)).records(), keep=100)
    model = next(rollout.model for rollout in history.rollouts.values())
    digest = report_sample.digest(version)
    held = [q.stratum for q in history.quarantine if q.digest == digest and q.lifted is None]
    release = {"model": model, "version": version, "digest": digest}
    found = tags.compose(history.rollouts.values(), held, release, "edgeai", "production")
    assert all(key.startswith("edgeai.production.") and len(value) <= 500 for key, value in found.items())
    return {key.rpartition(".")[2]: value for key, value in found.items()}


def test_a_release_that_was_never_rolled_out_gets_no_tags(tmp_path: Path) -> None:
    assert told(tmp_path, "9.9.9") == {}


def test_tags_say_where_a_release_serves_and_what_the_gates_said(tmp_path: Path) -> None:
    found = told(tmp_path, "1.1.0")
    assert set(found) == {
        *("release", "serving", "strata", "quarantined", "rollout", "status", "devices", "gates", "updated"),
    }
    assert found["release"].endswith(report_sample.digest("1.1.0"))
    assert "golden pass" in found["gates"] and "latency pass" in found["gates"]
    assert found["updated"].startswith("2026-11-23T")


def test_a_bad_release_says_so(tmp_path: Path) -> None:
    found = told(tmp_path, "1.2.0")
    assert found["quarantined"] != "none" and "golden fail" in found["gates"]
    assert found["status"] != "succeeded"


def rollout(name: str, digest: str, **outcomes: str) -> Rollout:
    """A rollout with devices and how they ended."""
    made = Rollout(name, 0.0, model="m", digest=digest)
    for host, outcome in outcomes.items():
        device = made.device(host)
        device.outcome, device.stratum = outcome, "s"
    return made


def test_a_device_serves_what_it_took_last() -> None:
    one = rollout("1", "A", a="confirmed", b="confirmed", c="confirmed", d="deferred")
    two = rollout("2", "B", a="confirmed", b="self_reverted", c="refused", d="unchanged")
    assert tags.serving([one, two], "m") == {"a": ("B", "s"), "b": ("A", "s"), "c": ("A", "s"), "d": ("B", "s")}
    assert tags.serving([one, two], "other") == {}
    values = tags.compose([one, two], [], {"model": "m", "version": "1", "digest": "A"}, "e", "f")
    assert (values["e.f.serving"], values["e.f.strata"], values["e.f.rollout"]) == ("2 of 4 devices", "s 2", "1")


def test_names_of_tags_are_words() -> None:
    release = {"model": "m", "version": "1", "digest": "A"}
    with pytest.raises(RegistryError, match=r"label is 'a\.b'"):
        tags.compose([rollout("1", "A")], [], release, "edgeai", "a.b")

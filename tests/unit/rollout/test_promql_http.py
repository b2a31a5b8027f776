"""The wire to Prometheus: bounded, retried only where that helps, and its secrets go nowhere else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.errors import RolloutError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_http import Client
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.promql_policy import Prometheus

GOOD = json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1000.5, "1000.5"]}}).encode()


class Server:
    """Answers from a list, the last one for ever: (status, body), or "hang"."""

    def __init__(self) -> None:
        self.answers: list[Any] = [(200, GOOD)]
        self.asked: list[dict[str, Any]] = []
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.asked.append({"path": self.path, "form": parse_qs(body), "token": self.headers["Authorization"]})
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer == "hang":
                    outer.over.wait(30)
                    return
                self.send_response(answer[0])
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, *arguments: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def client(self, waited: list[float] | None = None, **settings: Any) -> Client:
        known = Prometheus(**{"url": self.url, "timeout": 1, "deadline": 2, **settings})
        pauses = waited if waited is not None else []
        return Client(known, lambda path: Path(path).read_text(), pauses.append)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.over.set()
    made.http.shutdown()


def test_all_questions_are_about_one_moment_by_prometheus_clock_and_asked_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    client = server.client(token_file=str(tmp_path / "token"))
    assert client.now() == 1000.5
    assert client.ask("up") == client.ask("up") == json.loads(GOOD)
    first, second = server.asked
    assert "time" not in first["form"] and second["form"]["time"] == ["1000.500"] and second["form"]["query"] == ["up"]
    assert second["path"] == "/api/v1/query" and second["token"] == "Bearer s3cret"


def test_what_passes_by_itself_is_asked_again_within_the_deadline(server: Server) -> None:
    waited: list[float] = []
    server.answers = [(503, b"starting"), (429, b""), (200, GOOD)]
    assert server.client(waited).now() == 1000.5 and waited == [0.25, 0.5]


@pytest.mark.parametrize(
    ("answer", "named", "times"),
    [
        ((404, b"<html>"), "HTTP 404", 1),
        ((401, b"no"), "HTTP 401", 1),
        ((302, b""), "redirects to http://127.0.0.1:1/elsewhere", 1),
        ((200, b"<html>hello"), "not JSON", 1),
        ((200, b"[]"), "not that of its API", 1),
        (
            (400, b'{"status":"error","errorType":"bad_data","error":"parse error at char 3"}'),
            "parse error at char 3",
            1,
        ),
    ],
)
def test_what_does_not_pass_by_itself_is_not_asked_again(server: Server, answer: Any, named: str, times: int) -> None:
    server.answers = [answer]
    now = server.client().now()
    assert isinstance(now, str) and named in now and len(server.asked) == times


def test_a_server_that_hangs_costs_no_more_than_the_deadline(server: Server) -> None:
    server.answers = ["hang"]
    began = time.monotonic()
    now = server.client().now()
    assert isinstance(now, str) and "timed out" in now
    assert time.monotonic() - began < 10
    client = server.client(deadline=1)
    client.now()
    assert client.ask("up")["status"] == "error"


def test_nobody_there(server: Server) -> None:
    now = server.client(url="http://127.0.0.1:1", deadline=1).now()
    assert isinstance(now, str) and "refused" in now


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "A:\n", "A b: b\n", ": b\n", "X: 1\nA: b\x7f\n"])
def test_a_bad_headers_file_is_named_and_not_repeated(server: Server, tmp_path: Path, content: str) -> None:
    path = tmp_path / "headers.yml"
    path.write_text(content.replace("b", "s3cret"))
    with pytest.raises(RolloutError) as raised:
        server.client(headers_file=str(path))
    assert str(path) in str(raised.value) and "s3cret" not in str(raised.value)


@pytest.mark.parametrize("name", ["token_file", "headers_file", "ca_path", "client_cert"])
def test_a_missing_file_is_an_error_before_anything_is_asked(server: Server, tmp_path: Path, name: str) -> None:
    with pytest.raises(RolloutError, match=f"prometheus.{name}"):
        server.client(**{name: str(tmp_path / "none")})
    assert server.asked == []
